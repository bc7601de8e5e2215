// SPDX-License-Identifier: Apache-2.0
// Hamamatsu NDPI: a TIFF dialect with one JPEG per level, in one strip, with a restart
// marker at least once a row of MCUs. Directories of positive magnification are levels;
// macro (-1) and map (-2) are never read. A level pretends tiles of several restart
// intervals.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "io/byte_source.h"
#include "io/codec/decode_scratch.h"
#include "io/codec/jpeg_full_color.h"
#include "io/codec/jpeg_restart.h"
#include "io/codec/jpeg_whole.h"
#include "io/container/formats.h"
#include "io/container/tiff_slide.h"
#include "io/resample.h"

namespace her2fast::io {
namespace {

// Tables take about 700 bytes; color profiles, if any, some hundred KiB.
constexpr std::uint64_t kFirstHeaderBytes = 4 << 10, kMaxHeaderBytes = 1 << 20;
// Intervals are typically 2048 to 4096 px wide and one MCU high. A request of 256 px then
// decodes few pixels beside those it needs, and a row of requests uses each tile fully.
constexpr std::int64_t kTileAreaPx = std::int64_t{1} << 18;
constexpr std::int64_t kMinTileWidthPx = 512;
constexpr std::uint64_t kJpegCompression = 7;
constexpr std::int64_t kMaxTileHeightPx = 512;

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

struct NdpiImage {
  std::int64_t width_px = 0, height_px = 0;
  JpegFrame frame;
  JpegColor color = JpegColor::kYCbCr;
  std::shared_ptr<const FullColorTables> full_color;  // null: libjpeg-turbo reads all
  std::uint64_t strip_end = 0;
  std::int64_t interval_width_px = 0, interval_height_px = 0;
  std::int64_t columns = 0, rows = 0;  // of intervals
  std::int64_t across = 1, down = 1;   // intervals of a tile
  std::vector<std::uint64_t> starts;   // (rows, columns), or empty: `scan`
  std::shared_ptr<RestartScan> scan;

  std::int64_t tile_width_px() const { return across * interval_width_px; }
  std::int64_t tile_height_px() const { return down * interval_height_px; }
};

class NdpiSlide final : public Slide {
 public:
  NdpiSlide(std::shared_ptr<const ByteSource> source, SlideInfo info,
            std::vector<NdpiImage> images)
      : source_(std::move(source)), info_(std::move(info)), images_(std::move(images)) {}

  const SlideInfo& info() const override { return info_; }
  std::string fingerprint() const override { return fingerprint_of(*source_); }

  bool can_scale(int level, int denominator) const override {
    images_.at(static_cast<std::size_t>(level));
    return is_denominator(denominator);
  }

  void expect_tile(int level, std::int64_t column, std::int64_t row) const override {
    const NdpiImage& image = images_.at(static_cast<std::size_t>(level));
    if (image.starts.empty()) return;  // markers are found by reading
    if (column < 0 || row < 0 || column >= divide_up(image.columns, image.across) ||
        row >= divide_up(image.rows, image.down)) {
      return;
    }
    const Runs runs(image, column, row);
    for (std::int64_t i = 0; i < runs.count(); ++i) {
      const auto first = static_cast<std::size_t>(runs.first(image, i));
      const auto end = first + static_cast<std::size_t>(runs.intervals());
      const std::uint64_t to =
          end < image.starts.size() ? image.starts[end] : image.strip_end;
      source_->expect(image.starts[first], to - image.starts[first]);
    }
  }

  TileStatus read_tile(int level, std::int64_t column, std::int64_t row, int denominator,
                       ImageView<std::uint8_t> out,
                       DecodeScratch& scratch) const override {
    const NdpiImage& image = images_.at(static_cast<std::size_t>(level));
    const std::int64_t columns = divide_up(image.columns, image.across),
                       rows = divide_up(image.rows, image.down);
    if (column < 0 || row < 0 || column >= columns || row >= rows) {
      throw std::invalid_argument(
          "need a tile of " + std::to_string(columns) + " x " + std::to_string(rows) +
          ", got column " + std::to_string(column) + ", row " + std::to_string(row));
    }
    if (!can_scale(level, denominator) || out.channels != 3 ||
        out.width != image.tile_width_px() / denominator ||
        out.height != image.tile_height_px() / denominator) {
      throw std::invalid_argument("need a view of one tile at a scale of `can_scale`");
    }
    const std::int64_t width =
        std::min(image.tile_width_px(), image.width_px - column * image.tile_width_px());
    const std::int64_t height =
        std::min(image.tile_height_px(), image.height_px - row * image.tile_height_px());
    const ImageView<std::uint8_t> part(out.data, divide_up(height, denominator),
                                       divide_up(width, denominator), 3, out.stride);
    // The image's last tiles are smaller; what lies beyond is white.
    if (part.width != out.width || part.height != out.height) fill_white(out);
    const TileStatus status =
        image.frame.full_color
            ? decode_intervals(image, column, row, denominator, part, scratch)
            : decode_joined(image, column, row, denominator, part, scratch);
    if (status == TileStatus::kCorrupt) fill_white(out);
    return status;
  }

