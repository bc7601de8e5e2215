// SPDX-License-Identifier: Apache-2.0
#include "session/roi_walk.h"

#include <algorithm>
#include <bit>

namespace her2fast {
namespace {

// Sets bits [begin, end) of a row.
void set_bits(std::uint64_t* row, std::int64_t begin, std::int64_t end) {
  while (begin < end) {
    const std::int64_t stop = std::min(end, (begin / 64 + 1) * 64);
    const std::int64_t count = stop - begin;
    const std::uint64_t ones =
        count == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
    row[begin / 64] |= ones << (begin % 64);
    begin = stop;
  }
}

// Counts the bits of `row` in [begin, end); with `other`, those set in both.
std::uint32_t count_bits(const std::uint64_t* row, const std::uint64_t* other,
                         std::int64_t begin, std::int64_t end) {
  std::uint32_t total = 0;
  while (begin < end) {
    const std::int64_t stop = std::min(end, (begin / 64 + 1) * 64);
    const std::int64_t count = stop - begin;
    const std::uint64_t ones =
        count == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
    std::uint64_t word = row[begin / 64];
    if (other != nullptr) word &= other[begin / 64];
    total += static_cast<std::uint32_t>(std::popcount(word & (ones << (begin % 64))));
    begin = stop;
  }
  return total;
}

}  // namespace

RoiWalker::RoiWalker(const Measurement& measurement, const Roi& roi)
    : m_(measurement),
      roi_(roi),
      width_px_(measurement.frame.grid_width_px(measurement.spacing)),
      height_px_(measurement.frame.grid_height_px(measurement.spacing)) {
  tile_column_ = m_.tiles_x;  // so that the first `next` loads the first band
}

void RoiWalker::load_band(std::int64_t tile_row) {
  const std::int64_t first = tile_row * m_.tile_px;
  band_rows_ = std::min<std::int64_t>(m_.tile_px, height_px_ - first);
  covered_.assign(static_cast<std::size_t>(m_.tiles_x), 0);
  spans_.resize(static_cast<std::size_t>(m_.tile_px));
  for (std::int64_t y = 0; y < band_rows_; ++y) {
    auto& row = spans_[static_cast<std::size_t>(y)];
    if (roi_.is_whole_slide()) {
      row.assign(1, {0, width_px_});
    } else {
      roi_.row_spans(first + y, width_px_, row);
    }
    for (const RoiSpan& span : row) {
      for (std::int64_t tx = span.begin_px / m_.tile_px; tx * m_.tile_px < span.end_px;
           ++tx) {
        covered_[static_cast<std::size_t>(tx)] +=
            std::min(span.end_px, (tx + 1) * m_.tile_px) -
            std::max(span.begin_px, tx * m_.tile_px);
      }
    }
  }
}

bool RoiWalker::next(TileInRoi& tile) {
  for (;;) {
    if (tile_column_ == m_.tiles_x) {
      if (++tile_row_ == m_.tiles_y) return false;
      tile_column_ = 0;
      load_band(tile_row_);
    }
    const std::int64_t column = tile_column_++;
    tile.covered_px = covered_[static_cast<std::size_t>(column)];
    if (tile.covered_px == 0) continue;
    tile.index = tile_row_ * m_.tiles_x + column;
    tile.record = &m_.tiles[static_cast<std::size_t>(tile.index)];
    const std::int64_t inside_width =
        std::min<std::int64_t>(m_.tile_px, width_px_ - column * m_.tile_px);
    if (tile.covered_px == inside_width * band_rows_) {
      tile.tissue_px = tile.record->tissue_px;
      tile.tumor_px = tile.record->tumor_px;
    } else {
      cut(tile, column * m_.tile_px);
    }
    return true;
  }
}

void RoiWalker::cut(TileInRoi& tile, std::int64_t x_begin_px) {
  const TileRecord& record = *tile.record;
  tile.tissue_px.assign(record.tissue_px.size(), 0);
  tile.tumor_px.assign(record.tumor_px.size(), 0);
  if (record.tissue_px.empty()) return;
  const auto words = static_cast<std::size_t>(m_.words_per_row());
  const auto all_words = words * static_cast<std::size_t>(m_.tile_px);
  inside_.assign(all_words, 0);
  for (std::int64_t y = 0; y < band_rows_; ++y) {
    for (const RoiSpan& span : spans_[static_cast<std::size_t>(y)]) {
      set_bits(inside_.data() + static_cast<std::size_t>(y) * words,
               std::max<std::int64_t>(0, span.begin_px - x_begin_px),
               std::min<std::int64_t>(m_.tile_px, span.end_px - x_begin_px));
    }
  }
  const bool has_tumor = !record.tumor_px.empty();
  const bool all_tumor = has_tumor && record.mask.empty();
  if (has_tumor && !all_tumor) unpack_mask(record.mask, tumor_bits_, all_words);
  const std::int64_t side = m_.patches_per_side();
  const std::int64_t patch = m_.patch_px;
  for (std::int64_t slot = 0; slot < side * side; ++slot) {
    const std::int64_t x = slot % side * patch;
    std::uint32_t covered = 0, tumor = 0;
    for (std::int64_t y = slot / side * patch; y < (slot / side + 1) * patch; ++y) {
      const std::uint64_t* row = inside_.data() + static_cast<std::size_t>(y) * words;
      covered += count_bits(row, nullptr, x, x + patch);
      if (has_tumor && !all_tumor) {
        tumor += count_bits(row, tumor_bits_.data() + static_cast<std::size_t>(y) * words,
                            x, x + patch);
      }
    }
    const auto place = static_cast<std::size_t>(slot);
    tile.tissue_px[place] =
        static_cast<std::uint32_t>(static_cast<std::uint64_t>(record.tissue_px[place]) *
                                   covered / static_cast<std::uint64_t>(patch * patch));
    if (has_tumor) tile.tumor_px[place] = all_tumor ? covered : tumor;
  }
}

}  // namespace her2fast
