// SPDX-License-Identifier: Apache-2.0
// Every format without a native reader, through OpenSlide.
//
// The frame is the scanned area: where a vendor states bounds, level 0 begins at their
// corner and ends with them, as in QuPath, whose regions of interest come in. OpenSlide's
// own frame reaches far beyond it, over glass that no scanner has looked at.
#include "io/container/openslide.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <string_view>

#include "core/native_file.h"
#include "core/sha256.h"
#include "io/byte_source.h"
#include "io/codec/decode_scratch.h"
#include "io/container/formats.h"
#include "io/container/openslide_library.h"
#include "io/container/tiff_slide.h"

namespace her2fast::io {
namespace {

using Library = OpenSlideLibrary;
using Handle = OpenSlideHandle;

constexpr std::int32_t kTilePx = 512;  // where the format has no tiles of its own
constexpr std::int64_t kMinOwnTilePx = 128, kMaxOwnTilePx = 1024;
constexpr int kMaxLevels = 64;
constexpr std::int64_t kMaxSidePx = std::int64_t{1} << 26;  // as SlideFrame::check
constexpr std::size_t kMaxCompanions = 4096;
// A level may end in the middle of a pixel, which is then partly transparent.
constexpr std::int64_t kEdgePx = 2;

/// A level, and what OpenSlide is asked for to read it.
struct Source {
  double downsample = 1.0;  ///< OpenSlide's, the mean of both axes
  /// Of the frame's corner, in pixels of the level; fractions occur.
  double x_px = 0.0, y_px = 0.0;
};

/// Formats that leave out what was not scanned. For all others a hole is a loss.
bool is_sparse(std::string_view vendor) {
  for (const std::string_view name :
       {"mirax", "leica", "ventana", "philips", "dicom", "zeiss"}) {
    if (vendor == name) return true;
  }
  return false;
}

/// The first 4096 files of MIRAX's folder, by name: its pixels lie there.
std::vector<std::string> companions_of(const std::string& path,
                                       const std::string& vendor) {
  std::vector<std::string> found;
  if (vendor != "mirax") return found;
  std::error_code failure;
  const auto folder = to_path(path).replace_extension();
  for (const auto& entry : std::filesystem::directory_iterator(folder, failure)) {
    if (found.size() == kMaxCompanions) break;
    if (entry.is_regular_file(failure)) found.push_back(to_text(entry.path()));
  }
  std::sort(found.begin(), found.end());
  return found;
}

class OpenSlideSlide final : public Slide, public HasIccProfile {
 public:
  OpenSlideSlide(const Library& library, const OpenContext& context, SlideInfo info,
                 std::vector<Source> sources, std::shared_ptr<Handle> handle)
      : library_(library),
        source_(context.source),
        path_(*context.path),
        info_(std::move(info)),
        sources_(std::move(sources)),
        sparse_(is_sparse(info_.format)),
        quickhash_(handle->property("openslide.quickhash-1")),
        handle_(std::move(handle)) {}

  const SlideInfo& info() const override { return info_; }
  bool can_scale(int, int denominator) const override { return denominator == 1; }

  std::vector<std::byte> icc_profile() const override {
    return Handle(library_, path_).icc_profile(kMaxIccBytes);
  }

  /// Some formats keep their pixels in files beside the one named: OpenSlide's own hash
  /// covers part of those, MIRAX's are hashed here.
  std::string fingerprint() const override {
    const std::string file = fingerprint_of(*source_);
    const std::vector<std::string> companions = companions_of(path_, info_.format);
    if (quickhash_.empty() && companions.empty()) return file;
    Sha256 hash;
    hash.update(file.data(), file.size());
    hash.update(quickhash_.data(), quickhash_.size());
    for (const std::string& companion : companions) {
      const std::string name = to_text(to_path(companion).filename());
      const std::string part = fingerprint_of(*open_file(companion));
      hash.update(name.data(), name.size() + 1);  // with its NUL, which ends it
      hash.update(part.data(), part.size());
    }
    return hash.hex();
  }

