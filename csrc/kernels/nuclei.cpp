// SPDX-License-Identifier: Apache-2.0
#include "her2fast/nuclei.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/cell_grid.h"

namespace her2fast {
namespace {

// The rule; docs/design/cells.md says how the numbers were found. Pixels of the grid:
//   soft  = hematoxylin, two boxes of 3 x 3
//   dark  = soft > mean of hematoxylin off the membrane, 49 x 49, by kAbove; closed 3 x 3
//   depth = distance to the next pixel that is not dark, at most kCap; two boxes of 5 x 5
//   seed  = dark, kLeastDepth2 deep, and the highest depth within kApart
// Reaches: max(2, 24) + 2 + 16 + 4 + 6 = 52, and one more for what a border may spoil.
constexpr int kSoft = 1;
constexpr int kMean = 24;
constexpr int kCap = 16;
constexpr int kSmooth = 2;
constexpr int kApart = 6;
static_assert(kMean + 2 + kCap + 2 * kSmooth + kApart < kNucleiReachPx);

constexpr std::int32_t kAbove = 20;         // 0.005
constexpr std::int32_t kLeast = 82;         // 0.02: glass has nothing darker than nothing
constexpr std::int32_t kLeastDepth2 = 8;    // 2.8 px: 1.4 um, half a small nucleus
constexpr std::int32_t kDepthPerPx = 16;    // of the table of roots
constexpr std::int32_t kSoftBox = 81;       // two boxes of 9
constexpr std::int32_t kMaxSide = 1 << 14;  // products of sums below stay in 32 bits

/// Sums over boxes of side 2 * radius + 1, what lies outside being 0; along rows, then
/// down.
template <typename In, typename Out>
GridPlane<Out> box_sum(const GridPlane<In>& in, int radius) {
  GridPlane<Out> out(in.height, in.width);
  const std::int64_t width = in.width, height = in.height;
  std::vector<Out> column(static_cast<std::size_t>(width));
  std::vector<Out> before(static_cast<std::size_t>(width + 1));
  const auto add = [&](std::int64_t y, bool leaves) {
    if (y < 0 || y >= height) return;
    const In* const row = in.row(y);
    for (std::int64_t x = 0; x < width; ++x) {
      column[x] = static_cast<Out>(leaves ? column[x] - row[x] : column[x] + row[x]);
    }
  };
  for (std::int64_t y = -radius; y < height; ++y) {
    add(y + radius, false);
    add(y - radius - 1, true);
    if (y < 0) continue;
    for (std::int64_t x = 0; x < width; ++x) {
      before[x + 1] = static_cast<Out>(before[x] + column[x]);  // wraps, differences hold
    }
    Out* const row = out.row(y);
    const std::int64_t left = std::min<std::int64_t>(radius, width);
    const std::int64_t right = std::max<std::int64_t>(width - radius - 1, left);
    for (std::int64_t x = 0; x < left; ++x) {
      row[x] = before[std::min(x + radius + 1, width)];
    }
    for (std::int64_t x = left; x < right; ++x) {
      row[x] = static_cast<Out>(before[x + radius + 1] - before[x - radius]);
    }
    for (std::int64_t x = right; x < width; ++x) {
      row[x] =
          static_cast<Out>(before[width] - before[std::max<std::int64_t>(x - radius, 0)]);
    }
  }
  return out;
}

GridPlane<std::uint8_t> find_dark(const ImageView<const std::uint16_t>& hematoxylin,
                                  const GridPlane<std::uint8_t>& walls) {
  const std::int64_t height = hematoxylin.height, width = hematoxylin.width;
  GridPlane<std::uint32_t> all(height, width), open(height, width);
  GridPlane<std::uint8_t> free(height, width);
  for (std::int64_t y = 0; y < height; ++y) {
    const std::uint16_t* const h = hematoxylin.row(y);
    const std::uint8_t* const wall = walls.row(y);
    for (std::int64_t x = 0; x < width; ++x) {
      free.row(y)[x] = wall[x] == 0;
      all.row(y)[x] = std::min<std::uint32_t>(h[x], kHematoxylinMost);
      open.row(y)[x] = wall[x] == 0 ? all.row(y)[x] : 0;
    }
  }
  const auto soft = box_sum<std::uint32_t, std::uint32_t>(
      box_sum<std::uint32_t, std::uint32_t>(all, kSoft), kSoft);
  const auto sum = box_sum<std::uint32_t, std::uint32_t>(open, kMean);
  const auto count = box_sum<std::uint8_t, std::uint32_t>(free, kMean);
  GridPlane<std::uint8_t> dark(height, width);
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      const std::uint32_t s = soft.row(y)[x], n = count.row(y)[x];
      dark.row(y)[x] =
          (s * n > kSoftBox * (sum.row(y)[x] + kAbove * n)) & (s > kSoftBox * kLeast);
    }
  }
  return dark;
}

