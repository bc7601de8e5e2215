// SPDX-License-Identifier: Apache-2.0
// Tiled pyramidal TIFF of no particular vendor: the first directory is level 0; smaller
// tiled directories (or SubIFDs of the first) of the same aspect are the other levels.
#include <algorithm>
#include <cmath>
#include <string_view>

#include "io/container/formats.h"
#include "io/container/tiff_slide.h"

namespace her2fast::io {
namespace {

constexpr std::size_t kMaxTextBytes = 256 << 10;

/// Vendors whose tiles overlap, whose areas are several, or whose spacing stands in XML:
/// reading them as plain pyramids would give wrong pixels. OpenSlide knows them.
const char* other_vendor(const TiffFile& tiff, const TiffDirectory& first) {
  if (tiff.ndpi()) return "Hamamatsu";
  const std::string software = tiff.text(first, tag::kSoftware, 256);
  if (software.starts_with("Philips")) return "Philips";
  if (software.starts_with("MedScan")) return "Trestle";
  const std::string description = tiff.text(first, tag::kImageDescription, kMaxTextBytes);
  if (description.find("leica-microsystems.com/scn") != std::string::npos) return "Leica";
  for (const TiffDirectory& directory : tiff.directories()) {
    if (directory.index < 4 &&
        tiff.text(directory, tag::kXmp, kMaxTextBytes).find("iScan") !=
            std::string::npos) {
      return "Ventana";
    }
  }
  return nullptr;
}

/// Same shape as level 0, within the pixel that cutting remainders takes from either
/// side.
bool same_aspect(const Level& full, std::int64_t width_px, std::int64_t height_px) {
  const double x = static_cast<double>(full.width_px) / static_cast<double>(width_px);
  const double y = static_cast<double>(full.height_px) / static_cast<double>(height_px);
  const double slack =
      std::max(x / static_cast<double>(width_px), y / static_cast<double>(height_px));
  return std::abs(x - y) <= slack + 1e-9;
}

bool is_mask(const TiffFile& tiff, const TiffDirectory& directory) {
  return (tiff.integer(directory, tag::kNewSubfileType).value_or(0) & 4) != 0;
}

}  // namespace

OpenAnswer open_generic_tiff(const OpenContext& context) {
  const std::string& name = context.source->name();
  if (context.tiff == nullptr) {
    return Error(Code::kUnsupportedFormat, name + ": not a tiled TIFF");
  }
  const TiffFile& tiff = *context.tiff;
  const TiffDirectory& first = tiff.directories().front();
  if (const char* vendor = other_vendor(tiff, first)) {
    return Error(Code::kUnsupportedFormat,
                 name + ": " + vendor + " TIFF is not read natively");
  }
  check_extents(tiff);
  const auto [width_px, height_px] = image_size(tiff, first);
  if (auto obstacle = pixel_obstacle(tiff, first)) return std::move(*obstacle);
  if (!is_tiled(tiff, first)) {
    return Error(Code::kUnsupportedFormat,
                 name + ": TIFF in strips; make it a pyramid with `her2fast convert`");
  }
  Level full;
  full.width_px = width_px;
  full.height_px = height_px;
  std::vector<TiledImage> images;
  images.push_back(load_tiled(tiff, first));
  for (const TiffDirectory& directory : tiff.directories()) {
    if (directory.index == first.index || !is_tiled(tiff, directory)) continue;
    const auto [width, height] = image_size(tiff, directory);
    // Overviews and masks of another shape are no level, whatever their mark; a series of
    // whole images (z planes, time points) is not smaller.
    if (width >= width_px || height >= height_px || !same_aspect(full, width, height) ||
        is_mask(tiff, directory) || pixel_obstacle(tiff, directory)) {
      continue;
    }
    images.push_back(load_tiled(tiff, directory));
  }
  std::stable_sort(images.begin(), images.end(),
                   [](const auto& a, const auto& b) { return a.width_px > b.width_px; });
  images.erase(
      std::unique(images.begin(), images.end(),
                  [](const auto& a, const auto& b) { return a.width_px == b.width_px; }),
      images.end());
  SlideInfo info;
  info.format = "generic-tiff";
  set_resolution_spacing(tiff, first, info);
  return make_tiff_slide(tiff, std::move(info), std::move(images));
}

}  // namespace her2fast::io
