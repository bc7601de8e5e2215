// SPDX-License-Identifier: Apache-2.0
#include <stdexcept>

#include "cuda/functions.h"
#include "cuda/launch.h"
#include "kernels/stain_table.h"

namespace her2fast::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPixels = 4;  // a thread's: 12 bytes in, 48 out
constexpr int kTableFloats = 3 * 256 * 4;

struct alignas(16) Floats {
  float value[4];
};

__device__ Floats unmix(const Floats* table, std::uint32_t r, std::uint32_t g,
                        std::uint32_t b) {
  const Floats red = table[r], green = table[256 + g], blue = table[512 + b];
  Floats out;
  // Added in the CPU's order; the fourth is padding.
  for (int s = 0; s < 4; ++s)
    out.value[s] = red.value[s] + green.value[s] + blue.value[s];
  return out;
}

/// @param groups  of four pixels, all aligned; pixels after them are done one by one.
__global__ void unmix_pixels(const std::uint8_t* rgb, std::int64_t pixels,
                             std::int64_t groups,
                             const __grid_constant__ StainTable given, float* out) {
  HER2FAST_SHARED(Floats, table, kTableFloats / 4);
  // 48 bytes a thread, written by thread and read by the warp in a row: stores to memory
  // are whole lines then. 48 is an odd multiple of 16, so no two threads meet in a bank.
  HER2FAST_SHARED(Floats, turn, kThreads * 3);
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < kTableFloats; i += kThreads) {
    table[i / 4].value[i % 4] = given.amounts[i / 1024][i / 4 % 256].stain[i % 4];
  }
  __syncthreads();
  const std::int64_t first = std::int64_t{blockIdx.x} * kThreads;
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  const int lane = thread % kWarp;
  Floats* const own = turn + (thread - lane) * 3;  // the warp's
  for (std::int64_t base = first + thread - lane; base < groups; base += step) {
    const std::int64_t g = base + lane;
    if (g < groups) {
      const auto* words = reinterpret_cast<const std::uint32_t*>(rgb) + 3 * g;
      const std::uint32_t packed[3] = {words[0], words[1], words[2]};
      float values[12];
      for (int k = 0; k < kPixels; ++k) {
        std::uint32_t v[3];
        for (int c = 0; c < 3; ++c) {
          const int at = 3 * k + c;
          v[c] = packed[at / 4] >> (8 * (at % 4)) & 255u;
        }
        const Floats amounts = unmix(table, v[0], v[1], v[2]);
        for (int s = 0; s < 3; ++s) values[3 * k + s] = amounts.value[s];
      }
      for (int k = 0; k < 3; ++k) {
        own[3 * lane + k] = {values[4 * k], values[4 * k + 1], values[4 * k + 2],
                             values[4 * k + 3]};
      }
    }
    __syncwarp();
    auto* const to = reinterpret_cast<Floats*>(out) + 3 * base;
    const std::int64_t most = 3 * (groups - base);
    for (int k = 0; k < 3; ++k) {
      const int i = k * kWarp + lane;
      if (i < most) to[i] = own[i];
    }
    __syncwarp();
  }
  for (std::int64_t p = kPixels * groups + first + thread; p < pixels; p += step) {
    const Floats amounts = unmix(table, rgb[3 * p], rgb[3 * p + 1], rgb[3 * p + 2]);
    for (int s = 0; s < 3; ++s) out[3 * p + s] = amounts.value[s];
  }
}

}  // namespace

std::int32_t stain_unmix(const std::uint8_t* rgb, std::int64_t pixels,
                         const std::uint8_t* white, const double* stains, float* out,
                         void* stream, Her2CudaError* error) {
  if (pixels < 0 || pixels > std::int64_t{1} << 40) {
    return fail(error, HER2_CUDA_BAD_ARGUMENT, "need 0 to 2^40 pixels, got %lld",
                static_cast<long long>(pixels));
  }
  StainTable table;
  try {
    StainMatrix matrix;
    for (int i = 0; i < 9; ++i) matrix.rows[i / 3][i % 3] = stains[i];
    table = stain_table({white[0], white[1], white[2]}, matrix);
  } catch (const std::exception& problem) {
    return fail(error, HER2_CUDA_BAD_ARGUMENT, "%s", problem.what());
  }
  if (pixels == 0) return HER2_CUDA_OK;
  const OnDevice device({rgb, out}, error);
  if (device.status() != HER2_CUDA_OK) return device.status();
  const bool aligned = reinterpret_cast<std::uintptr_t>(rgb) % 4 == 0 &&
                       reinterpret_cast<std::uintptr_t>(out) % 16 == 0;
  const std::int64_t groups = aligned ? pixels / kPixels : 0;
  const std::int64_t tasks = aligned ? groups + kPixels : pixels;
  launch(unmix_pixels, lasting_blocks(tasks, kThreads), dim3(kThreads), stream, rgb,
         pixels, groups, table, out);
  return status_of(cudaGetLastError(), error);
}

}  // namespace her2fast::cuda