 private:
  /// A tile's intervals, and the pieces they stand in: whole rows of the image in one.
  struct Runs {
    std::int64_t left, top, across, down;  // intervals
    bool joined;
    Runs(const NdpiImage& image, std::int64_t column, std::int64_t row)
        : left(column * image.across),
          top(row * image.down),
          across(std::min(image.across, image.columns - left)),
          down(std::min(image.down, image.rows - top)),
          joined(across == image.columns) {}
    std::int64_t count() const { return joined ? 1 : down; }
    std::int64_t intervals() const { return joined ? down * across : across; }
    std::int64_t first(const NdpiImage& image, std::int64_t i) const {
      return (top + i) * image.columns + left;
    }
  };

  /// Reads run `i` of a tile, from the marker before it, into `scratch.band`; false where
  /// its place is unknown or cannot be.
  bool read_run(const NdpiImage& image, const Runs& runs, std::int64_t i,
                DecodeScratch& scratch) const {
    const std::int64_t first = runs.first(image, i);
    if (!find(image, first, runs.intervals(), scratch.starts)) return false;
    const std::uint64_t begin = band_begin(first, scratch);
    // Behind the last interval, and its end-of-image, other things may follow.
    const auto area = static_cast<std::uint64_t>(
        runs.intervals() * image.interval_width_px * image.interval_height_px);
    if (scratch.starts.back() - begin > max_jpeg_bytes(area)) return false;
    const auto bytes = static_cast<std::size_t>(scratch.starts.back() - begin);
    if (scratch.band.size() < bytes) scratch.band.resize(bytes);
    source_->read(begin, bytes, scratch.band.data());
    // The marker before the first says which interval this is.
    return first == 0 ||
           (scratch.band[0] == std::byte{0xff} &&
            scratch.band[1] == static_cast<std::byte>(0xd0 + ((first - 1) & 7)));
  }
  static std::uint64_t band_begin(std::int64_t first, const DecodeScratch& scratch) {
    return scratch.starts.front() - (first > 0 ? 2 : 0);
  }

  /// Appends interval `k` of the run in `scratch.band` as number `to` of a stream.
  static TileStatus append(const NdpiImage& image, std::int64_t first, std::int64_t k,
                           std::int64_t to, DecodeScratch& scratch) {
    const auto n = static_cast<std::size_t>(k);
    const std::uint64_t begin = scratch.starts[n];
    return append_interval({scratch.band.data() + (begin - band_begin(first, scratch)),
                            static_cast<std::size_t>(scratch.starts[n + 1] - begin)},
                           first + k, first + k + 1 == image.columns * image.rows, to,
                           scratch.compressed);
  }

  /// Every interval as an image of its own: without restart markers libjpeg-turbo takes
  /// its fast path, and an interval's pixels stay in the cache. The same pixels as in one
  /// piece, as nothing of full color resolution reaches across an interval's border.
  TileStatus decode_intervals(const NdpiImage& image, std::int64_t column,
                              std::int64_t row, int denominator,
                              ImageView<std::uint8_t> out, DecodeScratch& scratch) const {
    const Runs runs(image, column, row);
    TileStatus status = TileStatus::kOk;
    for (std::int64_t i = 0; i < runs.count(); ++i) {
      if (!read_run(image, runs, i, scratch)) return TileStatus::kCorrupt;
      for (std::int64_t k = 0; k < runs.intervals(); ++k) {
        const std::int64_t x = k % runs.across * image.interval_width_px;
        const std::int64_t y = (i + k / runs.across) * image.interval_height_px;
        const std::int64_t width =
            std::min(image.interval_width_px,
                     image.width_px - runs.left * image.interval_width_px - x);
        const std::int64_t height =
            std::min(image.interval_height_px,
                     image.height_px - runs.top * image.interval_height_px - y);
        begin_jpeg(image.frame, width, height, false, scratch.compressed);
        TileStatus one = append(image, runs.first(image, i), k, 0, scratch);
        if (one == TileStatus::kCorrupt) return one;
        end_jpeg(scratch.compressed);
        const ImageView<std::uint8_t> part(
            out.row(y / denominator) + 3 * (x / denominator),
            divide_up(height, denominator), divide_up(width, denominator), 3, out.stride);
        if (!decode_full_color(image, denominator, part, scratch)) {
          one = std::max(one, scratch.jpeg.decode({}, scratch.compressed, image.color,
                                                  width, height, denominator, part));
        }
        if (one == TileStatus::kCorrupt) return one;
        status = std::max(status, one);
      }
    }
    return status;
  }

