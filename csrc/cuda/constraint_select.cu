// SPDX-License-Identifier: Apache-2.0
/// The CPU takes, slide by slide, the fewest patches from one end of an order. Here one
/// sort holds the patches of all slides and classes in such orders, one after another,
/// and a patch is taken if what stands before it in its order is less than what is
/// needed. The keys are the CPU's (log-odds from the same formula, patch index in ties),
/// so the patches are.
#include <algorithm>
#include <bit>
#include <stdexcept>
#include <vector>

#include "cuda/arena.h"
#include "cuda/functions.h"
#include "cuda/launch.h"
#include "cuda/scan_sort.h"
#include "kernels/log_odds.h"
#include "kernels/selection_rule.h"

namespace her2fast::cuda {
namespace {

using Word = unsigned long long;  // what CUDA's atomics take

constexpr int kThreads = 256;
constexpr std::uint32_t kNoSegment = 0xffffffffu;

struct Limits {
  std::int32_t lower[kScores], upper[kScores][kScores];
};

struct Problem {
  const float* logits;
  const std::uint32_t* tumor_px;
  std::int64_t patches, slides;
  const std::int64_t *offsets, *labels;  // device
  Limits limits;
  Admissible admissible;
  std::uint8_t* action;
  std::int8_t* class_id;
  std::uint8_t* bits;
  Her2SlideConstraints* out;
  Word* fault;
};

/// Scratch of one call.
struct Scratch {
  std::int64_t *offsets, *labels;
  std::uint8_t* class_of;
  std::uint32_t* slide_of;
  std::uint64_t *keys, *sorted_keys, *before;  // before: also the weights it comes from
  std::uint32_t *values, *sorted;
  std::uint64_t* segment_start;  // (4 * slides)
  void* sort;
  std::size_t sort_bytes = 0;
  cudaError_t result;  // of asking for the size
  std::uint64_t bytes;

  Scratch(void* memory, std::int64_t patches, std::int64_t slides) {
    Arena arena(memory);
    offsets = arena.take<std::int64_t>(slides + 1);
    labels = arena.take<std::int64_t>(slides);
    class_of = arena.take<std::uint8_t>(patches);
    slide_of = arena.take<std::uint32_t>(patches);
    keys = arena.take<std::uint64_t>(patches);
    sorted_keys = arena.take<std::uint64_t>(patches);
    before = keys;  // the keys have been sorted then
    values = arena.take<std::uint32_t>(patches);
    sorted = arena.take<std::uint32_t>(patches);
    segment_start = arena.take<std::uint64_t>(kScores * slides);
    result = scan_sort_bytes(patches, &sort_bytes);
    sort = arena.take<char>(static_cast<std::int64_t>(sort_bytes));
    bytes = arena.used();
  }
};

/// Adds the lanes' values at their places, at once where all that add name lane 0's.
__device__ void add_together(std::int64_t* base, std::int64_t place, std::int64_t value) {
  const std::int64_t first = __shfl_sync(kAllLanes, place, 0);
  if (__ballot_sync(kAllLanes, place == first || value == 0) == kAllLanes) {
    for (unsigned delta = kWarp / 2; delta > 0; delta /= 2) {
      value += __shfl_down_sync(kAllLanes, value, delta);
    }
    if (threadIdx.x % kWarp == 0 && value != 0) {
      atomicAdd(reinterpret_cast<Word*>(base + first), static_cast<Word>(value));
    }
  } else if (value != 0) {
    atomicAdd(reinterpret_cast<Word*>(base + place), static_cast<Word>(value));
  }
}

/// The slide that holds patch i: the last whose offset is not above it.
__device__ std::uint32_t slide_of(const Problem& p, std::int64_t i) {
  std::int64_t low = 0, high = p.slides;
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    if (p.offsets[middle] <= i) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return static_cast<std::uint32_t>(low);
}

constexpr int kSlideWords = sizeof(Her2SlideConstraints) / sizeof(std::int64_t);

/// Predicted classes, areas of the classes, empty outputs.
__global__ void predict(Problem p, Scratch s) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  const std::int64_t end = (p.patches + kWarp - 1) / kWarp * kWarp;  // whole warps
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < end;
       i += step) {
    std::int64_t px = 0, place = 0;
    if (i < p.patches) {
      const float* logits = p.logits + kScores * i;
      if (!all_finite(logits, kScores)) atomicMin(p.fault, static_cast<Word>(i));
      const unsigned best = predicted_class(logits);
      const std::uint32_t slide = slide_of(p, i);
      s.class_of[i] = static_cast<std::uint8_t>(best);
      s.slide_of[i] = slide;
      p.action[i] = 0;
      p.class_id[i] = -1;
      p.bits[i] = 0;
      px = p.tumor_px[i];
      place = std::int64_t{kSlideWords} * slide + best;  // class_px stands first
    }
    for (unsigned c = 0; c < kScores; ++c) {
      // One class at a time, so that a warp within a slide adds once a class.
      const bool here = place % kSlideWords == c;
      add_together(&p.out->class_px[0], place - place % kSlideWords + c, here ? px : 0);
    }
  }
}

