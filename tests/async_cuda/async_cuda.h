// SPDX-License-Identifier: Apache-2.0
/// A table of CUDA functions whose streams are threads: what is queued runs later, and
/// what is freed or written too early is seen by a sanitizer. Any call can be made to
/// fail.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "her2fast/cuda_api.h"

namespace her2fast::async_cuda {

/// What goes wrong, and when. Calls are counted from 1 over all functions but those that
/// free; operations, as they run on the streams.
struct Faults {
  std::int64_t at_call = 0;   // 0: never
  bool from_then_on = false;  // or once
  std::int32_t status = HER2_CUDA_OK;
  std::int64_t at_operation = 0;  // a fault on the device, told by the next wait
  std::string only{};             // the function whose calls count, or all
};

/// What was seen since `reset`.
struct Seen {
  std::int64_t calls = 0, operations = 0;
  std::int64_t allocations = 0;  // ever
  std::size_t alive = 0;         // allocations and streams
  std::size_t busy = 0;          // streams with work, now
  std::size_t busiest = 0;       // and at most
};

#define HER2FAST_ASYNC_CUDA __attribute__((visibility("default")))

/// Begins anew. With `hold` streams above 1, no stream works before that many have work.
HER2FAST_ASYNC_CUDA void reset(const Faults& faults = {}, std::size_t hold = 0);
HER2FAST_ASYNC_CUDA Seen seen();
/// Work of a runtime on a stream; it runs in the stream's order.
HER2FAST_ASYNC_CUDA void queue(void* stream, std::function<void()> work);

}  // namespace her2fast::async_cuda
