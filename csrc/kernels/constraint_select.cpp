// SPDX-License-Identifier: Apache-2.0
#include "her2fast/constraint_select.h"

#include <atomic>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/parallel.h"
#include "kernels/check.h"
#include "kernels/log_odds.h"
#include "kernels/selection_rule.h"
#include "kernels/weighted_select.h"

namespace her2fast {
namespace {

/// One slide's share of the table and of the outputs.
struct SlidePatches {
  const float* logits;
  const std::uint32_t* tumor_px;
  std::int64_t count;
  int label;
  std::uint8_t* action;
  std::int8_t* class_id;
  std::uint8_t* admissible;
};

struct Scratch {
  std::array<std::vector<std::uint32_t>, kScores> of_class;  ///< ascending
  std::vector<std::uint32_t> pool;
  std::vector<Weighted> items;
};

/// Patches by predicted class, and the areas of the classes; -1, or the first patch with
/// a logit that is not finite.
std::int64_t predict(const SlidePatches& slide, Scratch& scratch,
                     std::array<std::int64_t, kScores>& class_px) {
  if (!all_finite(slide.logits, kScores * slide.count)) {
    std::int64_t bad = 0;
    while (all_finite(slide.logits + kScores * bad, kScores)) ++bad;
    return bad;
  }
  std::array<std::uint32_t*, kScores> first, next;
  for (std::size_t c = 0; c < kScores; ++c) {
    scratch.of_class[c].resize(static_cast<std::size_t>(slide.count));
    first[c] = next[c] = scratch.of_class[c].data();
  }
  for (std::int64_t i = 0; i < slide.count; ++i) {
    const float* l = slide.logits + kScores * i;
    const std::size_t best = predicted_class(l);
    *next[best]++ = static_cast<std::uint32_t>(i);
    class_px[best] += slide.tumor_px[i];
  }
  for (std::size_t c = 0; c < kScores; ++c) {
    scratch.of_class[c].resize(static_cast<std::size_t>(next[c] - first[c]));
  }
  return -1;
}

/// What the log-odds of some patches need, each by itself in memory.
struct LogitBlock {
  static constexpr std::size_t kSize = 128;
  double own[kSize], top[kSize], middle[kSize], low[kSize];
  float odds[kSize];

