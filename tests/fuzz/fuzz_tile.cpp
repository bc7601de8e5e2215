// SPDX-License-Identifier: Apache-2.0
// Any bytes as a tile of 64 x 64 px, by every codec. The first byte chooses; at the end
// the statuses are counted, for an input that a header's check turns away shows little.
// Of full color resolution libjpeg-turbo is the oracle: what the faster decoder accepts
// must have its pixels and no warning.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <vector>

#include "fuzz.h"
#include "io/codec/jpeg.h"
#include "io/codec/jpeg_encode.h"
#include "io/codec/jpeg_full_color.h"
#include "io/codec/jpeg_restart.h"
#include "io/codec/raw.h"

namespace {

using namespace her2fast;

constexpr std::int64_t kSidePx = 64;
constexpr int kQuality = 90;

enum Choice : std::uint8_t {
  kWhole = 0,
  kInflate = 1,
  kPredicted = 2,
  kInterval = 3,
  kFullColor = 4
};

// libjpeg-turbo is not instrumented, so to libFuzzer all decoded tiles look alike, and it
// keeps inputs that a header's check turns away. These counters make it keep inputs that
// decode to other pixels.
__attribute__((section("__libfuzzer_extra_counters"))) std::uint8_t pixel_kinds[1024];

void note_pixels(TileStatus status, const std::vector<std::uint8_t>& rgb) {
  std::uint32_t hash = static_cast<std::uint32_t>(status);
  for (std::size_t i = 0; i < rgb.size(); i += 1531) hash = hash * 31 + (rgb[i] >> 4);
  pixel_kinds[(hash ^ hash >> 13) % sizeof(pixel_kinds)] = 1;
}

struct Statuses {
  std::array<unsigned long, 4> counts{};
  ~Statuses() {
    std::fprintf(stderr, "tiles: %lu ok, %lu warned, %lu corrupt\n", counts[0], counts[1],
                 counts[2]);
  }
};

/// Header and tables of a sound tile, whose entropy-coded bytes the fuzzer replaces.
struct SoundTile {
  std::vector<std::byte> tables = io::jpeg_tables(kQuality);
  std::vector<std::byte> head;

  SoundTile() {
    const std::vector<std::uint8_t> gray(kSidePx * kSidePx * 3, 128);
    head = io::encode_jpeg({gray.data(), kSidePx, kSidePx, 3}, kQuality);
    std::size_t at = 2;  // behind SOI; every segment says its length
    bool is_scan = false;
    while (!is_scan) {
      is_scan = head[at + 1] == std::byte{0xda};
      at += 2 + (std::to_integer<std::size_t>(head[at + 2]) << 8 |
                 std::to_integer<std::size_t>(head[at + 3]));
    }
    head.resize(at);
  }
};

/// An interval behind its frame's header, by libjpeg-turbo and by the faster decoder.
/// @param tables  null: libjpeg-turbo alone
TileStatus decode_both(io::JpegDecoder& jpeg, const io::JpegFrame& frame,
                       const io::FullColorTables* tables,
                       std::span<const std::byte> entropy, ImageView<std::uint8_t> out) {
  static std::vector<std::byte> stream;
  static io::FullColorDecoder full_color;
  static std::vector<std::uint8_t> other(kSidePx * kSidePx * 3);
  io::begin_jpeg(frame, kSidePx, kSidePx, false, stream);
  const TileStatus marked = io::append_interval(entropy, 0, true, 0, stream);
  io::end_jpeg(stream);
  const TileStatus status =
      jpeg.decode({}, stream, io::JpegColor::kYCbCr, kSidePx, kSidePx, 1, out);
  if (tables == nullptr || marked == TileStatus::kCorrupt) return status;
  const auto between = std::span<const std::byte>(stream).subspan(
      frame.header.size(), stream.size() - frame.header.size() - 2);
  if (full_color.decode(*tables, between, {other.data(), kSidePx, kSidePx, 3}) &&
      (status != TileStatus::kOk || !std::equal(other.begin(), other.end(), out.data))) {
    std::abort();  // a finding
  }
  return status;
}

TileStatus decode_interval(io::JpegDecoder& jpeg, std::span<const std::byte> bytes,
                           ImageView<std::uint8_t> out) {
  const io::JpegFrameAnswer answer = io::parse_jpeg_frame(bytes);
  if (answer.kind != io::JpegFrameAnswer::Kind::kGood) return TileStatus::kCorrupt;
  const auto tables = io::make_full_color_tables(answer.frame);
  return decode_both(jpeg, answer.frame, tables.get(),
                     bytes.subspan(static_cast<std::size_t>(answer.frame.entropy_at)),
                     out);
}

/// The sound tile's header with tables, and without subsampling.
struct SoundFrame {
  io::JpegFrame frame;
  std::shared_ptr<const io::FullColorTables> tables;

  explicit SoundFrame(const SoundTile& sound) {
    std::vector<std::byte> header(sound.tables.begin(), sound.tables.end() - 2);
    header.insert(header.end(), sound.head.begin() + 2, sound.head.end());
    io::JpegFrameAnswer answer = io::parse_jpeg_frame(header);
    std::vector<std::byte> full = answer.frame.header;
    full[answer.frame.size_at + 6] = std::byte{0x11};  // of the first component
    answer = io::parse_jpeg_frame(full);
    frame = answer.frame;
    tables = io::make_full_color_tables(frame);
  }
};

TileStatus decode(std::uint8_t choice, std::span<const std::byte> bytes,
                  std::vector<std::uint8_t>& rgb) {
  static io::JpegDecoder jpeg;
  static io::InflateDecoder inflate;
  static const SoundTile sound;
  static std::vector<std::byte> stream;
  const ImageView<std::uint8_t> out(rgb.data(), kSidePx, kSidePx, 3);
  const int denominator = 1 << (choice >> 3 & 3);
  const ImageView<std::uint8_t> scaled(rgb.data(), kSidePx / denominator,
                                       kSidePx / denominator, 3);
  switch (choice & 7) {
    case kInflate:
    case kPredicted:
      return inflate.decode(bytes, (choice & 7) == kPredicted, out);
    case kInterval:
      return decode_interval(jpeg, bytes, out);
    case kFullColor: {
      static const SoundFrame full(sound);
      return decode_both(jpeg, full.frame, full.tables.get(), bytes, out);
    }
    case kWhole:
      return jpeg.decode({}, bytes, io::JpegColor::kYCbCr, kSidePx, kSidePx, denominator,
                         scaled);
    default:  // behind a sound header
      stream.assign(sound.head.begin(), sound.head.end());
      stream.insert(stream.end(), bytes.begin(), bytes.end());
      return jpeg.decode(sound.tables, stream, io::JpegColor::kYCbCr, kSidePx, kSidePx,
                         denominator, scaled);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Statuses statuses;
  static std::vector<std::uint8_t> rgb(kSidePx * kSidePx * 3);
  if (size < 1) return 0;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data) + 1,
                                         size - 1);
  const TileStatus status = decode(data[0], bytes, rgb);
  ++statuses.counts.at(static_cast<std::size_t>(status));
  if (status != TileStatus::kCorrupt) note_pixels(status, rgb);
  return 0;
}
