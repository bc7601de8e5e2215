// SPDX-License-Identifier: Apache-2.0
/// Membranes of a whole slide from the masks of its tiles (Khameneh et al., section 3.4;
/// decisions.md K6, K9, K10). A membrane is an 8-connected component of the mask; a
/// compartment is a 4-connected component of what is not mask, enclosed by one membrane:
/// where stained cells are packed, every cell is a compartment of the same membrane.
///
/// The result is that of the mask in one piece, for every tiling and every order: all
/// that is counted is an integer that adds up, and a seam is judged when both its sides
/// are known.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "her2fast/image.h"

namespace her2fast {

/// Hundredths of optical density: 0 to 2.55, one bin each.
constexpr std::int32_t kDensityBins = 256;
constexpr double kDensityPerBin = 0.01;

/// A pixel of a tile.
struct PixelPoint {
  std::int32_t x, y;
};

/// Smallest rectangle; x1 and y1 are exclusive. Pixels of the slide at its spacing.
struct PixelBox {
  std::int32_t x0, y0, x1, y1;
};

struct Membrane {
  std::int32_t x, y;  ///< first pixel, row by row: the membrane's identity
  PixelBox box;
  std::int64_t px;
  std::int32_t compartments;  ///< holes, each enclosed by this membrane
  std::int64_t enclosed_px;   ///< of all its compartments
  double perimeter_px;        ///< inner and outer, from 2 x 2 windows (Duda's weights)
  double length_px;  ///< K10: L = P / 2 - sqrt(3) * euler * width, width = px / L
  double width_px;
  double density_mean;                       ///< optical density; NaN without densities
  std::array<double, 3> density_percentile;  ///< 10th, 50th, 90th, nearest rank; or NaN
  bool closed;                               ///< it encloses something
  bool cut;                                  ///< it reaches the slide's edge
  bool incomplete;  ///< it borders on a tile that never came, or goes round one
};

struct Compartment {
  std::int32_t x, y;  ///< first pixel, row by row
  PixelBox box;
  std::int64_t px;
  std::int32_t membrane_x, membrane_y;  ///< identity of the membrane round it
  std::int32_t nuclei;  ///< that were given in it: a cell has one (decisions.md K7, K9)
};

struct TileLabels;  // what merging needs of a tile

/// A tile's components. Immutable, cheap to copy.
class MembraneTile {
 public:
  explicit MembraneTile(std::shared_ptr<const TileLabels> labels);
  std::int64_t height() const;
  std::int64_t width() const;
  bool has_density() const;
  const TileLabels& labels() const { return *labels_; }

 private:
  std::shared_ptr<const TileLabels> labels_;
};

/// Label one tile. Thread-safe, linear in its pixels.
///
/// @param mask     (H, W), any value but 0 is membrane. 1 <= H, W <= 8192.
/// @param density  (H, W) hundredths of DAB optical density, or no data.
/// @param nuclei   seeds of the nuclei in the tile; those on membrane count nowhere.
/// @throws std::invalid_argument  shapes differ or are out of range; a nucleus outside.
/// @throws DeviceError            this build or this machine lacks `device`.
MembraneTile membrane_label(ImageView<const std::uint8_t> mask,
                            ImageView<const std::uint8_t> density = {},
                            const std::vector<PixelPoint>& nuclei = {},
                            Device device = Device::kCpu);

/// What is finished: nothing that comes later changes it.
struct MembraneTable {
  std::vector<Membrane> membranes;
  std::vector<Compartment> compartments;
};

/// Joins tiles over four sides and four corners, in any order.
///
/// Memory follows the seams whose other side has not come, and the compartments (under
/// 128 bytes each) of membranes that are not finished. Not thread-safe: one caller.
class MembraneMerge {
 public:
  /// A grid of tiles of `tile_width` x `tile_height`, the last ones cut to fit.
  /// @throws std::invalid_argument  a size below 1 or above 2^30; a tile above 8192.
  MembraneMerge(std::int64_t width, std::int64_t height, std::int32_t tile_width,
                std::int32_t tile_height);
  ~MembraneMerge();
  MembraneMerge(MembraneMerge&&) noexcept;
  MembraneMerge& operator=(MembraneMerge&&) noexcept;

  /// @throws std::invalid_argument  no such place, a wrong size, a tile that was there
  ///         before, densities in one tile and not in another, or after `finish`.
  ///         Nothing has changed then.
  void add(std::int64_t column, std::int64_t row, const MembraneTile& tile);
  /// Judge the seams of tiles that never came: membranes there are `incomplete`, and what
  /// lies beyond encloses nothing. Idempotent.
  void finish();
  /// All that is finished and was not taken yet, sorted by (y, x). After `finish` the
  /// takes together are the whole table, whatever the order and the tiling.
  MembraneTable take();

  std::int64_t open_components() const;  ///< on seams that wait
  std::int64_t memory_bytes() const;     ///< held now, but for what `take` would give

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace her2fast
