// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <functional>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>

#include "kernels/check.h"
#include "kernels/membrane_forest.h"

namespace her2fast {
namespace {

constexpr std::int64_t kMaxSlidePx = std::int64_t{1} << 30;
constexpr std::int64_t kMaxTilePx = 8192;
constexpr std::int64_t kMaxTiles = std::int64_t{1} << 28;

/// Sides and corners of a tile that wait for neighbors.
struct WaitingTile {
  std::array<std::vector<SeamPart>, 4> sides;
  std::array<bool, 4> side_waits{true, true, true, true};
  std::array<SeamPixel, 4> corners{};  ///< top left, top right, bottom left, bottom right
  std::array<bool, 4> corner_waits{true, true, true, true};

  bool waits() const {
    return std::ranges::any_of(side_waits, std::identity{}) ||
           std::ranges::any_of(corner_waits, std::identity{});
  }
};

template <typename T>
void sort_by_pixel(std::vector<T>& rows) {
  std::ranges::sort(rows, [](const T& a, const T& b) {
    return std::pair(a.y, a.x) < std::pair(b.y, b.x);
  });
}

std::string place(std::int64_t column, std::int64_t row) {
  return "tile (" + std::to_string(column) + ", " + std::to_string(row) + ")";
}

}  // namespace

struct MembraneMerge::State : MembraneForest {
  std::int64_t width, height;
  std::int32_t tile_width, tile_height;
  std::int64_t columns, rows;
  std::vector<bool> arrived;
  bool any = false, has_density = false, finished = false;

  std::unordered_map<std::int64_t, WaitingTile> tiles;

  // --- seams

  /// Join `a` (left or above) with `b`, whose first pixel is (x, y) of the slide.
  void join_sides(const std::vector<SeamPart>& a, const std::vector<SeamPart>& b,
                  bool stacked, std::int32_t x, std::int32_t y) {
    std::int32_t from = 0;
    SeamPixel last_a = kNothing, last_b = kNothing;
    for (std::size_t i = 0, j = 0; i < a.size();) {
      const SeamPixel in_a = a[i].pixel, in_b = b[j].pixel;
      const std::int32_t to = std::min(a[i].end, b[j].end);
      if (is_mask(in_a) == is_mask(in_b)) {
        unite_nodes(node_of(in_a), node_of(in_b));
      } else if (stacked && is_mask(in_a)) {
        const std::int32_t gap = find(~in_b);
        const PixelKey first = nodes[gap].sums.first - pixel_key(y, x);
        if (from <= first && first < to) set_above(gap, in_a);
      }
      if (from > 0) {  // pixels that meet at a corner
        if (is_mask(last_a) && is_mask(in_b)) unite_nodes(last_a, in_b);
        if (is_mask(in_a) && is_mask(last_b)) unite_nodes(in_a, last_b);
        count_window(last_a, in_a, last_b, in_b);
      }
      count_straight(in_a, in_b, to - from - 1);
      from = to;
      last_a = in_a;
      last_b = in_b;
      const bool next_a = a[i].end == to, next_b = b[j].end == to;
      i += next_a;
      j += next_b;
    }
    for (const SeamPart& part : a) touch(part.pixel);
    for (const SeamPart& part : b) touch(part.pixel);
  }

  void close_side(const std::vector<SeamPart>& a, Beyond beyond) {
    std::int32_t from = 0;
    SeamPixel last = kNothing;
    for (const SeamPart& part : a) {
      meet_nothing(part.pixel, beyond);
      if (from > 0) count_window(last, part.pixel, kNothing, kNothing);
      count_straight(part.pixel, kNothing, part.end - from - 1);
      from = part.end;
      last = part.pixel;
    }
    for (const SeamPart& part : a) touch(part.pixel);
  }

  std::int64_t index(std::int64_t column, std::int64_t row) const {
    return row * columns + column;
  }
  bool in_grid(std::int64_t column, std::int64_t row) const {
    return column >= 0 && row >= 0 && column < columns && row < rows;
  }
  WaitingTile* waiting(std::int64_t column, std::int64_t row) {
    if (!in_grid(column, row)) return nullptr;
    const auto at = tiles.find(index(column, row));
    return at == tiles.end() ? nullptr : &at->second;
  }