/// What each slide breaks.
__global__ void judge(Problem p) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < p.slides;
       i += step) {
    Her2SlideConstraints& out = p.out[i];
    std::int64_t total = 0;
    for (int c = 0; c < kScores; ++c) total += out.class_px[c];
    if (total >= kMaxSlidePx) atomicMin(p.fault, static_cast<Word>(p.patches + i));
    if (total == 0) continue;
    const auto label = static_cast<int>(p.labels[i]);
    for (int c = label + 1; c < kScores; ++c) {
      const std::int64_t most = most_allowed(p.limits.upper[label][c], total);
      if (out.class_px[c] > most) out.excess_px[c] = out.class_px[c] - most;
    }
    const std::int64_t least = least_wanted(p.limits.lower[label], total);
    if (out.class_px[label] < least) out.missing_px = least - out.class_px[label];
  }
}

__device__ std::uint32_t odds_bits(const float* logits, int c) {
  const OthersInOrder others(logits, c);
  return ordered_bits(log_odds(logits[c], others.top, others.middle - others.top,
                               others.low - others.top));
}

/// Keys of S^u: slide and class, then log-odds, then patch. Segment 4 * slide + class.
__global__ void key_upper(Problem p, Scratch s) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < p.patches;
       i += step) {
    const std::uint32_t slide = s.slide_of[i];
    const int c = s.class_of[i];
    std::uint64_t key = std::uint64_t{kScores} * static_cast<std::uint64_t>(p.slides)
                        << 32;
    if (p.out[slide].excess_px[c] > 0) {
      key = (std::uint64_t{kScores} * slide + static_cast<unsigned>(c)) << 32 |
            odds_bits(p.logits + kScores * i, c);
    }
    s.keys[i] = key;
    s.values[i] = static_cast<std::uint32_t>(i);
  }
}

/// Keys of S^l: slide and how many classes away, then log-odds of the label from the
/// highest, then patch from the last. Segment 4 * slide + classes away.
__global__ void key_lower(Problem p, Scratch s) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t k = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; k < p.patches;
       k += step) {
    const std::int64_t i = p.patches - 1 - k;
    const std::uint32_t slide = s.slide_of[i];
    const auto label = static_cast<int>(p.labels[slide]);
    const int away =
        s.class_of[i] > label ? s.class_of[i] - label : label - s.class_of[i];
    std::uint64_t key = std::uint64_t{kScores} * static_cast<std::uint64_t>(p.slides)
                        << 32;
    if (p.out[slide].missing_px > 0 && away > 0) {
      key = (std::uint64_t{kScores} * slide + static_cast<unsigned>(away)) << 32 |
            (0xffffffffu ^ odds_bits(p.logits + kScores * i, label));
    }
    s.keys[k] = key;
    s.values[k] = static_cast<std::uint32_t>(i);
  }
}

/// Weights in the order of the keys.
__global__ void weigh(Problem p, Scratch s) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < p.patches;
       i += step) {
    s.before[i] = p.tumor_px[s.sorted[i]];
  }
}

/// Which order a key belongs to: a class of a slide, or (kLower) a slide.
template <bool kLowerLimit>
__device__ std::uint32_t segment_of(const Problem& p, std::uint64_t key) {
  const auto segment = static_cast<std::uint32_t>(key >> 32);
  if (segment >= kScores * p.slides) return kNoSegment;
  return kLowerLimit ? segment / kScores : segment;
}

/// Where each order begins, as the sum of what stands before it.
template <bool kLowerLimit>
__global__ void find_starts(Problem p, Scratch s) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < p.patches;
       i += step) {
    const std::uint32_t here = segment_of<kLowerLimit>(p, s.sorted_keys[i]);
    if (here == kNoSegment) continue;
    if (i == 0 || segment_of<kLowerLimit>(p, s.sorted_keys[i - 1]) != here) {
      s.segment_start[here] = s.before[i];
    }
  }
}

