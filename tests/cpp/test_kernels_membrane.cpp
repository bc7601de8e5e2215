// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <vector>

#include "her2fast/membrane.h"
#include "her2fast/membrane_prune.h"

namespace her2fast {
namespace {

struct Picture {
  std::int32_t width, height;
  std::vector<std::uint8_t> mask, density;
};

/// Blocks of random size, so that components cross many tiles.
Picture random_picture(std::mt19937& random) {
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  Picture out{pick(1, 90), pick(1, 90), {}, {}};
  const int grain = pick(1, 4), share = pick(5, 95);
  const int columns = out.width / grain + 1;
  std::vector<bool> coarse(static_cast<std::size_t>(columns * (out.height / grain + 1)));
  for (std::size_t i = 0; i < coarse.size(); ++i) coarse[i] = pick(0, 99) < share;
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      const bool set = coarse[static_cast<std::size_t>(y / grain * columns + x / grain)];
      out.mask.push_back(set ? static_cast<std::uint8_t>(pick(1, 255)) : 0);
      out.density.push_back(static_cast<std::uint8_t>(pick(0, 255)));
    }
  }
  return out;
}

MembraneTable merge(const Picture& picture, std::int32_t tile_w, std::int32_t tile_h,
                    std::mt19937& random) {
  MembraneMerge merger(picture.width, picture.height, tile_w, tile_h);
  std::vector<std::pair<int, int>> places;
  for (int y = 0; y * tile_h < picture.height; ++y) {
    for (int x = 0; x * tile_w < picture.width; ++x) places.emplace_back(x, y);
  }
  std::ranges::shuffle(places, random);
  for (const auto& [x, y] : places) {
    const std::int64_t at = std::int64_t{y} * tile_h * picture.width + x * tile_w;
    const std::int64_t w = std::min(tile_w, picture.width - x * tile_w);
    const std::int64_t h = std::min(tile_h, picture.height - y * tile_h);
    merger.add(x, y,
               membrane_label({picture.mask.data() + at, h, w, 1, picture.width},
                              {picture.density.data() + at, h, w, 1, picture.width}));
  }
  EXPECT_EQ(merger.open_components(), 0);
  merger.finish();
  return merger.take();
}

TEST(MembraneMerge, AnyTilingInAnyOrderIsTheWhole) {
  std::mt19937 random(11);
  for (int round = 0; round < 300; ++round) {
    const Picture picture = random_picture(random);
    const auto side = [&] { return std::uniform_int_distribution<int>(1, 40)(random); };
    const MembraneTable whole = merge(picture, 100, 100, random);
    const MembraneTable tiled = merge(picture, side(), side(), random);
    ASSERT_EQ(tiled.membranes.size(), whole.membranes.size());
    ASSERT_EQ(tiled.compartments.size(), whole.compartments.size());
    std::int64_t px = 0;
    for (std::size_t i = 0; i < whole.membranes.size(); ++i) {
      const Membrane &a = tiled.membranes[i], &b = whole.membranes[i];
      px += a.px;
      EXPECT_EQ(a.x, b.x);
      EXPECT_EQ(a.y, b.y);
      EXPECT_EQ(a.px, b.px);
      EXPECT_EQ(a.compartments, b.compartments);
      EXPECT_EQ(a.enclosed_px, b.enclosed_px);
      EXPECT_EQ(a.perimeter_px, b.perimeter_px);
      EXPECT_EQ(a.length_px, b.length_px);
      EXPECT_EQ(a.density_mean, b.density_mean);
      EXPECT_EQ(a.density_percentile, b.density_percentile);
      EXPECT_EQ(a.cut, b.cut);
      EXPECT_EQ(a.box.x1, b.box.x1);
      EXPECT_EQ(a.box.y1, b.box.y1);
    }
    EXPECT_EQ(px, std::ranges::count_if(picture.mask, [](int v) { return v != 0; }));
    for (std::size_t i = 0; i < whole.compartments.size(); ++i) {
      const Compartment &a = tiled.compartments[i], &b = whole.compartments[i];
      EXPECT_EQ(a.px, b.px);
      EXPECT_EQ(a.membrane_x, b.membrane_x);
      EXPECT_EQ(a.membrane_y, b.membrane_y);
    }
  }
}