  /// @param last  no more tiles come: a place without one is missing.
  void resolve_side(std::int64_t column, std::int64_t row, Side side, bool last) {
    static constexpr std::array<std::pair<int, int>, 4> kStep{
        {{0, -1}, {1, 0}, {0, 1}, {-1, 0}}};
    WaitingTile& tile = *waiting(column, row);
    if (!tile.side_waits[side]) return;
    const auto [dx, dy] = kStep[side];
    WaitingTile* other = waiting(column + dx, row + dy);
    if (other != nullptr) {
      const int facing = (side + 2) % 4;
      const bool first = side == kRight || side == kBottom;
      const auto& a = first ? tile.sides[side] : other->sides[facing];
      const auto& b = first ? other->sides[facing] : tile.sides[side];
      join_sides(a, b, dy != 0, static_cast<std::int32_t>(column * tile_width),
                 static_cast<std::int32_t>((row + (side == kBottom)) * tile_height));
      other->side_waits[facing] = false;
      other->sides[facing] = {};
    } else if (!in_grid(column + dx, row + dy)) {
      close_side(tile.sides[side], Beyond::kEdge);
    } else if (last) {
      close_side(tile.sides[side], Beyond::kMissing);
    } else {
      return;
    }
    tile.side_waits[side] = false;
    tile.sides[side] = {};
    settle();
  }

  /// The point where tiles (column - 1 | column, row - 1 | row) meet.
  void resolve_corner(std::int64_t column, std::int64_t row, bool last) {
    std::array<SeamPixel, 4> pixel;
    std::array<WaitingTile*, 4> around;
    Beyond beyond = Beyond::kTile;
    for (int k = 0; k < 4; ++k) {
      const std::int64_t x = column - 1 + k % 2, y = row - 1 + k / 2;
      around[k] = waiting(x, y);
      const int mine = 3 - k;  // the tile at the top left meets with its bottom right
      if (around[k] != nullptr && !around[k]->corner_waits[mine]) return;
      pixel[k] = around[k] == nullptr ? kNothing : around[k]->corners[mine];
      if (around[k] != nullptr) continue;
      if (in_grid(x, y)) {
        if (!last) return;
        beyond = Beyond::kMissing;
      } else if (beyond != Beyond::kMissing) {
        beyond = Beyond::kEdge;
      }
    }
    if (is_mask(pixel[0]) && is_mask(pixel[3])) unite_nodes(pixel[0], pixel[3]);
    if (is_mask(pixel[1]) && is_mask(pixel[2])) unite_nodes(pixel[1], pixel[2]);
    count_window(pixel[0], pixel[1], pixel[2], pixel[3]);
    for (int k = 0; k < 4; ++k) {
      // A gap passes on across sides alone; a membrane also meets what is diagonal.
      if (beyond == Beyond::kMissing && is_mask(pixel[k])) meet_nothing(pixel[k], beyond);
      if (around[k] != nullptr) around[k]->corner_waits[3 - k] = false;
    }
    for (const SeamPixel p : pixel) touch(p);
    settle();
  }

  void resolve(std::int64_t column, std::int64_t row, bool last) {
    for (const Side side : {kTop, kRight, kBottom, kLeft}) {
      resolve_side(column, row, side, last);
    }
    for (int k = 0; k < 4; ++k) resolve_corner(column + k % 2, row + k / 2, last);
  }

  void drop_resolved(std::int64_t column, std::int64_t row) {
    const WaitingTile* tile = waiting(column, row);
    if (tile != nullptr && !tile->waits()) tiles.erase(index(column, row));
  }