  TileStatus read_tile(int level, std::int64_t column, std::int64_t row, int denominator,
                       ImageView<std::uint8_t> out,
                       DecodeScratch& scratch) const override {
    const Level& shape = info_.levels.at(static_cast<std::size_t>(level));
    const std::int64_t x_px = column * shape.tile_width_px;
    const std::int64_t y_px = row * shape.tile_height_px;
    if (column < 0 || row < 0 || x_px >= shape.width_px || y_px >= shape.height_px ||
        denominator != 1 || out.channels != 3 || out.width != shape.tile_width_px ||
        out.height != shape.tile_height_px) {
      throw std::invalid_argument("need a tile inside the level and a view of its size");
    }
    const std::int64_t width =
        std::min<std::int64_t>(shape.tile_width_px, shape.width_px - x_px);
    const std::int64_t height =
        std::min<std::int64_t>(shape.tile_height_px, shape.height_px - y_px);
    scratch.argb.resize(static_cast<std::size_t>(width * height));
    fill_white(out);
    if (!read(level, x_px, y_px, width, height, scratch.argb.data())) {
      return TileStatus::kCorrupt;
    }
    bool hole = false;
    const std::int64_t inner_x = shape.width_px - kEdgePx - x_px;
    const std::int64_t inner_y = shape.height_px - kEdgePx - y_px;
    for (std::int64_t y = 0; y < height; ++y) {
      const std::uint32_t* in = scratch.argb.data() + y * width;
      std::uint8_t* to = out.row(y);
      for (std::int64_t x = 0; x < width; ++x, to += 3) {
        // Premultiplied: adding what alpha leaves composes it over white.
        const std::uint32_t pixel = in[x], rest = 255 - (pixel >> 24);
        hole |= rest == 255 && x < inner_x && y < inner_y;
        to[0] = static_cast<std::uint8_t>(std::min(255u, (pixel >> 16 & 255) + rest));
        to[1] = static_cast<std::uint8_t>(std::min(255u, (pixel >> 8 & 255) + rest));
        to[2] = static_cast<std::uint8_t>(std::min(255u, (pixel & 255) + rest));
      }
    }
    if (!hole || sparse_) return TileStatus::kOk;
    fill_white(out);
    return TileStatus::kMissing;
  }

 private:
  bool read(int level, std::int64_t x_px, std::int64_t y_px, std::int64_t width,
            std::int64_t height, std::uint32_t* out) const {
    const Source& source = sources_[static_cast<std::size_t>(level)];
    const std::int64_t x0_px =
        std::llround((source.x_px + static_cast<double>(x_px)) * source.downsample);
    const std::int64_t y0_px =
        std::llround((source.y_px + static_cast<double>(y_px)) * source.downsample);
    if (const auto shared = shared_handle(); shared != nullptr) {
      library_.read_region(shared->get(), out, x0_px, y0_px, level, width, height);
      if (shared->error().empty()) return true;
      drop(shared);
    }
    // The error may have come from a neighbour's tile, read through the same handle: only
    // a handle of its own tells whether this tile is the damaged one.
    const auto own = std::make_shared<Handle>(library_, path_);
    if (!own->error().empty()) return false;
    library_.read_region(own->get(), out, x0_px, y0_px, level, width, height);
    if (!own->error().empty()) return false;
    const std::lock_guard lock(mutex_);
    if (handle_ == nullptr) handle_ = own;
    return true;
  }

  std::shared_ptr<Handle> shared_handle() const {
    const std::lock_guard lock(mutex_);
    return handle_;
  }
  void drop(const std::shared_ptr<Handle>& bad) const {
    const std::lock_guard lock(mutex_);
    if (handle_ == bad) handle_ = nullptr;
  }

