// SPDX-License-Identifier: Apache-2.0
#include "cuda/functions.h"
#include "cuda/launch.h"
#include "kernels/optical_density.h"
#include "kernels/tissue_rule.h"

namespace her2fast::cuda {
namespace {

using namespace tissue;

// A block answers for kOutWidth x kOutHeight pixels and works on those round them too.
constexpr int kThreads = 256;
constexpr int kOutWidth = 64, kOutHeight = 48;
constexpr int kHalo = kTissueReachPx;
constexpr int kWidth = kOutWidth + 2 * kHalo, kHeight = kOutHeight + 2 * kHalo;
// Rows of an odd number of words: threads that walk along neighboring rows meet in no
// bank.
constexpr int kSumPitch = kWidth + 2, kFlagPitch = kWidth + 4;
static_assert(kSumPitch / 2 % 2 == 1 && kFlagPitch / 4 % 2 == 1);

struct Tables {
  std::int16_t density[3][256];
};

/// Sums of 2 * kRadius + 1 neighbors along rows, in pieces of a row; outside is 0.
template <int kRadius, typename T>
__device__ void sum_rows(const T* from, int pitch, std::uint16_t* to) {
  constexpr int kPiece = 32, kPieces = kWidth / kPiece;
  static_assert(kWidth % kPiece == 0);
  for (int task = static_cast<int>(threadIdx.x); task < kHeight * kPieces;
       task += kThreads) {
    const int y = task % kHeight, begin = task / kHeight * kPiece;
    const T* line = from + y * pitch;
    unsigned sum = 0;
    for (int x = begin - kRadius; x < begin + kRadius; ++x) {
      if (x >= 0 && x < kWidth) sum += line[x];
    }
    for (int x = begin; x < begin + kPiece; ++x) {
      if (x + kRadius < kWidth) sum += line[x + kRadius];
      to[y * kSumPitch + x] = static_cast<std::uint16_t>(sum);
      if (x >= kRadius) sum -= line[x - kRadius];
    }
  }
}

/// Down columns alike; use(x, y, sum) for every pixel.
template <int kRadius, typename Use>
__device__ void sum_columns(const std::uint16_t* from, Use use) {
  constexpr int kPiece = 40, kPieces = kHeight / kPiece;
  static_assert(kHeight % kPiece == 0);
  for (int task = static_cast<int>(threadIdx.x); task < kWidth * kPieces;
       task += kThreads) {
    const int x = task % kWidth, begin = task / kWidth * kPiece;
    const std::uint16_t* column = from + x;
    unsigned sum = 0;
    for (int y = begin - kRadius; y < begin + kRadius; ++y) {
      if (y >= 0 && y < kHeight) sum += column[y * kSumPitch];
    }
    for (int y = begin; y < begin + kPiece; ++y) {
      if (y + kRadius < kHeight) sum += column[(y + kRadius) * kSumPitch];
      use(x, y, sum);
      if (y >= kRadius) sum -= column[(y - kRadius) * kSumPitch];
    }
  }
}

/// One box over flags: to[x, y] = sum in the box >= least. `to` may be `from`.
template <int kRadius>
__device__ void box_flags(const std::uint8_t* from, std::uint16_t* sums, unsigned least,
                          std::uint8_t* to) {
  sum_rows<kRadius>(from, kFlagPitch, sums);
  __syncthreads();
  sum_columns<kRadius>(
      sums, [&](int x, int y, unsigned sum) { to[y * kFlagPitch + x] = sum >= least; });
  __syncthreads();
}

__global__ void mark_tissue(const std::uint8_t* rgb, std::int64_t images,
                            std::int64_t height, std::int64_t width,
                            const __grid_constant__ Tables given, std::uint8_t* out) {
  HER2FAST_SHARED(std::int16_t, tables, 3 * 256);
  HER2FAST_SHARED(std::uint16_t, plane, kHeight * kSumPitch);
  HER2FAST_SHARED(std::uint16_t, sums, kHeight * kSumPitch);
  HER2FAST_SHARED(std::uint8_t, flags, kHeight * kFlagPitch);
  HER2FAST_SHARED(std::uint8_t, ink, kHeight * kFlagPitch);
  HER2FAST_SHARED(int, any_ink, 1);
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < 3 * 256; i += kThreads) {
    tables[i] = given.density[i / 256][i % 256];
  }
  const std::int64_t across = (width + kOutWidth - 1) / kOutWidth;
  const std::int64_t down = (height + kOutHeight - 1) / kOutHeight;
  for (std::int64_t task = blockIdx.x; task < images * across * down; task += gridDim.x) {
    const std::int64_t line = task / across, image = line / down;
    const std::int64_t left = (task - line * across) * kOutWidth - kHalo;
    const std::int64_t top = (line - image * down) * kOutHeight - kHalo;
    if (thread == 0) any_ink[0] = 0;
    __syncthreads();
    // Density and ink; outside the image is white.
    for (int i = thread; i < kHeight * kWidth; i += kThreads) {
      const int y = i / kWidth, x = i - y * kWidth;
      const std::int64_t image_x = left + x, image_y = top + y;
      std::uint16_t density = 0;
      std::uint8_t pen = 0;
      if (image_x >= 0 && image_x < width && image_y >= 0 && image_y < height) {
        const std::uint8_t* p = rgb + 3 * ((image * height + image_y) * width + image_x);
        const std::int16_t r = tables[p[0]], g = tables[256 + p[1]],
                           b = tables[512 + p[2]];
        const int sum = r + g + b;
        density = static_cast<std::uint16_t>(sum < kDensityClip ? sum : kDensityClip);
        pen = is_ink(r, g, b);
      }
      plane[y * kSumPitch + x] = density;
      ink[y * kFlagPitch + x] = pen;
      if (pen != 0) atomicMax(any_ink, 1);
    }
    __syncthreads();
    sum_rows<kBox>(plane, kSumPitch, sums);
    __syncthreads();
    sum_columns<kBox>(sums, [&](int x, int y, unsigned sum) {
      flags[y * kFlagPitch + x] = sum >= kDense * area(kBox);
    });
    __syncthreads();
    for (int i = thread; i < kHeight * kWidth; i += kThreads) {
      const int y = i / kWidth, x = i - y * kWidth;
      const std::uint16_t* at = plane + y * kSumPitch + x;
      int texture = 0;
      if (x >= kTextureLag && x < kWidth - kTextureLag && y >= kTextureLag &&
          y < kHeight - kTextureLag) {
        texture = texture_step(at[kTextureLag], at[-kTextureLag]) +
                  texture_step(at[kTextureLag * kSumPitch], at[-kTextureLag * kSumPitch]);
      }
      sums[y * kSumPitch + x] = static_cast<std::uint16_t>(texture);
    }
    __syncthreads();
    sum_rows<kBox>(sums, kSumPitch, plane);
    __syncthreads();
    sum_columns<kBox>(plane, [&](int x, int y, unsigned sum) {
      flags[y * kFlagPitch + x] |= sum >= kTextured * area(kBox);
    });
    __syncthreads();
    box_flags<kBody>(flags, sums, kFill, flags);
    box_flags<kBody>(flags, sums, 1, flags);
    const bool inked = any_ink[0] != 0;
    if (inked) {
      box_flags<kInkBox>(ink, sums, kInkFill, ink);
      box_flags<kInkGrow>(ink, sums, 1, ink);
    }
    for (int i = thread; i < kOutHeight * kOutWidth; i += kThreads) {
      const int y = i / kOutWidth, x = i - y * kOutWidth;
      const std::int64_t image_x = left + kHalo + x, image_y = top + kHalo + y;
      if (image_x >= width || image_y >= height) continue;
      const int at = (y + kHalo) * kFlagPitch + x + kHalo;
      const bool tissue = flags[at] != 0 && !(inked && ink[at] != 0);
      out[(image * height + image_y) * width + image_x] = tissue;
    }
    __syncthreads();
  }
}

}  // namespace

