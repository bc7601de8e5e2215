// SPDX-License-Identifier: Apache-2.0
// Aperio SVS: TIFF whose first ImageDescription starts with "Aperio". Every tiled
// directory is a level; thumbnail, label and macro are stripped and never read.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>

#include "io/byte_source.h"
#include "io/container/formats.h"
#include "io/container/tiff_slide.h"

namespace her2fast::io {
namespace {

// Descriptions run to about 2 KB; ICC names and user text can make them longer.
constexpr std::size_t kMaxDescriptionBytes = 64 << 10;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

/// The value of `key` in "header|key = value|key = value".
std::string_view value_of(std::string_view description, std::string_view key) {
  std::size_t bar = description.find('|');
  while (bar != std::string_view::npos) {
    const std::size_t next = description.find('|', bar + 1);
    const std::string_view item = description.substr(bar + 1, next - bar - 1);
    const std::size_t equals = item.find('=');
    if (equals != std::string_view::npos && trimmed(item.substr(0, equals)) == key) {
      return trimmed(item.substr(equals + 1));
    }
    bar = next;
  }
  return {};
}

void set_vendor_spacing(std::string_view description, SlideInfo& info) {
  const std::string_view text = value_of(description, "MPP");
  double um = 0.0;
  // from_chars knows no locale: "0,25" under a German one would read as 0.
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), um);
  if (failure != std::errc{} || end != text.data() + text.size() || !std::isfinite(um) ||
      um <= 0.0) {
    return;
  }
  info.spacing_x = info.spacing_y = Spacing::from_um(std::clamp(um, 1e-6, 1e6));
  info.spacing_source = SpacingSource::kVendor;
}

}  // namespace

OpenAnswer open_aperio(const OpenContext& context) {
  if (context.tiff == nullptr) {
    return Error(Code::kUnsupportedFormat,
                 context.source->name() + ": not an Aperio TIFF");
  }
  const TiffFile& tiff = *context.tiff;
  const TiffDirectory& first = tiff.directories().front();
  const std::string description =
      tiff.text(first, tag::kImageDescription, kMaxDescriptionBytes);
  if (!description.starts_with("Aperio") || !is_tiled(tiff, first)) {
    return Error(Code::kUnsupportedFormat,
                 context.source->name() + ": not an Aperio TIFF");
  }
  check_extents(tiff);
  const auto [width_px, height_px] = image_size(tiff, first);
  std::vector<TiledImage> images;
  for (const TiffDirectory& directory : tiff.directories()) {
    if (directory.is_sub || !is_tiled(tiff, directory)) continue;
    if (auto obstacle = pixel_obstacle(tiff, directory)) return std::move(*obstacle);
    images.push_back(load_tiled(tiff, directory));
  }
  std::stable_sort(images.begin(), images.end(),
                   [](const auto& a, const auto& b) { return a.width_px > b.width_px; });
  if (images.front().width_px != width_px || images.front().height_px != height_px) {
    throw tiff.error(Code::kBadHeader, first, tag::kImageWidth,
                     "a later level is larger than the first");
  }
  SlideInfo info;
  info.format = "aperio";
  set_vendor_spacing(description, info);
  if (info.spacing_source == SpacingSource::kNone)
    set_resolution_spacing(tiff, first, info);
  // The allow-list: names, dates, bar codes and file names of the description stay out.
  for (const char* key : {"AppMag", "MPP", "ScanScope ID"}) {
    const std::string_view value = value_of(description, key);
    if (!value.empty() && value.size() <= 64) {
      info.properties.emplace(std::string("aperio.") + key,
                              printable(std::string(value)));
    }
  }
  return make_tiff_slide(tiff, std::move(info), std::move(images));
}

}  // namespace her2fast::io