  const Library& library_;
  std::shared_ptr<const ByteSource> source_;
  std::string path_;
  SlideInfo info_;
  std::vector<Source> sources_;
  bool sparse_;
  std::string quickhash_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<Handle> handle_;
};

std::optional<Spacing> parse_spacing(const std::string& text) {
  double um = 0.0;
  const char* last = text.data() + text.size();
  const auto [end, failure] = std::from_chars(text.data(), last, um);
  if (failure != std::errc{} || end != last || !std::isfinite(um) || um <= 0.0) {
    return std::nullopt;
  }
  return Spacing::from_um(std::clamp(um, 1e-6, 1e6));
}

/// OpenSlide says in words only that the pixels, not the format, are beyond it.
Code code_of(const std::string& message) {
  for (const char* sign :
       {"BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel",
        "PhotometricInterpretation", "PlanarConfiguration", "pixel format"}) {
    if (message.find(sign) != std::string::npos) return Code::kUnsupportedPixels;
  }
  return Code::kUnsupportedFormat;
}

std::optional<std::int64_t> parse_px(const std::string& text) {
  std::int64_t px = 0;
  const char* last = text.data() + text.size();
  const auto [end, failure] = std::from_chars(text.data(), last, px);
  if (failure != std::errc{} || end != last) return std::nullopt;
  return px;
}

struct Bounds {
  std::int64_t x0_px = 0, y0_px = 0, width_px = 0, height_px = 0;
};

/// The scanned part of level 0: all of it where no bounds are stated.
Bounds scanned_area(const Handle& handle, const Level& full, const std::string& name) {
  const Bounds all{0, 0, full.width_px, full.height_px};
  const std::array<const char*, 4> keys{"openslide.bounds-x", "openslide.bounds-y",
                                        "openslide.bounds-width",
                                        "openslide.bounds-height"};
  std::array<std::int64_t, 4> values{};
  std::size_t found = 0;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const std::string text = handle.property(keys[i]);
    if (text.empty()) continue;
    const auto px = parse_px(text);
    if (!px || *px < -kMaxSidePx || *px > 2 * kMaxSidePx) {
      throw Error(Code::kBadHeader, name + ": " + keys[i] + " is no number of pixels: " +
                                        printable(text.substr(0, 64)));
    }
    values[i] = *px;
    ++found;
  }
  if (found == 0) return all;
  // Rounding lets bounds end a pixel beyond the level.
  Bounds area{std::max<std::int64_t>(values[0], 0), std::max<std::int64_t>(values[1], 0),
              0, 0};
  area.width_px = std::min(values[0] + values[2], full.width_px) - area.x0_px;
  area.height_px = std::min(values[1] + values[3], full.height_px) - area.y0_px;
  if (found < keys.size() || area.width_px < 1 || area.height_px < 1) {
    throw Error(Code::kBadHeader,
                name + ": the stated bounds hold no pixel of level 0, " +
                    std::to_string(full.width_px) + " x " +
                    std::to_string(full.height_px) + " px; copy the slide again");
  }
  return area;
}

std::int32_t own_tile_px(const Handle& handle, int level, const char* side) {
  const std::string key = "openslide.level[" + std::to_string(level) + "].tile-" + side;
  const auto px = parse_px(handle.property(key.c_str()));
  if (!px || *px < kMinOwnTilePx || *px > kMaxOwnTilePx) return kTilePx;
  return static_cast<std::int32_t>(*px);
}

/// Levels as OpenSlide states them. @throws Error kBadHeader, kLimitExceeded
std::vector<Level> load_levels(const Library& library, const Handle& handle,
                               std::vector<Source>& sources, const std::string& name) {
  std::vector<Level> levels;
  const int count = std::min(library.get_level_count(handle.get()), kMaxLevels);
  for (int i = 0; i < count; ++i) {
    const std::string which = name + ": level " + std::to_string(i);
    Level level;
    library.get_level_dimensions(handle.get(), i, &level.width_px, &level.height_px);
    if (level.width_px < 1 || level.height_px < 1) {
      throw Error(Code::kBadHeader, which + " has no pixels");
    }
    if (level.width_px > kMaxSidePx || level.height_px > kMaxSidePx) {
      throw Error(Code::kLimitExceeded,
                  which + ": need at most " + std::to_string(kMaxSidePx) +
                      " px a side, got " + std::to_string(level.width_px) + " x " +
                      std::to_string(level.height_px));
    }
    level.tile_width_px = own_tile_px(handle, i, "width");
    level.tile_height_px = own_tile_px(handle, i, "height");
    Source source;
    source.downsample = library.get_level_downsample(handle.get(), i);
    const Level& full = levels.empty() ? level : levels.front();
    const double by_width =
        static_cast<double>(full.width_px) / static_cast<double>(level.width_px);
    const double by_height =
        static_cast<double>(full.height_px) / static_cast<double>(level.height_px);
    // A level of one pixel row says little of its downsample; NaN fails any comparison.
    const double slack =
        0.02 + 1.0 / static_cast<double>(std::min(level.width_px, level.height_px));
    const auto near = [&](double ratio) {
      return std::abs(source.downsample / ratio - 1.0) <= slack;
    };
    if (!(source.downsample >= 1.0 && near(by_width) && near(by_height))) {
      throw Error(Code::kBadHeader, which +
                                        ": its downsample disagrees with its size of " +
                                        std::to_string(level.width_px) + " x " +
                                        std::to_string(level.height_px) + " px");
    }
    levels.push_back(level);
    sources.push_back(source);
  }
  if (levels.empty()) throw Error(Code::kBadHeader, name + ": a slide without levels");
  set_downsamples(levels);
  return levels;
}

/// Cuts the levels to the scanned area; their downsamples stay those of the whole.
void cut_to(const Bounds& area, std::vector<Level>& levels,
            std::vector<Source>& sources) {
  for (std::size_t i = 0; i < levels.size(); ++i) {
    Level& level = levels[i];
    const auto along = [](std::int64_t px, std::int64_t num, std::int64_t den) {
      return static_cast<double>(px) * static_cast<double>(den) /
             static_cast<double>(num);
    };
    sources[i].x_px = along(area.x0_px, level.down_x_num, level.down_x_den);
    sources[i].y_px = along(area.y0_px, level.down_y_num, level.down_y_den);
    // Sides are at most 2^26: the products stay below 2^52.
    level.width_px =
        std::max<std::int64_t>(1, area.width_px * level.down_x_den / level.down_x_num);
    level.height_px =
        std::max<std::int64_t>(1, area.height_px * level.down_y_den / level.down_y_num);
  }
}

}  // namespace