  void check_tile(std::int64_t column, std::int64_t row, const MembraneTile& tile) const {
    if (finished) throw std::invalid_argument("no tile can come after finish()");
    if (!in_grid(column, row)) {
      throw std::invalid_argument("need a tile of the grid of " +
                                  std::to_string(columns) + " x " + std::to_string(rows) +
                                  ", got " + place(column, row));
    }
    const std::int64_t w =
        std::min<std::int64_t>(tile_width, width - column * tile_width);
    const std::int64_t h =
        std::min<std::int64_t>(tile_height, height - row * tile_height);
    if (tile.width() != w || tile.height() != h) {
      throw std::invalid_argument(
          "need " + std::to_string(w) + " x " + std::to_string(h) + " pixels for " +
          place(column, row) + ", got " + std::to_string(tile.width()) + " x " +
          std::to_string(tile.height()));
    }
    if (arrived[static_cast<std::size_t>(index(column, row))]) {
      throw std::invalid_argument(place(column, row) + " was there before");
    }
    if (any && tile.has_density() != has_density) {
      throw std::invalid_argument("need densities for all tiles or for none, got " +
                                  place(column, row) + " otherwise than those before");
    }
  }

  void add_inner(const TileLabels& tile, std::int32_t x, std::int32_t y) {
    for (Membrane membrane : tile.inner) {
      membrane.x += x;
      membrane.y += y;
      membrane.box = moved(membrane.box, x, y);
      table.membranes.push_back(membrane);
    }
    for (Compartment gap : tile.inner_compartments) {
      gap.x += x;
      gap.y += y;
      gap.membrane_x += x;
      gap.membrane_y += y;
      gap.box = moved(gap.box, x, y);
      table.compartments.push_back(gap);
    }
  }