  /// The interval in `scratch.compressed` on the faster way; false where it is not for
  /// it.
  static bool decode_full_color(const NdpiImage& image, int denominator,
                                ImageView<std::uint8_t> out, DecodeScratch& scratch) {
    if (image.full_color == nullptr || denominator != 1) return false;
    constexpr std::size_t kMarkerBytes = 2;
    const std::span<const std::byte> stream(scratch.compressed);
    const std::size_t begin = image.frame.header.size();
    return scratch.full_color.decode(
        *image.full_color, stream.subspan(begin, stream.size() - kMarkerBytes - begin),
        out);
  }

  /// All of a tile's intervals as one image: where color is subsampled, the decoder
  /// interpolates it across them.
  TileStatus decode_joined(const NdpiImage& image, std::int64_t column, std::int64_t row,
                           int denominator, ImageView<std::uint8_t> out,
                           DecodeScratch& scratch) const {
    const Runs runs(image, column, row);
    const std::int64_t width =
        std::min(runs.across * image.interval_width_px,
                 image.width_px - runs.left * image.interval_width_px);
    const std::int64_t height =
        std::min(runs.down * image.interval_height_px,
                 image.height_px - runs.top * image.interval_height_px);
    begin_jpeg(image.frame, width, height, true, scratch.compressed);
    TileStatus status = TileStatus::kOk;
    std::int64_t to = 0;
    for (std::int64_t i = 0; i < runs.count(); ++i) {
      if (!read_run(image, runs, i, scratch)) return TileStatus::kCorrupt;
      for (std::int64_t k = 0; k < runs.intervals(); ++k) {
        const TileStatus one = append(image, runs.first(image, i), k, to++, scratch);
        if (one == TileStatus::kCorrupt) return one;
        status = std::max(status, one);
      }
    }
    end_jpeg(scratch.compressed);
    return std::max(status, scratch.jpeg.decode({}, scratch.compressed, image.color,
                                                width, height, denominator, out));
  }

  static bool find(const NdpiImage& image, std::int64_t first, std::int64_t count,
                   std::vector<std::uint64_t>& starts) {
    if (image.starts.empty()) return image.scan->find(first, count, starts);
    const auto at = image.starts.begin() + first;
    starts.assign(at, at + count);
    starts.push_back(first + count == image.columns * image.rows ? image.strip_end
                                                                 : *(at + count));
    return true;
  }

