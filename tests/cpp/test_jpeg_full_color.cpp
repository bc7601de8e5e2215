// SPDX-License-Identifier: Apache-2.0
// libjpeg-turbo is the twin: whatever the faster decoder accepts, it has to give the same
// pixels without a warning.
#include <gtest/gtest.h>

// jpeglib.h needs FILE and size_t declared before it.
#include <jpeglib.h>

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "io/codec/jpeg.h"
#include "io/codec/jpeg_full_color.h"

namespace her2fast::io {
namespace {

using Bytes = std::vector<std::byte>;

struct Picture {
  int width, height;
  std::vector<std::uint8_t> rgb;
};

/// @param noise  grey levels; 0 is a slope, 128 knows no neighbor
Picture picture(int width, int height, int noise, unsigned seed) {
  Picture out{width, height, {}};
  std::mt19937 random(seed);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (const double base :
           {120 + 90 * std::sin(x * 0.05), 100 + y * 0.7, 200 - x * 0.3}) {
        const int change =
            noise == 0 ? 0 : static_cast<int>(random() % (2U * noise)) - noise;
        out.rgb.push_back(static_cast<std::uint8_t>(
            std::min(255, std::max(0, static_cast<int>(base) + change))));
      }
    }
  }
  return out;
}

struct Options {
  int quality = 80;
  bool own_codes = false;  // Huffman codes made for the picture: up to 16 bits long
  int chroma = 1;          // subsampling of color
  bool progressive = false;
};

Bytes encode(const Picture& image, const Options& options) {
  jpeg_compress_struct info;
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* data = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &data, &size);
  info.image_width = static_cast<JDIMENSION>(image.width);
  info.image_height = static_cast<JDIMENSION>(image.height);
  info.input_components = 3;
  info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, options.quality, TRUE);
  info.optimize_coding = options.own_codes ? TRUE : FALSE;
  info.comp_info[0].h_samp_factor = info.comp_info[0].v_samp_factor = options.chroma;
  if (options.progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < info.image_height) {
    auto* row = const_cast<JSAMPROW>(
        image.rgb.data() + std::size_t{3} * info.next_scanline * info.image_width);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  const auto* begin = reinterpret_cast<const std::byte*>(data);
  Bytes out(begin, begin + size);
  std::free(data);
  jpeg_destroy_compress(&info);
  return out;
}

struct Parsed {
  JpegFrame frame;
  Bytes entropy;  // without the end of image
};

Parsed parse(const Bytes& stream) {
  const JpegFrameAnswer answer = parse_jpeg_frame(stream);
  EXPECT_EQ(answer.kind, JpegFrameAnswer::Kind::kGood);
  const auto begin = static_cast<std::ptrdiff_t>(answer.frame.entropy_at);
  return {answer.frame, Bytes(stream.begin() + begin, stream.end() - 2)};
}

enum class Outcome { kRefused, kSame, kOther };

Outcome compare(const JpegFrame& frame, const Bytes& entropy, int width, int height) {
  const auto tables = make_full_color_tables(frame);
  if (tables == nullptr) return Outcome::kRefused;
  FullColorDecoder decoder;
  // A margin that must stay as it is.
  const std::int64_t stride = 3 * width + 5;
  std::vector<std::uint8_t> got(static_cast<std::size_t>(stride * height), 77),
      want = got;
  if (!decoder.decode(*tables, entropy, {got.data(), height, width, 3, stride})) {
    return Outcome::kRefused;
  }
  Bytes stream;
  begin_jpeg(frame, width, height, false, stream);
  stream.insert(stream.end(), entropy.begin(), entropy.end());
  stream.insert(stream.end(), {std::byte{0xff}, std::byte{0xd9}});
  JpegDecoder twin;
  const TileStatus status = twin.decode({}, stream, JpegColor::kYCbCr, width, height, 1,
                                        {want.data(), height, width, 3, stride});
  return status == TileStatus::kOk && got == want ? Outcome::kSame : Outcome::kOther;
}

bool available() {
  return make_full_color_tables(parse(encode(picture(8, 8, 0, 1), {})).frame) != nullptr;
}

TEST(FullColorJpeg, GivesThePixelsOfLibjpegTurbo) {
  if (!available()) GTEST_SKIP() << "needs AVX2";
  // One MCU, ragged sides, and more than one chunk of MCUs a row.
  const std::pair<int, int> sizes[] = {{8, 8},   {1, 1},    {17, 9},
                                       {33, 40}, {1100, 8}, {531, 23}};
  for (const auto& [width, height] : sizes) {
    for (const int quality : {10, 50, 80, 95, 100}) {
      for (const int noise : {0, 4, 30}) {
        for (const bool own_codes : {false, true}) {
          const Picture image = picture(width, height, noise, 5);
          const Parsed jpeg = parse(encode(image, {quality, own_codes}));
          EXPECT_EQ(compare(jpeg.frame, jpeg.entropy, width, height), Outcome::kSame)
              << width << " x " << height << ", quality " << quality << ", noise "
              << noise;
        }
      }
    }
  }
}

/// Sums beyond which 16 bits would not do are refused, or the pixels are the same.
TEST(FullColorJpeg, LargeCoefficientsAreTheSameOrRefused) {
  if (!available()) GTEST_SKIP() << "needs AVX2";
  int same = 0;
  for (unsigned seed = 0; seed < 40; ++seed) {
    const Picture image = picture(64, 32, 128, seed);
    const Parsed jpeg = parse(encode(image, {seed % 2 == 0 ? 100 : 20, seed % 3 == 0}));
    const Outcome outcome = compare(jpeg.frame, jpeg.entropy, 64, 32);
    EXPECT_NE(outcome, Outcome::kOther) << seed;
    same += outcome == Outcome::kSame;
  }
  EXPECT_GT(same, 0);
}

