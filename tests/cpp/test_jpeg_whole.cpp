// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <initializer_list>
#include <random>
#include <string>
#include <vector>

#include "io/codec/jpeg.h"
#include "io/codec/jpeg_encode.h"
#include "io/codec/jpeg_whole.h"

namespace her2fast::io {
namespace {

using Bytes = std::vector<std::byte>;

constexpr std::int64_t kWidth = 50, kHeight = 37;

std::vector<std::uint8_t> picture() {
  std::mt19937 random(3);
  std::vector<std::uint8_t> rgb(3 * kWidth * kHeight);
  for (std::size_t i = 0; i < rgb.size(); ++i) {
    rgb[i] = static_cast<std::uint8_t>(i / 9 % 200 + random() % 50);
  }
  return rgb;
}

Bytes stream_of(int quality = 80) {
  const auto rgb = picture();
  return encode_jpeg({rgb.data(), kHeight, kWidth, 3}, quality);
}

struct Decoded {
  TileStatus status;
  std::vector<std::uint8_t> rgb;
};

/// What the CPU reader makes of it.
Decoded decoded(const Bytes& tables, const Bytes& stream) {
  JpegDecoder decoder;
  Decoded out{TileStatus::kOk, std::vector<std::uint8_t>(3 * kWidth * kHeight)};
  out.status = decoder.decode(tables, stream, JpegColor::kYCbCr, kWidth, kHeight, 1,
                              {out.rgb.data(), kHeight, kWidth, 3});
  return out;
}

std::string wrong_of(const Bytes& tables, const Bytes& stream, Bytes& out,
                     std::int64_t width = kWidth, std::int64_t height = kHeight) {
  return whole_jpeg(tables, stream, width, height, out);
}

std::string wrong_of(const Bytes& tables, const Bytes& stream) {
  Bytes out;
  return wrong_of(tables, stream, out);
}

/// Where a marker stands, from its 0xff on.
std::size_t place_of(const Bytes& stream, int marker) {
  for (std::size_t i = 0; i + 1 < stream.size(); ++i) {
    if (stream[i] == std::byte{0xff} && stream[i + 1] == static_cast<std::byte>(marker)) {
      return i;
    }
  }
  ADD_FAILURE() << "no marker " << marker;
  return 0;
}

Bytes with(Bytes stream, std::size_t at, std::initializer_list<int> values) {
  for (const int value : values) stream.at(at++) = static_cast<std::byte>(value);
  return stream;
}

Bytes inserted(Bytes stream, std::size_t at, std::initializer_list<int> values) {
  for (const int value : values) {
    stream.insert(stream.begin() + static_cast<std::ptrdiff_t>(at++),
                  static_cast<std::byte>(value));
  }
  return stream;
}

/// A stream that carries its tables itself.
Bytes carrying(const Bytes& tables, const Bytes& stream) {
  Bytes out(tables.begin(), tables.end() - 2);
  out.insert(out.end(), stream.begin() + 2, stream.end());
  return out;
}

TEST(WholeJpeg, TablesAndStreamBecomeOne) {
  for (const int quality : {30, 80, 95}) {
    const Bytes tables = jpeg_tables(quality), stream = stream_of(quality);
    const Decoded wanted = decoded(tables, stream);
    ASSERT_EQ(wanted.status, TileStatus::kOk);
    Bytes whole, again, carried;
    ASSERT_EQ(wrong_of(tables, stream, whole), "");
    EXPECT_EQ(decoded({}, whole).rgb, wanted.rgb);
    // What is plain already stays, and it does not matter where the tables stood.
    ASSERT_EQ(wrong_of({}, whole, again), "");
    EXPECT_EQ(again, whole);
    ASSERT_EQ(wrong_of({}, carrying(tables, stream), carried), "");
    EXPECT_EQ(carried, whole);
  }
}

TEST(WholeJpeg, TheStreamsTablesCount) {
  const Bytes tables = jpeg_tables(80), stream = stream_of(80);
  Bytes whole, other;
  ASSERT_EQ(wrong_of(tables, stream, whole), "");
  // Shared ones of another quality are replaced by those that the stream brings.
  ASSERT_EQ(wrong_of(jpeg_tables(20), carrying(tables, stream), other), "");
  EXPECT_EQ(other, whole);
}

TEST(WholeJpeg, WhatTheStreamSaysOfItsColorsIsLeftOut) {
  const Bytes tables = jpeg_tables(80), stream = stream_of(80);
  Bytes whole, other;
  ASSERT_EQ(wrong_of(tables, stream, whole), "");
  // An Adobe marker that says RGB, and components named R, G, B.
  Bytes colored = inserted(
      stream, 2, {0xff, 0xee, 0, 14, 'A', 'd', 'o', 'b', 'e', 0, 100, 0, 0, 0, 0, 0});
  for (const auto& [marker, first, step] : {std::array{0xc0, 10, 3}, {0xda, 5, 2}}) {
    const std::size_t at = place_of(colored, marker) + static_cast<std::size_t>(first);
    for (int i = 0; i < 3; ++i) {
      colored = with(colored, at + static_cast<std::size_t>(step * i), {"RGB"[i]});
    }
  }
  ASSERT_EQ(wrong_of(tables, colored, other), "");
  EXPECT_EQ(other, whole);
  EXPECT_EQ(decoded(tables, colored).rgb, decoded({}, whole).rgb);
  // It says YCbCr where a decoder looks.
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(whole.data()) + 6, 4), "JFIF");
}

