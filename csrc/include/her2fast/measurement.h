// SPDX-License-Identifier: Apache-2.0
/// What was measured on a slide, before anything is decided.
///
/// Depends on slide, models, spacing and reading mode only; never on ROI, calibration or
/// rule set. A value: copy it, store it, decide on it from many threads. Integers only,
/// so that the bytes are the same for any thread count and order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "her2fast/geometry.h"
#include "her2fast/stain_census.h"

namespace her2fast {

/// Logits are stored as round(logit * 65536), saturated.
inline constexpr int kLogitFractionBits = 16;
std::int32_t logit_to_fixed(float logit);  ///< nearest, ties to even, saturated
double logit_from_fixed(std::int32_t fixed);

/// What a patch grid says of one tile. Vectors are empty where the tile has no tissue.
struct TileRecord {
  TileStatus status = TileStatus::kMissing;
  StainCensus census;
  std::vector<std::uint32_t> tissue_px;  ///< (slots): tissue pixels per patch
  std::vector<std::uint32_t> focus;      ///< (slots): her2fast::focus per patch
  std::vector<std::uint32_t> tumor_px;   ///< (slots) or empty without tumor
  std::vector<std::uint8_t> mask;  ///< packed tumor bits (pack_mask); empty where none or
                                   ///< all of the tile is tumor
  std::vector<std::uint16_t>
      slots;  ///< classified patches, ascending slot = row * patches a side + column
  std::vector<std::int32_t> logits;  ///< (slots.size(), classes), fixed point
  std::vector<std::int32_t>
      distances;  ///< (slots.size(), Measurement::distance_names), fixed point
  bool operator==(const TileRecord&) const = default;
};

/// Bits of a tile, (tile_px, words a row), 64 pixels a word, least significant first, as
/// stored.
std::vector<std::uint8_t> pack_mask(const std::vector<std::uint64_t>& bits);
/// @throws Error kBadHeader where `packed` does not hold exactly `words` words
void unpack_mask(const std::vector<std::uint8_t>& packed,
                 std::vector<std::uint64_t>& bits, std::size_t words);

/// A slide of 200 x 200 mm in 64 um tiles; more is a damaged header, not a slide.
inline constexpr std::int64_t kMaxMeasurementTiles = 10'000'000;
/// Distances a patch; a package needs one or two.
inline constexpr std::size_t kMaxDistances = 16;

struct Measurement {
  SlideFrame frame;
  Spacing spacing;            ///< of the working grid
  std::int32_t tile_px = 0;   ///< tiles are square, anchored at the origin
  std::int32_t patch_px = 0;  ///< divides tile_px
  std::vector<std::string> class_names;
  /// What the classifier says beside its classes: how far a patch lies from what it was
  /// trained on, each in a unit of its own (docs/design/domain.md). Often none.
  std::vector<std::string> distance_names;
  std::int64_t tiles_x = 0, tiles_y = 0;
  std::string key;                ///< measurement_key of the record, set by the caller
  std::vector<TileRecord> tiles;  ///< row by row

  std::int32_t patches_per_side() const { return tile_px / patch_px; }
  std::int32_t words_per_row() const { return (tile_px + 63) / 64; }
  double pixel_mm2() const { return spacing.um() * spacing.um() * 1e-6; }
  bool operator==(const Measurement&) const = default;

  /// Tumor (1) or not (0) in the window of grid pixels at (x_px, y_px); 0 beyond the
  /// tiles.
  /// @param out (H, W); every element is written.
  void tumor_mask(std::int64_t x_px, std::int64_t y_px,
                  ImageView<std::uint8_t> out) const;

  /// The `.h2m` file: "H2M1", a JSON header, the tiles (masks packed), CRC-32 of all
  /// before it.
  std::vector<std::uint8_t> to_bytes() const;
  /// @throws Error kBadHeader, kTruncated, kHashMismatch (checksum); bounded memory.
  static Measurement from_bytes(const std::uint8_t* data, std::size_t size);
};

}  // namespace her2fast
