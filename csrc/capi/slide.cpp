// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "capi/guard.h"
#include "capi/handles.h"
#include "her2fast/tile_reader.h"

using namespace her2fast;
using namespace her2fast::capi;

namespace {

/// A host's bytes. Every range is checked here, so that a host need not.
class HostSource final : public ByteSource {
 public:
  explicit HostSource(const her2_byte_source& source)
      : source_(source),
        name_(source.name == nullptr ? "the host's slide" : source.name) {}
  ~HostSource() override {
    if (source_.close != nullptr) source_.close(source_.context);
  }
  std::uint64_t size() const override { return source_.byte_count; }
  void read(std::uint64_t offset, std::size_t size, std::byte* out) const override {
    if (offset > source_.byte_count || size > source_.byte_count - offset) {
      throw Error(Code::kTruncated, name_ + ": need " + std::to_string(size) +
                                        " bytes at " + std::to_string(offset) +
                                        ", the source has " +
                                        std::to_string(source_.byte_count));
    }
    const std::int32_t status = source_.read(source_.context, offset, size, out);
    if (status != 0) {
      throw Error(Code::kIo, name_ + ": the host's read of " + std::to_string(size) +
                                 " bytes at " + std::to_string(offset) +
                                 " returned status " + std::to_string(status));
    }
  }
  const std::string& name() const override { return name_; }

 private:
  her2_byte_source source_;
  std::string name_;
};

/// From here on the source is closed once, whatever fails.
std::shared_ptr<const HostSource> owned(const her2_byte_source& source) {
  try {
    return std::make_shared<const HostSource>(source);
  } catch (...) {
    if (source.close != nullptr) source.close(source.context);
    throw;
  }
}

/// At a spacing of 1 on both axes a grid pixel is a level-0 pixel.
constexpr Spacing kOne{1'000'000};

her2_slide* handle_of(std::shared_ptr<const Slide> slide) {
  const Level& base = slide->info().levels[0];
  const SlideFrame frame{base.width_px, base.height_px, kOne, kOne};
  const ReaderOptions options{.workers = 1, .mode = ReadingMode::kExact};
  auto pixels = std::make_unique<TileReader>(slide, frame, options);
  return new her2_slide{std::move(slide), std::move(pixels)};
}

}  // namespace

std::int32_t her2_slide_open_file(const char* path, her2_slide** out) {
  return guarded([&] {
    needed(out, "an out") = nullptr;
    *out = handle_of(open_slide(std::string(&needed(path, "a path"))));
    return HER2_OK;
  });
}

std::int32_t her2_slide_open_source(const her2_byte_source* source, her2_slide** out) {
  return guarded([&] {
    const auto given =
        read_struct(source, offsetof(her2_byte_source, name), "a byte source");
    const auto bytes = owned(given);
    needed(out, "an out") = nullptr;
    if (given.read == nullptr)
      throw std::invalid_argument("need a byte source with `read`");
    *out = handle_of(open_slide(std::shared_ptr<const ByteSource>(bytes)));
    return HER2_OK;
  });
}

void her2_slide_close(her2_slide* slide) { delete slide; }

std::int32_t her2_slide_get_info(const her2_slide* slide, her2_slide_info* info) {
  return guarded([&] {
    const SlideInfo& s = needed(slide, "a slide").slide->info();
    her2_slide_info value{};
    value.width_px = s.levels[0].width_px;
    value.height_px = s.levels[0].height_px;
    value.spacing_x_um = s.spacing_x ? s.spacing_x->um() : 0;
    value.spacing_y_um = s.spacing_y ? s.spacing_y->um() : 0;
    value.level_count = static_cast<std::int32_t>(s.levels.size());
    value.format = s.format.c_str();
    write_struct(value, info, "slide info");
    return HER2_OK;
  });
}

std::int32_t her2_slide_read(const her2_slide* slide, std::int64_t x0_px,
                             std::int64_t y0_px, std::int64_t width_px,
                             std::int64_t height_px, std::uint8_t* rgb,
                             std::int64_t stride_bytes) {
  return guarded([&] {
    const TileReader& reader = *needed(slide, "a slide").pixels;
    const ImageView<std::uint8_t> out(&needed(rgb, "memory for pixels"), height_px,
                                      width_px, 3, stride_bytes);
    const TileStatus status =
        reader.read({0, x0_px, y0_px, width_px, height_px, kOne}, out);
    if (status == TileStatus::kOk) return HER2_OK;
    const std::string where = "the pixels at (" + std::to_string(x0_px) + ", " +
                              std::to_string(y0_px) + ") are " +
                              std::string(tile_status_name(status));
    throw Error(
        status == TileStatus::kMissing ? Code::kMissingTiles : Code::kCorruptTiles,
        where);
  });
}
