// SPDX-License-Identifier: Apache-2.0
/// The pyramid being written: bands of level 0 go in, every level's tiles come out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "her2fast/image.h"
#include "her2fast/tiff_writer.h"
#include "io/codec/jpeg_encode.h"
#include "io/container/tiff_slide.h"
#include "io/output_file.h"
#include "io/tiff_fields.h"

namespace her2fast::io {

/// @throws std::invalid_argument  an option or side is out of its range
void check_pyramid(std::int64_t width_px, std::int64_t height_px,
                   const PyramidOptions& options);

/// One thread at a time; encodes on `options.workers` of its own. Memory: a band of tiles
/// per level.
class PyramidWriter {
 public:
  /// @param copied  level 0 is not encoded: its tiles come as they are, in this format
  PyramidWriter(const std::string& path, std::int64_t width_px, std::int64_t height_px,
                const PyramidOptions& options,
                std::optional<JpegTileFormat> copied = std::nullopt);

  /// The next `tile_px` rows of level 0; only the last band may be shorter.
  /// @param lost    per tile column; a tile that is not 0 is left out of the file, with
  ///                every coarser one that it reaches into. Empty: none.
  /// @param copies  per tile column, with `copied`: the tile's bytes, empty where it is
  ///                missing. A copied tile is not left out for being lost.
  void add_band(ImageView<const std::uint8_t> rows, std::span<const std::uint8_t> lost,
                std::span<const std::vector<std::byte>> copies);
  /// Writes the directories and gives the file its name.
  void finish();

  bool big_tiff() const { return big_; }
  std::size_t levels() const { return levels_.size(); }

 private:
  /// Sums of the row of blocks under way, and a band of tiles.
  struct LevelWriter {
    int downsample = 1;
    std::int64_t width_px = 0, height_px = 0, columns = 0;
    std::vector<std::uint32_t> sums;  // (width_px, 3)
    int rows_summed = 0;
    std::vector<std::uint8_t> band;  // (tile_px, columns * tile_px, 3)
    std::vector<std::uint8_t> lost;  // (columns)
    std::int64_t band_rows = 0, rows_done = 0;
    std::vector<std::uint64_t> offsets, bytes;

    std::uint8_t* band_row(std::int64_t y, std::int64_t tile_px) {
      return band.data() + static_cast<std::size_t>(y * columns * tile_px * 3);
    }
  };

  void add_row(LevelWriter& level, const std::uint8_t* row);
  void write_band(LevelWriter& level);
  std::vector<std::vector<std::byte>> encode_band(const LevelWriter& level) const;
  void append_tile(LevelWriter& level, std::span<const std::byte> bytes);
  void pad();
  std::string description(const LevelWriter& level) const;
  DirectoryBuilder directory(std::size_t index, bool big) const;

  PyramidOptions options_;
  std::optional<JpegTileFormat> copied_;
  JpegQuantization quantization_;
  OutputFile file_;
  std::vector<LevelWriter> levels_;
  bool big_ = false;
};

}  // namespace her2fast::io