std::int32_t tissue_mask(const std::uint8_t* rgb, std::int64_t n, std::int64_t height,
                         std::int64_t width, const std::uint8_t* white, std::uint8_t* out,
                         void* stream, Her2CudaError* error) {
  const std::int32_t sizes = check_batch(n, height, width, error);
  if (sizes != HER2_CUDA_OK) return sizes;
  const Rgb glass{white[0], white[1], white[2]};
  try {
    check_white(glass, kMinWhite);
  } catch (const std::exception& problem) {
    return fail(error, HER2_CUDA_BAD_ARGUMENT, "%s", problem.what());
  }
  if (n * height * width == 0) return HER2_CUDA_OK;
  const OnDevice device({rgb, out}, error);
  if (device.status() != HER2_CUDA_OK) return device.status();
  const DensityTables densities = density_tables(glass);
  Tables tables;
  for (int i = 0; i < 3 * 256; ++i) {
    tables.density[i / 256][i % 256] = densities[i / 256][i % 256];
  }
  const std::int64_t tiles =
      n * divide_up(height, kOutHeight) * divide_up(width, kOutWidth);
  launch(mark_tissue, blocks_for(tiles, 1), dim3(kThreads), stream, rgb, n, height, width,
         tables, out);
  return status_of(cudaGetLastError(), error);
}

}  // namespace her2fast::cuda
