// SPDX-License-Identifier: Apache-2.0
/// The ordered table of containers.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "her2fast/error.h"
#include "her2fast/slide.h"
#include "io/container/tiff_directory.h"

namespace her2fast::io {

/// What every container looks at; the TIFF directories are parsed once.
struct OpenContext {
  std::shared_ptr<const ByteSource> source;
  std::optional<std::string> path;  ///< absent where a host supplies the bytes
  std::unique_ptr<TiffFile> tiff;   ///< absent where it is no TIFF
};

/// A slide, or why this container leaves it to the next.
struct OpenAnswer {
  std::shared_ptr<const Slide> slide;
  std::optional<Error> declined;

  OpenAnswer(std::shared_ptr<const Slide> opened) : slide(std::move(opened)) {}
  OpenAnswer(Error reason) : declined(std::move(reason)) {}
};

struct Format {
  const char* name;
  /// @throws Error where the file is this container's and damaged: then no other is tried
  OpenAnswer (*open)(const OpenContext& context);
};

std::span<const Format> formats();

OpenAnswer open_hamamatsu(const OpenContext& context);
OpenAnswer open_aperio(const OpenContext& context);
OpenAnswer open_generic_tiff(const OpenContext& context);
OpenAnswer open_with_openslide(const OpenContext& context);

}  // namespace her2fast::io
