// SPDX-License-Identifier: Apache-2.0
/// Means by area (io/resample.h) in integers: sums down y, then across x, then one
/// rounding. The weights are the host's; nothing here knows how they come about.
#include "cuda/arena.h"
#include "cuda/functions.h"
#include "cuda/launch.h"

namespace her2fast::cuda {
namespace {

constexpr int kThreads = 128;  // grid pixels of a row that a block makes, too
constexpr int kLines = 4;      // rows that it makes, one after the other
constexpr int kWord = 4;       // values a thread loads at once
constexpr int kAhead = 4;      // loads on their way at once
constexpr int kPiecePx = 684;  // source pixels whose sums a block holds: 8 KB
static_assert(kPiecePx % kWord == 0);

constexpr std::int64_t kOne = 65536, kMost = std::int64_t{1} << 24;
/// Source pixels below an axis, so that places in a row are small integers.
constexpr std::int64_t kReachPx = std::int64_t{1} << 28;

/// An axis' rows on the device.
struct Axis {
  const std::int32_t* rows;
  std::int32_t count, pitch;
  __device__ const std::int32_t* row(std::int32_t i) const {
    return rows + std::int64_t{i} * pitch;
  }
};

struct Batch {
  const std::uint8_t* rgb;
  std::int64_t n, height, row;  // row: bytes
  bool words_in, words_out;     // whether each row begins and ends a word
  Axis x, y;
};

struct alignas(16) Sums {
  std::uint32_t value[kWord];
};

/// Sums down y of `count` values of rows from `top` on, below 2^24 each. With words up to
/// three values more, which are of the same row.
__device__ void sum_down(const Batch& b, const std::uint8_t* top,
                         const std::int32_t* weights, std::int32_t taps, int count,
                         std::uint32_t* sums) {
  const auto thread = static_cast<int>(threadIdx.x);
  if (!b.words_in) {
    for (int i = thread; i < count; i += kThreads) {
      std::uint32_t sum = 0;
      for (std::int32_t t = 0; t < taps; ++t) {
        sum += static_cast<std::uint32_t>(weights[t]) * top[t * b.row + i];
      }
      sums[i] = sum;
    }
    return;
  }
  for (int i = kWord * thread; i < count; i += kWord * kThreads) {
    const auto* const column = reinterpret_cast<const std::uint32_t*>(top + i);
    Sums sum{};
    for (std::int32_t t = 0; t < taps; t += kAhead) {
      std::uint32_t words[kAhead];
      for (int k = 0; k < kAhead; ++k) {
        words[k] = t + k < taps ? column[(t + k) * (b.row / kWord)] : 0;
      }
      for (int k = 0; k < kAhead && t + k < taps; ++k) {
        const auto weight = static_cast<std::uint32_t>(weights[t + k]);
        for (int v = 0; v < kWord; ++v) {
          sum.value[v] += weight * (words[k] >> (8 * v) & 255u);
        }
      }
    }
    *reinterpret_cast<Sums*>(sums + i) = sum;
  }
}

/// A block goes over the source below its pixels in pieces, so a step may be of any size;
/// steps up to 5 need one. Results turn in shared memory into whole words.
__global__ void average(const __grid_constant__ Batch b, std::uint8_t* out) {
  HER2FAST_SHARED(Sums, held, 3 * kPiecePx / kWord);
  HER2FAST_SHARED(std::uint32_t, turn, 3 * kThreads / kWord);
  auto* const sums = reinterpret_cast<std::uint32_t*>(held);
  auto* const bytes = reinterpret_cast<std::uint8_t*>(turn);
  const auto thread = static_cast<int>(threadIdx.x);
  const std::int32_t parts = (b.x.count + kThreads - 1) / kThreads;
  const std::int32_t groups = (b.y.count + kLines - 1) / kLines;
  for (std::int64_t task = blockIdx.x; task < b.n * groups * parts; task += gridDim.x) {
    const std::int64_t lines = task / parts, image = lines / groups;
    const auto begin = static_cast<std::int32_t>(task - lines * parts) * kThreads;
    const std::int32_t pixels =
        b.x.count - begin < kThreads ? b.x.count - begin : kThreads;
    const std::int32_t* const last = b.x.row(begin + pixels - 1);
    const std::int32_t from = b.x.row(begin)[0] / kWord * kWord, to = last[0] + last[1];
    const std::int32_t* const across = b.x.row(begin + (thread < pixels ? thread : 0));
    const std::int32_t first = across[0], taps = thread < pixels ? across[1] : 0;
    const auto top_line = static_cast<std::int32_t>(lines - image * groups) * kLines;
    for (std::int32_t j = top_line; j < top_line + kLines && j < b.y.count; ++j) {
      const std::int32_t* const down = b.y.row(j);
      const std::uint8_t* const top = b.rgb + (image * b.height + down[0]) * b.row;
      constexpr std::uint64_t kHalf = std::uint64_t{1} << 31;
      std::uint64_t totals[3] = {kHalf, kHalf, kHalf};  // below 2^41
      for (std::int32_t piece = from; piece < to; piece += kPiecePx) {
        if (piece != from) __syncthreads();
        const std::int32_t stop = piece + kPiecePx < to ? piece + kPiecePx : to;
        sum_down(b, top + 3 * piece, down + 2, down[1], 3 * (stop - piece), sums);
        __syncthreads();
        for (std::int32_t t = first < piece ? piece - first : 0;
             t < taps && first + t < stop; ++t) {
          const std::uint64_t weight = static_cast<std::uint32_t>(across[2 + t]);
          const std::uint32_t* const sum = sums + 3 * (first + t - piece);
          for (int c = 0; c < 3; ++c) totals[c] += weight * sum[c];
        }
      }
      if (thread < pixels) {
        for (int c = 0; c < 3; ++c) {
          bytes[3 * thread + c] = static_cast<std::uint8_t>(totals[c] >> 32);
        }
      }
      __syncthreads();
      std::uint8_t* const to_row =
          out + 3 * ((image * b.y.count + j) * b.x.count + begin);
      if (b.words_out) {
        if (kWord * thread < 3 * pixels) {
          reinterpret_cast<std::uint32_t*>(to_row)[thread] = turn[thread];
        }
      } else {
        for (int i = thread; i < 3 * pixels; i += kThreads) to_row[i] = bytes[i];
      }
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
  if (length > kReachPx) length = kReachPx;
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
  return {to, static_cast<std::int32_t>(axis.count),
          static_cast<std::int32_t>(pitch_of(axis))};
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
  const auto words = [](const void* memory, std::int64_t bytes) {
    return bytes % kWord == 0 && reinterpret_cast<std::uintptr_t>(memory) % kWord == 0;
  };
  const std::int64_t tasks =
      n * divide_up(down.count, kLines) * divide_up(across.count, kThreads);
  launch(average, blocks_for(tasks, 1), dim3(kThreads), stream,
         Batch{rgb, n, height, row, words(rgb, row),
               words(out, 3 * std::int64_t{across.count}), across, down},
         out);
  return status_of(cudaGetLastError(), error);
}

}  // namespace her2fast::cuda
