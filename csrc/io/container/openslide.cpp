// SPDX-License-Identifier: Apache-2.0
// Every format without a native reader, through OpenSlide 4, opened at run time so that
// nothing links to it. The slide pretends a grid of 512 px tiles at each level.
#include "io/container/openslide.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <mutex>
#include <string_view>

#include "core/sha256.h"
#include "io/byte_source.h"
#include "io/codec/decode_scratch.h"
#include "io/container/formats.h"
#include "io/container/tiff_slide.h"

namespace her2fast::io {
namespace {

struct openslide_t;  // OpenSlide's opaque handle

constexpr std::int32_t kTilePx = 512;
constexpr int kMaxLevels = 64;

/// The functions used, by the names and types of OpenSlide's public C API.
struct Library {
  const char* (*get_version)();
  const char* (*detect_vendor)(const char*);
  openslide_t* (*open)(const char*);
  void (*close)(openslide_t*);
  const char* (*get_error)(openslide_t*);
  std::int32_t (*get_level_count)(openslide_t*);
  void (*get_level_dimensions)(openslide_t*, std::int32_t, std::int64_t*, std::int64_t*);
  double (*get_level_downsample)(openslide_t*, std::int32_t);
  const char* (*get_property_value)(openslide_t*, const char*);
  void (*read_region)(openslide_t*, std::uint32_t*, std::int64_t, std::int64_t,
                      std::int32_t, std::int64_t, std::int64_t);
};

std::mutex library_mutex;
std::string library_path;

template <typename Function>
bool bind(void* handle, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(handle, name));
  return function != nullptr;
}

/// nullptr where no OpenSlide is found. Never unloaded: glib, below it, cannot be.
const Library* load_library() {
  static Library library;
  static bool loaded = false;
  const std::lock_guard lock(library_mutex);
  if (loaded) return &library;
  const std::array<std::string, 3> candidates{library_path, "libopenslide.so.1",
                                              "libopenslide.so.0"};
  for (const std::string& candidate : candidates) {
    if (candidate.empty()) continue;
    void* handle = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) continue;
    loaded =
        bind(handle, "openslide_get_version", library.get_version) &&
        bind(handle, "openslide_detect_vendor", library.detect_vendor) &&
        bind(handle, "openslide_open", library.open) &&
        bind(handle, "openslide_close", library.close) &&
        bind(handle, "openslide_get_error", library.get_error) &&
        bind(handle, "openslide_get_level_count", library.get_level_count) &&
        bind(handle, "openslide_get_level_dimensions", library.get_level_dimensions) &&
        bind(handle, "openslide_get_level_downsample", library.get_level_downsample) &&
        bind(handle, "openslide_get_property_value", library.get_property_value) &&
        bind(handle, "openslide_read_region", library.read_region);
    if (loaded) return &library;
    dlclose(handle);
  }
  return nullptr;
}

