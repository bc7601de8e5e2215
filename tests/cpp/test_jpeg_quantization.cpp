// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "io/codec/jpeg_encode.h"
#include "io/codec/jpeg_quantization.h"
#include "io/codec/jpeg_whole.h"

namespace her2fast::io {
namespace {

using Bytes = std::vector<std::byte>;
constexpr int kDqt = 0xdb, kSof = 0xc0, kSos = 0xda;

JpegQuantization own_tables() {
  JpegQuantization out;
  for (std::size_t i = 0; i < 64; ++i) {
    out.luma[i] = static_cast<std::uint16_t>(3 + 2 * i);
    out.chroma[i] = static_cast<std::uint16_t>(255 - i);
  }
  return out;
}

/// A whole JPEG with these tables.
Bytes picture(const JpegQuantization& tables) {
  std::vector<std::uint8_t> rgb(32 * 32 * 3);
  for (std::size_t i = 0; i < rgb.size(); ++i) rgb[i] = static_cast<std::uint8_t>(i * 7);
  Bytes out;
  EXPECT_EQ(whole_jpeg(jpeg_tables(tables), encode_jpeg({rgb.data(), 32, 32, 3}, tables),
                       32, 32, out),
            "");
  return out;
}

std::string read(const Bytes& stream, JpegQuantization& out) {
  std::optional<JpegChroma> chroma;
  return read_jpeg_quantization(stream, out, chroma);
}

std::size_t find_marker(const Bytes& stream, int marker, std::size_t from = 0) {
  for (std::size_t i = from; i + 1 < stream.size(); ++i) {
    if (stream[i] == std::byte{0xff} && stream[i + 1] == static_cast<std::byte>(marker))
      return i;
  }
  ADD_FAILURE() << "no marker " << marker;
  return 0;
}

TEST(JpegQuantization, OfQuality50IsTheStandardsAnnexK) {
  const JpegQuantization tables = jpeg_quantization(50);
  const std::uint16_t luma[] = {16, 11, 10, 16, 24, 40, 51, 61, 12, 12};
  const std::uint16_t chroma[] = {17, 18, 24, 47, 99, 99, 99, 99, 18, 21};
  EXPECT_TRUE(std::equal(std::begin(luma), std::end(luma), tables.luma.begin()));
  EXPECT_TRUE(std::equal(std::begin(chroma), std::end(chroma), tables.chroma.begin()));
  EXPECT_EQ(jpeg_quantization_sha256(tables),
            "a5485b3b02dd2f98b1983e5b17d3569156355f150c18c826446bb4b4d2c0a1a6");
  const JpegQuantization finest = jpeg_quantization(100);
  EXPECT_TRUE(std::ranges::all_of(finest.luma, [](auto step) { return step == 1; }));
  EXPECT_TRUE(std::ranges::all_of(finest.chroma, [](auto step) { return step == 1; }));
}

TEST(JpegQuantization, ComesBackFromTablesAndPictures) {
  for (const JpegQuantization& tables : {jpeg_quantization(1), jpeg_quantization(70),
                                         jpeg_quantization(100), own_tables()}) {
    JpegQuantization alone, whole;
    EXPECT_EQ(read(jpeg_tables(tables), alone), "");
    EXPECT_EQ(read(picture(tables), whole), "");
    EXPECT_EQ(alone, tables);
    EXPECT_EQ(whole, tables);
  }
}

TEST(JpegQuantization, APictureSaysWhichTableIsWhose) {
  const JpegQuantization tables = own_tables();
  Bytes swapped = picture(tables);
  // Per component: number, sampling, table.
  const std::size_t of_luma = find_marker(swapped, kSof) + 4 + 6 + 2;
  for (const std::size_t at : {of_luma, of_luma + 3, of_luma + 6}) {
    swapped[at] = swapped[at] == std::byte{0} ? std::byte{1} : std::byte{0};
  }
  JpegQuantization out;
  ASSERT_EQ(read(swapped, out), "");
  EXPECT_EQ(out.luma, tables.chroma);
  EXPECT_EQ(out.chroma, tables.luma);
  swapped[of_luma + 6] = std::byte{1};
  EXPECT_NE(read(swapped, out).find("two chroma tables"), std::string::npos);
  Bytes one_for_all = picture(tables);
  one_for_all[of_luma + 3] = one_for_all[of_luma + 6] = std::byte{0};
  ASSERT_EQ(read(one_for_all, out), "");
  EXPECT_EQ(out.chroma, tables.luma);
}

TEST(JpegQuantization, RefusesWhatHasNone) {
  JpegQuantization out;
  const auto refused = [&](const Bytes& stream, const std::string& part) {
    EXPECT_NE(read(stream, out).find(part), std::string::npos)
        << part << ": " << read(stream, out);
  };
  refused({}, "bytes that are none");
  refused(Bytes(200, std::byte{0x41}), "bytes that are none");
  Bytes one = jpeg_tables(own_tables());
  const std::size_t first = find_marker(one, kDqt);
  const std::size_t second = find_marker(one, kDqt, first + 2);
  one.erase(one.begin() + static_cast<std::ptrdiff_t>(second),
            one.begin() + static_cast<std::ptrdiff_t>(second + 2 + 67));
  refused(one, "without the quantization table");
  Bytes zero = jpeg_tables(own_tables());
  zero[first + 2 + 3] = std::byte{0};
  refused(zero, "not 1 to 255");
  // Steps of 16 bits: 2 + 2 + 1 + 128 bytes in place of 2 + 2 + 1 + 64.
  Bytes wide = jpeg_tables(own_tables());
  Bytes segment{std::byte{0xff}, std::byte{kDqt}, std::byte{0}, std::byte{131},
                std::byte{0x10}};
  for (int i = 0; i < 64; ++i)
    segment.insert(segment.end(), {std::byte{1}, std::byte{0}});
  wide.erase(wide.begin() + static_cast<std::ptrdiff_t>(first),
             wide.begin() + static_cast<std::ptrdiff_t>(first + 69));
  wide.insert(wide.begin() + static_cast<std::ptrdiff_t>(first), segment.begin(),
              segment.end());
  refused(wide, "not 1 to 255");
  // A third table: which of them are used, only a picture says.
  Bytes third = jpeg_tables(own_tables());
  third[second + 2 + 2] = std::byte{2};
  refused(third, "give a whole JPEG");
  // Components named R, G and B are RGB for libjpeg; one component is gray.
  Bytes rgb = picture(own_tables());
  const std::size_t app0 = find_marker(rgb, 0xe0), sof = find_marker(rgb, kSof);
  const std::size_t sos = find_marker(rgb, kSos);
  rgb[sof + 10] = rgb[sos + 5] = std::byte{'R'};
  rgb[sof + 13] = rgb[sos + 7] = std::byte{'G'};
  rgb[sof + 16] = rgb[sos + 9] = std::byte{'B'};
  rgb.erase(rgb.begin() + static_cast<std::ptrdiff_t>(app0),
            rgb.begin() + static_cast<std::ptrdiff_t>(app0 + 18));  // JFIF: is YCbCr
  refused(rgb, "not YCbCr");
  Bytes gray = picture(own_tables());
  gray[sof + 3] = std::byte{11};
  gray[sof + 9] = gray[sos + 4] = std::byte{1};
  gray[sos + 3] = std::byte{8};
  gray.erase(gray.begin() + static_cast<std::ptrdiff_t>(sos + 7),
             gray.begin() + static_cast<std::ptrdiff_t>(sos + 11));
  gray.erase(gray.begin() + static_cast<std::ptrdiff_t>(sof + 13),
             gray.begin() + static_cast<std::ptrdiff_t>(sof + 19));
  refused(gray, "not YCbCr");
  Bytes odd = picture(own_tables());
  odd[sof + 11] = std::byte{0x41};
  refused(odd, "other chroma");
}

TEST(JpegQuantization, APictureSaysItsChromaAndTablesDoNot) {
  std::vector<std::uint8_t> rgb(32 * 32 * 3, 90);
  JpegQuantization out;
  for (const JpegChroma chroma : {JpegChroma::k420, JpegChroma::k422, JpegChroma::k444}) {
    const JpegQuantization tables = own_tables();
    Bytes whole;
    ASSERT_EQ(
        whole_jpeg(jpeg_tables(tables),
                   encode_jpeg({rgb.data(), 32, 32, 3}, tables, chroma), 32, 32, whole),
        "");
    std::optional<JpegChroma> shown;
    ASSERT_EQ(read_jpeg_quantization(whole, out, shown), "");
    EXPECT_EQ(shown, chroma);
    ASSERT_EQ(read_jpeg_quantization(jpeg_tables(tables), out, shown), "");
    EXPECT_EQ(shown, std::nullopt);
  }
  EXPECT_STREQ(jpeg_chroma_name(JpegChroma::k422), "4:2:2");
}

TEST(JpegQuantization, DamageIsToldOrDoesNotMatter) {
  const Bytes good = picture(own_tables());
  std::mt19937 random(5);
  // A beginning is never taken for tables alone: not before the scan's header is whole.
  const std::size_t scan = find_marker(good, kSos);
  for (std::size_t size = 0; size < good.size(); ++size) {
    JpegQuantization out;
    const std::string wrong = read({good.begin(), good.begin() + size}, out);
    EXPECT_EQ(wrong.empty(), size >= scan + 14)
        << size << " of " << scan << ": " << wrong;
  }
  for (int i = 0; i < 4000; ++i) {
    Bytes bad = good;
    for (int k = 0; k < 3; ++k) {
      bad[random() % 300] = static_cast<std::byte>(random());
    }
    JpegQuantization out;
    if (!read(bad, out).empty()) continue;
    for (const auto* steps : {&out.luma, &out.chroma}) {
      EXPECT_TRUE(std::ranges::all_of(*steps, [](auto s) { return s >= 1 && s <= 255; }));
    }
  }
}

}  // namespace
}  // namespace her2fast::io