TEST(WholeJpeg, KindsThatAreNotTakenAreNamed) {
  const Bytes tables = jpeg_tables(80), stream = stream_of();
  const std::size_t sof = place_of(stream, 0xc0), sos = place_of(stream, 0xda);
  EXPECT_EQ(wrong_of(tables, with(stream, sof + 1, {0xc2})),
            "need a baseline JPEG, got a progressive one");
  EXPECT_EQ(wrong_of(tables, with(stream, sof + 1, {0xc1})),
            "need a baseline JPEG, got an extended one");
  EXPECT_EQ(wrong_of(tables, with(stream, sof + 1, {0xc3})),
            "need a baseline JPEG, got a lossless one");
  EXPECT_EQ(wrong_of(tables, with(stream, sof + 1, {0xc9})),
            "need a baseline JPEG, got another process");
  EXPECT_EQ(wrong_of(tables, with(stream, sof + 9, {4})),
            "need 3 components of 8 bits, got 4 of 8 (CMYK or alike)");
  EXPECT_EQ(wrong_of(tables, with(stream, sof + 9, {1})),
            "need 3 components of 8 bits, got 1 of 8 (gray)");
  EXPECT_EQ(wrong_of(tables, with(stream, sof + 4, {12})),
            "need 3 components of 8 bits, got 3 of 12");
  EXPECT_EQ(wrong_of(tables, with(stream, sof + 11, {0x41})),
            "need 4:4:4, 4:2:2, 4:4:0 or 4:2:0, got 4 x 1 in component 0");
  EXPECT_EQ(wrong_of(tables, with(stream, sof + 14, {0x21})),
            "need 4:4:4, 4:2:2, 4:4:0 or 4:2:0, got 2 x 1 in component 1");
  Bytes out;
  EXPECT_EQ(wrong_of(tables, stream, out, 64, 64), "need 64 x 64 px, got 50 x 37");
  EXPECT_EQ(wrong_of({}, stream),
            "need the tables that component 0 names; pass the file's JPEGTables");
  EXPECT_EQ(wrong_of(tables, with(stream, sos + 4, {1})),
            "need one baseline scan of all components");
  for (const std::size_t at : {sos + 11, sos + 12, sos + 13}) {  // of a later scan
    EXPECT_EQ(wrong_of(tables, with(stream, at, {1})),
              "need one baseline scan of all components");
  }
  EXPECT_EQ(wrong_of(tables, with(stream, sos + 5, {2, 0, 1})),
            "need a scan of the frame's components in their order");
}

TEST(WholeJpeg, DamageIsNamed) {
  const Bytes tables = jpeg_tables(80), stream = stream_of();
  EXPECT_EQ(wrong_of(tables, {}), "need a JPEG stream that begins with a start of image");
  EXPECT_EQ(wrong_of(stream, tables),
            "need tables with whole segments, got a cut or odd one");
  EXPECT_EQ(wrong_of({tables.begin(), tables.end() - 2}, stream),
            "need tables with whole segments, got a cut or odd one");
  EXPECT_EQ(wrong_of(tables, {stream.begin(), stream.end() - 2}),
            "need an end of image, got a stream that is cut");
  const std::size_t dht = place_of(tables, 0xc4), dqt = place_of(tables, 0xdb);
  EXPECT_EQ(wrong_of(with(tables, dht + 5, {3}), stream),
            "need tables with two baseline Huffman codes of each kind");
  // The first code has 0, 1, 5 codes of 1, 2, 3 bits: as many, of which 3 have one bit.
  EXPECT_EQ(wrong_of(with(tables, dht + 5, {3, 1, 2}), stream),
            "need tables with two baseline Huffman codes of each kind");
  // A size of more bits than 8 of precision can give, of DC and of AC.
  const std::size_t ac = dht + 2 + 31;  // behind 2 bytes of length, 17, and 12 symbols
  ASSERT_EQ(tables.at(ac + 2 + 2), std::byte{0x10});
  for (const auto& [symbol, value] : {std::pair{dht + 21, 12}, {ac + 21, 0x1b}}) {
    EXPECT_EQ(wrong_of(with(tables, symbol, {value}), stream),
              "need tables with two baseline Huffman codes of each kind");
  }
  EXPECT_EQ(wrong_of(with(tables, dqt + 5, {0}), stream),
            "need tables with quantizers of 1 to 255");
  // Two fill bytes and no marker.
  const std::size_t entropy = place_of(stream, 0xda) + 14;
  EXPECT_EQ(wrong_of(tables, inserted(stream, entropy, {0xff, 0xff, 0})),
            "need one scan, got a marker within it");
  // A scan that ends, and another.
  EXPECT_EQ(wrong_of(tables, with(stream, stream.size() - 2, {0xff, 0xda})),
            "need one scan, got a marker within it");
  Bytes twice = stream;
  const std::size_t sof = place_of(stream, 0xc0);
  twice.insert(twice.begin() + static_cast<std::ptrdiff_t>(sof),
               stream.begin() + static_cast<std::ptrdiff_t>(sof),
               stream.begin() + static_cast<std::ptrdiff_t>(sof + 19));
  EXPECT_EQ(wrong_of(tables, twice),
            "need a JPEG stream with whole segments, got a cut or odd one");
}

