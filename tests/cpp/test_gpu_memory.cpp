// SPDX-License-Identifier: Apache-2.0
/// What libher2fast_torch does where a GPU has no memory, without torch or a GPU.
#include <gtest/gtest.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "models/torch/gpu_memory.h"

namespace her2fast::torch_engine {
namespace {

using Calls = std::vector<std::pair<std::int32_t, std::int32_t>>;

TEST(GpuMemory, TorchsWordsHaveTheirStatus) {
  // As TorchScript's interpreter hands on what the allocator threw.
  EXPECT_EQ(gpu_status("The following operation failed in the TorchScript interpreter.\n"
                       "RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB."),
            HER2_GPU_OOM);
  EXPECT_EQ(gpu_status("CUDA error: out of memory"), HER2_GPU_OOM);
  EXPECT_EQ(
      gpu_status("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
      HER2_GPU_OOM);
  EXPECT_EQ(gpu_status("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), HER2_GPU_OOM);
  EXPECT_EQ(gpu_status("CUDA error: an illegal memory access was encountered"),
            HER2_GPU_LOST);
  EXPECT_EQ(gpu_status("The size of tensor a (4) must match"), HER2_OK);
  EXPECT_EQ(gpu_status(""), HER2_OK);
}

/// What a device is asked for that has memory for so many items.
Calls calls_with(std::int32_t n, std::int32_t most, std::int32_t* status) {
  Calls calls;
  *status = HER2_OK;
  try {
    whole_or_halves(n, [&](std::int32_t first, std::int32_t count) {
      calls.emplace_back(first, count);
      if (count > most) throw Failure(HER2_GPU_OOM, "full");
    });
  } catch (const Failure& failure) {
    *status = failure.status();
  }
  return calls;
}

TEST(GpuMemory, ABatchIsHalvedOnce) {
  std::int32_t status = 0;
  EXPECT_EQ(calls_with(5, 5, &status), (Calls{{0, 5}}));
  EXPECT_EQ(status, HER2_OK);
  EXPECT_EQ(calls_with(5, 3, &status), (Calls{{0, 5}, {0, 3}, {3, 2}}));
  EXPECT_EQ(status, HER2_OK);
  EXPECT_EQ(calls_with(2, 1, &status), (Calls{{0, 2}, {0, 1}, {1, 1}}));
  EXPECT_EQ(status, HER2_OK);
  EXPECT_EQ(calls_with(5, 2, &status), (Calls{{0, 5}, {0, 3}}));
  EXPECT_EQ(status, HER2_GPU_OOM);
  EXPECT_EQ(calls_with(1, 0, &status), (Calls{{0, 1}}));
  EXPECT_EQ(status, HER2_GPU_OOM);
}

TEST(GpuMemory, NothingElseIsTriedAgain) {
  for (const std::int32_t status :
       {std::int32_t{HER2_GPU_LOST}, std::int32_t{HER2_MODEL_SHAPE},
        std::int32_t{HER2_CRASH}}) {
    int calls = 0;
    try {
      whole_or_halves(4, [&](std::int32_t, std::int32_t) {
        ++calls;
        throw Failure(status, "no");
      });
      ADD_FAILURE() << "need a failure";
    } catch (const Failure& failure) {
      EXPECT_EQ(failure.status(), status);
    }
    EXPECT_EQ(calls, 1);
  }
}

}  // namespace
}  // namespace her2fast::torch_engine
