// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "her2fast/error.h"
#include "her2fast/kernels.h"

namespace her2fast {
namespace {

using Bytes = std::vector<std::uint8_t>;

TEST(TumorCount, CountsByHand) {
  const Bytes mask = {1, 0, 9, 0, 255, 1, 1, 1, 0};
  std::vector<std::uint32_t> out(4, 99);
  tumor_count({mask.data(), 3, 3}, {2, 1}, {out.data(), 2, 2});
  EXPECT_EQ(out, (std::vector<std::uint32_t>{2, 3, 3, 3}));
}

TEST(TumorCount, LongRowsDoNotWrapTheByteLanes) {
  const Bytes mask(4096 * 3, 200);
  std::vector<std::uint32_t> out(1);
  tumor_count({mask.data(), 3, 4096}, {3, 4096}, {out.data(), 1, 1});
  EXPECT_EQ(out[0], 9u);
  const Bytes square(4096 * 4096, 1);
  tumor_count({square.data(), 4096, 4096}, {4096, 1}, {out.data(), 1, 1});
  EXPECT_EQ(out[0], 4096u * 4096u);
}

TEST(TumorCount, RefusesAnotherShape) {
  const Bytes mask(64);
  std::vector<std::uint32_t> out(16);
  EXPECT_THROW(tumor_count({mask.data(), 8, 8}, {2, 2}, {out.data(), 4, 3}),
               std::invalid_argument);
  EXPECT_THROW(
      tumor_count({mask.data(), 8, 8}, {2, 2}, {out.data(), 4, 4}, Device::kCuda),
      DeviceError);
}

TEST(Focus, SmallImagesAndFlatOnesCannotTell) {
  const Bytes rgb(8 * 8 * 3, 120), mask(64, 1);
  std::vector<std::uint32_t> out(4, 99);
  focus({rgb.data(), 8, 8, 3}, {mask.data(), 8, 8}, {4, 4}, {out.data(), 2, 2});
  EXPECT_EQ(out, (std::vector<std::uint32_t>{0, 0, 0, 0}));
  std::vector<std::uint32_t> tiny(9, 99);
  focus({rgb.data(), 3, 3, 3}, {mask.data(), 3, 3}, {1, 1}, {tiny.data(), 3, 3});
  EXPECT_EQ(tiny, std::vector<std::uint32_t>(9, 0));
}

TEST(StainUnmix, TwoStainsAddUp) {
  const StainMatrix stains = StainMatrix::h_dab();
  Bytes rgb(3);
  for (int c = 0; c < 3; ++c) {
    const double density = 0.3 * stains.rows[0][c] + 0.2 * stains.rows[1][c];
    rgb[c] = static_cast<std::uint8_t>(std::lround(255 * std::pow(10.0, -density)));
  }
  float out[3];
  stain_unmix({rgb.data(), 1, 1, 3}, Rgb{}, stains, {out, 1, 1, 3});
  EXPECT_NEAR(out[0], 0.3, 0.005);
  EXPECT_NEAR(out[1], 0.2, 0.005);
  EXPECT_NEAR(out[2], 0.0, 0.005);
}

TEST(StainUnmix, RefusesStainsThatCannotBeToldApart) {
  const Bytes rgb(3);
  float out[3];
  StainMatrix same = StainMatrix::h_dab();
  same.rows[2] = same.rows[0];
  EXPECT_THROW(stain_unmix({rgb.data(), 1, 1, 3}, Rgb{}, same, {out, 1, 1, 3}),
               std::invalid_argument);
  EXPECT_THROW(stain_unmix({rgb.data(), 1, 1, 3}, Rgb{0, 255, 255}, StainMatrix::h_dab(),
                           {out, 1, 1, 3}),
               std::invalid_argument);
}

TEST(StainCensus, RowsLongerThanAChunkAllCount) {
  const Bytes rgb(2 * 1300 * 3, 100), mask(2 * 1300, 1);
  const StainCensus census =
      stain_census({rgb.data(), 2, 1300, 3}, {mask.data(), 2, 1300}, Rgb{});
  EXPECT_EQ(census.pixels, 2600);
  EXPECT_EQ(census.tissue, 2600);
  EXPECT_EQ(census.stained, 2600);
  EXPECT_EQ(census.dark, 0);
  StainCensus twice = census;
  twice += census;
  EXPECT_EQ(twice.stained, 5200);
}

TEST(StainCensus, NothingIsNotWrong) { EXPECT_FALSE(is_wrong_stain(StainCensus{})); }

}  // namespace
}  // namespace her2fast
