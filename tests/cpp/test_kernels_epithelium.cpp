// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <set>
#include <stdexcept>
#include <vector>

#include "her2fast/error.h"
#include "her2fast/superpixel_features.h"
#include "her2fast/superpixels.h"
#include "her2fast/svm_decision.h"
#include "kernels/cielab.h"

namespace her2fast {
namespace {

struct Rgbs {
  std::int64_t height, width;
  std::vector<std::uint8_t> values;

  Rgbs(std::int64_t height_, std::int64_t width_, std::uint8_t value)
      : height(height_),
        width(width_),
        values(static_cast<std::size_t>(height_ * width_ * 3), value) {}
  ImageView<const std::uint8_t> view() const { return {values.data(), height, width, 3}; }
};

TEST(Superpixels, KeepToASharpEdge) {
  Rgbs rgb(64, 64, 230);
  for (std::size_t i = 0; i < rgb.values.size(); ++i) {
    if (i / 3 % 64 >= 29) rgb.values[i] = std::array<std::uint8_t, 3>{120, 70, 40}[i % 3];
  }
  std::vector<std::int32_t> labels(64 * 64);
  const std::int32_t count = superpixels(rgb.view(), {}, {labels.data(), 64, 64});
  EXPECT_GE(count, 12);
  EXPECT_LE(count, 16);
  std::set<std::int32_t> left, right;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    (i % 64 < 29 ? left : right).insert(labels[i]);
  }
  for (const std::int32_t label : left) EXPECT_EQ(right.count(label), 0U);
  EXPECT_EQ(static_cast<std::int32_t>(left.size() + right.size()), count);
}

TEST(Superpixels, FillPicturesOfAnyShape) {
  std::mt19937 random(7);
  for (const auto& [height, width] :
       {std::pair<int, int>{1, 1}, {1, 90}, {90, 1}, {33, 47}, {130, 20}}) {
    Rgbs rgb(height, width, 0);
    for (std::uint8_t& value : rgb.values) value = static_cast<std::uint8_t>(random());
    std::vector<std::int32_t> labels(static_cast<std::size_t>(height * width), -7);
    const std::int32_t count =
        superpixels(rgb.view(), {5, 3.0, 6}, {labels.data(), height, width});
    const std::set<std::int32_t> seen(labels.begin(), labels.end());
    EXPECT_EQ(static_cast<std::int32_t>(seen.size()), count);
    EXPECT_EQ(*seen.begin(), 0);
    EXPECT_EQ(*seen.rbegin(), count - 1);
  }
}

TEST(Superpixels, RefuseWhatIsOutOfRange) {
  const Rgbs rgb(8, 8, 0);
  std::vector<std::int32_t> labels(64);
  const ImageView<std::int32_t> out(labels.data(), 8, 8);
  EXPECT_THROW(superpixels(rgb.view(), {1, 10.0, 10}, out), std::invalid_argument);
  EXPECT_THROW(superpixels(rgb.view(), {16, NAN, 10}, out), std::invalid_argument);
  EXPECT_THROW(superpixels(rgb.view(), {16, 10.0, 0}, out), std::invalid_argument);
  EXPECT_THROW(superpixels(rgb.view(), {}, {labels.data(), 8, 7}), std::invalid_argument);
  EXPECT_THROW(superpixels(rgb.view(), {}, out, Device::kCuda), DeviceError);
}

TEST(Cielab, OfKnownColors) {
  // Lindbloom's calculator, D65: red 53.24, 80.09, 67.20; white 100, 0, 0.
  const auto of = [](std::array<std::uint8_t, 3> rgb) {
    return to_lab(lab_tables(), rgb.data());
  };
  const Lab red = of({255, 0, 0}), white = of({255, 255, 255}), black = of({0, 0, 0});
  EXPECT_NEAR(red.l / 64.0, 53.24, 0.05);
  EXPECT_NEAR(red.a / 64.0, 80.09, 0.1);
  EXPECT_NEAR(red.b / 64.0, 67.20, 0.1);
  EXPECT_EQ(white.l, 6400);
  EXPECT_NEAR(white.a, 0, 2);
  EXPECT_NEAR(white.b, 0, 2);
  EXPECT_NEAR(black.l, 0, 1);
}

TEST(LocalPatterns, WorkedByHand) {
  // The corner's bilinear value is 3.8 with a 1 in it, 5.3 with a 4.
  std::array<std::uint8_t, 9> gray = {1, 1, 1, 1, 5, 9, 1, 5, 1};
  std::array<std::uint8_t, 9> patterns;
  local_patterns({gray.data(), 3, 3}, {patterns.data(), 3, 3});
  EXPECT_EQ(patterns[4], 9);
  gray[8] = 4;
  local_patterns({gray.data(), 3, 3}, {patterns.data(), 3, 3});
  EXPECT_EQ(patterns[4], 3);
}

TEST(SuperpixelFeatures, CountByHand) {
  const Rgbs rgb(3, 4, 200);
  std::vector<std::int32_t> labels = {0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1};
  std::vector<std::uint32_t> counts(2 * kSuperpixelFeatures, 99);
  superpixel_features(rgb.view(), {labels.data(), 3, 4}, {255, 255, 255},
                      {counts.data(), 2, kSuperpixelFeatures});
  for (int k = 0; k < 2; ++k) {
    const std::uint32_t* const own = counts.data() + k * kSuperpixelFeatures;
    EXPECT_EQ(own[200 / 8], 6U);
    EXPECT_EQ(own[kColorBins + 200 / 8], 6U);
    // a* and b* of gray are 0.
    EXPECT_EQ(own[3 * kColorBins + 12] + own[3 * kColorBins + 11], 6U);
    EXPECT_EQ(own[4 * kColorBins + 16] + own[4 * kColorBins + 15], 6U);
    // Flat: all eight are as light. Only two pixels have eight neighbors.
    EXPECT_EQ(own[kColorPlanes * kColorBins + 8], 1U);
  }
  std::vector<std::int16_t> features(counts.size());
  superpixel_roots({counts.data(), 2, kSuperpixelFeatures},
                   {features.data(), 2, kSuperpixelFeatures});
  EXPECT_EQ(features[200 / 8], kFeatureOne);
  labels[5] = 2;
  EXPECT_THROW(superpixel_features(rgb.view(), {labels.data(), 3, 4}, {255, 255, 255},
                                   {counts.data(), 2, kSuperpixelFeatures}),
               std::invalid_argument);
}

TEST(SvmDecision, OfTwoVectors) {
  const std::vector<std::int16_t> row = {3, 4};
  const std::vector<std::int16_t> vectors = {3, 4, 0, 0};
  const std::vector<double> coefficients = {2.0, -1.0};
  std::vector<double> out(1);
  svm_decision({row.data(), 1, 2}, {vectors.data(), 2, 2}, coefficients, 0.5, 0.01, out);
  EXPECT_NEAR(out[0], 2.0 - std::exp(-0.25) + 0.5, 1e-10);
  // Beyond where the exponential counts.
  svm_decision({row.data(), 1, 2}, {vectors.data(), 2, 2}, coefficients, 0.5, 1e9, out);
  EXPECT_EQ(out[0], 2.5);
  EXPECT_THROW(svm_decision({row.data(), 1, 2}, {vectors.data(), 2, 2}, coefficients, 0.5,
                            0.0, out),
               std::invalid_argument);
  const std::vector<std::int16_t> wrong = {3, -4};
  EXPECT_THROW(svm_decision({wrong.data(), 1, 2}, {vectors.data(), 2, 2}, coefficients,
                            0.5, 0.01, out),
               std::invalid_argument);
}

}  // namespace
}  // namespace her2fast