/// Takes patches while what stands before them is less than what is needed.
template <bool kLowerLimit>
__global__ void mark(Problem p, Scratch s) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  const std::int64_t end = (p.patches + kWarp - 1) / kWarp * kWarp;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < end;
       i += step) {
    const std::uint32_t segment =
        i < p.patches ? segment_of<kLowerLimit>(p, s.sorted_keys[i]) : kNoSegment;
    std::int64_t px = 0, place = 0;
    if (segment != kNoSegment) {
      const std::uint32_t slide = kLowerLimit ? segment : segment / kScores;
      const auto c = static_cast<int>(kLowerLimit ? p.labels[slide] : segment % kScores);
      Her2SlideConstraints& out = p.out[slide];
      const std::int64_t need = kLowerLimit ? out.missing_px : out.excess_px[c];
      const auto stands_before =
          static_cast<std::int64_t>(s.before[i] - s.segment_start[segment]);
      std::int64_t* const sum = kLowerLimit ? &out.pulled_px : &out.pushed_px[c];
      place = sum - &p.out->class_px[0];
      if (stands_before < need) {
        const std::uint32_t patch = s.sorted[i];
        p.action[patch] = static_cast<std::uint8_t>(kLowerLimit ? PatchAction::kLower
                                                                : PatchAction::kUpper);
        p.class_id[patch] = static_cast<std::int8_t>(c);
        p.bits[patch] = kLowerLimit ? static_cast<std::uint8_t>(1u << c)
                                    : admissible_bits(p.admissible, c);
        px = p.tumor_px[patch];
        if (kLowerLimit) {
          const auto away = static_cast<Word>(s.sorted_keys[i] >> 32 & 3u);
          auto* const reach = reinterpret_cast<Word*>(&out.reach);
          if (*reach < away) atomicMax(reach, away);
        }
      }
    }
    add_together(&p.out->class_px[0], place, px);
  }
}

template <bool kLowerLimit>
cudaError_t take(const Problem& p, const Scratch& s, dim3 grid, void* stream) {
  launch(kLowerLimit ? key_lower : key_upper, grid, dim3(kThreads), stream, p, s);
  const int bits = 32 + std::bit_width(static_cast<std::uint64_t>(kScores) *
                                       static_cast<std::uint64_t>(p.slides));
  cudaError_t result = sort_pairs(s.sort, s.sort_bytes, s.keys, s.sorted_keys, s.values,
                                  s.sorted, p.patches, bits, stream);
  if (result != cudaSuccess) return result;
  launch(weigh, grid, dim3(kThreads), stream, p, s);
  result = exclusive_sum(s.sort, s.sort_bytes, s.before, s.before, p.patches, stream);
  if (result != cudaSuccess) return result;
  launch(find_starts<kLowerLimit>, grid, dim3(kThreads), stream, p, s);
  launch(mark<kLowerLimit>, grid, dim3(kThreads), stream, p, s);
  return cudaGetLastError();
}

/// Host tables, as check_table and check_limits of the CPU; sums are checked on the way.
std::int32_t check_tables(std::int64_t patches, std::int64_t slides,
                          const std::int64_t* offsets, const std::int64_t* labels,
                          const Her2FractionLimits& limits, Her2CudaError* error) {
  constexpr std::int64_t kMost = std::int64_t{1} << 30;
  if (patches < 0 || slides < 0 || patches > 2 * kMost - 1 || slides > kMost / 4) {
    return fail(error, HER2_CUDA_BAD_ARGUMENT,
                "need below 2^31 patches and up to 2^28 slides, got %lld and %lld",
                static_cast<long long>(patches), static_cast<long long>(slides));
  }
  if (offsets[0] != 0 || offsets[slides] != patches) {
    return fail(error, HER2_CUDA_BAD_ARGUMENT, "need offsets from 0 to %lld patches",
                static_cast<long long>(patches));
  }
  for (std::int64_t i = 0; i < slides; ++i) {
    if (offsets[i + 1] < offsets[i] || labels[i] < 0 || labels[i] >= kScores) {
      return fail(
          error, HER2_CUDA_BAD_ARGUMENT,
          "need ascending offsets and labels of 0 to 3, got another at slide %lld",
          static_cast<long long>(i));
    }
  }
  FractionLimits values;
  for (int y = 0; y < kScores; ++y) {
    values.lower_permille[static_cast<std::size_t>(y)] = limits.lower_permille[y];
    for (int c = 0; c < kScores; ++c) {
      values.upper_permille[static_cast<std::size_t>(y)][static_cast<std::size_t>(c)] =
          limits.upper_permille[y][c];
    }
  }
  try {
    check_limits(values);
  } catch (const std::exception& problem) {
    return fail(error, HER2_CUDA_BAD_ARGUMENT, "%s", problem.what());
  }
  return HER2_CUDA_OK;
}

}  // namespace

