// SPDX-License-Identifier: Apache-2.0
// Any bytes as a tile of 64 x 64 px, by every codec. The first byte chooses.
#include <span>
#include <vector>

#include "fuzz.h"
#include "io/codec/jpeg.h"
#include "io/codec/jpeg_restart.h"
#include "io/codec/raw.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace her2fast;
  if (size < 1) return 0;
  constexpr std::int64_t kSidePx = 64;
  static io::JpegDecoder jpeg;
  static io::InflateDecoder inflate;
  static std::vector<std::uint8_t> rgb(kSidePx * kSidePx * 3);
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data) + 1,
                                         size - 1);
  const ImageView<std::uint8_t> out(rgb.data(), kSidePx, kSidePx, 3);
  if (data[0] == 1) {
    inflate.decode(bytes, false, out);
  } else if (data[0] == 2) {
    inflate.decode(bytes, true, out);
  } else if (data[0] == 3) {
    const io::JpegFrameAnswer answer = io::parse_jpeg_frame(bytes);
    if (answer.kind != io::JpegFrameAnswer::Kind::kGood) return 0;
    std::vector<std::byte> stream;
    io::begin_jpeg(answer.frame, kSidePx, kSidePx, stream);
    io::append_interval(bytes.subspan(static_cast<std::size_t>(answer.frame.entropy_at)),
                        0, true, 0, stream);
    io::end_jpeg(stream);
    jpeg.decode({}, stream, io::JpegColor::kYCbCr, kSidePx, kSidePx, 1, out);
  } else {
    const int denominator = 1 << (data[0] & 3);
    jpeg.decode({}, bytes, io::JpegColor::kYCbCr, kSidePx, kSidePx, denominator,
                {rgb.data(), kSidePx / denominator, kSidePx / denominator, 3});
  }
  return 0;
}