  void compute_odds(std::size_t size) {
    for (std::size_t k = 0; k < size; ++k) {
      odds[k] = log_odds(own[k], top[k], middle[k], low[k]);
    }
  }
};

#if defined(__x86_64__) && defined(__GNUC__)
/// Four at once instead of two. The same operations, none of them fused: the same bits.
__attribute__((target("avx2"), flatten)) void compute_odds_avx2(LogitBlock& block,
                                                                std::size_t size) {
  block.compute_odds(size);
}

void compute_odds(LogitBlock& block, std::size_t size) {
  static const bool wide = __builtin_cpu_supports("avx2");
  if (wide) {
    compute_odds_avx2(block, size);
  } else {
    block.compute_odds(size);
  }
}
#else
void compute_odds(LogitBlock& block, std::size_t size) { block.compute_odds(size); }
#endif

/// Patches of the classes in `pool` (bits), ordered by the log-odds of class c: the
/// lowest first, or the highest. Returns their tumor pixels.
std::int64_t collect(const SlidePatches& slide, unsigned pool, int c, bool highest,
                     Scratch& scratch) {
  scratch.pool.clear();
  for (std::size_t k = 0; k < kScores; ++k) {
    if ((pool >> k & 1u) == 0) continue;
    const auto& patches = scratch.of_class[k];
    scratch.pool.insert(scratch.pool.end(), patches.begin(), patches.end());
  }
  const std::size_t count = scratch.pool.size();
  scratch.items.resize(count);
  // In blocks, so that the compiler computes the log-odds of several patches at once.
  const std::uint64_t flip = highest ? ~std::uint64_t{0} : 0;
  std::int64_t sum = 0;
  LogitBlock block;
  for (std::size_t first = 0; first < count; first += LogitBlock::kSize) {
    const std::size_t size = std::min(LogitBlock::kSize, count - first);
    for (std::size_t k = 0; k < size; ++k) {
      const float* logits = slide.logits + kScores * std::size_t{scratch.pool[first + k]};
      const OthersInOrder others(logits, c);
      block.own[k] = logits[c];
      block.top[k] = others.top;
      block.middle[k] = others.middle - others.top;
      block.low[k] = others.low - others.top;
    }
    compute_odds(block, size);
    for (std::size_t k = 0; k < size; ++k) {
      const std::uint32_t i = scratch.pool[first + k];
      const std::uint64_t key = std::uint64_t{ordered_bits(block.odds[k])} << 32 | i;
      scratch.items[first + k] = {key ^ flip, slide.tumor_px[i]};
      sum += slide.tumor_px[i];
    }
  }
  return sum;
}

/// Marks the first `count` items; returns their tumor pixels.
std::int64_t mark(const SlidePatches& slide, const std::vector<Weighted>& items,
                  std::int64_t count, bool highest, PatchAction action, int class_id,
                  std::uint8_t admissible) {
  std::int64_t sum = 0;
  for (std::int64_t k = 0; k < count; ++k) {
    const Weighted& item = items[static_cast<std::size_t>(k)];
    const auto i = static_cast<std::uint32_t>(highest ? ~item.key : item.key);
    slide.action[i] = static_cast<std::uint8_t>(action);
    slide.class_id[i] = static_cast<std::int8_t>(class_id);
    slide.admissible[i] = admissible;
    sum += item.weight;
  }
  return sum;
}

/// -1, or the first patch with a logit that is not finite.
std::int64_t select_slide(const SlidePatches& slide, const FractionLimits& limits,
                          Admissible admissible, Scratch& scratch,
                          SlideConstraints& out) {
  out = {};
  std::fill_n(slide.action, slide.count, std::uint8_t{0});
  std::fill_n(slide.class_id, slide.count, std::int8_t{-1});
  std::fill_n(slide.admissible, slide.count, std::uint8_t{0});
  const std::int64_t bad = predict(slide, scratch, out.class_px);
  if (bad >= 0) return bad;
  std::int64_t total = 0;
  for (const std::int64_t px : out.class_px) total += px;
  if (total == 0) return -1;
  const int label = slide.label;
  const auto y = static_cast<std::size_t>(label);

  for (int c = label + 1; c < kScores; ++c) {
    const auto k = static_cast<std::size_t>(c);
    const std::int64_t remaining = most_allowed(limits.upper_permille[y][k], total);
    if (out.class_px[k] <= remaining) continue;
    out.excess_px[k] = out.class_px[k] - remaining;
    const std::int64_t pool = collect(slide, 1u << c, c, false, scratch);
    const std::int64_t count = select_front(scratch.items, pool, out.excess_px[k]);
    out.pushed_px[k] = mark(slide, scratch.items, count, false, PatchAction::kUpper, c,
                            admissible_bits(admissible, c));
  }

  const std::int64_t wanted = least_wanted(limits.lower_permille[y], total);
  if (out.class_px[y] >= wanted) return -1;
  out.missing_px = wanted - out.class_px[y];
  // After the upper limits, so that this, the definite label, overwrites (Eq. 14).
  for (int away = 1; out.pulled_px < out.missing_px; ++away) {
    const unsigned around = (1u << label) >> away | (1u << label) << away;
    const std::int64_t need = out.missing_px - out.pulled_px;
    const std::int64_t pool = collect(slide, around & 15u, label, true, scratch);
    const std::int64_t count = pool < need
                                   ? static_cast<std::int64_t>(scratch.items.size())
                                   : select_front(scratch.items, pool, need);
    out.pulled_px += mark(slide, scratch.items, count, true, PatchAction::kLower, label,
                          static_cast<std::uint8_t>(1u << label));
    out.reach = away;
  }
  return -1;
}

}  // namespace

Admissible parse_admissible(std::string_view name) {
  if (name == "neighbors") return Admissible::kNeighbors;
  if (name == "complement") return Admissible::kComplement;
  if (name == "lower") return Admissible::kLower;
  throw std::invalid_argument(
      "need neighbors \"neighbors\", \"complement\" or \"lower\", got \"" +
      std::string(name) + "\"");
}

void constraint_select(const SlideTable& table, const FractionLimits& limits,
                       Admissible admissible, int workers, const SelectionView& out,
                       Device device) {
  check_device(device, "constraint_select");
  check_table(table);
  check_limits(limits);
  check_workers(workers);
  const auto patches = static_cast<std::size_t>(table.patches());
  if (out.action.size() != patches || out.class_id.size() != patches ||
      out.admissible.size() != patches || out.slides.size() != table.labels.size()) {
    throw std::invalid_argument("need an output of " + std::to_string(patches) +
                                " patches and " + std::to_string(table.slides()) +
                                " slides");
  }
  std::atomic<std::int64_t> bad{table.patches()};
  std::vector<Scratch> scratches(static_cast<std::size_t>(workers));
  parallel_for(table.slides(), workers, [&](std::int64_t i, int worker) {
    Scratch& scratch = scratches[static_cast<std::size_t>(worker)];
    const auto s = static_cast<std::size_t>(i);
    const std::int64_t begin = table.offsets[s];
    const SlidePatches slide{table.logits.data() + kScores * begin,
                             table.tumor_px.data() + begin,
                             table.offsets[s + 1] - begin,
                             static_cast<int>(table.labels[s]),
                             out.action.data() + begin,
                             out.class_id.data() + begin,
                             out.admissible.data() + begin};
    const std::int64_t place =
        select_slide(slide, limits, admissible, scratch, out.slides[s]);
    if (place < 0) return;
    // Every slide is looked at, so the message does not depend on the threads.
    std::int64_t seen = bad;
    while (begin + place < seen && !bad.compare_exchange_weak(seen, begin + place)) {
    }
  });
  if (bad < table.patches()) {
    throw std::invalid_argument("need finite logits, got another at patch " +
                                std::to_string(bad));
  }
}

}  // namespace her2fast
