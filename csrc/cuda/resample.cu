// SPDX-License-Identifier: Apache-2.0
/// Means by area (io/resample.h) in integers: sums down y, then across x, then one
/// rounding. The weights are the host's; nothing here knows how they come about.
#include "cuda/arena.h"
#include "cuda/functions.h"
#include "cuda/launch.h"

namespace her2fast::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kPerThread = 4;
constexpr int kOut = kThreads * kPerThread;  // values of a row that a block writes
constexpr int kWord = 4;                     // values a thread loads at once
constexpr int kSums = 2048;  // source values whose sums a block holds: 8 KB
static_assert(kSums % kWord == 0);

constexpr std::int64_t kOne = 65536, kMost = std::int64_t{1} << 24;

/// An axis' rows on the device.
struct Axis {
  const std::int32_t* rows;
  std::int64_t count, pitch;
};

struct Batch {
  const std::uint8_t* rgb;
  std::int64_t n, height, row;  // row: values
  bool words;                   // whether each row begins and ends a word
  Axis x, y;
};

struct alignas(16) Sums {
  std::uint32_t value[kWord];
};

/// Sums down y of the values [from, to) of a row, into `sums`; below 2^24 each. With
/// words up to three values more, which are of the same row.
__device__ void sum_down(const Batch& b, const std::uint8_t* top,
                         const std::int32_t* weights, std::int32_t taps,
                         std::int64_t from, std::int64_t to, std::uint32_t* sums) {
  const int count = static_cast<int>(to - from);
  const auto thread = static_cast<int>(threadIdx.x);
  if (b.words) {
    for (int i = kWord * thread; i < count; i += kWord * kThreads) {
      const auto* at = reinterpret_cast<const std::uint32_t*>(top + from + i);
      Sums sum{};
      for (std::int32_t t = 0; t < taps; ++t, at += b.row / kWord) {
        const std::uint32_t four = *at;
        const auto weight = static_cast<std::uint32_t>(weights[t]);
        for (int k = 0; k < kWord; ++k) sum.value[k] += weight * (four >> 8 * k & 255u);
      }
      *reinterpret_cast<Sums*>(sums + i) = sum;
    }
  } else {
    for (int i = thread; i < count; i += kThreads) {
      const std::uint8_t* at = top + from + i;
      std::uint32_t sum = 0;
      for (std::int32_t t = 0; t < taps; ++t, at += b.row) {
        sum += static_cast<std::uint32_t>(weights[t]) * *at;
      }
      sums[i] = sum;
    }
  }
}

/// A block makes up to `kOut` values of a row of an image, going over the source below
/// them in pieces of `kSums`, so that a step may be of any size.
__global__ void average(const __grid_constant__ Batch b, std::uint8_t* out) {
  HER2FAST_SHARED(Sums, held, kSums / kWord);
  auto* const sums = reinterpret_cast<std::uint32_t*>(held);
  const auto thread = static_cast<int>(threadIdx.x);
  const std::int64_t out_row = 3 * b.x.count;
  const std::int64_t parts = (out_row + kOut - 1) / kOut;
  for (std::int64_t task = blockIdx.x; task < b.n * b.y.count * parts;
       task += gridDim.x) {
    const std::int64_t line = task / parts, image = line / b.y.count;
    const std::int64_t begin = (task - line * parts) * kOut;
    const std::int64_t end = begin + kOut < out_row ? begin + kOut : out_row;
    const std::int32_t* const down = b.y.rows + (line - image * b.y.count) * b.y.pitch;
    const std::uint8_t* const top = b.rgb + (image * b.height + down[0]) * b.row;
    const std::int32_t* const first = b.x.rows + begin / 3 * b.x.pitch;
    const std::int32_t* const last = b.x.rows + (end - 1) / 3 * b.x.pitch;
    const std::int64_t from = std::int64_t{3} * first[0] / kWord * kWord;
    const std::int64_t to = 3 * (std::int64_t{last[0]} + last[1]);
    std::uint64_t totals[kPerThread] = {};  // below 2^41
    for (std::int64_t piece = from; piece < to; piece += kSums) {
      const std::int64_t stop = piece + kSums < to ? piece + kSums : to;
      sum_down(b, top, down + 2, down[1], piece, stop, sums);
      __syncthreads();
      for (int k = 0; k < kPerThread; ++k) {
        const std::int64_t value = begin + k * kThreads + thread;
        if (value >= end) break;
        const std::int64_t pixel = value / 3;
        const std::int32_t* const across = b.x.rows + pixel * b.x.pitch;
        // The value below its first weight; of its weights, those within this piece.
        const std::int64_t at = std::int64_t{3} * across[0] + (value - 3 * pixel);
        std::int64_t t = at < piece ? (piece - at + 2) / 3 : 0;
        for (; t < across[1] && at + 3 * t < stop; ++t) {
          totals[k] +=
              static_cast<std::uint64_t>(across[2 + t]) * sums[at + 3 * t - piece];
        }
      }
      __syncthreads();
    }
    for (int k = 0; k < kPerThread; ++k) {
      const std::int64_t value = begin + k * kThreads + thread;
      if (value >= end) break;
      constexpr std::uint64_t kHalf = std::uint64_t{1} << 31;
      out[line * out_row + value] = static_cast<std::uint8_t>((totals[k] + kHalf) >> 32);
    }
  }
}

std::int64_t pitch_of(const Her2AxisWeights& axis) { return 2 + axis.max_taps; }

