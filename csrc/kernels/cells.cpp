// SPDX-License-Identifier: Apache-2.0
#include "her2fast/cells.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

#include "kernels/cell_grid.h"

namespace her2fast {
namespace {

// A step along a row or column costs 2, a diagonal one 3; off the nuclei twice that.
constexpr int kStraight = 2;
constexpr int kDiagonal = 3;
constexpr int kPale = 2;
/// What a cell may spend: 36 px of nucleus, or a nucleus of 8 px (4 um) and 14 px (7 um)
/// of cytoplasm.
constexpr int kMost = 72;
static_assert(kMost == kStraight * kCellRadiusPx);

/// Where a ray leaves its cell, membrane this near beyond is the cell's own: a border
/// between cells runs along the membrane, not exactly on it.
constexpr int kNearPx = 2;
/// Membrane is measured this deep along a ray: 2.5 um, the width of a 3+ membrane.
constexpr int kDeepPx = 5;

/// round(1024 * cos(2 pi k / 32)) of the first quarter.
constexpr std::array<std::int32_t, 9> kCosines{1024, 1004, 946, 851, 724,
                                               569,  392,  200, 0};
constexpr std::int32_t kOne = 1024;

std::int32_t cosine(int k) {
  const int at = k & (kCellRays - 1), mirrored = at <= 16 ? at : 32 - at;
  return mirrored <= 8 ? kCosines[mirrored] : -kCosines[16 - mirrored];
}

constexpr std::int32_t kNobody = std::numeric_limits<std::int32_t>::max();
constexpr std::uint8_t kFar = 255;
static_assert(kMost < kFar);

/// Who owns each pixel: the seed that comes there first, by cost, then by its number.
///
/// Every step costs something, so when all pixels of a cost are settled the next cost's
/// candidates are known, whatever the order within: ties need no luck.
class Partition {
 public:
  Partition(const GridPlane<std::uint8_t>& walls, const GridPlane<std::uint8_t>& dark)
      : width_(walls.width),
        dark_(dark),
        closed_(walls),
        owner_(walls.height, walls.width),
        cost_(walls.height, walls.width) {
    std::fill(owner_.values.begin(), owner_.values.end(), kNobody);
    std::fill(cost_.values.begin(), cost_.values.end(), kFar);
    // A rim that nothing crosses: no step needs to ask whether it leaves the plane.
    for (std::int64_t x = 0; x < width_; ++x) {
      closed_.row(0)[x] = closed_.row(walls.height - 1)[x] = 1;
    }
    for (std::int64_t y = 0; y < walls.height; ++y) {
      closed_.row(y)[0] = closed_.row(y)[width_ - 1] = 1;
    }
  }

  void grow(const std::vector<Nucleus>& seeds) {
    for (std::size_t i = 0; i < seeds.size(); ++i) {
      offer(seeds[i].y * width_ + seeds[i].x, 0, static_cast<std::int32_t>(i));
    }
    for (int cost = 0; cost <= kMost; ++cost) {
      auto& bucket = buckets_[cost % kBuckets];
      for (std::size_t i = 0; i < bucket.size(); ++i) {
        const std::int64_t at = bucket[i];
        if (cost_.values[at] == cost) spread(at, cost);
      }
      bucket.clear();
    }
  }

  const GridPlane<std::int32_t>& owner() const { return owner_; }

 private:
  static constexpr int kBuckets = kDiagonal * kPale + 1;

  void offer(std::int64_t at, int cost, std::int32_t who) {
    if (closed_.values[at] != 0 || cost > kMost) return;
    std::uint8_t& held = cost_.values[at];
    std::int32_t& owner = owner_.values[at];
    if (cost < held) {
      held = static_cast<std::uint8_t>(cost);
      owner = who;
      buckets_[cost % kBuckets].push_back(at);
    } else if (cost == held && who < owner) {
      owner = who;
    }
  }

  void spread(std::int64_t at, int cost) {
    const std::int32_t who = owner_.values[at];
    const auto price = [&](std::int64_t to, int step) {
      return cost + (dark_.values[to] != 0 ? step : kPale * step);
    };
    const std::int64_t left = at - 1, right = at + 1, up = at - width_,
                       down = at + width_;
    for (const std::int64_t to : {left, right, up, down}) {
      offer(to, price(to, kStraight), who);
    }
    // No step squeezes between two walls that touch at a corner.
    const auto corner = [&](std::int64_t beside, std::int64_t over, std::int64_t to) {
      if (closed_.values[beside] == 0 && closed_.values[over] == 0) {
        offer(to, price(to, kDiagonal), who);
      }
    };
    corner(left, up, up - 1);
    corner(right, up, up + 1);
    corner(left, down, down - 1);
    corner(right, down, down + 1);
  }

