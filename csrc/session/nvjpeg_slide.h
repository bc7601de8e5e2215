// SPDX-License-Identifier: Apache-2.0
/// Slides whose YCbCr JPEG tiles a GPU decodes, by nvJPEG. The pixels are NEAR those of
/// the slide's own decoder, not its bits, so whoever measures by them says so in the
/// record (docs/guide/gpu.md, Decoding on a GPU).
///
/// Everything else is the slide's own: other levels, tiles that are missing, and tiles
/// that nvJPEG takes neither in a batch nor alone. That nvJPEG gives a tile the same
/// pixels in any batch of up to `kMostItems` is taken for granted here; a test on a GPU
/// asks.
///
/// Thread-safety: as any slide, from many threads, and of many slides; who needs a tile
/// decodes a batch of what readers have asked for and named (`will_read`), or waits for
/// the one that does. No thread of its own. Memory: of the decoders, for each of two
/// batches, 48 MiB on the GPU and pinned on the host, and what nvJPEG takes; of a slide,
/// the compressed bytes and pixels of batches under way, and tiles that were named and
/// not yet read, up to 64 MiB.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "her2fast/cuda_api.h"
#include "her2fast/slide.h"

namespace her2fast {

struct NvjpegOptions {
  std::int32_t device = 0;
  std::string library;  ///< of libnvjpeg; empty: looked for
  std::int32_t backend = HER2_CUDA_JPEG_ANY;
};

/// Two decoders of one GPU, for all slides of a process.
class NvjpegDecoders {
 public:
  /// @throws DeviceError; Error kGpuOom, kGpuLost
  explicit NvjpegDecoders(const NvjpegOptions& options);
  ~NvjpegDecoders();
  NvjpegDecoders(const NvjpegDecoders&) = delete;
  NvjpegDecoders& operator=(const NvjpegDecoders&) = delete;

  /// Which nvJPEG decodes, and on what.
  const Her2JpegDecoder& told() const;

 private:
  friend class NvjpegSlide;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class NvjpegSlide final : public Slide {
 public:
  /// nvJPEG decodes the Huffman codes of larger batches in another way.
  static constexpr std::size_t kMostItems = 50;

  struct Counts {
    std::int64_t tiles = 0;    ///< decoded on the GPU
    std::int64_t batches = 0;  ///< calls of a decoder, those for one tile among them
    std::int64_t on_cpu = 0;   ///< with bytes, of a level that the GPU decodes: refused
  };

  /// @throws std::invalid_argument  null
  NvjpegSlide(std::shared_ptr<const Slide> slide,
              std::shared_ptr<NvjpegDecoders> decoders);
  ~NvjpegSlide() override;

  const SlideInfo& info() const override;
  /// @throws Error kIo, kGpuOom, kGpuLost
  TileStatus read_tile(int level, std::int64_t column, std::int64_t row, int denominator,
                       ImageView<std::uint8_t> out,
                       DecodeScratch& scratch) const override;
  /// Of a level that the GPU decodes: only 1, since nvJPEG has no smaller decoding.
  bool can_scale(int level, int denominator) const override;
  void expect_tile(int level, std::int64_t column, std::int64_t row) const override;
  bool decodes_together() const override { return true; }
  void will_read(int level, std::int64_t column, std::int64_t row) const override;
  std::string fingerprint() const override;

  Counts counts() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace her2fast