std::int32_t check_size(const Her2AxisWeights& axis, const char* name,
                        Her2CudaError* error) {
  const auto good = [](std::int64_t size) { return size >= 1 && size <= kMost; };
  if (good(axis.count) && good(axis.max_taps)) return HER2_CUDA_OK;
  return fail(error, HER2_CUDA_BAD_ARGUMENT,
              "need count and max_taps of %s of 1 to 2^24, got %lld and %lld", name,
              static_cast<long long>(axis.count), static_cast<long long>(axis.max_taps));
}

/// Rows the kernel may follow without looking: within `length`, in order, exact sums.
std::int32_t check_rows(const Her2AxisWeights& axis, std::int64_t length,
                        const char* name, Her2CudaError* error) {
  std::int64_t first = 0, end = 0;
  for (std::int64_t i = 0; i < axis.count; ++i) {
    const std::int32_t* const row = axis.rows + i * pitch_of(axis);
    const std::int64_t start = row[0], taps = row[1];
    if (start < first || taps < 1 || taps > axis.max_taps || start + taps < end ||
        start + taps > length) {
      return fail(error, HER2_CUDA_BAD_ARGUMENT,
                  "need grid pixel %lld of %s over source pixels of 0 to %lld in order, "
                  "got %lld of them from %lld",
                  static_cast<long long>(i), name, static_cast<long long>(length),
                  static_cast<long long>(taps), static_cast<long long>(start));
    }
    std::int64_t sum = 0;
    for (std::int64_t t = 0; t < taps && sum <= kOne; ++t) {
      sum = row[2 + t] < 0 ? kOne + 1 : sum + row[2 + t];
    }
    if (sum != kOne) {
      return fail(error, HER2_CUDA_BAD_ARGUMENT,
                  "need weights of at least 0 that sum to 65536 at grid pixel %lld of %s",
                  static_cast<long long>(i), name);
    }
    first = start;
    end = start + taps;
  }
  return HER2_CUDA_OK;
}

/// Both axes' rows, as they lie in the scratch.
struct Scratch {
  std::int32_t *x, *y;
  std::uint64_t bytes;

  Scratch(void* memory, const Her2AxisWeights& across, const Her2AxisWeights& down) {
    Arena arena(memory);
    x = arena.take<std::int32_t>(across.count * pitch_of(across));
    y = arena.take<std::int32_t>(down.count * pitch_of(down));
    bytes = arena.used();
  }
};

Axis upload(const Her2AxisWeights& axis, std::int32_t* to, cudaStream_t stream,
            cudaError_t* result) {
  const auto values = static_cast<std::size_t>(axis.count * pitch_of(axis));
  if (*result == cudaSuccess) {
    *result = cudaMemcpyAsync(to, axis.rows, values * sizeof *to, cudaMemcpyHostToDevice,
                              stream);
  }
  return {to, axis.count, pitch_of(axis)};
}

}  // namespace

std::int32_t resample_scratch_bytes(const Her2AxisWeights* x, const Her2AxisWeights* y,
                                    std::uint64_t* bytes, Her2CudaError* error) {
  std::int32_t status = check_size(*x, "x", error);
  if (status == HER2_CUDA_OK) status = check_size(*y, "y", error);
  if (status == HER2_CUDA_OK) *bytes = Scratch(nullptr, *x, *y).bytes;
  return status;
}

std::int32_t resample(const std::uint8_t* rgb, std::int64_t n, std::int64_t height,
                      std::int64_t width, const Her2AxisWeights* x,
                      const Her2AxisWeights* y, std::uint8_t* out, void* scratch,
                      std::uint64_t scratch_bytes, void* stream, Her2CudaError* error) {
  std::uint64_t needed = 0;
  std::int32_t status = check_batch(n, height, width, error);
  if (status == HER2_CUDA_OK) status = resample_scratch_bytes(x, y, &needed, error);
  if (status == HER2_CUDA_OK) status = check_batch(n, y->count, x->count, error);
  if (status == HER2_CUDA_OK) status = check_rows(*x, width, "x", error);
  if (status == HER2_CUDA_OK) status = check_rows(*y, height, "y", error);
  if (status != HER2_CUDA_OK || n == 0) return status;
  if (scratch_bytes < needed) {
    return fail(error, HER2_CUDA_BAD_ARGUMENT, "need %llu bytes of scratch, got %llu",
                static_cast<unsigned long long>(needed),
                static_cast<unsigned long long>(scratch_bytes));
  }
  const OnDevice device({rgb, out, scratch}, error);
  if (device.status() != HER2_CUDA_OK) return device.status();
  const Scratch s(scratch, *x, *y);
  cudaError_t result = cudaSuccess;
  const auto queue = static_cast<cudaStream_t>(stream);
  const Axis across = upload(*x, s.x, queue, &result);
  const Axis down = upload(*y, s.y, queue, &result);
  if (result != cudaSuccess) return status_of(result, error);
  const std::int64_t row = 3 * width;
  const bool words =
      row % kWord == 0 && reinterpret_cast<std::uintptr_t>(rgb) % kWord == 0;
  const std::int64_t tasks = n * down.count * divide_up(3 * across.count, kOut);
  launch(average, blocks_for(tasks, 1), dim3(kThreads), stream,
         Batch{rgb, n, height, row, words, across, down}, out);
  return status_of(cudaGetLastError(), error);
}

}  // namespace her2fast::cuda