  /// Nodes for the components on the tile's border; all their seam parts wait.
  WaitingTile open_tile(const TileLabels& tile, std::int32_t x, std::int32_t y) {
    const PixelKey origin = pixel_key(y, x);
    std::vector<std::int32_t> mask_node, gap_node;
    for (std::size_t i = 0; i < tile.open.size(); ++i) {
      const std::int32_t n = new_node(true);
      nodes[n].sums = tile.open[i];
      nodes[n].sums.first += origin;
      nodes[n].sums.box = moved(tile.open[i].box, x, y);
      if (tile.has_density) {
        nodes[n].histogram = std::make_unique<DensityHistogram>(tile.histograms[i]);
      }
      mask_node.push_back(n);
    }
    const auto at_slide = [&](const GapSums& gap) {
      return GapSums{gap.first + origin, moved(gap.box, x, y), gap.px, gap.nuclei};
    };
    for (std::size_t i = 0; i < tile.gaps.size(); ++i) {
      const std::int32_t n = new_node(false);
      const GapSums gap = at_slide(tile.gaps[i]);
      nodes[n].sums = {gap.first, gap.box, gap.px, {}, gap.nuclei};
      if (tile.gap_above[i] >= 0) set_above(n, mask_node[tile.gap_above[i]]);
      gap_node.push_back(n);
    }
    for (std::size_t i = 0; i < tile.enclosed.size(); ++i) {
      enclose(mask_node[tile.enclosed_by[i]], at_slide(tile.enclosed[i]));
    }
    WaitingTile out;
    const auto translate = [&](std::int32_t label) {
      const SeamPixel pixel = label >= 0 ? mask_node[label] : ~gap_node[~label];
      ++nodes[node_of(pixel)].waiting;
      ++nodes[node_of(pixel)].refs;
      return pixel;
    };
    for (int side = 0; side < 4; ++side) {
      for (const SidePart& part : tile.sides[side]) {
        out.sides[side].push_back({part.end, translate(part.label)});
      }
    }
    const auto& sides = tile.sides;
    out.corners = {
        translate(sides[kTop].front().label), translate(sides[kTop].back().label),
        translate(sides[kBottom].front().label), translate(sides[kBottom].back().label)};
    return out;
  }
};

MembraneMerge::MembraneMerge(std::int64_t width, std::int64_t height,
                             std::int32_t tile_width, std::int32_t tile_height)
    : state_(std::make_unique<State>()) {
  if (width < 1 || height < 1 || width > kMaxSlidePx || height > kMaxSlidePx) {
    throw std::invalid_argument("need a slide of 1 to 2^30 pixels a side, got " +
                                std::to_string(width) + " x " + std::to_string(height));
  }
  if (tile_width < 1 || tile_height < 1 || tile_width > kMaxTilePx ||
      tile_height > kMaxTilePx) {
    throw std::invalid_argument("need tiles of 1 to " + std::to_string(kMaxTilePx) +
                                " pixels a side, got " + std::to_string(tile_width) +
                                " x " + std::to_string(tile_height));
  }
  State& s = *state_;
  s.width = width;
  s.height = height;
  s.tile_width = tile_width;
  s.tile_height = tile_height;
  s.columns = (width + tile_width - 1) / tile_width;
  s.rows = (height + tile_height - 1) / tile_height;
  if (s.columns * s.rows > kMaxTiles) {
    throw std::invalid_argument("need at most 2^28 tiles, got " +
                                std::to_string(s.columns * s.rows));
  }
  s.arrived.resize(static_cast<std::size_t>(s.columns * s.rows));
}

MembraneMerge::~MembraneMerge() = default;
MembraneMerge::MembraneMerge(MembraneMerge&&) noexcept = default;
MembraneMerge& MembraneMerge::operator=(MembraneMerge&&) noexcept = default;

void MembraneMerge::add(std::int64_t column, std::int64_t row, const MembraneTile& tile) {
  State& s = *state_;
  s.check_tile(column, row, tile);
  s.any = true;
  s.has_density = tile.has_density();
  s.arrived[static_cast<std::size_t>(s.index(column, row))] = true;
  const auto x = static_cast<std::int32_t>(column * s.tile_width);
  const auto y = static_cast<std::int32_t>(row * s.tile_height);
  s.add_inner(tile.labels(), x, y);
  s.tiles.emplace(s.index(column, row), s.open_tile(tile.labels(), x, y));
  s.resolve(column, row, false);
  for (std::int64_t dy = -1; dy <= 1; ++dy) {
    for (std::int64_t dx = -1; dx <= 1; ++dx) s.drop_resolved(column + dx, row + dy);
  }
}

void MembraneMerge::finish() {
  State& s = *state_;
  if (s.finished) return;
  s.finished = true;
  std::vector<std::int64_t> left;
  for (const auto& [at, tile] : s.tiles) left.push_back(at);
  for (const std::int64_t at : left) s.resolve(at % s.columns, at / s.columns, true);
  s.tiles.clear();
  for (std::size_t i = 0; i < s.nodes.size(); ++i) {
    SeamNode& node = s.nodes[i];
    const bool is_root = node.parent == static_cast<std::int32_t>(i);
    if (!node.live || !node.mask || !is_root) continue;
    node.incomplete = true;  // it goes round a tile that never came
    s.emit(static_cast<std::int32_t>(i));
  }
}

MembraneTable MembraneMerge::take() {
  MembraneTable out = std::exchange(state_->table, {});
  sort_by_pixel(out.membranes);
  sort_by_pixel(out.compartments);
  return out;
}

std::int64_t MembraneMerge::open_components() const {
  return static_cast<std::int64_t>(state_->nodes.size() - state_->free_nodes.size());
}

std::int64_t MembraneMerge::memory_bytes() const {
  const State& s = *state_;
  std::size_t bytes = s.nodes.capacity() * sizeof(SeamNode) +
                      (s.free_nodes.capacity() + s.free_compartments.capacity()) * 4 +
                      s.compartments.capacity() * sizeof(WaitingCompartment) +
                      s.arrived.capacity() / 8;
  for (const SeamNode& node : s.nodes)
    bytes += node.histogram ? sizeof(DensityHistogram) : 0;
  for (const auto& [at, tile] : s.tiles) {
    bytes += sizeof(WaitingTile);
    for (const auto& side : tile.sides) bytes += side.capacity() * sizeof(SeamPart);
  }
  return static_cast<std::int64_t>(bytes);
}

}  // namespace her2fast