TEST(MembraneMerge, TilesThatNeverCome) {
  std::mt19937 random(12);
  for (int round = 0; round < 100; ++round) {
    const Picture picture = random_picture(random);
    MembraneMerge merger(picture.width, picture.height, 10, 10);
    std::int64_t px = 0;
    for (int y = 0; y * 10 < picture.height; ++y) {
      for (int x = 0; x * 10 < picture.width; ++x) {
        if (random() % 3 == 0) continue;
        const std::int64_t w = std::min(10, picture.width - x * 10);
        const std::int64_t h = std::min(10, picture.height - y * 10);
        const std::uint8_t* at = picture.mask.data() + y * 10 * picture.width + x * 10;
        for (std::int64_t i = 0; i < h * w; ++i) {
          px += at[i / w * picture.width + i % w] != 0;
        }
        merger.add(x, y, membrane_label({at, h, w, 1, picture.width}));
      }
    }
    merger.finish();
    std::int64_t found = 0;
    for (const Membrane& membrane : merger.take().membranes) found += membrane.px;
    EXPECT_EQ(found, px);
    EXPECT_EQ(merger.open_components(), 0);
  }
}

TEST(MembraneMerge, BadInputChangesNothing) {
  const std::vector<std::uint8_t> ones(16, 1);
  const MembraneTile tile = membrane_label({ones.data(), 4, 4});
  MembraneMerge merger(8, 4, 4, 4);
  merger.add(0, 0, tile);
  EXPECT_THROW(merger.add(0, 0, tile), std::invalid_argument);
  EXPECT_THROW(merger.add(2, 0, tile), std::invalid_argument);
  EXPECT_THROW(merger.add(1, 0, membrane_label({ones.data(), 2, 4})),
               std::invalid_argument);
  merger.add(1, 0, tile);
  EXPECT_EQ(merger.take().membranes.at(0).px, 32);
  EXPECT_THROW(membrane_label({ones.data(), 4, 0}), std::invalid_argument);
  EXPECT_THROW(MembraneMerge(4, 4, 0, 4), std::invalid_argument);
}

TEST(MembranePrune, PartsWithEnoughRoundThemAreTheWhole) {
  std::mt19937 random(13);
  for (int round = 0; round < 60; ++round) {
    const Picture picture = random_picture(random);
    const auto size = picture.mask.size();
    std::vector<std::uint8_t> whole(size), again(size);
    const int length = static_cast<int>(random() % 6);
    membrane_prune({picture.mask.data(), picture.height, picture.width}, length,
                   {whole.data(), picture.height, picture.width});
    const std::int64_t halo = prune_reach_px(length);
    const std::int64_t side = 20 + 2 * halo;
    for (std::int64_t y0 = 0; y0 < picture.height; y0 += 20) {
      for (std::int64_t x0 = 0; x0 < picture.width; x0 += 20) {
        std::vector<std::uint8_t> part(static_cast<std::size_t>(side * side)), out(part);
        const auto copy = [&](auto use) {
          for (std::int64_t y = 0; y < side; ++y) {
            for (std::int64_t x = 0; x < side; ++x) {
              const std::int64_t to_y = y0 + y - halo, to_x = x0 + x - halo;
              if (to_y < 0 || to_x < 0 || to_y >= picture.height ||
                  to_x >= picture.width) {
                continue;
              }
              const bool inner =
                  y >= halo && x >= halo && y < side - halo && x < side - halo;
              use(to_y * picture.width + to_x, y * side + x, inner);
            }
          }
        };
        copy([&](auto at, auto in_part, bool) { part[in_part] = picture.mask[at]; });
        membrane_prune({part.data(), side, side}, length, {out.data(), side, side});
        copy([&](auto at, auto in_part, bool inner) {
          if (inner) again[at] = out[in_part];
        });
      }
    }
    ASSERT_EQ(whole, again);
    for (std::size_t i = 0; i < size; ++i) {
      const int before = picture.mask[i] != 0;
      ASSERT_LE(whole[i], before);
      ASSERT_GE(whole[i], length == 0 ? before : 0);
    }
  }
}

TEST(MembranePrune, BadInput) {
  std::vector<std::uint8_t> mask(16), out(16);
  EXPECT_THROW(membrane_prune({mask.data(), 4, 4}, -1, {out.data(), 4, 4}),
               std::invalid_argument);
  EXPECT_THROW(
      membrane_prune({mask.data(), 4, 4}, kPruneMaxLengthPx + 1, {out.data(), 4, 4}),
      std::invalid_argument);
  EXPECT_THROW(membrane_prune({mask.data(), 4, 4}, 1, {out.data(), 2, 4}),
               std::invalid_argument);
  EXPECT_THROW(membrane_prune({mask.data(), 0, 4}, 1, {out.data(), 0, 4}),
               std::invalid_argument);
}

}  // namespace
}  // namespace her2fast
