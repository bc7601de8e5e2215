// SPDX-License-Identifier: Apache-2.0
#include "her2fast/islands.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <stdexcept>
#include <string>

#include "session/guideline_rule.h"

namespace her2fast {
namespace {

using Areas = std::array<std::int64_t, 4>;

/// Marks what lies within `radius` of a mark along one line of `count` cells.
void widen(const std::uint8_t* in, std::uint8_t* out, std::int64_t count,
           std::int64_t step, std::int32_t radius) {
  std::int64_t reach = -1;  // last cell that a mark seen so far covers
  std::int64_t ahead = 0;   // first cell not yet looked at
  for (std::int64_t i = 0; i < count; ++i) {
    for (; ahead < count && ahead <= i + radius; ++ahead) {
      if (in[ahead * step] != 0) reach = ahead + radius;
    }
    out[i * step] = i <= reach;
  }
}

class Sets {
 public:
  std::int32_t add() {
    parent_.push_back(static_cast<std::int32_t>(parent_.size()));
    return parent_.back();
  }
  std::int32_t find(std::int32_t x) {
    while (at(x) != x) x = at(x) = at(at(x));
    return x;
  }
  void join(std::int32_t a, std::int32_t b) { at(find(a)) = find(b); }

 private:
  std::int32_t& at(std::int32_t x) { return parent_[static_cast<std::size_t>(x)]; }
  std::vector<std::int32_t> parent_;
};

Island sum(const Island& a, const Island& b) {
  Island both;
  for (std::size_t c = 0; c < 4; ++c) {
    both.px[c] = a.px[c] + b.px[c];
    both.patches[c] = a.patches[c] + b.patches[c];
  }
  both.tissue = a.tissue + b.tissue;
  return both;
}

Island difference(const Island& a, const Island& b) {
  Island rest;
  for (std::size_t c = 0; c < 4; ++c) {
    rest.px[c] = a.px[c] - b.px[c];
    rest.patches[c] = a.patches[c] - b.patches[c];
  }
  rest.tissue = a.tissue - b.tissue;
  return rest;
}

/// Is the share of area that is of another class at least `percent`: half the sum of
/// |a_c / A - b_c / B|.
bool mixes_apart(const Island& a, const Island& b, int percent) {
  // Shares in parts of 2^20: a slide's pixels (below 2^42) times 2^20 fit 63 bits.
  std::int64_t apart = 0;
  for (std::size_t c = 0; c < 4; ++c) {
    apart += std::abs((a.px[c] << 20) / a.total() - (b.px[c] << 20) / b.total());
  }
  return 50 * apart >= static_cast<std::int64_t>(percent) << 20;
}

/// Mean class, 0 to 3, in parts of 2^20.
std::int64_t mean_class(const Island& island) {
  const std::int64_t sum = island.px[1] + 2 * island.px[2] + 3 * island.px[3];
  return (sum << 18) / island.total() * 4;
}

}  // namespace

std::int32_t label_islands(ImageView<const std::uint8_t> tissue, std::int32_t radius,
                           ImageView<std::int32_t> out) {
  if (tissue.height != out.height || tissue.width != out.width || tissue.channels != 1 ||
      out.channels != 1 || tissue.stride != tissue.width || out.stride != out.width) {
    throw std::invalid_argument(
        "need tissue and out of one shape (rows, columns), dense");
  }
  if (radius < 0 || radius > 4096) {
    throw std::invalid_argument("need 0 <= radius <= 4096, got radius=" +
                                std::to_string(radius));
  }
  const std::int64_t rows = tissue.height, columns = tissue.width;
  const auto cells = static_cast<std::size_t>(rows * columns);
  std::vector<std::uint8_t> wide(cells), widest(cells);
  for (std::int64_t r = 0; r < rows; ++r) {
    widen(tissue.data + r * columns, wide.data() + r * columns, columns, 1, radius);
  }
  for (std::int64_t c = 0; c < columns; ++c) {
    widen(wide.data() + c, widest.data() + c, rows, columns, radius);
  }
  Sets sets;
  for (std::int64_t i = 0; i < rows * columns; ++i) {
    std::int32_t& label = out.data[i];
    label = -1;
    if (widest[static_cast<std::size_t>(i)] == 0) continue;
    const std::int32_t left = i % columns > 0 ? out.data[i - 1] : -1;
    const std::int32_t above = i >= columns ? out.data[i - columns] : -1;
    label = left >= 0 ? left : above >= 0 ? above : sets.add();
    if (left >= 0 && above >= 0) sets.join(left, above);
  }
  std::vector<std::int32_t> number;
  std::int32_t count = 0;
  for (std::int64_t i = 0; i < rows * columns; ++i) {
    std::int32_t& label = out.data[i];
    if (tissue.data[i] == 0) {
      label = -1;
      continue;
    }
    const auto root = static_cast<std::size_t>(sets.find(label));
    if (root >= number.size()) number.resize(root + 1, -1);
    if (number[root] < 0) number[root] = count++;
    label = number[root];
  }
  return count;
}

IslandFinding compare_islands(const std::vector<Island>& islands,
                              std::string_view rule_set, int floor_percent,
                              const IslandLimits& limits) {
  const Rule& rule = find_rule(rule_set);
  const auto score_of = [&](const Island& island) {
    return score_areas(rule, island.px, floor_percent, &island.patches);
  };
  const Island all = std::accumulate(islands.begin(), islands.end(), Island{}, sum);
  const auto is_large = [&](const Island& island) {
    return island.total() > 0 &&
           (island.total() >= limits.min_px ||
            100 * island.total() >= limits.min_percent * all.total());
  };
  const auto is_apart = [&](const Island& a, const Island& b) {
    return std::abs(score_of(a) - score_of(b)) >= limits.scores_apart;
  };
  IslandFinding finding;
  Island small;
  std::vector<Island> compared;
  for (const Island& island : islands) {
    finding.islands += island.total() > 0;
    if (is_large(island)) {
      compared.push_back(island);
    } else {
      small = sum(small, island);
      // Rule (b) asks each small island alone too; rule (a) sees them as one.
      if (island.total() > 0 && is_apart(all, difference(all, island))) {
        finding.suspected = true;
      }
    }
  }
  if (small.total() > 0) compared.push_back(small);
  std::int64_t lowest = std::int64_t{3} << 20, highest = 0;
  for (const Island& island : islands) {
    if (!is_large(island)) continue;
    lowest = std::min(lowest, mean_class(island));
    highest = std::max(highest, mean_class(island));
  }
  // Patches taken for 3+ by mistake lift a 0 tissue's score next to a control's, not its
  // mean.
  if (2 * (highest - lowest) >= std::int64_t{limits.means_apart_halves} << 20) {
    finding.suspected = true;
  }
  std::array<Island, 4> by_score;
  for (const Island& island : compared) {
    const Island rest = difference(all, island);
    if (rest.total() >= island.total() && is_apart(all, rest)) finding.suspected = true;
    if (!is_large(island)) continue;
    Island& alike = by_score[static_cast<std::size_t>(score_of(island))];
    alike = sum(alike, island);
  }
  for (std::size_t low = 0; low < 4; ++low) {
    finding.score_px[low] = by_score[low].total();
    for (std::size_t high = low + static_cast<std::size_t>(limits.scores_apart); high < 4;
         ++high) {
      if (by_score[low].total() > 0 && by_score[high].total() > 0 &&
          mixes_apart(by_score[low], by_score[high], limits.mix_apart_percent)) {
        finding.suspected = true;
      }
    }
  }
  // The patient's tumor may be too small to be compared, or not have been found at all;
  // then all that was scored is the control.
  const int score = all.total() > 0 ? score_of(all) : 0;
  std::int64_t quiet = 0;
  for (const Island& island : islands) {
    const bool shares =
        island.total() > 0 && score - score_of(island) < limits.scores_apart;
    if (!shares) quiet += island.tissue;
  }
  if (score >= limits.scores_apart && quiet > 0 &&
      100 * quiet >= limits.quiet_percent * all.tissue) {
    finding.suspected = true;
  }
  return finding;
}

}  // namespace her2fast
