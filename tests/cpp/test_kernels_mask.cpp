// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "her2fast/error.h"
#include "her2fast/kernels.h"
#include "kernels/optical_density.h"

namespace her2fast {
namespace {

using Bytes = std::vector<std::uint8_t>;

ImageView<const std::uint8_t> rgb_view(const Bytes& bytes, int height, int width) {
  return {bytes.data(), height, width, 3};
}

Bytes mask_of(const Bytes& rgb, int height, int width) {
  Bytes mask(static_cast<std::size_t>(height * width), 99);
  tissue_mask(rgb_view(rgb, height, width), Rgb{}, {mask.data(), height, width});
  return mask;
}

TEST(OpticalDensity, NoEntryOfTheTableIsNearAHalf) {
  for (int v = 2; v < 255; ++v) {
    const double exact = optical_density(v, 255) * kDensityOne;
    EXPECT_GT(std::abs(exact - std::floor(exact) - 0.5), 1e-3) << v;
  }
  EXPECT_EQ(density_table_255()[255], 0);
  EXPECT_EQ(density_table_255()[0], density_table_255()[1]);
  EXPECT_EQ(density_table_255()[1], 2464);  // 1024 * log10(255)
}

TEST(TissueMask, EveryElementIsWrittenZeroOrOne) {
  std::mt19937 random(7);
  Bytes rgb(70 * 90 * 3);
  for (auto& value : rgb) value = static_cast<std::uint8_t>(140 + random() % 100);
  int tissue = 0;
  for (const auto value : mask_of(rgb, 70, 90)) {
    ASSERT_LE(value, 1);
    tissue += value;
  }
  EXPECT_GT(tissue, 0);
}

TEST(TissueMask, ReadsAndWritesStridedViews) {
  const int height = 50, width = 60, wide = 97;
  std::mt19937 random(8);
  Bytes rgb(height * width * 3), spaced(height * wide * 3, 255);
  for (int y = 0; y < height; ++y) {
    for (int i = 0; i < width * 3; ++i) {
      rgb[y * width * 3 + i] = spaced[y * wide * 3 + i] =
          static_cast<std::uint8_t>(150 + random() % 100);
    }
  }
  Bytes out(height * wide, 77);
  tissue_mask({spaced.data(), height, width, 3, wide * 3}, Rgb{},
              {out.data(), height, width, 1, wide});
  const Bytes want = mask_of(rgb, height, width);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < wide; ++x) {
      EXPECT_EQ(out[y * wide + x], x < width ? want[y * width + x] : 77);
    }
  }
}

TEST(TissueMask, OneColumnAndOneRow) {
  EXPECT_EQ(mask_of(Bytes(3 * 40, 90), 1, 40).size(), 40u);
  EXPECT_EQ(mask_of(Bytes(3 * 40, 90), 40, 1).size(), 40u);
}

TEST(TissueMask, RefusesWrongShapesAndDevices) {
  Bytes rgb(8 * 8 * 3), out(8 * 8);
  const auto in = rgb_view(rgb, 8, 8);
  EXPECT_THROW(tissue_mask(in, Rgb{}, {out.data(), 8, 7}), std::invalid_argument);
  EXPECT_THROW(tissue_mask({rgb.data(), 8, 24, 1}, Rgb{}, {out.data(), 8, 8}),
               std::invalid_argument);
  EXPECT_THROW(tissue_mask(in, Rgb{255, 255, 127}, {out.data(), 8, 8}),
               std::invalid_argument);
  EXPECT_THROW(tissue_mask(in, Rgb{}, {out.data(), 8, 8}, Device::kCuda), DeviceError);
}

}  // namespace
}  // namespace her2fast