/// Gaps of a pixel or two are filled: vesicular nuclei are pale inside.
void close_gaps(GridPlane<std::uint8_t>& dark, const GridPlane<std::uint8_t>& walls) {
  const std::int64_t height = dark.height, width = dark.width;
  const auto spread = [&](GridPlane<std::uint8_t>& plane, std::uint8_t value) {
    // Where a neighbor has `value`, so has the pixel.
    GridPlane<std::uint8_t> along(height, width);
    for (std::int64_t y = 0; y < height; ++y) {
      const std::uint8_t* const in = plane.row(y);
      std::uint8_t* const out = along.row(y);
      for (std::int64_t x = 0; x < width; ++x) {
        const bool any = in[x] == value || (x > 0 && in[x - 1] == value) ||
                         (x + 1 < width && in[x + 1] == value);
        out[x] = any ? value : 1 - value;
      }
    }
    for (std::int64_t y = 0; y < height; ++y) {
      const std::uint8_t* const up = along.row(std::max<std::int64_t>(y - 1, 0));
      const std::uint8_t* const down = along.row(std::min(y + 1, height - 1));
      const std::uint8_t* const in = along.row(y);
      std::uint8_t* const out = plane.row(y);
      for (std::int64_t x = 0; x < width; ++x) {
        const bool any = in[x] == value || up[x] == value || down[x] == value;
        out[x] = any ? value : 1 - value;
      }
    }
  };
  spread(dark, 1);
  spread(dark, 0);
  for (std::size_t i = 0; i < dark.values.size(); ++i) {
    dark.values[i] &= static_cast<std::uint8_t>(walls.values[i] == 0);
  }
}

/// Squared distance to the next pixel that is not dark, at most kCap squared: exact.
GridPlane<std::uint16_t> distance2(const GridPlane<std::uint8_t>& dark) {
  const std::int64_t height = dark.height, width = dark.width;
  GridPlane<std::uint16_t> down(height, width), out(height, width);
  const auto step = [](std::uint16_t from, std::uint8_t is_dark) {
    return static_cast<std::uint16_t>(is_dark != 0 ? std::min<int>(from + 1, kCap) : 0);
  };
  std::vector<std::uint16_t> run(static_cast<std::size_t>(width), kCap);
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      down.row(y)[x] = run[x] = step(run[x], dark.row(y)[x]);
    }
  }
  std::fill(run.begin(), run.end(), kCap);
  for (std::int64_t y = height; y-- > 0;) {
    std::uint16_t* const row = down.row(y);
    for (std::int64_t x = 0; x < width; ++x) {
      run[x] = step(run[x], dark.row(y)[x]);
      const std::uint16_t nearest = std::min(row[x], run[x]);
      row[x] = static_cast<std::uint16_t>(nearest * nearest);
    }
  }
  // Nothing beyond kCap columns can be nearer than the cap.
  std::vector<std::uint16_t> wide(static_cast<std::size_t>(width + 2 * kCap),
                                  kCap * kCap);
  for (std::int64_t y = 0; y < height; ++y) {
    std::copy_n(down.row(y), width, wide.begin() + kCap);
    std::uint16_t* const row = out.row(y);
    std::fill_n(row, width, static_cast<std::uint16_t>(kCap * kCap));
    for (int away = -kCap + 1; away < kCap; ++away) {
      const std::uint16_t* const from = wide.data() + kCap + away;
      const auto far = static_cast<std::uint16_t>(away * away);
      for (std::int64_t x = 0; x < width; ++x) {
        row[x] = std::min(row[x], static_cast<std::uint16_t>(from[x] + far));
      }
    }
  }
  return out;
}