/// Bits changed at random: most streams stay decodable, as garbage; the rest is refused.
TEST(FullColorJpeg, ChangedStreamsAreTheSameOrRefused) {
  if (!available()) GTEST_SKIP() << "needs AVX2";
  std::mt19937 random(7);
  int counts[3] = {};
  for (int i = 0; i < 3000; ++i) {
    const int noise = i % 3 == 0 ? 60 : 10;
    static const Parsed plain[] = {parse(encode(picture(72, 24, 10, 1), {})),
                                   parse(encode(picture(72, 24, 60, 1), {90, true}))};
    const Parsed& jpeg = plain[noise == 60 ? 1 : 0];
    Bytes entropy = jpeg.entropy;
    const auto edits = 1 + random() % 3;
    for (unsigned n = 0; n < edits; ++n) {
      entropy[random() % entropy.size()] ^= static_cast<std::byte>(1U << random() % 8);
    }
    const Outcome outcome = compare(jpeg.frame, entropy, 72, 24);
    EXPECT_NE(outcome, Outcome::kOther) << "case " << i;
    ++counts[static_cast<int>(outcome)];
  }
  EXPECT_GT(counts[static_cast<int>(Outcome::kSame)], 20);
  EXPECT_GT(counts[static_cast<int>(Outcome::kRefused)], 1000);
}

TEST(FullColorJpeg, RefusesWhatIsLeftOverMissingOrMarked) {
  if (!available()) GTEST_SKIP() << "needs AVX2";
  const Parsed jpeg = parse(encode(picture(48, 16, 10, 3), {}));
  ASSERT_EQ(compare(jpeg.frame, jpeg.entropy, 48, 16), Outcome::kSame);
  for (std::size_t size = 0; size < jpeg.entropy.size(); ++size) {
    const Bytes part(jpeg.entropy.begin(),
                     jpeg.entropy.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_EQ(compare(jpeg.frame, part, 48, 16), Outcome::kRefused) << size;
  }
  for (const int tail : {0x00, 0x55, 0xff}) {
    Bytes longer = jpeg.entropy;
    longer.push_back(static_cast<std::byte>(tail));
    EXPECT_EQ(compare(jpeg.frame, longer, 48, 16), Outcome::kRefused);
  }
  Bytes marked = jpeg.entropy;
  marked[marked.size() / 2] = std::byte{0xff};
  marked[marked.size() / 2 + 1] = std::byte{0xd0};
  EXPECT_EQ(compare(jpeg.frame, marked, 48, 16), Outcome::kRefused);
  // The frame of a larger interval.
  EXPECT_EQ(compare(jpeg.frame, jpeg.entropy, 56, 16), Outcome::kRefused);
  EXPECT_EQ(compare(jpeg.frame, jpeg.entropy, 48, 8), Outcome::kRefused);
}

std::size_t find_segment(const Bytes& header, unsigned marker) {
  std::size_t at = 2;
  while (header.at(at + 1) != static_cast<std::byte>(marker)) {
    at += 2 + (std::to_integer<std::size_t>(header.at(at + 2)) << 8 |
               std::to_integer<std::size_t>(header.at(at + 3)));
  }
  return at + 4;
}

TEST(FullColorJpeg, RefusesHeadersThatAreNotPlain) {
  if (!available()) GTEST_SKIP() << "needs AVX2";
  const Parsed good = parse(encode(picture(16, 16, 5, 3), {}));
  constexpr unsigned kSof = 0xc0, kDht = 0xc4, kSos = 0xda, kDqt = 0xdb;
  const auto refused = [&](unsigned marker, std::size_t at, int value) {
    JpegFrame frame = good.frame;
    frame.header[find_segment(frame.header, marker) + at] = static_cast<std::byte>(value);
    return make_full_color_tables(frame) == nullptr;
  };
  EXPECT_TRUE(refused(kDqt, 0, 0x10));  // 16 bits
  EXPECT_TRUE(refused(kDqt, 0, 0x03));  // another slot: a component has none
  EXPECT_TRUE(refused(kDqt, 5, 0));     // no step
  EXPECT_TRUE(refused(kDht, 0, 0x20));  // neither DC nor AC
  EXPECT_TRUE(refused(kDht, 0, 0x03));
  EXPECT_TRUE(refused(kDht, 1, 9));    // nine codes of one bit
  EXPECT_TRUE(refused(kDht, 17, 12));  // 12 bits of DC
  EXPECT_TRUE(refused(kSof, 6, 2));    // two components of one name
  EXPECT_TRUE(refused(kSof, 8, 7));
  EXPECT_TRUE(refused(kSos, 1, 3));  // in another order
  EXPECT_TRUE(refused(kSos, 2, 0x22));
  EXPECT_TRUE(refused(kSos, 8, 5));  // not all coefficients
  EXPECT_TRUE(refused(kSos, 9, 0x10));
  const Parsed subsampled = parse(encode(picture(32, 32, 5, 3), {80, false, 2}));
  EXPECT_EQ(make_full_color_tables(subsampled.frame), nullptr);
}

}  // namespace
}  // namespace her2fast::io
