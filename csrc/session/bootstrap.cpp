// SPDX-License-Identifier: Apache-2.0
#include "her2fast/bootstrap.h"

#include <algorithm>
#include <stdexcept>

#include "session/guideline_rule.h"

namespace her2fast {
namespace {

// Any constant will do; it is part of what a record means, so it never changes.
constexpr std::uint64_t kSeed = 0x4845523246415354;  // "HER2FAST"
constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15;

/// The output function of splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
constexpr std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

TumorBlocks blocks_of_side(const std::vector<KeptPatch>& patches, std::size_t classes,
                           std::int32_t side) {
  TumorBlocks blocks{classes, side, {}};
  std::int32_t right = 0, bottom = 0;
  for (const KeptPatch& patch : patches) {
    right = std::max(right, patch.column);
    bottom = std::max(bottom, patch.row);
  }
  const std::int32_t columns = right / side + 1, rows = bottom / side + 1;
  // Division is what costs here: once per patch, and the places are kept.
  std::vector<std::size_t> places;
  places.reserve(patches.size());
  std::vector<std::int32_t> number(
      static_cast<std::size_t>(columns) * static_cast<std::size_t>(rows), -1);
  for (const KeptPatch& patch : patches) {
    places.push_back(static_cast<std::size_t>(patch.row / side) *
                         static_cast<std::size_t>(columns) +
                     static_cast<std::size_t>(patch.column / side));
    number[places.back()] = 0;
  }
  std::int32_t count = 0;
  for (std::int32_t& n : number) {
    if (n == 0) n = count++;
  }
  blocks.sums.assign(static_cast<std::size_t>(count) * 2 * classes, 0);
  for (std::size_t i = 0; i < patches.size(); ++i) {
    std::int64_t* sums =
        blocks.sums.data() + static_cast<std::size_t>(number[places[i]]) * 2 * classes;
    const auto c = static_cast<std::size_t>(patches[i].predicted);
    sums[c] += patches[i].tumor_px;
    ++sums[classes + c];
  }
  return blocks;
}

void check(const TumorBlocks& blocks, const std::optional<std::string>& rule_set,
           int replicates) {
  if (replicates < 0 || replicates > 100'000) {
    throw std::invalid_argument("need 0 <= replicates <= 100000, got replicates=" +
                                std::to_string(replicates));
  }
  if (rule_set && blocks.classes != 4) {
    throw std::invalid_argument("need four classes for a rule set, got " +
                                std::to_string(blocks.classes));
  }
  for (std::size_t b = 0; b < blocks.count(); ++b) {
    std::int64_t tumor = 0;
    for (std::size_t c = 0; c < 2 * blocks.classes; ++c) {
      const std::int64_t sum = blocks.sums[b * 2 * blocks.classes + c];
      // Blocks x 2^40 px stay far below 2^63, and a slide far below 2^53.
      if (sum < 0 || sum >= std::int64_t{1} << 40) {
        throw std::invalid_argument("need block sums in [0, 2^40), got " +
                                    std::to_string(sum));
      }
      if (c < blocks.classes) tumor += sum;
    }
    if (tumor == 0) throw std::invalid_argument("need tumor in every block");
  }
}

}  // namespace

TumorBlocks tumor_blocks(const std::vector<KeptPatch>& patches, std::size_t classes,
                         std::int32_t side_patches) {
  if (side_patches < 1) {
    throw std::invalid_argument("need side_patches >= 1, got side_patches=" +
                                std::to_string(side_patches));
  }
  for (std::int32_t side = side_patches;; side /= 2) {
    TumorBlocks blocks = blocks_of_side(patches, classes, side);
    if (blocks.count() >= kBootstrapMinBlocks || side == 1) return blocks;
  }
}

std::size_t bootstrap_draw(std::uint64_t replicate, std::uint64_t draw,
                           std::size_t blocks) {
  const std::uint64_t counter = (replicate << 32) + draw + 1;
  // The upper 32 bits times `blocks`: a bias below blocks / 2^32, the same everywhere.
  return static_cast<std::size_t>(((mix(kSeed + kGolden * counter) >> 32) * blocks) >>
                                  32);
}

std::optional<Bootstrap> bootstrap(const TumorBlocks& blocks,
                                   const std::optional<std::string>& rule_set,
                                   int floor_percent, int replicates) {
  check(blocks, rule_set, replicates);
  const Rule* rule = rule_set ? &find_rule(*rule_set) : nullptr;
  const std::size_t count = blocks.count(), classes = blocks.classes;
  if (count < kBootstrapMinBlocks || replicates == 0) return std::nullopt;
  Bootstrap result;
  result.replicates = replicates;
  result.blocks = static_cast<std::int64_t>(count);
  std::vector<std::vector<double>> fractions(classes);
  std::vector<std::int64_t> sums(2 * classes);
  for (int r = 0; r < replicates; ++r) {
    std::fill(sums.begin(), sums.end(), 0);
    for (std::size_t d = 0; d < count; ++d) {
      const std::size_t block = bootstrap_draw(static_cast<std::uint64_t>(r), d, count);
      const std::int64_t* from = blocks.sums.data() + block * 2 * classes;
      for (std::size_t i = 0; i < 2 * classes; ++i) sums[i] += from[i];
    }
    std::int64_t total = 0;
    for (std::size_t c = 0; c < classes; ++c) total += sums[c];
    for (std::size_t c = 0; c < classes; ++c) {
      fractions[c].push_back(static_cast<double>(sums[c]) / static_cast<double>(total));
    }
    if (rule != nullptr) {
      std::array<std::int64_t, 4> areas{}, patches{};
      std::copy_n(sums.begin(), 4, areas.begin());
      std::copy_n(sums.begin() + 4, 4, patches.begin());
      const int score = score_areas(*rule, areas, floor_percent, &patches);
      ++result.score_counts[static_cast<std::size_t>(score)];
    }
  }
  const std::size_t tail = bootstrap_tail(static_cast<std::size_t>(replicates), count);
  for (std::vector<double>& values : fractions) {
    std::sort(values.begin(), values.end());
    result.intervals.push_back({values[tail], values[values.size() - 1 - tail]});
  }
  return result;
}

}  // namespace her2fast
