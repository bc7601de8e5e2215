// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace her2fast {

/// Calls work(i, worker) for every i in [0, count), in any order, on up to `workers`
/// threads, the caller's among them; `worker` in [0, workers) names the thread. The first
/// exception ends the loop and is thrown here.
template <typename Work>
void parallel_for(std::int64_t count, int workers, Work&& work) {
  std::atomic<std::int64_t> next{0};
  std::exception_ptr failure;
  std::mutex mutex;
  const auto run = [&](int worker) {
    try {
      for (std::int64_t i = next++; i < count; i = next++) work(i, worker);
    } catch (...) {
      next = count;
      const std::scoped_lock lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> helpers;
    try {
      while (static_cast<std::int64_t>(helpers.size()) + 1 <
             std::min<std::int64_t>(workers, count)) {
        helpers.emplace_back(run, static_cast<int>(helpers.size()) + 1);
      }
    } catch (const std::system_error&) {
      // No more threads to be had: those that run, and this one, do all of it.
    }
    run(0);
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace her2fast
