// SPDX-License-Identifier: Apache-2.0
#include "her2fast/constraint_select.h"

#include <atomic>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/check.h"
#include "kernels/log_odds.h"
#include "kernels/parallel.h"
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
  std::vector<std::uint8_t> predicted;
  std::vector<Weighted> items;
};

std::uint8_t admissible_bits(Admissible admissible, int c) {
  const unsigned below = (1u << c) >> 1, above = (2u << c) & 15u;
  switch (admissible) {
    case Admissible::kComplement:
      return static_cast<std::uint8_t>(15u & ~(1u << c));
    case Admissible::kLower:
      return static_cast<std::uint8_t>(below);
    case Admissible::kNeighbors:
      break;
  }
  return static_cast<std::uint8_t>(below | above);
}

/// Predicted classes into `predicted`, areas into `class_px`; -1, or the first patch with
/// a logit that is not finite.
std::int64_t predict(const SlidePatches& slide, std::uint8_t* predicted,
                     std::array<std::int64_t, kScores>& class_px) {
  std::array<std::int64_t, kScores> sums{};
  bool finite = true;
  for (std::int64_t i = 0; i < slide.count; ++i) {
    const float* l = slide.logits + kScores * i;
    finite &= all_finite(l);
    // The lower class where two are equal.
    const int low = l[1] > l[0], high = 2 + (l[3] > l[2]);
    const int best = l[high] > l[low] ? high : low;
    predicted[i] = static_cast<std::uint8_t>(best);
    sums[static_cast<std::size_t>(best)] += slide.tumor_px[i];
  }
  class_px = sums;
  if (finite) return -1;
  std::int64_t bad = 0;
  while (all_finite(slide.logits + kScores * bad)) ++bad;
  return bad;
}

/// Patches of the classes in `pool` (bits), ordered by the log-odds of class c: the
/// lowest first, or the highest. Returns their tumor pixels.
std::int64_t collect(const SlidePatches& slide, unsigned pool, int c, bool highest,
                     Scratch& scratch) {
  scratch.items.clear();
  std::int64_t sum = 0;
  const std::uint64_t flip = highest ? ~std::uint64_t{0} : 0;
  for (std::int64_t i = 0; i < slide.count; ++i) {
    if ((pool >> scratch.predicted[static_cast<std::size_t>(i)] & 1u) == 0) continue;
    const std::uint64_t key =
        std::uint64_t{ordered_bits(log_odds(slide.logits + kScores * i, c))} << 32 |
        static_cast<std::uint64_t>(i);
    scratch.items.push_back({key ^ flip, slide.tumor_px[i]});
    sum += slide.tumor_px[i];
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
  scratch.predicted.resize(static_cast<std::size_t>(slide.count));
  const std::int64_t bad = predict(slide, scratch.predicted.data(), out.class_px);
  if (bad >= 0) return bad;
  std::int64_t total = 0;
  for (const std::int64_t px : out.class_px) total += px;
  if (total == 0) return -1;
  const int label = slide.label;
  const auto y = static_cast<std::size_t>(label);

  for (int c = label + 1; c < kScores; ++c) {
    const auto k = static_cast<std::size_t>(c);
    // The most that may remain: 1000 * remaining < U * total, strictly.
    const std::int64_t remaining = (limits.upper_permille[y][k] * total - 1) / 1000;
    if (out.class_px[k] <= remaining) continue;
    out.excess_px[k] = out.class_px[k] - remaining;
    collect(slide, 1u << c, c, false, scratch);
    const std::int64_t count = select_front(scratch.items, out.excess_px[k]);
    out.pushed_px[k] = mark(slide, scratch.items, count, false, PatchAction::kUpper, c,
                            admissible_bits(admissible, c));
  }

  const std::int64_t wanted = (limits.lower_permille[y] * total + 999) / 1000;
  if (out.class_px[y] >= wanted) return -1;
  out.missing_px = wanted - out.class_px[y];
  // After the upper limits, so that this, the definite label, overwrites (Eq. 14).
  for (int away = 1; out.pulled_px < out.missing_px; ++away) {
    const unsigned around = (1u << label) >> away | (1u << label) << away;
    const std::int64_t need = out.missing_px - out.pulled_px;
    const std::int64_t pool = collect(slide, around & 15u, label, true, scratch);
    const std::int64_t count = pool < need
                                   ? static_cast<std::int64_t>(scratch.items.size())
                                   : select_front(scratch.items, need);
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
