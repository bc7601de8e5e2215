// SPDX-License-Identifier: Apache-2.0
#include "io/pyramid_writer.h"

#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "core/parallel.h"
#include "her2fast/error.h"
#include "io/container/tiff_directory.h"

namespace her2fast::io {
namespace {

constexpr std::int64_t kMaxSidePx = std::int64_t{1} << 26;  // as SlideFrame::check
constexpr int kMaxDownsample = 4096;  // 255 * 4096^2 still fits 32 bits

std::vector<std::byte> deflate_tile(ImageView<const std::uint8_t> rgb) {
  // Predictor 2: differences of neighbouring pixels, which Deflate packs better.
  const auto row_bytes = static_cast<std::size_t>(rgb.width * 3);
  std::vector<std::uint8_t> raw(row_bytes * static_cast<std::size_t>(rgb.height));
  for (std::int64_t y = 0; y < rgb.height; ++y) {
    const std::uint8_t* from = rgb.row(y);
    std::uint8_t* to = raw.data() + static_cast<std::size_t>(y) * row_bytes;
    std::memcpy(to, from, 3);
    for (std::size_t i = 3; i < row_bytes; ++i) {
      to[i] = static_cast<std::uint8_t>(from[i] - from[i - 3]);
    }
  }
  uLongf size = compressBound(raw.size());
  std::vector<std::byte> out(size);
  if (compress2(reinterpret_cast<Bytef*>(out.data()), &size, raw.data(), raw.size(), 6) !=
      Z_OK) {
    throw std::runtime_error("zlib could not encode a tile");
  }
  out.resize(size);
  return out;
}

/// 10000 um / spacing as 32-bit integers: exact where it fits, else to 9 digits.
std::pair<std::uint32_t, std::uint32_t> pixels_per_cm(double spacing_um, int downsample) {
  const auto pm = static_cast<std::uint64_t>(Spacing::from_um(spacing_um).pm) *
                  static_cast<std::uint64_t>(downsample);
  constexpr std::uint64_t kCmPm = 10'000'000'000;
  const std::uint64_t common = std::gcd(kCmPm, pm);
  std::uint64_t numerator = kCmPm / common, denominator = pm / common;
  if (numerator > 0xffffffff || denominator > 0xffffffff) {
    denominator = 10'000;
    numerator = static_cast<std::uint64_t>(std::llround(1e14 / static_cast<double>(pm)));
  }
  return {static_cast<std::uint32_t>(numerator), static_cast<std::uint32_t>(denominator)};
}

double spacing_y_um(const PyramidOptions& options) {
  return options.spacing_y_um > 0.0 ? options.spacing_y_um : options.spacing_um;
}

}  // namespace

void check_pyramid(std::int64_t width_px, std::int64_t height_px,
                   const PyramidOptions& options) {
  const auto need = [](bool good, const std::string& what) {
    if (!good) throw std::invalid_argument("need " + what);
  };
  need(width_px >= 1 && height_px >= 1 && width_px <= kMaxSidePx &&
           height_px <= kMaxSidePx,
       "1 to " + std::to_string(kMaxSidePx) + " px a side, got " +
           std::to_string(width_px) + " x " + std::to_string(height_px));
  need(options.spacing_um >= kMinSpacingUm && options.spacing_um <= kMaxSpacingUm,
       "spacing_um of " + spacing_range_text() + ", got " +
           std::to_string(options.spacing_um));
  need(options.spacing_y_um == 0.0 || (options.spacing_y_um >= kMinSpacingUm &&
                                       options.spacing_y_um <= kMaxSpacingUm),
       "spacing_y_um of " + spacing_range_text() + ", or 0 for that of x, got " +
           std::to_string(options.spacing_y_um));
  need(is_tile_px(options.tile_px),
       "a tile_px of " + tile_px_text() + ", got " + std::to_string(options.tile_px));
  const std::int64_t columns = (width_px + options.tile_px - 1) / options.tile_px;
  const std::int64_t rows = (height_px + options.tile_px - 1) / options.tile_px;
  need(columns * rows <= static_cast<std::int64_t>(kMaxTiles),
       "at most " + std::to_string(kMaxTiles) + " tiles, got " +
           std::to_string(columns * rows) + ": use a larger tile_px");
  need(options.jpeg_quality >= 0 && options.jpeg_quality <= 100,
       "jpeg_quality of 1 to 100, or 0 for Deflate, got " +
           std::to_string(options.jpeg_quality));
  need(options.title.empty() || options.aperio,
       "aperio for a title: only its description has a place for one");
  need(options.title.size() <= 256 &&
           std::all_of(options.title.begin(), options.title.end(),
                       [](char c) { return c >= ' ' && c <= '~' && c != '|'; }),
       "a title of at most 256 printable ASCII characters without '|'");
  need(options.workers >= 1 && options.workers <= 256,
       "workers of 1 to 256, got " + std::to_string(options.workers));
  need(!options.downsamples.empty() && options.downsamples.front() == 1,
       "downsamples that start with 1");
  for (std::size_t i = 1; i < options.downsamples.size(); ++i) {
    need(options.downsamples[i] > options.downsamples[i - 1] &&
             options.downsamples[i] <= kMaxDownsample,
         "rising downsamples up to " + std::to_string(kMaxDownsample));
  }
}

PyramidWriter::PyramidWriter(const std::string& path, std::int64_t width_px,
                             std::int64_t height_px, const PyramidOptions& options,
                             std::optional<JpegTileFormat> copied)
    : options_(options), copied_(std::move(copied)), file_(path) {
  if (options.jpeg_quality > 0) quantization_ = jpeg_quantization(options.jpeg_quality);
  for (const int downsample : options.downsamples) {
    LevelWriter level;
    level.downsample = downsample;
    level.width_px = width_px / downsample;
    level.height_px = height_px / downsample;
    if (downsample > 1 &&
        (level.width_px < options.tile_px || level.height_px < options.tile_px)) {
      continue;
    }
    level.columns = (level.width_px + options.tile_px - 1) / options.tile_px;
    level.lost.resize(static_cast<std::size_t>(level.columns));
    if (downsample > 1) level.sums.resize(static_cast<std::size_t>(level.width_px) * 3);
    if (downsample > 1 || !copied_) {
      level.band.resize(static_cast<std::size_t>(level.columns) * options.tile_px *
                        options.tile_px * 3);
    }
    levels_.push_back(std::move(level));
  }
  const std::byte header[16]{};  // room for either header; filled in at the end
  file_.append(header, sizeof(header));
}

void PyramidWriter::add_band(ImageView<const std::uint8_t> rows,
                             std::span<const std::uint8_t> lost,
                             std::span<const std::vector<std::byte>> copies) {
  // A band of level 0 lies in one band of every other level, as tiles are equally high.
  for (std::size_t column = 0; column < lost.size(); ++column) {
    if (lost[column] == 0) continue;
    for (LevelWriter& level : levels_) {
      const std::size_t over = column / static_cast<std::size_t>(level.downsample);
      if (over < level.lost.size()) level.lost[over] = 1;  // else in the cut remainder
    }
  }
  if (copied_) {
    LevelWriter& full = levels_.front();
    for (const std::vector<std::byte>& tile : copies) append_tile(full, tile);
    full.rows_done += rows.height;
  }
  for (LevelWriter& level : levels_) {
    if (level.downsample == 1 && copied_) continue;
    for (std::int64_t y = 0; y < rows.height; ++y) add_row(level, rows.row(y));
  }
}

void PyramidWriter::finish() {
  for (LevelWriter& level : levels_) {
    if (level.band_rows > 0) write_band(level);
  }
  big_ = options_.big_tiff || file_.size() > options_.classic_bytes;
  pad();
  const std::uint64_t first = file_.size();
  for (std::size_t i = 0; i < levels_.size(); ++i) {
    const auto bytes =
        directory(i, big_).layout(file_.size(), big_, i + 1 == levels_.size());
    file_.append(bytes.data(), bytes.size());
  }
  std::vector<std::byte> header{std::byte{'I'}, std::byte{'I'}};
  append_little(header, big_ ? 43 : 42, 2);
  if (big_) append_little(header, 8, 4);  // offsets of 8 bytes, then 0
  append_little(header, first, big_ ? 8 : 4);
  file_.overwrite(0, header.data(), header.size());
  file_.commit();
}

void PyramidWriter::add_row(LevelWriter& level, const std::uint8_t* row) {
  if (level.rows_done == level.height_px) return;  // the remainder under the last block
  const std::int64_t n = level.downsample;
  std::uint8_t* to = level.band_row(level.band_rows, options_.tile_px);
  const std::int64_t values = level.width_px * 3;
  if (n == 1) {
    std::memcpy(to, row, static_cast<std::size_t>(values));
  } else {
    std::uint32_t* sum = level.sums.data();
    for (std::int64_t x = 0; x < level.width_px; ++x, sum += 3) {
      std::uint32_t r = 0, g = 0, b = 0;
      for (std::int64_t i = 0; i < n; ++i, row += 3)
        r += row[0], g += row[1], b += row[2];
      sum[0] += r, sum[1] += g, sum[2] += b;
    }
    if (++level.rows_summed < n) return;
    const auto area = static_cast<std::uint64_t>(n) * static_cast<std::uint64_t>(n);
    for (std::int64_t i = 0; i < values; ++i) {
      const auto index = static_cast<std::size_t>(i);
      to[i] = static_cast<std::uint8_t>((level.sums[index] + area / 2) / area);
    }
    std::fill(level.sums.begin(), level.sums.end(), 0u);
    level.rows_summed = 0;
  }
  // Padding repeats the last pixel: white would ring into the slide's edge.
  for (std::int64_t i = values; i < level.columns * options_.tile_px * 3; ++i)
    to[i] = to[i - 3];
  ++level.rows_done;
  if (++level.band_rows == options_.tile_px || level.rows_done == level.height_px) {
    write_band(level);
  }
}

void PyramidWriter::write_band(LevelWriter& level) {
  const std::int64_t tile = options_.tile_px;
  const auto row_bytes = static_cast<std::size_t>(level.columns * tile * 3);
  for (std::int64_t y = level.band_rows; y < tile; ++y) {
    std::memcpy(level.band_row(y, tile), level.band_row(level.band_rows - 1, tile),
                row_bytes);
  }
  // Tiles are written in column order, so the bytes do not depend on the workers.
  for (const auto& bytes : encode_band(level)) append_tile(level, bytes);
  std::fill(level.lost.begin(), level.lost.end(), std::uint8_t{0});
  level.band_rows = 0;
}

std::vector<std::vector<std::byte>> PyramidWriter::encode_band(
    const LevelWriter& level) const {
  const std::int64_t tile = options_.tile_px;
  std::vector<std::vector<std::byte>> tiles(static_cast<std::size_t>(level.columns));
  parallel_for(level.columns, options_.workers, [&](std::int64_t column, int) {
    const auto i = static_cast<std::size_t>(column);
    if (level.lost[i] != 0) return;  // stays empty
    const ImageView<const std::uint8_t> view(level.band.data() + column * tile * 3, tile,
                                             tile, 3, level.columns * tile * 3);
    tiles[i] =
        options_.jpeg_quality > 0 ? encode_jpeg(view, quantization_) : deflate_tile(view);
  });
  return tiles;
}

void PyramidWriter::append_tile(LevelWriter& level, std::span<const std::byte> bytes) {
  // Size 0 at offset 0 is a missing tile, for this library and for libtiff.
  level.offsets.push_back(bytes.empty() ? 0 : file_.size());
  level.bytes.push_back(bytes.size());
  if (bytes.empty()) return;
  file_.append(bytes.data(), bytes.size());
  pad();
}

void PyramidWriter::pad() {
  const std::byte zeros[8]{};
  file_.append(zeros, (8 - file_.size() % 8) % 8);
}

std::string PyramidWriter::description(const LevelWriter& level) const {
  const LevelWriter& full = levels_.front();
  const double um = options_.spacing_um;
  char mpp[32];
  const auto end = std::to_chars(mpp, mpp + sizeof(mpp), um).ptr;
  const int magnification = um < 0.35 ? 40 : um < 0.7 ? 20 : um < 1.4 ? 10 : 5;
  const auto size = [](const LevelWriter& l) {
    return std::to_string(l.width_px) + "x" + std::to_string(l.height_px);
  };
  const std::string tile = std::to_string(options_.tile_px);
  const std::string coding = copied_ && level.downsample == 1 ? "JPEG"
                             : options_.jpeg_quality > 0
                                 ? "JPEG/YCC Q=" + std::to_string(options_.jpeg_quality)
                                 : std::string("Deflate/RGB");
  return "Aperio Image Library (written by her2fast)\r\n" + size(full) + " (" + tile +
         "x" + tile + ")" + (level.downsample > 1 ? " -> " + size(level) : "") + " " +
         coding + "|AppMag = " + std::to_string(magnification) +
         // One number cannot state two spacings: then the resolution tags do.
         (spacing_y_um(options_) == um ? "|MPP = " + std::string(mpp, end) : "") +
         (options_.title.empty() ? "" : "|Title = " + options_.title);
}

DirectoryBuilder PyramidWriter::directory(std::size_t index, bool big) const {
  const LevelWriter& level = levels_[index];
  const bool copied = copied_ && index == 0;
  const bool jpeg = copied || options_.jpeg_quality > 0;
  DirectoryBuilder out;
  out.longs(tag::kNewSubfileType, {index > 0 ? 1u : 0u});
  out.longs(tag::kImageWidth, {static_cast<std::uint64_t>(level.width_px)});
  out.longs(tag::kImageLength, {static_cast<std::uint64_t>(level.height_px)});
  out.shorts(tag::kBitsPerSample, {8, 8, 8});
  out.shorts(tag::kCompression, {jpeg ? 7u : 8u});
  out.shorts(tag::kPhotometric, {jpeg && !(copied && copied_->rgb) ? 6u : 2u});
  if (options_.aperio) out.ascii(tag::kImageDescription, description(level));
  out.shorts(tag::kSamplesPerPixel, {3});
  for (const auto& [axis, um] : {std::pair{tag::kXResolution, options_.spacing_um},
                                 std::pair{tag::kYResolution, spacing_y_um(options_)}}) {
    const auto [numerator, denominator] = pixels_per_cm(um, level.downsample);
    out.rational(axis, numerator, denominator);
  }
  out.shorts(tag::kPlanarConfig, {1});
  out.shorts(tag::kResolutionUnit, {3});
  out.ascii(tag::kSoftware, "her2fast");
  if (!jpeg) out.shorts(tag::kPredictor, {2});
  out.longs(tag::kTileWidth, {static_cast<std::uint64_t>(options_.tile_px)});
  out.longs(tag::kTileLength, {static_cast<std::uint64_t>(options_.tile_px)});
  if (big) {
    out.long8s(tag::kTileOffsets, level.offsets);
    out.long8s(tag::kTileByteCounts, level.bytes);
  } else {
    out.longs(tag::kTileOffsets, level.offsets);
    out.longs(tag::kTileByteCounts, level.bytes);
  }
  if (copied) {
    if (!copied_->tables.empty()) out.bytes(tag::kJpegTables, copied_->tables);
    if (!copied_->subsampling.empty()) {
      out.shorts(tag::kYCbCrSubSampling, copied_->subsampling);
    }
  } else if (jpeg) {
    out.bytes(tag::kJpegTables, jpeg_tables(quantization_));
    out.shorts(tag::kYCbCrSubSampling, {2, 2});
  }
  if (!options_.icc_profile.empty()) {
    out.bytes(tag::kIccProfile, options_.icc_profile);
  }
  return out;
}

}  // namespace her2fast::io
