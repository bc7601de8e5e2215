// SPDX-License-Identifier: Apache-2.0
#include "session/stored_tiles.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/number_text.h"
#include "her2fast/error.h"
#include "io/codec/jpeg.h"
#include "io/container/tiff_directory.h"
#include "io/resample.h"

namespace her2fast {
namespace {

constexpr int kMaxDownsample = 64;  // a level of 64 is coarser than any that is measured

void need(bool good, const std::string& what) {
  if (!good) throw std::invalid_argument("need " + what);
}

/// Whole blocks of `factor` px a side.
SlideFrame reduced(const SlideFrame& frame, std::int32_t factor) {
  const SlideFrame out{frame.width_px / factor,
                       frame.height_px / factor,
                       {frame.spacing_x.pm * factor},
                       {frame.spacing_y.pm * factor}};
  need(out.width_px > 0 && out.height_px > 0,
       "at least " + std::to_string(factor) +
           " px a side for one of what is stored and decoded, got " +
           std::to_string(frame.width_px) + " x " + std::to_string(frame.height_px));
  out.check();
  return out;
}

/// The tiles of a level; those at its right and lower edge end with it.
std::vector<ReadRequest> tiles_of(const SlideFrame& level, std::int64_t tile_px,
                                  Spacing grid) {
  const std::int64_t columns = (level.width_px + tile_px - 1) / tile_px;
  const std::int64_t rows = (level.height_px + tile_px - 1) / tile_px;
  const auto most = static_cast<std::int64_t>(io::kMaxTiles);
  if (rows > most / columns) {
    throw Error(Code::kLimitExceeded,
                "need at most " + std::to_string(most) + " stored tiles, got " +
                    std::to_string(columns) + " x " + std::to_string(rows) +
                    "; larger stored tiles or a coarser stored level have fewer");
  }
  std::vector<ReadRequest> tiles;
  tiles.reserve(static_cast<std::size_t>(columns * rows));
  for (std::int64_t y = 0; y < level.height_px; y += tile_px) {
    for (std::int64_t x = 0; x < level.width_px; x += tile_px) {
      tiles.push_back({static_cast<std::int64_t>(tiles.size()), x, y,
                       std::min(tile_px, level.width_px - x),
                       std::min(tile_px, level.height_px - y), grid});
    }
  }
  return tiles;
}

/// What one thread codes with.
struct Coder {
  io::JpegDecoder decoder;
  std::vector<std::uint8_t> padded, decoded;
};

/// A whole tile: at the edges of a level the last pixel is repeated, as the writer of
/// pyramids does, so that nothing rings into it.
ImageView<const std::uint8_t> whole_tile(ImageView<const std::uint8_t> rgb,
                                         std::int64_t side,
                                         std::vector<std::uint8_t>& padded) {
  if (rgb.width == side && rgb.height == side) return rgb;
  const auto row_bytes = static_cast<std::size_t>(side * 3);
  padded.resize(row_bytes * static_cast<std::size_t>(side));
  for (std::int64_t y = 0; y < side; ++y) {
    std::uint8_t* to = padded.data() + static_cast<std::size_t>(y) * row_bytes;
    if (y >= rgb.height) {
      std::memcpy(to, to - row_bytes, row_bytes);
      continue;
    }
    std::memcpy(to, rgb.row(y), static_cast<std::size_t>(rgb.width * 3));
    for (std::int64_t i = rgb.width * 3; i < side * 3; ++i) to[i] = to[i - 3];
  }
  return {padded.data(), side, side, 3};
}

}  // namespace

void StoredCoding::check() const {
  if (tables) {
    need(jpeg_quality == 0,
         "a stored quality of 0 beside tables, got " + std::to_string(jpeg_quality));
  } else {
    need(jpeg_quality >= 1 && jpeg_quality <= 100,
         "a stored quality of 1 to 100, got " + std::to_string(jpeg_quality));
  }
  need(chroma <= io::JpegChroma::k444, "a stored chroma of 4:2:0, 4:2:2 or 4:4:4, got " +
                                           std::to_string(static_cast<int>(chroma)));
  need(is_tile_px(tile_px),
       "stored tiles of " + tile_px_text() + ", got " + std::to_string(tile_px));
  need(downsample >= 1 && downsample <= kMaxDownsample,
       "a stored downsample of 1 to " + std::to_string(kMaxDownsample) + ", got " +
           std::to_string(downsample));
  need(is_denominator(denominator),
       "a decoding at 1, 1/2, 1/4 or 1/8, got 1/" + std::to_string(denominator));
}

SlideFrame StoredCoding::level(const SlideFrame& level0) const {
  check();
  need(level0.spacing_x == level0.spacing_y,
       "one spacing for both axes of what is stored, got " +
           short_text(level0.spacing_x.um(), 6) + " and " +
           short_text(level0.spacing_y.um(), 6) + " um/px");
  return reduced(level0, downsample);
}

SlideFrame StoredCoding::decoded(const SlideFrame& level0) const {
  return reduced(level(level0), denominator);
}

struct StoredTiles::Impl {
  StoredCoding coding;
  Sink sink;
  io::JpegQuantization steps;
  std::vector<std::byte> tables;
  std::mutex mutex;  // guards idle
  std::vector<std::unique_ptr<Coder>> idle;
  std::unique_ptr<StripAssembler> tiles;

