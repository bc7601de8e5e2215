// SPDX-License-Identifier: Apache-2.0
/// A slide whose YCbCr JPEG tiles a GPU decodes, by nvJPEG. Its pixels are NEAR those of
/// the slide's own decoder, not its bits, so whoever measures by it says so in the record
/// (docs/guide/gpu.md, Decoding on a GPU).
///
/// Everything else is the slide's own: other levels, tiles that are missing, and tiles
/// that nvJPEG takes neither in a batch nor alone. Whether it does depends on the tile's
/// bytes only, so pixels do not depend on what is decoded beside them.
///
/// Thread-safety: as any slide, from many threads; who needs a tile decodes a batch of
/// what others need and what is expected next, or waits for the one that does. No thread
/// of its own. Memory: two batches on the GPU and pinned on the host, and decoded tiles
/// that nobody has asked for yet, up to a limit.
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

class NvjpegSlide final : public Slide {
 public:
  struct Counts {
    std::int64_t tiles = 0;    ///< decoded on the GPU
    std::int64_t batches = 0;  ///< calls of the decoder, those for one tile among them
    std::int64_t on_cpu = 0;   ///< tiles of a JPEG level that the CPU decoded
  };

  /// @throws DeviceError; Error kGpuOom, kGpuLost
  NvjpegSlide(std::shared_ptr<const Slide> slide, const NvjpegOptions& options);
  ~NvjpegSlide() override;

  const SlideInfo& info() const override;
  /// @throws Error kIo, kGpuOom, kGpuLost; DeviceError
  TileStatus read_tile(int level, std::int64_t column, std::int64_t row, int denominator,
                       ImageView<std::uint8_t> out,
                       DecodeScratch& scratch) const override;
  /// Of a level that the GPU decodes: only 1, since nvJPEG has no smaller decoding.
  bool can_scale(int level, int denominator) const override;
  void expect_tile(int level, std::int64_t column, std::int64_t row) const override;
  std::string fingerprint() const override;

  /// Which nvJPEG decodes, and on what.
  const Her2JpegDecoder& decoder() const;
  Counts counts() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace her2fast
