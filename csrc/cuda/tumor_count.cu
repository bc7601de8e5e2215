// SPDX-License-Identifier: Apache-2.0
#include "cuda/functions.h"
#include "cuda/launch.h"

namespace her2fast::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kVector = 16;  // bytes a thread loads at once

struct alignas(kVector) Vector {
  std::uint32_t word[4];
};

struct Grid {
  std::int64_t images, height, width, rows, columns;
  std::int32_t patch_px, stride_px;
};

/// Bytes of a word that are not 0: a byte's top bit is set if it or its sum with 127 is.
__device__ int count_bytes(std::uint32_t word) {
  return __popc((((word & 0x7f7f7f7fu) + 0x7f7f7f7fu) | word) & 0x80808080u);
}

/// What one of `kGroup` threads finds in a patch: vectors where they lie within the
/// patch's row, single bytes at its two ends.
template <int kGroup>
__device__ std::uint32_t count_share(const std::uint8_t* patch, const Grid& grid,
                                     int thread) {
  const int slots = (grid.patch_px + 2 * (kVector - 1)) / kVector;
  const int step_rows = kGroup / slots, step_slots = kGroup - step_rows * slots;
  int row = thread / slots, slot = thread - row * slots;
  std::uint32_t total = 0;
  while (row < grid.patch_px) {
    const std::uint8_t* const begin = patch + row * grid.width;
    const std::uint8_t* const end = begin + grid.patch_px;
    const auto misaligned =
        static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(begin) % kVector);
    const std::int64_t at = std::int64_t{slot} * kVector - misaligned;  // from `begin`
    if (at >= 0 && at + kVector <= grid.patch_px) {
      const Vector v = *reinterpret_cast<const Vector*>(begin + at);
      total +=
          static_cast<std::uint32_t>(count_bytes(v.word[0]) + count_bytes(v.word[1]) +
                                     count_bytes(v.word[2]) + count_bytes(v.word[3]));
    } else {
      const std::uint8_t* p = at < 0 ? begin : begin + at;
      const std::int64_t left = grid.patch_px - at;
      const std::uint8_t* const stop = left < kVector ? end : begin + at + kVector;
      for (; p < stop; ++p) total += *p != 0;
    }
    row += step_rows;
    slot += step_slots;
    if (slot >= slots) {
      slot -= slots;
      ++row;
    }
  }
  return total;
}

/// `kGroup` threads a patch: a warp where patches are small, the whole block else.
template <int kGroup>
__global__ void count(const std::uint8_t* mask, Grid grid, std::uint32_t* out) {
  constexpr int kGroups = kThreads / kGroup;
  HER2FAST_SHARED(std::uint32_t, sums, kThreads / kWarp);
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t patches = grid.images * grid.rows * grid.columns;
  for (std::int64_t first = std::int64_t{blockIdx.x} * kGroups; first < patches;
       first += std::int64_t{gridDim.x} * kGroups) {
    const std::int64_t patch = first + thread / kGroup;
    std::uint32_t sum = 0;
    if (patch < patches) {
      const std::int64_t line = patch / grid.columns,
                         column = patch - line * grid.columns;
      const std::int64_t image = line / grid.rows, row = line - image * grid.rows;
      const std::uint8_t* corner =
          mask + (image * grid.height + row * grid.stride_px) * grid.width +
          column * grid.stride_px;
      sum = count_share<kGroup>(corner, grid, thread % kGroup);
    }
    for (unsigned delta = kWarp / 2; delta > 0; delta /= 2) {
      sum += __shfl_down_sync(kAllLanes, sum, delta);
    }
    if constexpr (kGroup == kWarp) {
      if (thread % kWarp == 0 && patch < patches) out[patch] = sum;
    } else {
      if (thread % kWarp == 0) sums[thread / kWarp] = sum;
      __syncthreads();
      if (thread == 0) {
        sum = 0;
        for (int w = 0; w < kThreads / kWarp; ++w) sum += sums[w];
        out[patch] = sum;
      }
      __syncthreads();
    }
  }
}

}  // namespace

std::int32_t tumor_count(const std::uint8_t* mask, std::int64_t n, std::int64_t height,
                         std::int64_t width, std::int32_t patch_px,
                         std::int32_t stride_px, std::uint32_t* out, void* stream,
                         Her2CudaError* error) {
  const std::int32_t sizes = check_batch(n, height, width, error);
  if (sizes != HER2_CUDA_OK) return sizes;
  if (patch_px < 1 || patch_px > 4096 || stride_px < 1 || stride_px > 4096) {
    return fail(error, HER2_CUDA_BAD_ARGUMENT,
                "need 1 <= patch_px, stride_px <= 4096, got %d and %d",
                static_cast<int>(patch_px), static_cast<int>(stride_px));
  }
  const auto along = [&](std::int64_t length) {
    return length < patch_px ? 0 : (length - patch_px) / stride_px + 1;
  };
  const Grid grid{n, height, width, along(height), along(width), patch_px, stride_px};
  const std::int64_t patches = n * grid.rows * grid.columns;
  if (patches == 0) return HER2_CUDA_OK;
  const OnDevice device({mask, out}, error);
  if (device.status() != HER2_CUDA_OK) return device.status();
  if (patch_px <= 64) {
    constexpr int kPerBlock = kThreads / kWarp;
    launch(count<kWarp>, blocks_for(patches, kPerBlock), dim3(kThreads), stream, mask,
           grid, out);
  } else {
    launch(count<kThreads>, blocks_for(patches, 1), dim3(kThreads), stream, mask, grid,
           out);
  }
  return status_of(cudaGetLastError(), error);
}

}  // namespace her2fast::cuda