/// round(16 * sqrt(n)): no root of an integer lies at a half, and IEEE rounds roots.
const std::array<std::uint16_t, kCap * kCap + 1>& root_table() {
  static const auto table = [] {
    std::array<std::uint16_t, kCap * kCap + 1> out{};
    for (std::size_t n = 0; n < out.size(); ++n) {
      out[n] = static_cast<std::uint16_t>(
          std::floor(kDepthPerPx * std::sqrt(static_cast<double>(n)) + 0.5));
    }
    return out;
  }();
  return table;
}

/// Nothing within kApart is higher, nor as high and earlier in reading order.
bool is_highest(const GridPlane<std::uint32_t>& depth, std::int64_t y, std::int64_t x) {
  const std::uint32_t own = depth.row(y)[x];
  for (std::int64_t dy = -kApart; dy <= kApart; ++dy) {
    const std::uint32_t* const row = depth.row(y + dy);
    for (std::int64_t dx = -kApart; dx <= kApart; ++dx) {
      const bool earlier = dy < 0 || (dy == 0 && dx < 0);
      if (row[x + dx] > own || (earlier && row[x + dx] == own)) return false;
    }
  }
  return true;
}

}  // namespace

std::vector<Nucleus> nuclei(ImageView<const std::uint16_t> hematoxylin,
                            ImageView<const std::uint8_t> mask, std::int32_t step,
                            std::int32_t halo_px, ImageView<std::uint8_t> dark_out,
                            Device device) {
  check_device(device, "nuclei");
  check_step(step);
  check_channels(hematoxylin, 1, "a hematoxylin plane");
  check_channels(mask, 1, "a mask");
  check_covers(hematoxylin, mask, step, "a mask");
  check_halo(hematoxylin.height, hematoxylin.width, halo_px, kNucleiReachPx);
  if (hematoxylin.height > kMaxSide || hematoxylin.width > kMaxSide) {
    throw std::invalid_argument(
        "need planes of at most " + std::to_string(kMaxSide) + " pixels a side, got " +
        std::to_string(hematoxylin.height) + " x " + std::to_string(hematoxylin.width));
  }
  if (dark_out.data != nullptr) check_same_size(hematoxylin, dark_out, "an output");

  const auto walls = walls_of(mask, step);
  auto dark = find_dark(hematoxylin, walls);
  close_gaps(dark, walls);
  if (dark_out.data != nullptr) {
    for (std::int64_t y = 0; y < dark.height; ++y) {
      std::copy_n(dark.row(y), dark.width, dark_out.row(y));
    }
  }
  const auto squared = distance2(dark);
  GridPlane<std::uint32_t> roots(dark.height, dark.width);
  const auto& table = root_table();
  for (std::size_t i = 0; i < squared.values.size(); ++i) {
    roots.values[i] = table[squared.values[i]];
  }
  const auto depth = box_sum<std::uint32_t, std::uint32_t>(
      box_sum<std::uint32_t, std::uint32_t>(roots, kSmooth), kSmooth);

  std::vector<Nucleus> out;
  for (std::int64_t y = halo_px; y < dark.height - halo_px; ++y) {
    const std::uint16_t* const deep = squared.row(y);
    const std::uint32_t* const row = depth.row(y);
    for (std::int64_t x = halo_px; x < dark.width - halo_px; ++x) {
      if (deep[x] < kLeastDepth2) continue;
      // Most fail at the pixels beside them.
      if (row[x - 1] >= row[x] || row[x + 1] > row[x]) continue;
      if (!is_highest(depth, y, x)) continue;
      out.push_back({static_cast<std::int32_t>(x - halo_px),
                     static_cast<std::int32_t>(y - halo_px)});
    }
  }
  return out;
}

}  // namespace her2fast