TEST(WholeJpeg, RestartMarkersAreThoseOfTheSize) {
  const Bytes tables = jpeg_tables(80), stream = stream_of();
  const std::size_t sos = place_of(stream, 0xda);
  // 4 x 3 MCUs of 16 px: an interval of 12 needs none, one of 5 needs two.
  const Bytes twelve = inserted(stream, sos, {0xff, 0xdd, 0, 4, 0, 12});
  Bytes whole;
  ASSERT_EQ(wrong_of(tables, twelve, whole), "");
  EXPECT_EQ(decoded({}, whole).rgb, decoded(tables, stream).rgb);
  const Bytes five = inserted(stream, sos, {0xff, 0xdd, 0, 4, 0, 5});
  EXPECT_EQ(wrong_of(tables, five), "need 2 restart markers, got 0");
  const std::size_t end = five.size() - 2;
  EXPECT_EQ(wrong_of(tables, inserted(five, end, {0xff, 0xd1})),
            "need restart markers in order, got another at 0");
  EXPECT_EQ(wrong_of(tables, inserted(five, end, {0xff, 0xd0})),
            "need 2 restart markers, got 1");
  // Fill bytes before a marker are no part of it.
  const Bytes filled = inserted(five, end, {0xff, 0xff, 0xd0, 0xff, 0xd1, 0xff});
  const Bytes plain = inserted(five, end, {0xff, 0xd0, 0xff, 0xd1});
  Bytes one, other;
  ASSERT_EQ(wrong_of(tables, filled, one), "");
  ASSERT_EQ(wrong_of(tables, plain, other), "");
  EXPECT_EQ(one, other);
  EXPECT_EQ(wrong_of(tables, inserted(plain, plain.size() - 2, {0xff, 0xd2})),
            "need restart markers in order, got another at 2");
  // An interval among the shared tables is not the image's (libjpeg forgets it, too).
  EXPECT_EQ(wrong_of(inserted(tables, 2, {0xff, 0xdd, 0, 4, 0, 5}), stream), "");
}

/// Any single byte before the coded ones: refused, or the picture that the CPU's reader
/// makes of it.
TEST(WholeJpeg, AChangedHeaderIsRefusedOrReadAsTheCpuReadsIt) {
  const Bytes tables = jpeg_tables(80), stream = stream_of();
  const std::size_t header = place_of(stream, 0xda) + 14;
  int taken = 0, refused = 0;
  const auto compare = [&](const Bytes& changed_tables, const Bytes& changed) {
    Bytes whole;
    if (!wrong_of(changed_tables, changed, whole).empty()) {
      ++refused;
      return true;
    }
    ++taken;
    const Decoded on_cpu = decoded(changed_tables, changed), got = decoded({}, whole);
    return on_cpu.status == got.status && on_cpu.rgb == got.rgb;
  };
  for (const int value : {0, 1, 2, 0x11, 0x22, 0x3f, 0xc0, 0xd0, 0xd9, 0xff}) {
    for (std::size_t at = 0; at < header; ++at) {
      ASSERT_TRUE(compare(tables, with(stream, at, {value}))) << at << ' ' << value;
    }
    for (std::size_t at = 0; at < tables.size(); ++at) {
      ASSERT_TRUE(compare(with(tables, at, {value}), stream)) << at << ' ' << value;
    }
  }
  for (std::size_t size = 0; size < stream.size(); ++size) {
    const auto cut = static_cast<std::ptrdiff_t>(size);
    ASSERT_TRUE(compare(tables, {stream.begin(), stream.begin() + cut})) << size;
  }
  EXPECT_GT(taken, 500);
  EXPECT_GT(refused, 500);
}

}  // namespace
}  // namespace her2fast::io
