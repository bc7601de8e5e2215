// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "cuda/functions.h"
#include "cuda/launch.h"
#include "kernels/tumor_rule.h"

namespace her2fast::cuda {
namespace {

constexpr int kThreads = 256;

struct Tiles {
  std::int64_t n, side, plane;
  std::int32_t channels, halo, tile, patch, per_side;
  std::int32_t shift;   // from a row's first looked-at column to its first pixel
  std::int32_t groups;  // of 32 columns, so that those of the tile begin a half word
  float threshold;
};

/// Bits [from, to) of a word of 32.
__device__ unsigned bits_between(int from, int to) {
  const unsigned below = to == kWarp ? kAllLanes : (1u << to) - 1;
  return below & ~((1u << from) - 1);
}

/// A warp looks at 32 columns of one row, halo and all, for a logit that is not finite
/// anywhere ends the session. Half words of the tile's rows are its ballots.
__global__ void count(const float* logits, const std::uint32_t* tissue, Tiles t,
                      std::uint32_t* bits, std::uint32_t* counts, std::int32_t* fault) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int half_words = 2 * ((t.tile + 63) / 64);
  const std::int64_t items = t.n * t.side * t.groups;
  const std::int64_t step = std::int64_t{gridDim.x} * (kThreads / kWarp);
  for (std::int64_t item = std::int64_t{blockIdx.x} * (kThreads / kWarp) +
                           static_cast<int>(threadIdx.x) / kWarp;
       item < items; item += step) {
    const std::int64_t line = item / t.groups;
    const int group = static_cast<int>(item - line * t.groups);
    const std::int64_t image = line / t.side;
    const int y = static_cast<int>(line - image * t.side);
    const int x = group * kWarp + lane - t.shift;
    bool finite = true, tumor = false;
    if (x >= 0 && x < t.side) {
      const float* const first =
          logits + image * t.channels * t.plane + std::int64_t{y} * t.side + x;
      const float* const second = t.channels == 2 ? first + t.plane : nullptr;
      finite = is_finite_value(*first) && (second == nullptr || is_finite_value(*second));
      tumor = is_tumor(first, second, t.threshold);
    }
    if (__ballot_sync(kAllLanes, finite ? 0 : 1) != 0 && lane == 0) atomicMax(fault, 1);
    const int row = y - t.halo, column = group * kWarp - t.shift - t.halo;  // of the tile
    if (row < 0 || row >= t.tile || column < 0 || column >= t.tile) continue;
    const int width = t.tile - column < kWarp ? t.tile - column : kWarp;
    const unsigned found = __ballot_sync(kAllLanes, tumor && lane < width ? 1 : 0);
    if (lane != 0) continue;
    const std::int64_t at = (image * t.tile + row) * half_words + column / kWarp;
    const unsigned word = found & tissue[at];
    bits[at] = word;
    std::uint32_t* const of_row =
        counts + (image * t.per_side + row / t.patch) * t.per_side;
    for (int from = 0; from < width;) {
      const int patch = (column + from) / t.patch;
      const int stop = (patch + 1) * t.patch - column;
      const int to = stop < width ? stop : width;
      const int px = __popc(word & bits_between(from, to));
      if (px != 0) atomicAdd(of_row + patch, static_cast<std::uint32_t>(px));
      from = to;
    }
  }
}

}  // namespace

std::int32_t tumor_bits(const float* logits, const std::uint64_t* tissue, std::int64_t n,
                        const Her2TumorRule* rule, std::uint64_t* bits,
                        std::uint32_t* counts, std::int32_t* fault, void* stream,
                        Her2CudaError* error) {
  const bool good = (rule->channels == 1 || rule->channels == 2) && rule->halo_px >= 0 &&
                    rule->halo_px <= 1024 && rule->patch_px >= 8 &&
                    rule->patch_px <= 4096 && rule->tile_px >= rule->patch_px &&
                    rule->tile_px <= 4096 && rule->tile_px % rule->patch_px == 0 &&
                    std::isfinite(rule->threshold) && n >= 0 && n <= 65536;
  if (!good) {
    return fail(error, HER2_CUDA_BAD_ARGUMENT,
                "need a rule as in tumor_bits.h and n of 0 to 65536, got %d channels, "
                "%d px halo, %d px tiles, %d px patches, n %lld",
                static_cast<int>(rule->channels), static_cast<int>(rule->halo_px),
                static_cast<int>(rule->tile_px), static_cast<int>(rule->patch_px),
                static_cast<long long>(n));
  }
  const OnDevice device({logits, tissue, bits, counts, fault}, error);
  if (device.status() != HER2_CUDA_OK) return device.status();
  const auto queue = static_cast<cudaStream_t>(stream);
  Tiles t{};
  t.n = n;
  t.side = std::int64_t{rule->tile_px} + 2 * rule->halo_px;
  t.plane = t.side * t.side;
  t.channels = rule->channels;
  t.halo = rule->halo_px;
  t.tile = rule->tile_px;
  t.patch = rule->patch_px;
  t.per_side = rule->tile_px / rule->patch_px;
  t.shift = (kWarp - rule->halo_px % kWarp) % kWarp;
  t.groups = static_cast<std::int32_t>(divide_up(t.side + t.shift, kWarp));
  t.threshold = rule->threshold;
  const auto words = static_cast<std::size_t>((t.tile + 63) / 64) * 8;
  const auto items = static_cast<std::size_t>(n);
  // A row whose width leaves the last half word untouched needs its zeros.
  std::int32_t status = status_of(
      cudaMemsetAsync(bits, 0, items * static_cast<std::size_t>(t.tile) * words, queue),
      error);
  if (status != HER2_CUDA_OK) return status;
  const auto patches = static_cast<std::size_t>(t.per_side * t.per_side);
  status = status_of(
      cudaMemsetAsync(counts, 0, items * patches * sizeof(std::uint32_t), queue), error);
  if (status != HER2_CUDA_OK) return status;
  status = status_of(cudaMemsetAsync(fault, 0, sizeof *fault, queue), error);
  if (status != HER2_CUDA_OK || n == 0) return status;
  // Half words of a word of 64 lie in order: every GPU and host here is little-endian.
  launch(count, blocks_for(t.n * t.side * t.groups * kWarp, kThreads), dim3(kThreads),
         stream, logits, reinterpret_cast<const std::uint32_t*>(tissue), t,
         reinterpret_cast<std::uint32_t*>(bits), counts, fault);
  return status_of(cudaGetLastError(), error);
}

}  // namespace her2fast::cuda
