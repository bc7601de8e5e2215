// SPDX-License-Identifier: Apache-2.0
/// What a GPU without memory says, and what is done about it; knows no torch.
#pragma once

#include <cstdint>
#include <string_view>

#include "her2fast/her2fast.h"
#include "models/torch/failure.h"

namespace her2fast::torch_engine {

/// Of an error on a GPU: HER2_GPU_OOM, HER2_GPU_LOST, or 0 where it is not the GPU's.
///
/// By its words, since TorchScript's interpreter keeps no more of torch's own
/// out-of-memory error (pytorch/pytorch#148642); CUDA and its libraries have others.
/// The same words as python/her2fast/models/runner.py.
constexpr std::int32_t gpu_status(std::string_view words) {
  constexpr std::string_view kOutOfMemory[] = {
      "CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
      "CUDNN_STATUS_ALLOC_FAILED"};
  for (const std::string_view said : kOutOfMemory) {
    if (words.find(said) != std::string_view::npos) return HER2_GPU_OOM;
  }
  // CUDA tells of a fault at the next call, wherever that stands.
  if (words.find("CUDA error") != std::string_view::npos) return HER2_GPU_LOST;
  return HER2_OK;
}

/// A batch of n items by `run(first, count)`, or, where that throws HER2_GPU_OOM, its
/// halves one after the other: a smaller batch once, as in runner.py. Bits may differ.
/// @throws Failure  whatever else `run` throws, also of a half; what a batch of one does
template <class Run>
void whole_or_halves(std::int32_t n, Run run) {
  try {
    run(std::int32_t{0}, n);
    return;
  } catch (const Failure& failure) {
    if (failure.status() != HER2_GPU_OOM || n < 2) throw;
  }
  // Here, where nothing of the attempt is held any more.
  const std::int32_t half = (n + 1) / 2;
  run(std::int32_t{0}, half);
  run(half, n - half);
}

}  // namespace her2fast::torch_engine
