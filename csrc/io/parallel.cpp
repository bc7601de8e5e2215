// SPDX-License-Identifier: Apache-2.0
#include "io/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace her2fast::io {

void parallel_for(std::int64_t count, int workers,
                  const std::function<void(std::int64_t)>& work) {
  std::atomic<std::int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr failure;
  const auto loop = [&] {
    try {
      for (std::int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) work(i);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
      next = count;
    }
  };
  {
    std::vector<std::jthread> helpers;
    for (std::int64_t i = 1; i < std::min<std::int64_t>(workers, count); ++i) {
      helpers.emplace_back(loop);
    }
    loop();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace her2fast::io