OpenAnswer open_with_openslide(const OpenContext& context) {
  const std::string& name = context.source->name();
  if (!context.path) {
    return Error(Code::kUnsupportedFormat,
                 name + ": OpenSlide reads files only, not a host's bytes");
  }
  const Library* library = load_openslide();
  if (library == nullptr) {
    return Error(Code::kUnsupportedFormat,
                 name +
                     ": no native reader, and no OpenSlide library was found; install "
                     "openslide-bin");
  }
  const char* vendor = library->detect_vendor(context.path->c_str());
  if (vendor == nullptr) {
    return Error(
        Code::kUnsupportedFormat,
        name + ": no known slide format; is it complete, with its companion files?");
  }
  auto handle = std::make_shared<Handle>(*library, *context.path);
  if (const std::string message = handle->error(); !message.empty()) {
    return Error(code_of(message),
                 name + ": OpenSlide (" + vendor + "): " + printable(message));
  }
  SlideInfo info;
  info.format = vendor;
  info.reader = std::string("openslide ") + library->get_version();
  std::vector<Source> sources;
  info.levels = load_levels(*library, *handle, sources, name);
  cut_to(scanned_area(*handle, info.levels.front(), name), info.levels, sources);
  info.spacing_x = parse_spacing(handle->property("openslide.mpp-x"));
  info.spacing_y = parse_spacing(handle->property("openslide.mpp-y"));
  if (!info.spacing_x || !info.spacing_y) info.spacing_x = info.spacing_y = std::nullopt;
  if (info.spacing_x) {
    // For generic TIFF, OpenSlide's spacing is the resolution tags'.
    info.spacing_source = info.format == "generic-tiff" ? SpacingSource::kTiffResolution
                                                        : SpacingSource::kVendor;
  }
  // The allow-list: vendors put names, dates and bar codes among the properties.
  for (const char* key :
       {"openslide.vendor", "openslide.objective-power", "openslide.mpp-x",
        "openslide.mpp-y", "openslide.bounds-x", "openslide.bounds-y",
        "openslide.bounds-width", "openslide.bounds-height", "aperio.AppMag",
        "aperio.MPP", "hamamatsu.SourceLens"}) {
    const std::string value = handle->property(key);
    if (!value.empty() && value.size() <= 64)
      info.properties.emplace(key, printable(value));
  }
  return std::static_pointer_cast<const Slide>(std::make_shared<OpenSlideSlide>(
      *library, context, std::move(info), std::move(sources), std::move(handle)));
}

}  // namespace her2fast::io
