// SPDX-License-Identifier: Apache-2.0
/// Pixels of a running scan as the file that its host writes will hold them: coded and
/// decoded as JPEG, tile by tile, before anybody measures them. What is measured so is
/// what reading that file measures (docs/design/embedding.md, Raw pixels and JPEG).
///
/// Thread-safety: every member may be called from any thread. `add` calls the sink on its
/// own thread. Ownership: pixels are used before `add` returns, those of the sink before
/// it returns. Memory: as StripAssembler, of tiles that are partly delivered; and beside
/// `max_bytes` some hundred bytes for each block of 64 px a side and each tile, and for
/// each thread that adds three pictures of a tile and what libjpeg takes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "her2fast/strip_assembler.h"
#include "her2fast/tiff_writer.h"
#include "io/codec/jpeg_encode.h"

namespace her2fast {

/// How a host stores the level that will be read, and how that is then decoded.
struct StoredCoding {
  int jpeg_quality = 0;  ///< 1 to 100, on libjpeg's scale with its own tables; or 0 and
  std::optional<io::JpegQuantization> tables;  ///< the host's own
  io::JpegChroma chroma = io::JpegChroma::k420;
  std::int32_t tile_px = kUsualTilePx;  ///< of `is_tile_px`
  std::int32_t downsample = 1;   ///< of level 0, 1 to 64: means of that many px a side
  std::int32_t denominator = 1;  ///< decoded at 1, 1/2, 1/4 or 1/8, as a reader does

  /// @throws std::invalid_argument
  void check() const;
  /// The stored level: whole blocks of `downsample` px only, as it is written.
  /// @throws std::invalid_argument  as `check`, or the slide has no such block, or two
  ///         spacings; Error kBadSpacing
  SlideFrame level(const SlideFrame& level0) const;
  /// The same, decoded: what is cut by its edge is left out, as readers do.
  /// @throws as `level`
  SlideFrame decoded(const SlideFrame& level0) const;
};

class StoredTiles {
 public:
  /// Gets a rectangle of what is decoded (`StoredCoding::decoded`), RGB.
  using Sink = std::function<void(const PixelRect& rect)>;

  /// @throws std::invalid_argument; Error kBadSpacing, kLimitExceeded
  StoredTiles(const SlideFrame& level0, const StoredCoding& coding, Sink sink,
              std::size_t max_bytes);
  ~StoredTiles();
  StoredTiles(const StoredTiles&) = delete;
  StoredTiles& operator=(const StoredTiles&) = delete;

  /// Level-0 pixels. A tile goes on when all of it was delivered, once.
  /// @throws as StripAssembler::add; whatever the sink throws
  void add(const PixelRect& rect);

  StripAssembler::Counts counts() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace her2fast