  std::shared_ptr<const ByteSource> source_;
  SlideInfo info_;
  std::vector<NdpiImage> images_;
};

std::uint64_t single(const TiffFile& tiff, const TiffDirectory& directory,
                     std::uint16_t tag) {
  const auto values = tiff.integers(directory, tag, kMaxTiles);
  if (values.size() != 1 || values[0] == 0) {
    throw tiff.error(Code::kBadHeader, directory, tag,
                     "need one strip, got " + std::to_string(values.size()) +
                         " values or an empty one");
  }
  return values[0];
}

/// Offsets of the restart intervals as the file states them; empty where it states none,
/// or ones that cannot be. Whether they are true is seen when a tile is read.
std::vector<std::uint64_t> stated_starts(const TiffFile& tiff,
                                         const TiffDirectory& directory,
                                         std::uint64_t strip, std::uint64_t strip_bytes,
                                         const NdpiImage& image) {
  const auto intervals = static_cast<std::size_t>(image.columns * image.rows);
  auto starts = tiff.integers(directory, tag::kNdpiRestartLow, kMaxTiles);
  const auto high = tiff.integers(directory, tag::kNdpiRestartHigh, kMaxTiles);
  if (starts.size() != intervals || (!high.empty() && high.size() != intervals) ||
      starts[0] != image.frame.entropy_at) {
    return {};
  }
  std::uint64_t turns = 0, before = 0;
  for (std::size_t i = 0; i < intervals; ++i) {
    // Files of 4 GB from before the second tag hold the low words only. No interval is
    // that long, so a fall means one more turn of 2^32.
    const std::uint64_t low = starts[i];
    if (high.empty() && i > 0 && low < before) ++turns;
    before = low;
    starts[i] = low + ((high.empty() ? turns : high[i]) << 32);
    if (starts[i] >= strip_bytes || (i > 0 && starts[i] <= starts[i - 1] + 2)) return {};
  }
  for (std::uint64_t& start : starts) start += strip;
  return starts;
}

/// Nothing where the level is sound but cannot be read in parts.
std::optional<NdpiImage> load_image(const TiffFile& tiff,
                                    const TiffDirectory& directory) {
  NdpiImage image;
  std::tie(image.width_px, image.height_px) = image_size(tiff, directory);
  const std::uint64_t strip = single(tiff, directory, tag::kStripOffsets);
  const std::uint64_t bytes = single(tiff, directory, tag::kStripByteCounts);
  image.strip_end = strip + bytes;
  if (tiff.integer(directory, tag::kPhotometric) == std::uint64_t{2}) {
    image.color = JpegColor::kRgb;
  }
  JpegFrameAnswer answer;
  for (const std::uint64_t limit : {kFirstHeaderBytes, kMaxHeaderBytes}) {
    std::vector<std::byte> head(static_cast<std::size_t>(std::min(limit, bytes)));
    tiff.source()->read(strip, head.size(), head.data());
    answer = parse_jpeg_frame(head);
    if (answer.kind != JpegFrameAnswer::Kind::kIncomplete) break;
  }
  const auto damaged = [&](const std::string& what) {
    return tiff.error(Code::kBadHeader, directory, tag::kStripOffsets,
                      what + "; the file is damaged");
  };
  if (answer.kind == JpegFrameAnswer::Kind::kOther) return std::nullopt;
  if (answer.kind != JpegFrameAnswer::Kind::kGood) {
    throw damaged("its strip does not start with a sound JPEG header");
  }
  image.frame = std::move(answer.frame);
  const JpegFrame& frame = image.frame;
  if (image.color == JpegColor::kYCbCr) image.full_color = make_full_color_tables(frame);
  // JPEG has 16 bits for a side: 0 stands for longer ones.
  for (const auto& [tiff_px, jpeg_px] : {std::pair{image.width_px, frame.width_px},
                                         std::pair{image.height_px, frame.height_px}}) {
    if (jpeg_px != tiff_px && (jpeg_px != 0 || tiff_px <= kMaxJpegSidePx)) {
      throw damaged("its JPEG is " + std::to_string(frame.width_px) + " x " +
                    std::to_string(frame.height_px) + " px, its tags say " +
                    std::to_string(image.width_px) + " x " +
                    std::to_string(image.height_px));
    }
  }
  const std::int64_t mcus_x = divide_up(image.width_px, frame.mcu_width_px);
  const std::int64_t mcus_y = divide_up(image.height_px, frame.mcu_height_px);
  const std::int64_t restart =
      frame.restart_mcus > 0 ? frame.restart_mcus : mcus_x * mcus_y;
  if (restart <= mcus_x ? mcus_x % restart != 0 : restart % mcus_x != 0) {
    return std::nullopt;  // intervals that are no rectangles
  }
  image.columns = restart <= mcus_x ? mcus_x / restart : 1;
  const std::int64_t mcu_rows = std::max<std::int64_t>(1, restart / mcus_x);
  image.rows = divide_up(mcus_y, mcu_rows);
  image.interval_width_px = std::min(restart, mcus_x) * frame.mcu_width_px;
  image.interval_height_px = std::min(mcu_rows, mcus_y) * frame.mcu_height_px;
  const auto side = static_cast<std::int64_t>(kMaxTileSidePx);
  const auto area = static_cast<std::int64_t>(kMaxTilePx);
  if (image.interval_width_px > side || image.interval_height_px > side ||
      image.interval_width_px * image.interval_height_px > area) {
    return std::nullopt;
  }
  if (image.columns > static_cast<std::int64_t>(kMaxTiles) / image.rows) {
    throw tiff.error(
        Code::kLimitExceeded, directory, tag::kNdpiRestartLow,
        "its JPEG has more than " + std::to_string(kMaxTiles) + " restart intervals");
  }
  image.across = std::clamp<std::int64_t>(
      divide_up(kMinTileWidthPx, image.interval_width_px), 1, image.columns);
  image.down = std::clamp<std::int64_t>(
      std::min(kMaxTileHeightPx, kTileAreaPx / image.tile_width_px()) /
          image.interval_height_px,
      1, image.rows);
  image.starts = stated_starts(tiff, directory, strip, bytes, image);
  if (image.starts.empty()) {
    image.scan =
        std::make_shared<RestartScan>(tiff.source(), strip + frame.entropy_at,
                                      image.strip_end, image.columns * image.rows);
  }
  return image;
}

/// The shape of level 0 but for the MCU by which sides are rounded.
bool has_shape(const NdpiImage& full, std::int64_t width_px, std::int64_t height_px) {
  const double x = static_cast<double>(full.width_px) / static_cast<double>(width_px);
  const double y = static_cast<double>(full.height_px) / static_cast<double>(height_px);
  return std::abs(x - y) <= 16.0 * std::max(x / static_cast<double>(width_px),
                                            y / static_cast<double>(height_px));
}

}  // namespace

OpenAnswer open_hamamatsu(const OpenContext& context) {
  const std::string& name = context.source->name();
  if (context.tiff == nullptr || !context.tiff->ndpi()) {
    return Error(Code::kUnsupportedFormat, name + ": not a Hamamatsu NDPI");
  }
  const TiffFile& tiff = *context.tiff;
  check_extents(tiff);
  std::vector<NdpiImage> images;
  for (const TiffDirectory& directory : tiff.directories()) {
    if (!tiff.number(directory, tag::kNdpiMagnification)) continue;
    // Other planes of a focus stack.
    if (tiff.signed_integer(directory, tag::kNdpiFocalPlane).value_or(0) != 0) continue;
    const auto [width_px, height_px] = image_size(tiff, directory);
    if (!images.empty() && !has_shape(images.front(), width_px, height_px)) continue;
    if (auto obstacle = pixel_obstacle(tiff, directory)) return std::move(*obstacle);
    if (tiff.integer(directory, tag::kCompression) != kJpegCompression) {
      return tiff.error(Code::kUnsupportedFormat, directory, tag::kCompression,
                        "only JPEG is read here");
    }
    auto image = load_image(tiff, directory);
    if (!image) {
      return tiff.error(Code::kUnsupportedFormat, directory, tag::kStripOffsets,
                        "its JPEG cannot be read in parts");
    }
    images.push_back(std::move(*image));
  }
  // A first directory that lost its marks would leave a coarser level as level 0, and
  // every position would mean another place.
  const TiffDirectory& first = tiff.directories().front();
  if (images.empty() || images.front().width_px != image_size(tiff, first).first) {
    throw tiff.error(Code::kBadHeader, first, tag::kNdpiMagnification,
                     "the first directory is no level; the file is damaged");
  }
  const std::int64_t width_px = images.front().width_px;
  std::stable_sort(images.begin(), images.end(),
                   [](const auto& a, const auto& b) { return a.width_px > b.width_px; });
  if (images.front().width_px != width_px) {
    throw tiff.error(Code::kBadHeader, first, tag::kImageWidth,
                     "a later level is larger than the first");
  }
  images.erase(
      std::unique(images.begin(), images.end(),
                  [](const auto& a, const auto& b) { return a.width_px == b.width_px; }),
      images.end());
  SlideInfo info;
  info.format = "hamamatsu";
  info.reader = "native";
  // The scanner states the unit (cm): where it is lost, TIFF's default would be wrong.
  if (tiff.integer(first, tag::kResolutionUnit)) {
    set_resolution_spacing(tiff, first, info);
  }
  if (const auto power = tiff.number(first, tag::kNdpiMagnification)) {
    char text[32];
    std::snprintf(text, sizeof(text), "%g", *power);
    info.properties.emplace("hamamatsu.SourceLens", text);
  }
  for (const NdpiImage& image : images) {
    Level level;
    level.width_px = image.width_px;
    level.height_px = image.height_px;
    level.tile_width_px = static_cast<std::int32_t>(image.tile_width_px());
    level.tile_height_px = static_cast<std::int32_t>(image.tile_height_px());
    info.levels.push_back(level);
  }
  set_downsamples(info.levels);
  return std::static_pointer_cast<const Slide>(
      std::make_shared<NdpiSlide>(context.source, std::move(info), std::move(images)));
}

}  // namespace her2fast::io