  std::unique_ptr<Coder> take() {
    const std::lock_guard lock(mutex);
    if (idle.empty()) return std::make_unique<Coder>();
    std::unique_ptr<Coder> coder = std::move(idle.back());
    idle.pop_back();
    return coder;
  }

  void code(const ReadRequest& request, ImageView<const std::uint8_t> rgb) {
    std::unique_ptr<Coder> coder = take();
    const std::int64_t side = coding.tile_px, n = coding.denominator, small = side / n;
    const std::vector<std::byte> stream =
        io::encode_jpeg(whole_tile(rgb, side, coder->padded), steps, coding.chroma);
    coder->decoded.resize(static_cast<std::size_t>(small * small * 3));
    const TileStatus status = coder->decoder.decode(
        tables, stream, io::JpegColor::kYCbCr, side, side, coding.denominator,
        {coder->decoded.data(), small, small, 3});
    if (status != TileStatus::kOk) {
      throw std::runtime_error("a tile that was just coded as JPEG does not decode");
    }
    const std::int64_t width = request.width_px / n, height = request.height_px / n;
    if (width > 0 && height > 0) {
      sink({request.x_px / n, request.y_px / n, width, height, coder->decoded.data(),
            small * 3, PixelFormat::kRgb});
    }
    const std::lock_guard lock(mutex);
    idle.push_back(std::move(coder));
  }
};

StoredTiles::StoredTiles(const SlideFrame& level0, const StoredCoding& coding, Sink sink,
                         std::size_t max_bytes)
    : impl_(std::make_unique<Impl>()) {
  level0.check();
  Impl* impl = impl_.get();
  impl->coding = coding;
  impl->sink = std::move(sink);
  impl->steps =
      coding.tables ? *coding.tables : io::jpeg_quantization(coding.jpeg_quality);
  impl->tables = io::jpeg_tables(impl->steps);
  const SlideFrame stored = coding.level(level0);
  static_cast<void>(coding.decoded(level0));  // refuses what leaves no pixel
  impl->tiles = std::make_unique<StripAssembler>(
      level0, tiles_of(stored, coding.tile_px, stored.spacing_x),
      [impl](const ReadRequest& request, ImageView<const std::uint8_t> rgb) {
        impl->code(request, rgb);
      },
      max_bytes);
}

StoredTiles::~StoredTiles() = default;

void StoredTiles::add(const PixelRect& rect) { impl_->tiles->add(rect); }

StripAssembler::Counts StoredTiles::counts() const { return impl_->tiles->counts(); }

}  // namespace her2fast
