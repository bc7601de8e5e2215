// SPDX-License-Identifier: Apache-2.0
#include "her2fast/slide_convert.h"

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <vector>

#include "core/parallel.h"
#include "her2fast/error.h"
#include "her2fast/tile_reader.h"
#include "io/pyramid_writer.h"

namespace her2fast {
namespace {

// Level 0 is read at its own spacing, whatever that is.
constexpr Spacing kUnit{1'000'000};

bool can_copy(const Level& full, const ConvertOptions& options) {
  const std::int32_t tile = full.tile_width_px;
  return options.copy_tiles && full.tile_height_px == tile && tile % 16 == 0 &&
         tile >= 64 && tile <= 4096 && options.x0_px % tile == 0 &&
         options.y0_px % tile == 0;
}

void check_rectangle(const Level& full, const ConvertOptions& options) {
  const std::int64_t x = options.x0_px, y = options.y0_px;
  if (x >= 0 && y >= 0 && options.width_px >= 1 && options.height_px >= 1 &&
      x <= full.width_px - options.width_px && y <= full.height_px - options.height_px) {
    return;
  }
  throw std::invalid_argument(
      "need a rectangle inside the slide of " + std::to_string(full.width_px) + " x " +
      std::to_string(full.height_px) + " px, got " + std::to_string(options.width_px) +
      " x " + std::to_string(options.height_px) + " px at (" + std::to_string(x) + ", " +
      std::to_string(y) + ")");
}

TileReader make_reader(const std::shared_ptr<const Slide>& slide, const Level& full,
                       std::int64_t width_px) {
  ReaderOptions options;
  options.workers = 1;  // `read` runs on the caller's threads
  options.mode = ReadingMode::kExact;
  // Where the grids differ, the next band needs the source tiles that reach into it.
  const auto columns = static_cast<std::size_t>(width_px / full.tile_width_px + 2);
  const std::size_t tile_bytes = static_cast<std::size_t>(full.tile_width_px) *
                                 static_cast<std::size_t>(full.tile_height_px) * 3;
  options.cache_bytes = std::max(options.cache_bytes, 2 * columns * tile_bytes);
  return TileReader(slide, {full.width_px, full.height_px, kUnit, kUnit}, options);
}

}  // namespace

ConvertReport convert_slide(const std::shared_ptr<const Slide>& slide,
                            const std::string& path, const ConvertOptions& wanted,
                            const ConvertProgress& progress) {
  if (slide == nullptr) throw std::invalid_argument("need a slide, got none");
  ConvertOptions options = wanted;
  const Level& full = slide->info().levels.front();
  if (options.width_px == 0 && options.height_px == 0) {
    options.width_px = full.width_px - options.x0_px;
    options.height_px = full.height_px - options.y0_px;
  }
  check_rectangle(full, options);
  const auto* source = dynamic_cast<const io::HasJpegTiles*>(slide.get());
  std::optional<io::JpegTileFormat> copied;
  if (source != nullptr && can_copy(full, options)) copied = source->jpeg_format(0);
  if (copied) options.pyramid.tile_px = full.tile_width_px;
  if (const auto* profile = dynamic_cast<const io::HasIccProfile*>(slide.get())) {
    options.pyramid.icc_profile = profile->icc_profile();
  }
  const std::int64_t width = options.width_px, height = options.height_px;
  io::check_pyramid(width, height, options.pyramid);
  const TileReader reader = make_reader(slide, full, width);
  if (reader.plan(kUnit).level != 0) {
    throw Error(Code::kUnsupportedFormat,
                "level 1 is as fine as level 0; which one is meant cannot be told");
  }

  const std::int64_t tile = options.pyramid.tile_px;
  const std::int64_t columns = (width + tile - 1) / tile;
  std::vector<std::uint8_t> pixels(
      static_cast<std::size_t>(std::min(tile, height) * width * 3));
  std::vector<TileStatus> statuses(static_cast<std::size_t>(columns));
  std::vector<std::uint8_t> lost(static_cast<std::size_t>(columns));
  std::vector<std::vector<std::byte>> copies(copied ? static_cast<std::size_t>(columns)
                                                    : 0);
  io::PyramidWriter writer(path, width, height, options.pyramid, copied);
  ConvertReport report;
  report.copied = copied.has_value();
  for (std::int64_t y = 0; y < height; y += tile) {
    const std::int64_t rows = std::min(tile, height - y);
    const ImageView<std::uint8_t> band(pixels.data(), rows, width, 3);
    parallel_for(columns, options.pyramid.workers, [&](std::int64_t column, int) {
      const auto i = static_cast<std::size_t>(column);
      const std::int64_t x = column * tile, part = std::min(tile, width - x);
      statuses[i] =
          reader.read({column, options.x0_px + x, options.y0_px + y, part, rows, kUnit},
                      {band.row(0) + 3 * x, rows, part, 3, band.stride});
      if (copied) {
        copies[i] = source->jpeg_bytes(0, options.x0_px / tile + column,
                                       (options.y0_px + y) / tile);
      }
    });
    for (std::size_t i = 0; i < statuses.size(); ++i) {
      lost[i] = statuses[i] != TileStatus::kOk;
      report.missing += statuses[i] == TileStatus::kMissing;
      report.damaged +=
          statuses[i] == TileStatus::kCorrupt || statuses[i] == TileStatus::kWarned;
    }
    report.tiles += columns;
    writer.add_band(band, lost, copies);
    if (progress && !progress(y + rows)) {
      throw Error(Code::kCancelled, "the conversion was cancelled");
    }
  }
  writer.finish();
  report.big_tiff = writer.big_tiff();
  report.levels = static_cast<std::int64_t>(writer.levels());
  return report;
}

}  // namespace her2fast
