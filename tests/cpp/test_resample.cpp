// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <stdexcept>
#include <vector>

#include "her2fast/error.h"
#include "io/resample.h"

namespace her2fast {
namespace {

using Pixels = std::vector<std::uint8_t>;

Pixels noise(std::int64_t width, std::int64_t height, unsigned seed) {
  std::mt19937 random(seed);
  Pixels rgb(static_cast<std::size_t>(width * height * 3));
  for (auto& v : rgb) v = static_cast<std::uint8_t>(random());
  return rgb;
}

Pixels resampled(const Pixels& source, AxisStep step_x, std::int64_t x,
                 std::int64_t width, AxisStep step_y, std::int64_t y,
                 std::int64_t height) {
  AxisWeights across, down;
  across.plan(step_x, x, width);
  down.plan(step_y, y, height);
  Pixels out(static_cast<std::size_t>(width * height * 3));
  ResampleScratch scratch;
  resample({source.data(), down.source_px(), across.source_px(), 3}, across, down,
           {out.data(), height, width, 3}, scratch);
  return out;
}

/// The definition, pixel by pixel, in 64-bit integers.
Pixels slow(const Pixels& source, AxisStep step_x, std::int64_t x, std::int64_t width,
            AxisStep step_y, std::int64_t y, std::int64_t height) {
  AxisWeights across, down;
  across.plan(step_x, x, width);
  down.plan(step_y, y, height);
  Pixels out(static_cast<std::size_t>(width * height * 3));
  for (std::int64_t j = 0; j < height; ++j) {
    for (std::int64_t i = 0; i < width; ++i) {
      for (int c = 0; c < 3; ++c) {
        std::uint64_t total = std::uint64_t{1} << 31;
        for (int v = 0; v < down.taps(j); ++v) {
          for (int u = 0; u < across.taps(i); ++u) {
            const auto at =
                ((down.start(j) + v) * across.source_px() + across.start(i) + u) * 3 + c;
            total += static_cast<std::uint64_t>(down.weights(j)[v]) *
                     static_cast<std::uint64_t>(across.weights(i)[u]) *
                     source[static_cast<std::size_t>(at)];
          }
        }
        out[static_cast<std::size_t>((j * width + i) * 3 + c)] =
            static_cast<std::uint8_t>(total >> 32);
      }
    }
  }
  return out;
}

TEST(Resample, TwoByTwoIsTheMeanRoundedHalfUp) {
  // By hand: (1+2+3+4)/4 = 2.5 -> 3; (0+0+0+1)/4 = .25 -> 0; (0+0+1+1)/4 = .5 -> 1.
  const Pixels source{1, 0, 0, 2, 0, 0, 3, 0, 1, 4, 1, 1};
  EXPECT_EQ(resampled(source, {2, 1}, 0, 1, {2, 1}, 0, 1), (Pixels{3, 0, 1}));
}

TEST(Resample, ThreePixelsBecomeTwoByHand) {
  // step 3/2: pixel 0 has shares 2/3 and 1/3: 43691, 21845; pixel 1 has 1/3 and 2/3.
  AxisWeights weights;
  weights.plan({3, 2}, 0, 2);
  ASSERT_EQ(weights.source_px(), 3);
  EXPECT_EQ(weights.weights(0)[0], 43691);
  EXPECT_EQ(weights.weights(0)[1], 21845);
  EXPECT_EQ(weights.start(1), 1);
  EXPECT_EQ(weights.weights(1)[0], 21845);
  EXPECT_EQ(weights.weights(1)[1], 43691);
  // 0, 90, 255: (21845 * 90) / 65536 = 29.9995 -> 30; (21845 * 90 + 43691 * 255) / 65536
  // = 200.0008
  const Pixels source{0, 0, 0, 90, 90, 90, 255, 255, 255};
  EXPECT_EQ(resampled(source, {3, 2}, 0, 2, {1, 1}, 0, 1),
            (Pixels{30, 30, 30, 200, 200, 200}));
}

TEST(Resample, WeightsSumTo65536AndNegativeIndicesKeepThePhase) {
  for (const AxisStep step :
       {AxisStep{25, 24}, {99, 100}, {1000000, 243907}, {7, 3}, {300, 7}}) {
    AxisWeights weights;
    weights.plan(step, -37, 80);
    for (std::int64_t i = 0; i < 80; ++i) {
      double sum = 0;
      for (int t = 0; t < weights.max_taps(); ++t) sum += weights.weights(i)[t];
      EXPECT_EQ(sum, 65536) << step.num << "/" << step.den << " at " << i;
    }
    const SourceSpan span = source_span(step, -37, 80);
    EXPECT_EQ(span.end - span.first, weights.source_px());
  }
}

TEST(Resample, EveryPathGivesTheBitsOfTheDefinition) {
  const AxisStep steps[] = {
      {1, 1},   {2, 1},    {4, 1},     {8, 1}, {16, 1},           {3, 1},
      {25, 24}, {99, 100}, {101, 100}, {7, 3}, {1000000, 243907}, {20, 1},
      {4, 3},   {6, 5}};  // means of these often end in exactly a half
  unsigned seed = 0;
  for (const AxisStep sx : steps) {
    for (const AxisStep sy : steps) {
      const std::int64_t x = static_cast<int>(seed % 23) - 11;
      const std::int64_t y = static_cast<int>(seed % 17) - 8;
      const SourceSpan a = source_span(sx, x, 19);
      const SourceSpan b = source_span(sy, y, 7);
      const Pixels source = noise(a.end - a.first, b.end - b.first, ++seed);
      EXPECT_EQ(resampled(source, sx, x, 19, sy, y, 7), slow(source, sx, x, 19, sy, y, 7))
          << sx.num << "/" << sx.den << " " << sy.num << "/" << sy.den;
    }
  }
}

TEST(Resample, ValuesNextToAHalfAreRoundedAsDefined) {
  // So many that some lie closer to a half than floats can tell.
  for (const AxisStep step : {AxisStep{5, 4}, {25, 24}, {8, 7}, {1000000, 243907}}) {
    const SourceSpan span = source_span(step, 3, 151);
    const std::int64_t side = span.end - span.first;
    const Pixels source = noise(side, side, 77);
    EXPECT_EQ(resampled(source, step, 3, 151, step, 3, 151),
              slow(source, step, 3, 151, step, 3, 151))
        << step.num << "/" << step.den;
  }
}

TEST(Resample, TilesSideBySideAreTheWholePicture) {
  std::mt19937 random(9);
  for (const AxisStep step : {AxisStep{5, 4}, {25, 24}, {7, 3}, {99, 100}}) {
    AxisWeights x, y;
    x.plan(step, -4, 41);
    y.plan(step, 6, 33);
    const Pixels whole = noise(x.source_px(), y.source_px(), random());
    const ImageView<const std::uint8_t> view{whole.data(), y.source_px(), x.source_px(),
                                             3};
    SourceTiles source;
    const auto cut = [&](std::int64_t length, std::vector<std::int64_t>& edges) {
      edges = {0};
      while (edges.back() < length) {
        const auto side = static_cast<std::int64_t>(random() % 20 + 1);
        edges.push_back(std::min(length, edges.back() + side));
      }
    };
    cut(view.width, source.x);
    cut(view.height, source.y);
    for (std::size_t row = 0; row + 1 < source.y.size(); ++row) {
      for (std::size_t column = 0; column + 1 < source.x.size(); ++column) {
        source.tiles.push_back({view.row(source.y[row]) + 3 * source.x[column],
                                source.y[row + 1] - source.y[row],
                                source.x[column + 1] - source.x[column], 3, view.stride});
      }
    }
    Pixels want(41 * 33 * 3), got(want.size());
    ResampleScratch scratch;
    resample(view, x, y, {want.data(), 33, 41, 3}, scratch);
    resample(source, x, y, {got.data(), 33, 41, 3}, scratch);
    EXPECT_EQ(got, want);

    SourceTiles fewer = source;
    fewer.tiles.pop_back();
    EXPECT_THROW(resample(fewer, x, y, {got.data(), 33, 41, 3}, scratch),
                 std::invalid_argument);
    SourceTiles narrower = source;
    --narrower.tiles.front().width;
    EXPECT_THROW(resample(narrower, x, y, {got.data(), 33, 41, 3}, scratch),
                 std::invalid_argument);
  }
}

TEST(Resample, WhiteStaysWhiteAndBlackBlack) {
  for (const std::uint8_t value : {std::uint8_t{0}, std::uint8_t{255}}) {
    const AxisStep step{1000000, 243907};
    const SourceSpan span = source_span(step, 5, 40);
    const std::int64_t side = span.end - span.first;
    const Pixels source(static_cast<std::size_t>(side * side * 3), value);
    EXPECT_EQ(resampled(source, step, 5, 40, step, 5, 40), Pixels(40 * 40 * 3, value));
  }
}

TEST(Resample, HugeFractionsTakeTheWidePathToTheSameWeights) {
  // The same step once in lowest terms and once beyond 2^44, where products need 128
  // bits.
  const std::int64_t scale = std::int64_t{1} << 40;
  AxisWeights small, large;
  small.plan({103, 25}, -11, 60);
  large.plan({103 * scale, 25 * scale}, -11, 60);
  ASSERT_EQ(small.max_taps(), large.max_taps());
  for (std::int64_t i = 0; i < 60; ++i) {
    EXPECT_EQ(small.start(i), large.start(i));
    for (int t = 0; t < small.max_taps(); ++t) {
      EXPECT_EQ(small.weights(i)[t], large.weights(i)[t]);
    }
  }
}

TEST(Resample, StepsAreInLowestTermsAndBounded) {
  EXPECT_EQ(source_step(Spacing{1000000}, Spacing{250000}, 4, 1, 1), (AxisStep{1, 1}));
  EXPECT_EQ(source_step(Spacing{1000000}, Spacing{240000}, 4, 1, 1), (AxisStep{25, 24}));
  EXPECT_EQ(source_step(Spacing{1000000}, Spacing{250000}, 1, 1, 4), (AxisStep{1, 1}));
  EXPECT_THROW(source_step(Spacing{(std::int64_t{1} << 40) - 1}, Spacing{1999993}, 1,
                           (std::int64_t{1} << 26) - 5, 1),
               Error);
}

TEST(Resample, RefusesOtherShapes) {
  AxisWeights weights;
  weights.plan({2, 1}, 0, 4);
  Pixels source(8 * 8 * 3), out(4 * 4 * 3);
  ResampleScratch scratch;
  EXPECT_THROW(resample({source.data(), 8, 7, 3}, weights, weights, {out.data(), 4, 4, 3},
                        scratch),
               std::invalid_argument);
  EXPECT_THROW(resample({source.data(), 8, 8, 3}, weights, weights, {out.data(), 4, 3, 3},
                        scratch),
               std::invalid_argument);
}

}  // namespace
}  // namespace her2fast
