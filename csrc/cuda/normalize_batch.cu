// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "cuda/functions.h"
#include "cuda/launch.h"
#include "kernels/half.h"
#include "kernels/normalize_rule.h"

namespace her2fast::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPixels = 4;  // a group: three words in, one vector a plane out

/// What each value of each channel becomes. Passed by value: no copy to wait for.
template <typename T>
struct Table {
  T value[3 * 256];
};

template <typename T>
struct alignas(kPixels * sizeof(T)) Pixels {
  T value[kPixels];
};

/// @param vectors  whether every address allows three words in and vectors out.
template <typename T>
__global__ void normalize(const std::uint8_t* rgb, std::int64_t images,
                          std::int64_t plane_px, bool vectors,
                          const __grid_constant__ Table<T> table, T* out) {
  HER2FAST_SHARED(T, look_up, 3 * 256);
  for (int i = static_cast<int>(threadIdx.x); i < 3 * 256; i += kThreads) {
    look_up[i] = table.value[i];
  }
  __syncthreads();
  const std::int64_t groups = (plane_px + kPixels - 1) / kPixels;
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  std::int64_t group = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  std::int64_t image = group / groups;
  group -= image * groups;
  const std::int64_t step_images = step / groups, step_groups = step % groups;
  while (image < images) {
    const std::int64_t first = group * kPixels;
    const std::uint8_t* in = rgb + 3 * (image * plane_px + first);
    T* const planes = out + 3 * image * plane_px + first;
    if (vectors) {
      const auto* words = reinterpret_cast<const std::uint32_t*>(in);
      const std::uint32_t packed[3] = {words[0], words[1], words[2]};
      for (int c = 0; c < 3; ++c) {
        Pixels<T> pixels;
        for (int k = 0; k < kPixels; ++k) {
          const int at = 3 * k + c;
          pixels.value[k] = look_up[256 * c + (packed[at / 4] >> (8 * (at % 4)) & 255u)];
        }
        *reinterpret_cast<Pixels<T>*>(planes + c * plane_px) = pixels;
      }
    } else {
      const std::int64_t left = plane_px - first;
      for (int k = 0; k < kPixels && k < left; ++k) {
        for (int c = 0; c < 3; ++c) {
          planes[c * plane_px + k] = look_up[256 * c + in[3 * k + c]];
        }
      }
    }
    image += step_images;
    group += step_groups;
    if (group >= groups) {
      group -= groups;
      ++image;
    }
  }
}

template <typename T, typename Convert>
void run(const std::uint8_t* rgb, std::int64_t n, std::int64_t plane_px,
         const float* mean, const float* std, void* out, void* stream, Convert convert) {
  Table<T> table;
  for (int c = 0; c < 3; ++c) {
    for (int v = 0; v < 256; ++v) {
      table.value[256 * c + v] = convert(normalized(v, mean[c], std[c]));
    }
  }
  const auto address = reinterpret_cast<std::uintptr_t>(out);
  const bool vectors = plane_px % kPixels == 0 && address % sizeof(Pixels<T>) == 0 &&
                       reinterpret_cast<std::uintptr_t>(rgb) % 4 == 0;
  launch(normalize<T>, lasting_blocks(n * divide_up(plane_px, kPixels), kThreads),
         dim3(kThreads), stream, rgb, n, plane_px, vectors, table, static_cast<T*>(out));
}

}  // namespace

std::int32_t normalize_batch(const std::uint8_t* rgb, std::int64_t n, std::int64_t height,
                             std::int64_t width, const float* mean, const float* std,
                             std::int32_t half, void* out, void* stream,
                             Her2CudaError* error) {
  const std::int32_t sizes = check_batch(n, height, width, error);
  if (sizes != HER2_CUDA_OK) return sizes;
  for (int c = 0; c < 3; ++c) {
    if (!(std::isfinite(mean[c]) && std::isfinite(std[c]) && std[c] > 0)) {
      return fail(error, HER2_CUDA_BAD_ARGUMENT,
                  "need finite means and deviations above 0, got %g and %g",
                  static_cast<double>(mean[c]), static_cast<double>(std[c]));
    }
  }
  if (n * height * width == 0) return HER2_CUDA_OK;
  const OnDevice device({rgb, out}, error);
  if (device.status() != HER2_CUDA_OK) return device.status();
  if (half != 0) {
    run<std::uint16_t>(rgb, n, height * width, mean, std, out, stream, half_bits);
  } else {
    run<float>(rgb, n, height * width, mean, std, out, stream, [](float v) { return v; });
  }
  return status_of(cudaGetLastError(), error);
}

}  // namespace her2fast::cuda
