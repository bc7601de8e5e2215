// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <vector>

#include "her2fast/cell_class.h"
#include "her2fast/cells.h"
#include "her2fast/error.h"

namespace her2fast {
namespace {

constexpr std::int32_t kHalo = kCellsReachPx;

/// Planes of a picture whose inner part is `side` x `side` pixels of the grid.
struct Planes {
  std::int32_t side, step;
  std::vector<std::uint16_t> hematoxylin;
  std::vector<std::uint8_t> dab, mask;

  Planes(std::int32_t inner, std::int32_t step_)
      : side(inner + 2 * kHalo),
        step(step_),
        hematoxylin(static_cast<std::size_t>(side * side), 300),
        dab(static_cast<std::size_t>(side * side * step * step), 40),
        mask(dab.size()) {}

  void nucleus(int y, int x, double radius) {
    for (int dy = -40; dy <= 40; ++dy) {
      for (int dx = -40; dx <= 40; ++dx) {
        if (std::hypot(dy, dx) < radius) {
          hematoxylin[static_cast<std::size_t>((y + kHalo + dy) * side + x + kHalo +
                                               dx)] = 1200;
        }
      }
    }
  }
  void ring(int y, int x, double radius) {
    const int wide = side * step;
    for (int row = 0; row < wide; ++row) {
      for (int column = 0; column < wide; ++column) {
        const double away = std::hypot((row + 0.5) / step - (y + kHalo + 0.5),
                                       (column + 0.5) / step - (x + kHalo + 0.5));
        if (std::abs(away - radius) < 1.0) {
          mask[static_cast<std::size_t>(row * wide + column)] = 1;
        }
      }
    }
  }
  std::vector<Cell> find() const {
    const std::int64_t wide = std::int64_t{side} * step;
    return cells({hematoxylin.data(), side, side}, {dab.data(), wide, wide},
                 {mask.data(), wide, wide}, step, kHalo);
  }
};

TEST(Cells, ANucleusInARingIsACellWithACompleteMembrane) {
  for (const int step : {1, 2}) {
    Planes planes(60, step);
    planes.nucleus(30, 30, 8.5);
    planes.ring(30, 30, 18);
    const std::vector<Cell> found = planes.find();
    ASSERT_EQ(found.size(), 1);
    const Cell& cell = found[0];
    EXPECT_EQ(cell.x, 30);
    EXPECT_EQ(cell.y, 30);
    EXPECT_EQ(cell.stained, 0xffffffffu);
    EXPECT_EQ(cell.dab_sum, 40 * cell.dab_px);
    EXPECT_NEAR(cell.px, 3.14159 * 17 * 17, 60);
    for (const int px : cell.ray_px) EXPECT_NEAR(px, 17, 1);
  }
}

TEST(Cells, ACellOnABorderBelongsToOneTileWithAllOfItsFigures) {
  std::mt19937 random(7);
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  Planes whole(90, 1);
  for (int k = 0; k < 60; ++k) {
    const int y = pick(-60, 150), x = pick(-60, 150);
    whole.nucleus(y, x, pick(3, 14));
    if (pick(0, 1) == 1) whole.ring(y, x, pick(8, 22));
  }
  const std::vector<Cell> expected = whole.find();
  ASSERT_GT(expected.size(), 5);
  std::vector<Cell> found;
  for (const auto& [left, right] : {std::pair{0, 37}, std::pair{37, 90}}) {
    const std::int64_t width = right - left + 2 * kHalo;
    const auto cut = [&](const auto& plane) {
      return ImageView(plane.data() + left, whole.side, width, 1, whole.side);
    };
    for (Cell cell :
         cells(cut(whole.hematoxylin), cut(whole.dab), cut(whole.mask), 1, kHalo)) {
      cell.x += left;
      found.push_back(cell);
    }
  }
  EXPECT_TRUE(std::ranges::is_permutation(found, expected));
}

TEST(Cells, BadInputIsRefused) {
  const Planes planes(10, 2);
  const std::int64_t wide = planes.side * 2;
  const ImageView hematoxylin(planes.hematoxylin.data(), planes.side, planes.side);
  const ImageView fine(planes.dab.data(), wide, wide);
  EXPECT_THROW(cells(hematoxylin, fine, fine, 1, kHalo), std::invalid_argument);
  EXPECT_THROW(cells(hematoxylin, fine, fine, 3, kHalo), std::invalid_argument);
  EXPECT_THROW(cells(hematoxylin, fine, fine, 2, kHalo - 1), std::invalid_argument);
  EXPECT_THROW(cells(hematoxylin, fine, fine, 2, kHalo + 5), std::invalid_argument);
  EXPECT_THROW(cells(hematoxylin, fine, fine, 2, kHalo, -1), std::invalid_argument);
  EXPECT_THROW(cells(hematoxylin, fine, fine, 2, kHalo, 256), std::invalid_argument);
  EXPECT_THROW(cells(hematoxylin, fine, fine, 2, kHalo, 0, Device::kCuda), DeviceError);
}

TEST(CellClass, CutsAreInclusiveFromBelow) {
  const Spacing grid = Spacing::from_um(0.5);
  const auto of = [&](int rays, std::int64_t milli) {
    const auto stained = static_cast<std::uint32_t>((std::uint64_t{1} << rays) - 1);
    // milli = sum * 0.5 um * 1000 / (100 * 4 * rays)
    return classify_cell(stained, static_cast<std::uint32_t>(milli * 4 * rays / 5), grid,
                         2);
  };
  EXPECT_EQ(of(7, 900), CellClass{});
  EXPECT_EQ(of(10, 175), (CellClass{1, false, false}));
  EXPECT_EQ(of(30, 175), (CellClass{1, true, false}));
  EXPECT_EQ(of(20, 180), (CellClass{2, false, true}));
  EXPECT_EQ(of(25, 515), (CellClass{2, true, false}));
  EXPECT_EQ(of(25, 520), (CellClass{3, true, false}));
}

}  // namespace
}  // namespace her2fast
