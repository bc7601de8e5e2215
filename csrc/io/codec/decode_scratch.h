// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "her2fast/slide.h"
#include "io/codec/jpeg.h"
#include "io/codec/jpeg_full_color.h"
#include "io/codec/raw.h"

namespace her2fast {

/// One thread's decoders and buffers; they grow to the largest tile and stay.
class DecodeScratch {
 public:
  std::vector<std::byte> compressed;
  std::vector<std::byte> band;        // of a strip, as it stands in the file
  std::vector<std::uint64_t> starts;  // of restart intervals
  std::vector<std::uint32_t> argb;
  io::JpegDecoder jpeg;
  io::FullColorDecoder full_color;
  io::InflateDecoder inflate;
};

}  // namespace her2fast
