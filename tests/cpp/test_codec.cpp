// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <zlib.h>

#include <cstdlib>
#include <random>

#include "io/codec/jpeg.h"
#include "io/codec/jpeg_encode.h"
#include "io/codec/raw.h"

namespace her2fast::io {
namespace {

constexpr int kSide = 64;
using Bytes = std::vector<std::byte>;

std::vector<std::uint8_t> gradient() {
  std::vector<std::uint8_t> rgb;
  for (int y = 0; y < kSide; ++y) {
    for (int x = 0; x < kSide; ++x) {
      rgb.push_back(static_cast<std::uint8_t>(40 + 2 * x));
      rgb.push_back(static_cast<std::uint8_t>(200 - 2 * y));
      rgb.push_back(static_cast<std::uint8_t>(60 + x + y));
    }
  }
  return rgb;
}

Bytes gradient_jpeg() {
  const auto rgb = gradient();
  return encode_jpeg({rgb.data(), kSide, kSide, 3}, 90);
}

struct Decoded {
  TileStatus status;
  std::vector<std::uint8_t> rgb;
};

Decoded decode(JpegDecoder& decoder, const Bytes& tables, const Bytes& stream,
               JpegColor color = JpegColor::kYCbCr, int denominator = 1) {
  const int side = kSide / denominator;
  Decoded out;
  out.rgb.resize(static_cast<std::size_t>(side) * side * 3);
  out.status = decoder.decode(tables, stream, color, kSide, kSide, denominator,
                              {out.rgb.data(), side, side, 3});
  return out;
}

int worst(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
  int most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

/// Where a marker's segment starts (its 0xff); markers do not occur inside the headers
/// here.
std::size_t find_marker(const Bytes& stream, int marker) {
  for (std::size_t i = 0; i + 1 < stream.size(); ++i) {
    if (stream[i] == std::byte{0xff} && stream[i + 1] == static_cast<std::byte>(marker))
      return i;
  }
  ADD_FAILURE() << "no marker " << marker;
  return 0;
}

constexpr int kSof = 0xc0, kDht = 0xc4, kDqt = 0xdb, kSos = 0xda;

TEST(JpegCodec, DecodesWhatItEncodedAtEveryScale) {
  JpegDecoder decoder;
  const Bytes tables = jpeg_tables(90), stream = gradient_jpeg();
  const Decoded full = decode(decoder, tables, stream);
  EXPECT_EQ(full.status, TileStatus::kOk);
  EXPECT_LE(worst(full.rgb, gradient()), 8);
  for (const int n : {2, 4, 8}) {
    const Decoded part = decode(decoder, tables, stream, JpegColor::kYCbCr, n);
    EXPECT_EQ(part.status, TileStatus::kOk);
    // A gradient's blocks average to the pixel in their middle.
    const int x = kSide / n / 2, y = kSide / n / 3;
    const int expected = 40 + 2 * (x * n) + (n - 1);
    EXPECT_NEAR(part.rgb[static_cast<std::size_t>((y * (kSide / n) + x) * 3)], expected,
                8);
  }
}

TEST(JpegCodec, ColorIsWhatTheContainerSays) {
  JpegDecoder decoder;
  const Decoded wrong =
      decode(decoder, jpeg_tables(90), gradient_jpeg(), JpegColor::kRgb);
  EXPECT_EQ(wrong.status, TileStatus::kOk);
  EXPECT_GT(worst(wrong.rgb, gradient()), 50);  // Y, Cb, Cr handed out untouched
}

TEST(JpegCodec, TablesOfOneTileNeverServeAnother) {
  JpegDecoder decoder;
  const Bytes stream = gradient_jpeg();
  EXPECT_EQ(decode(decoder, {}, stream).status, TileStatus::kCorrupt);  // none yet
  EXPECT_EQ(decode(decoder, jpeg_tables(90), stream).status, TileStatus::kOk);
  EXPECT_EQ(decode(decoder, {}, stream).status,
            TileStatus::kCorrupt);  // not the last ones
  EXPECT_EQ(decode(decoder, jpeg_tables(90), stream).status, TileStatus::kOk);
}

TEST(JpegCodec, HeadersThatDisagreeWithTheTileAreCorrupt) {
  JpegDecoder decoder;
  const Bytes tables = jpeg_tables(90), good = gradient_jpeg();
  const std::size_t sof = find_marker(good, kSof);
  const auto edited = [&](std::size_t at, int byte) {
    Bytes stream = good;
    stream[at] = static_cast<std::byte>(byte);
    return decode(decoder, tables, stream).status;
  };
  EXPECT_EQ(edited(sof + 4, 12), TileStatus::kCorrupt);  // precision
  EXPECT_EQ(edited(sof + 6, 48), TileStatus::kCorrupt);  // height
  EXPECT_EQ(edited(sof + 5, 255), TileStatus::kCorrupt);
  EXPECT_EQ(edited(sof + 8, 128), TileStatus::kCorrupt);  // width
  EXPECT_EQ(edited(sof + 7, 255), TileStatus::kCorrupt);
  for (const int components : {0, 1, 2, 4, 255}) {
    EXPECT_EQ(edited(sof + 9, components), TileStatus::kCorrupt) << components;
  }
  Bytes twice(good.begin(), good.begin() + static_cast<long>(sof));
  twice.insert(twice.end(), good.begin() + static_cast<long>(sof),
               good.begin() + static_cast<long>(sof) + 19);
  twice.insert(twice.end(), good.begin() + static_cast<long>(sof), good.end());
  EXPECT_EQ(decode(decoder, tables, twice).status, TileStatus::kCorrupt);
  EXPECT_EQ(decode(decoder, tables, {}).status, TileStatus::kCorrupt);
  EXPECT_EQ(decode(decoder, good, good).status,
            TileStatus::kCorrupt);                                   // an image as tables
  EXPECT_EQ(decode(decoder, tables, good).status, TileStatus::kOk);  // and it recovers
}

TEST(JpegCodec, DamagedTablesAreCorrupt) {
  JpegDecoder decoder;
  const Bytes stream = gradient_jpeg();
  Bytes zero_step = jpeg_tables(90);
  zero_step[find_marker(zero_step, kDqt) + 5] = std::byte{0};
  EXPECT_EQ(decode(decoder, zero_step, stream).status, TileStatus::kCorrupt);
  Bytes no_huffman = jpeg_tables(90);
  no_huffman.resize(find_marker(no_huffman, kDht));
  no_huffman.push_back(std::byte{0xff});
  no_huffman.push_back(std::byte{0xd9});
  EXPECT_EQ(decode(decoder, no_huffman, stream).status, TileStatus::kCorrupt);
}

TEST(JpegCodec, AnEarlyEndIsAWarningAtLeast) {
  JpegDecoder decoder;
  const Bytes tables = jpeg_tables(90), good = gradient_jpeg();
  const std::size_t scan = find_marker(good, kSos) + 14;
  for (std::size_t size = 0; size + 3 < good.size(); ++size) {
    const Bytes cut(good.begin(), good.begin() + static_cast<long>(size));
    const TileStatus status = decode(decoder, tables, cut).status;
    EXPECT_NE(status, TileStatus::kOk) << "cut to " << size;
    if (size > scan) {
      EXPECT_EQ(status, TileStatus::kWarned) << "cut to " << size;
    }
  }
  Bytes ended(good.begin(), good.begin() + static_cast<long>((scan + good.size()) / 2));
  ended.push_back(std::byte{0xff});
  ended.push_back(std::byte{0xd9});
  EXPECT_EQ(decode(decoder, tables, ended).status, TileStatus::kWarned);
}

TEST(JpegCodec, ManyScansAreCutOff) {
  // The first scan of a sequential stream repeated: each is legal, the number is not.
  JpegDecoder decoder;
  const Bytes good = gradient_jpeg();
  const std::size_t sof = find_marker(good, kSof), sos = find_marker(good, kSos);
  Bytes many(good.begin(), good.begin() + static_cast<long>(sos));
  many[sof + 1] = std::byte{0xc2};                               // progressive
  const int header[] = {0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, 0x10};  // DC of one component
  for (int i = 0; i < 5000; ++i) {
    for (const int byte : header) many.push_back(static_cast<std::byte>(byte));
    many.push_back(std::byte{0});
  }
  EXPECT_EQ(decode(decoder, jpeg_tables(90), many).status, TileStatus::kCorrupt);
}

TEST(JpegCodec, AnyDamageEndsInAStatus) {
  JpegDecoder decoder;
  const Bytes tables = jpeg_tables(90), good = gradient_jpeg();
  std::mt19937 random(11);
  for (int i = 0; i < 3000; ++i) {
    Bytes stream = good, own = tables;
    for (unsigned k = random() % 4 + 1; k > 0; --k) {
      Bytes& target = random() % 3 == 0 ? own : stream;
      target[random() % target.size()] = static_cast<std::byte>(random());
    }
    decode(decoder, own, stream, JpegColor::kYCbCr, 1 << (random() % 4));
  }
  EXPECT_EQ(decode(decoder, tables, good).status, TileStatus::kOk);
  EXPECT_LE(worst(decode(decoder, tables, good).rgb, gradient()), 8);
}

TEST(RawCodec, UncompressedNeedsAllItsBytes) {
  const auto rgb = gradient();
  const auto* begin = reinterpret_cast<const std::byte*>(rgb.data());
  std::vector<std::uint8_t> out(rgb.size());
  const ImageView<std::uint8_t> view(out.data(), kSide, kSide, 3);
  EXPECT_EQ(decode_uncompressed({begin, rgb.size()}, view), TileStatus::kOk);
  EXPECT_EQ(out, rgb);
  EXPECT_EQ(decode_uncompressed({begin, rgb.size() - 1}, view), TileStatus::kCorrupt);
}

Bytes zipped(const std::vector<std::uint8_t>& raw) {
  uLongf size = compressBound(raw.size());
  Bytes out(size);
  compress2(reinterpret_cast<Bytef*>(out.data()), &size, raw.data(), raw.size(), 6);
  out.resize(size);
  return out;
}

TEST(RawCodec, DeflateWithAndWithoutPredictor) {
  InflateDecoder decoder;
  const auto rgb = gradient();
  auto differences = rgb;
  for (int y = 0; y < kSide; ++y) {
    for (int i = kSide * 3 - 1; i >= 3; --i) {
      const auto at = static_cast<std::size_t>(y * kSide * 3 + i);
      differences[at] = static_cast<std::uint8_t>(differences[at] - differences[at - 3]);
    }
  }
  std::vector<std::uint8_t> out(rgb.size());
  const ImageView<std::uint8_t> view(out.data(), kSide, kSide, 3);
  EXPECT_EQ(decoder.decode(zipped(rgb), false, view), TileStatus::kOk);
  EXPECT_EQ(out, rgb);
  EXPECT_EQ(decoder.decode(zipped(differences), true, view), TileStatus::kOk);
  EXPECT_EQ(out, rgb);
}

TEST(RawCodec, DeflateDamageIsSeen) {
  InflateDecoder decoder;
  const auto rgb = gradient();
  const Bytes good = zipped(rgb);
  std::vector<std::uint8_t> out(rgb.size());
  const ImageView<std::uint8_t> view(out.data(), kSide, kSide, 3);
  for (std::size_t size = 0; size < good.size(); size += 1 + size / 40) {
    EXPECT_EQ(decoder.decode({good.data(), size}, false, view), TileStatus::kCorrupt)
        << size;
  }
  for (std::size_t i = 0; i < good.size(); i += 1 + i / 40) {
    Bytes flipped = good;
    flipped[i] ^= std::byte{0x10};
    EXPECT_NE(decoder.decode(flipped, false, view), TileStatus::kOk)
        << i;  // the checksum
  }
  auto longer = rgb;
  longer.resize(longer.size() + 5);
  EXPECT_EQ(decoder.decode(zipped(longer), false, view), TileStatus::kWarned);
  EXPECT_EQ(decoder.decode(good, false, view), TileStatus::kOk);
}

}  // namespace
}  // namespace her2fast::io