  std::int64_t width_;
  const GridPlane<std::uint8_t>& dark_;
  GridPlane<std::uint8_t> closed_;
  GridPlane<std::int32_t> owner_;
  GridPlane<std::uint8_t> cost_;
  std::array<std::vector<std::int64_t>, kBuckets> buckets_;
};

/// Looks from a seed in every direction for the end of its cell.
class Looker {
 public:
  Looker(const GridPlane<std::int32_t>& owner, const GridPlane<std::uint8_t>& walls,
         const ImageView<const std::uint8_t>& dab,
         const ImageView<const std::uint8_t>& mask, std::int32_t step,
         std::uint32_t faintest_dab)
      : owner_(owner),
        walls_(walls),
        dab_(dab),
        mask_(mask),
        step_(step),
        faintest_dab_(faintest_dab) {}

  void look(const Nucleus& seed, std::int32_t who, Cell& cell) const {
    for (int k = 0; k < kCellRays; ++k) {
      const auto at = [&](int px) {
        const auto along = [&](std::int32_t from, std::int32_t part) {
          return from + ((px * part + kOne / 2) >> 10);
        };
        return along(seed.y, cosine(k - kCellRays / 4)) * owner_.width +
               along(seed.x, cosine(k));
      };
      int px = 1;
      while (owner_.values[at(px)] == who) ++px;
      cell.ray_px[k] = static_cast<std::uint8_t>(px);
      int wall = px;
      while (wall < px + kNearPx && walls_.values[at(wall)] == 0) ++wall;
      if (walls_.values[at(wall)] == 0) continue;
      Stain crossed;
      for (int deep = wall; deep < wall + kDeepPx && walls_.values[at(deep)] != 0;
           ++deep) {
        measure(at(deep), crossed);
      }
      if (crossed.dab_sum < faintest_dab_ * crossed.px) continue;
      cell.stained |= std::uint32_t{1} << k;
      cell.dab_sum += crossed.dab_sum;
      cell.dab_px += crossed.px;
    }
  }

 private:
  struct Stain {
    std::uint32_t dab_sum = 0, px = 0;
  };

  /// The membrane of one pixel of the grid: those of its pixels that are.
  void measure(std::int64_t at, Stain& stain) const {
    const std::int64_t y = at / owner_.width * step_, x = at % owner_.width * step_;
    for (std::int64_t row = y; row < y + step_; ++row) {
      for (std::int64_t column = x; column < x + step_; ++column) {
        if (mask_.row(row)[column] == 0) continue;
        stain.dab_sum += dab_.row(row)[column];
        ++stain.px;
      }
    }
  }

  const GridPlane<std::int32_t>& owner_;
  const GridPlane<std::uint8_t>& walls_;
  const ImageView<const std::uint8_t>& dab_;
  const ImageView<const std::uint8_t>& mask_;
  std::int32_t step_;
  std::uint32_t faintest_dab_;
};

}  // namespace

std::vector<Cell> cells(ImageView<const std::uint16_t> hematoxylin,
                        ImageView<const std::uint8_t> dab,
                        ImageView<const std::uint8_t> mask, std::int32_t step,
                        std::int32_t halo_px, std::int32_t glass_dab, Device device) {
  check_device(device, "cells");
  if (glass_dab < 0 || glass_dab > 255) {
    throw std::invalid_argument("need 0 <= glass_dab <= 255, got " +
                                std::to_string(glass_dab));
  }
  check_step(step);
  check_channels(dab, 1, "a DAB plane");
  check_covers(hematoxylin, dab, step, "a DAB plane");
  check_halo(hematoxylin.height, hematoxylin.width, halo_px, kCellsReachPx);
  GridPlane<std::uint8_t> dark(hematoxylin.height, hematoxylin.width);
  std::vector<Nucleus> seeds =
      nuclei(hematoxylin, mask, step, kNucleiReachPx,
             {dark.values.data(), dark.height, dark.width}, device);

  // Seeds further off than a cell of theirs and one of ours reach change nothing.
  const std::int64_t away = halo_px - 2 * kCellRadiusPx;
  std::erase_if(seeds, [&](Nucleus& seed) {
    seed.x += kNucleiReachPx;
    seed.y += kNucleiReachPx;
    return seed.x < away || seed.y < away || seed.x >= dark.width - away ||
           seed.y >= dark.height - away;
  });
  const auto walls = walls_of(mask, step);
  Partition partition(walls, dark);
  partition.grow(seeds);

  const Looker looker(partition.owner(), walls, dab, mask, step,
                      static_cast<std::uint32_t>(glass_dab + kFaintestDab));
  std::vector<Cell> found(seeds.size());
  const auto& owner = partition.owner().values;
  for (std::size_t i = 0; i < owner.size(); ++i) {
    if (owner[i] == kNobody) continue;
    Cell& cell = found[static_cast<std::size_t>(owner[i])];
    ++cell.px;
    cell.nucleus_px += dark.values[i];
  }
  std::vector<Cell> out;
  for (std::size_t i = 0; i < seeds.size(); ++i) {
    const Nucleus& seed = seeds[i];
    if (seed.x < halo_px || seed.y < halo_px || seed.x >= dark.width - halo_px ||
        seed.y >= dark.height - halo_px) {
      continue;
    }
    Cell& cell = found[i];
    cell.x = seed.x - halo_px;
    cell.y = seed.y - halo_px;
    looker.look(seed, static_cast<std::int32_t>(i), cell);
    out.push_back(cell);
  }
  return out;
}

}  // namespace her2fast