class Handle {
 public:
  Handle(const Library& library, const std::string& path)
      : library_(library), slide_(library.open(path.c_str())) {}
  ~Handle() {
    if (slide_ != nullptr) library_.close(slide_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  openslide_t* get() const { return slide_; }
  /// Empty where all is well. OpenSlide latches the first error of a handle.
  std::string error() const {
    if (slide_ == nullptr) return "unsupported or missing file";
    const char* text = library_.get_error(slide_);
    return text == nullptr ? std::string() : std::string(text);
  }
  std::string property(const char* name) const {
    const char* text = library_.get_property_value(slide_, name);
    return text == nullptr ? std::string() : std::string(text);
  }

 private:
  const Library& library_;
  openslide_t* slide_;
};

class OpenSlideSlide final : public Slide {
 public:
  OpenSlideSlide(const Library& library, OpenContext const& context, SlideInfo info,
                 std::vector<double> downsamples, std::shared_ptr<Handle> handle)
      : library_(library),
        source_(context.source),
        path_(*context.path),
        info_(std::move(info)),
        downsamples_(std::move(downsamples)),
        quickhash_(handle->property("openslide.quickhash-1")),
        handle_(std::move(handle)) {}

  const SlideInfo& info() const override { return info_; }
  bool can_scale(int, int denominator) const override { return denominator == 1; }

  /// Some formats keep their pixels in files beside the one named: OpenSlide's own hash
  /// covers part of those.
  std::string fingerprint() const override {
    const std::string file = fingerprint_of(*source_);
    if (quickhash_.empty()) return file;
    Sha256 hash;
    hash.update(file.data(), file.size());
    hash.update(quickhash_.data(), quickhash_.size());
    return hash.hex();
  }

  TileStatus read_tile(int level, std::int64_t column, std::int64_t row, int denominator,
                       ImageView<std::uint8_t> out,
                       DecodeScratch& scratch) const override {
    const Level& shape = info_.levels.at(static_cast<std::size_t>(level));
    const std::int64_t x_px = column * kTilePx, y_px = row * kTilePx;
    if (column < 0 || row < 0 || x_px >= shape.width_px || y_px >= shape.height_px ||
        denominator != 1 || out.channels != 3 || out.width != kTilePx ||
        out.height != kTilePx) {
      throw std::invalid_argument(
          "need a tile inside the level and a view of 512 x 512 x 3");
    }
    const std::int64_t width = std::min<std::int64_t>(kTilePx, shape.width_px - x_px);
    const std::int64_t height = std::min<std::int64_t>(kTilePx, shape.height_px - y_px);
    scratch.argb.resize(static_cast<std::size_t>(kTilePx) * kTilePx);
    for (std::int64_t y = 0; y < kTilePx; ++y) {
      std::memset(out.row(y), 255, static_cast<std::size_t>(kTilePx) * 3);
    }
    if (!read(level, x_px, y_px, width, height, scratch.argb.data())) {
      return TileStatus::kCorrupt;
    }
    bool seen = false;
    for (std::int64_t y = 0; y < height; ++y) {
      const std::uint32_t* in = scratch.argb.data() + y * width;
      std::uint8_t* to = out.row(y);
      for (std::int64_t x = 0; x < width; ++x, to += 3) {
        // Premultiplied: adding what alpha leaves composes it over white.
        const std::uint32_t pixel = in[x], rest = 255 - (pixel >> 24);
        seen |= rest != 255;
        to[0] = static_cast<std::uint8_t>(std::min(255u, (pixel >> 16 & 255) + rest));
        to[1] = static_cast<std::uint8_t>(std::min(255u, (pixel >> 8 & 255) + rest));
        to[2] = static_cast<std::uint8_t>(std::min(255u, (pixel & 255) + rest));
      }
    }
    return seen ? TileStatus::kOk : TileStatus::kMissing;
  }

 private:
  bool read(int level, std::int64_t x_px, std::int64_t y_px, std::int64_t width,
            std::int64_t height, std::uint32_t* out) const {
    const double down = downsamples_[static_cast<std::size_t>(level)];
    const std::int64_t x0_px = std::llround(static_cast<double>(x_px) * down);
    const std::int64_t y0_px = std::llround(static_cast<double>(y_px) * down);
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
  std::vector<double> downsamples_;
  std::string quickhash_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<Handle> handle_;
};

std::optional<Spacing> parse_spacing(const std::string& text) {
  double um = 0.0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), um);
  if (failure != std::errc{} || !std::isfinite(um) || um <= 0.0) return std::nullopt;
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

}  // namespace

void set_openslide_library(const std::string& path) {
  const std::lock_guard lock(library_mutex);
  library_path = path;
}

OpenAnswer open_with_openslide(const OpenContext& context) {
  const std::string& name = context.source->name();
  if (!context.path) {
    return Error(Code::kUnsupportedFormat,
                 name + ": OpenSlide reads files only, not a host's bytes");
  }
  const Library* library = load_library();
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
  const int count = std::min(library->get_level_count(handle->get()), kMaxLevels);
  std::vector<double> downsamples;
  for (int i = 0; i < count; ++i) {
    Level level;
    library->get_level_dimensions(handle->get(), i, &level.width_px, &level.height_px);
    level.tile_width_px = level.tile_height_px = kTilePx;
    if (level.width_px < 1 || level.height_px < 1) {
      throw Error(Code::kBadHeader,
                  name + ": level " + std::to_string(i) + " has no pixels");
    }
    info.levels.push_back(level);
    downsamples.push_back(library->get_level_downsample(handle->get(), i));
  }
  if (info.levels.empty())
    throw Error(Code::kBadHeader, name + ": a slide without levels");
  set_downsamples(info.levels);
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
      *library, context, std::move(info), std::move(downsamples), std::move(handle)));
}

}  // namespace her2fast::io