std::int32_t constraint_select_scratch_bytes(std::int32_t device, std::int64_t patches,
                                             std::int64_t slides, std::uint64_t* bytes,
                                             Her2CudaError* error) {
  if (patches < 0 || slides < 0) {
    return fail(error, HER2_CUDA_BAD_ARGUMENT, "need patches and slides of at least 0");
  }
  const OnDevice on(device, error);
  if (on.status() != HER2_CUDA_OK) return on.status();
  const Scratch s(nullptr, patches, slides);
  *bytes = s.bytes;
  return status_of(s.result, error);
}

std::int32_t constraint_select(const float* logits, const std::uint32_t* tumor_px,
                               std::int64_t patches, const std::int64_t* offsets,
                               const std::int64_t* labels, std::int64_t slides,
                               const Her2FractionLimits* limits, std::int32_t admissible,
                               std::uint8_t* action, std::int8_t* class_id,
                               std::uint8_t* admissible_bits, Her2SlideConstraints* out,
                               std::int64_t* fault, void* scratch,
                               std::uint64_t scratch_bytes, void* stream,
                               Her2CudaError* error) {
  const std::int32_t tables =
      check_tables(patches, slides, offsets, labels, *limits, error);
  if (tables != HER2_CUDA_OK) return tables;
  if (admissible < 0 || admissible > static_cast<int>(Admissible::kLower)) {
    return fail(error, HER2_CUDA_BAD_ARGUMENT, "need admissible of 0 to 2, got %d",
                static_cast<int>(admissible));
  }
  const OnDevice device({fault, scratch}, error);
  if (device.status() != HER2_CUDA_OK) return device.status();
  const Scratch s(scratch, patches, slides);
  if (s.result != cudaSuccess) return status_of(s.result, error);
  if (scratch_bytes < s.bytes) {
    return fail(error, HER2_CUDA_BAD_ARGUMENT, "need %llu bytes of scratch, got %llu",
                static_cast<unsigned long long>(s.bytes),
                static_cast<unsigned long long>(scratch_bytes));
  }
  auto* const queue = static_cast<cudaStream_t>(stream);
  cudaError_t result = cudaMemsetAsync(fault, 0xff, sizeof *fault, queue);
  if (result == cudaSuccess && slides > 0) {
    const OnDevice outputs({out}, error);
    if (outputs.status() != HER2_CUDA_OK) return outputs.status();
    const auto count = static_cast<std::size_t>(slides);
    result = cudaMemsetAsync(out, 0, count * sizeof *out, queue);
    if (result == cudaSuccess) {
      result = cudaMemcpyAsync(s.offsets, offsets, (count + 1) * sizeof *offsets,
                               cudaMemcpyHostToDevice, queue);
    }
    if (result == cudaSuccess) {
      result = cudaMemcpyAsync(s.labels, labels, count * sizeof *labels,
                               cudaMemcpyHostToDevice, queue);
    }
  }
  if (result != cudaSuccess || patches == 0) return status_of(result, error);
  const OnDevice arrays({logits, tumor_px, action, class_id, admissible_bits}, error);
  if (arrays.status() != HER2_CUDA_OK) return arrays.status();
  Problem p{logits,
            tumor_px,
            patches,
            slides,
            s.offsets,
            s.labels,
            {},
            static_cast<Admissible>(admissible),
            action,
            class_id,
            admissible_bits,
            out,
            reinterpret_cast<Word*>(fault)};
  std::copy_n(limits->lower_permille, kScores, p.limits.lower);
  std::copy_n(&limits->upper_permille[0][0], kScores * kScores, &p.limits.upper[0][0]);
  const dim3 grid = blocks_for(patches, kThreads);
  launch(predict, grid, dim3(kThreads), stream, p, s);
  launch(judge, blocks_for(slides, kThreads), dim3(kThreads), stream, p);
  result = take<false>(p, s, grid, stream);
  if (result == cudaSuccess) result = take<true>(p, s, grid, stream);
  return status_of(result, error);
}

}  // namespace her2fast::cuda
