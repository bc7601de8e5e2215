// SPDX-License-Identifier: Apache-2.0
/// A segmenter's logits of a tile to tumor: bits within the tissue, pixels per patch.
#pragma once

#include <cstddef>
#include <cstdint>

namespace her2fast {

/// What of a segmenter's output is tumor, and which pixels count.
struct TumorRule {
  std::int32_t channels = 1;  ///< 1: tumor logit; 2: the second minus the first is it
  std::int32_t halo_px = 0;   ///< seen by the segmenter on each side, not counted
  std::int32_t tile_px = 0;
  std::int32_t patch_px = 0;  ///< divides tile_px
  float threshold = 0;        ///< tumor where the logit is at least this

  std::int64_t side_px() const { return std::int64_t{tile_px} + 2 * halo_px; }
  std::int64_t words_per_row() const { return (tile_px + 63) / 64; }
  /// Words of a tile's bits: (tile_px, words_per_row), least significant bit first.
  std::size_t words() const {
    return static_cast<std::size_t>(tile_px) * static_cast<std::size_t>(words_per_row());
  }
  std::size_t patches() const {
    const auto per_side = static_cast<std::size_t>(tile_px / patch_px);
    return per_side * per_side;
  }
  bool operator==(const TumorRule&) const = default;
};

/// @throws std::invalid_argument: need 1 or 2 channels, halo_px 0 to 1024, patch_px 8 to
///         4096 that divides tile_px up to 4096, and a finite threshold
void check_tumor_rule(const TumorRule& rule);

/// Tumor is where the logit reaches the threshold and the pixel is tissue.
/// @param logits  (channels, side_px, side_px), finite
/// @param tissue  rule.words() of bits; those beyond tile_px in a row are ignored
/// @param bits    rule.words(); every word is written, 0 beyond tile_px
/// @param counts  (patches a side, patches a side); every element is written. Pixels
/// Thread-safe. Does not allocate. The device's twin gives the same bits.
void tumor_bits(const float* logits, const std::uint64_t* tissue, const TumorRule& rule,
                std::uint64_t* bits, std::uint32_t* counts);

}  // namespace her2fast
