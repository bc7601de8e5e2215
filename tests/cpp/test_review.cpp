// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "her2fast/bootstrap.h"
#include "her2fast/flip.h"
#include "her2fast/islands.h"

namespace her2fast {
namespace {

std::vector<KeptPatch> square(std::int32_t side, std::int32_t at = 0) {
  std::vector<KeptPatch> patches;
  for (std::int32_t i = 0; i < side * side; ++i) {
    patches.push_back({at + i % side, at + i / side, 4096, i % 2});
  }
  return patches;
}

TEST(Flip, TakesFromTheNearestClassAndKeepsTheSum) {
  const auto flip = flip_certificate({820, 90, 90, 0}, "gastric-2016", {});
  ASSERT_TRUE(flip);
  EXPECT_EQ(flip->least_px, 10);
  EXPECT_EQ(flip->to_score, 2);
  EXPECT_EQ(flip->change_px, (std::array<std::int64_t, 4>{0, -10, 10, 0}));
  EXPECT_FALSE(flip_certificate({0, 0, 0, 0}, "pham-2022", {}));
}

TEST(TumorBlocks, AreHalvedUntilThereAreEnough) {
  EXPECT_EQ(tumor_blocks(square(64), 2, 16).side_patches, 16);
  EXPECT_EQ(tumor_blocks(square(64), 2, 16).count(), 16U);
  EXPECT_EQ(tumor_blocks(square(32), 2, 16).side_patches, 8);
  EXPECT_EQ(tumor_blocks(square(3), 2, 16).side_patches, 1);
  EXPECT_EQ(tumor_blocks(square(3), 2, 16).count(), 9U);
  EXPECT_EQ(tumor_blocks({}, 2, 16).count(), 0U);
  EXPECT_THROW(tumor_blocks({}, 2, 0), std::invalid_argument);
}

TEST(TumorBlocks, KeepEveryPixelAndAreAnchoredAtTheOrigin) {
  const TumorBlocks blocks = tumor_blocks(square(64, 5), 2, 16);
  EXPECT_EQ(blocks.count(), 25U) << "5 to 68 touches five blocks a side";
  EXPECT_EQ(std::accumulate(blocks.sums.begin(), blocks.sums.end(), std::int64_t{0}),
            64 * 64 * 4097);
  // The corner block holds columns and rows 5 to 15.
  EXPECT_EQ(blocks.sums[0] + blocks.sums[1], 11 * 11 * 4096);
  EXPECT_EQ(blocks.sums[2] + blocks.sums[3], 11 * 11);
}

TEST(Bootstrap, DrawsDependOnTheCounterAlone) {
  std::set<std::size_t> seen;
  for (std::uint64_t draw = 0; draw < 500; ++draw) {
    const std::size_t block = bootstrap_draw(7, draw, 9);
    EXPECT_LT(block, 9U);
    EXPECT_EQ(block, bootstrap_draw(7, draw, 9));
    seen.insert(block);
  }
  EXPECT_EQ(seen.size(), 9U);
}

TEST(Bootstrap, TailsAreThoseOfTheTDistribution) {
  EXPECT_EQ(bootstrap_tail(1000, 8), 3U);
  EXPECT_EQ(bootstrap_tail(1000, 16), 14U);
  EXPECT_EQ(bootstrap_tail(1000, 64), 22U);
  EXPECT_EQ(bootstrap_tail(1000, 100'000), 24U);
}

TEST(Islands, RefuseViewsThatAreNotDense) {
  std::vector<std::uint8_t> tissue(12, 1);
  std::vector<std::int32_t> out(12);
  EXPECT_EQ(label_islands({tissue.data(), 3, 4}, 0, {out.data(), 3, 4}), 1);
  EXPECT_THROW(label_islands({tissue.data(), 3, 3, 1, 4}, 0, {out.data(), 3, 3}),
               std::invalid_argument);
  EXPECT_THROW(label_islands({tissue.data(), 3, 4}, 0, {out.data(), 4, 3}),
               std::invalid_argument);
  EXPECT_THROW(label_islands({tissue.data(), 3, 4}, -1, {out.data(), 3, 4}),
               std::invalid_argument);
}

TEST(Islands, TissueWithoutAPartInAHighScoreIsSuspicious) {
  const IslandLimits limits{50'000, 10, 2, 40, 20, 3};
  Island control, patient;
  control.px = {0, 0, 0, 60 * 4096};
  control.patches = {0, 0, 0, 60};
  control.tissue = 100;
  patient.tissue = 25;  // a fifth of all, no tumor found
  const auto suspected = [&](const Island& other) {
    return compare_islands({control, other}, "asco-cap-2018", 1, limits).suspected;
  };
  EXPECT_TRUE(suspected(patient));
  patient.tissue = 24;
  EXPECT_FALSE(suspected(patient));
  patient.tissue = 100;
  patient.px = {5 * 4096, 0, 0, 0};  // a 0 too small to be compared
  patient.patches = {5, 0, 0, 0};
  EXPECT_TRUE(suspected(patient));
  patient.px = {0, 0, 5 * 4096, 0};  // 2+: one below, it shares the score
  patient.patches = {0, 0, 5, 0};
  EXPECT_FALSE(suspected(patient));
}

}  // namespace
}  // namespace her2fast
