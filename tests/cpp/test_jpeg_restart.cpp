// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <initializer_list>

#include "io/codec/jpeg_encode.h"
#include "io/codec/jpeg_restart.h"
#include "tiff_bytes.h"

namespace her2fast::io {
namespace {

using testing::Bytes;
using testing::MemorySource;
using Kind = JpegFrameAnswer::Kind;

Bytes bytes_of(std::initializer_list<int> values) {
  Bytes out;
  for (const int value : values) out.push_back(static_cast<std::byte>(value));
  return out;
}

TEST(AppendInterval, KeepsTheEntropyAndNumbersItsMarkerAnew) {
  Bytes out;
  // Number 11 ends with RST3; it becomes number 8, so RST0.
  EXPECT_EQ(append_interval(bytes_of({1, 0xff, 0, 2, 0xff, 0xd3}), 11, false, 8, out),
            TileStatus::kOk);
  EXPECT_EQ(out, bytes_of({1, 0xff, 0, 2, 0xff, 0xd0}));
  end_jpeg(out);
  EXPECT_EQ(out, bytes_of({1, 0xff, 0, 2, 0xff, 0xd9}));
}

TEST(AppendInterval, RefusesOtherMarkers) {
  const auto status = [](std::initializer_list<int> values, bool last = false) {
    Bytes out;
    return append_interval(bytes_of(values), 3, last, 0, out);
  };
  EXPECT_EQ(status({1, 0xff, 0xd3}), TileStatus::kOk);
  EXPECT_EQ(status({1, 0xff, 0xff, 0xd3}), TileStatus::kOk);  // fill byte
  EXPECT_EQ(status({1, 0xff, 0xd4}), TileStatus::kCorrupt);
  EXPECT_EQ(status({1, 0xff, 0xd9}), TileStatus::kCorrupt);
  EXPECT_EQ(status({1, 0xff, 0xd3, 2, 0xff, 0xd3}), TileStatus::kCorrupt);
  EXPECT_EQ(status({1, 0xff, 0xff, 0, 0xff, 0xd3}), TileStatus::kCorrupt);
  EXPECT_EQ(status({1, 2}), TileStatus::kCorrupt);
  EXPECT_EQ(status({}), TileStatus::kCorrupt);
  EXPECT_EQ(status({1, 0xff, 0xd9, 7, 7}, true), TileStatus::kOk);
  EXPECT_EQ(status({1, 2}, true), TileStatus::kWarned);
  EXPECT_EQ(status({1, 0xff, 0xd3}, true), TileStatus::kCorrupt);
}

TEST(RestartScan, FindsMarkersAcrossItsChunks) {
  constexpr std::size_t kMib = std::size_t{1} << 20;
  Bytes strip(3 * kMib, std::byte{7});
  // 0xff is the last byte of a chunk, its code the first of the next.
  const std::size_t places[] = {5, kMib - 1, 2 * kMib - 2, 2 * kMib + 1};
  int number = 0;
  for (const std::size_t at : places) {
    strip[at] = std::byte{0xff};
    strip[at + 1] = static_cast<std::byte>(0xd0 + number++);
  }
  strip[100] = std::byte{0xff};  // followed by 0: coded
  strip[101] = std::byte{0};
  const auto source = std::make_shared<MemorySource>(strip);
  RestartScan scan(source, 0, strip.size(), 5);
  std::vector<std::uint64_t> starts;
  ASSERT_TRUE(scan.find(0, 1, starts));
  EXPECT_EQ(starts, (std::vector<std::uint64_t>{0, 7}));
  EXPECT_EQ(source->bytes_read, kMib);  // no further than needed
  ASSERT_TRUE(scan.find(1, 4, starts));
  EXPECT_EQ(starts,
            (std::vector<std::uint64_t>{7, kMib + 1, 2 * kMib, 2 * kMib + 3, 3 * kMib}));
  ASSERT_TRUE(scan.find(0, 5, starts));
  EXPECT_EQ(source->bytes_read, 3 * kMib);  // once
}

TEST(RestartScan, KnowsNothingBehindALostMarker) {
  Bytes strip(100, std::byte{7});
  for (const auto& [at, code] : {std::pair{10, 0xd0}, std::pair{20, 0xd2}}) {
    strip[static_cast<std::size_t>(at)] = std::byte{0xff};
    strip[static_cast<std::size_t>(at) + 1] = static_cast<std::byte>(code);
  }
  RestartScan scan(std::make_shared<MemorySource>(strip), 0, strip.size(), 4);
  std::vector<std::uint64_t> starts;
  EXPECT_TRUE(scan.find(0, 1, starts));
  EXPECT_FALSE(scan.find(1, 1, starts));
  EXPECT_FALSE(scan.find(3, 1, starts));
}

TEST(ParseJpegFrame, AsksForMoreAndSeesDamage) {
  std::vector<std::uint8_t> rgb(64 * 64 * 3, 90);
  const Bytes jpeg = encode_jpeg({rgb.data(), 64, 64, 3}, 90);
  const JpegFrameAnswer whole = parse_jpeg_frame(jpeg);
  ASSERT_EQ(whole.kind, Kind::kGood);
  EXPECT_EQ(whole.frame.width_px, 64);
  EXPECT_EQ(whole.frame.height_px, 64);
  EXPECT_EQ(whole.frame.mcu_width_px, 16);
  EXPECT_EQ(whole.frame.restart_mcus, 0);
  for (std::size_t size = 0; size < jpeg.size(); ++size) {
    const auto part = parse_jpeg_frame(std::span(jpeg).first(size));
    EXPECT_EQ(part.kind, size < whole.frame.entropy_at ? Kind::kIncomplete : Kind::kGood);
  }
  for (std::size_t i = 0; i < whole.frame.entropy_at; ++i) {
    for (const int value : {0, 1, 0x7f, 0xc0, 0xd8, 0xff}) {
      Bytes other = jpeg;
      other[i] = static_cast<std::byte>(value);
      const auto answer = parse_jpeg_frame(other);  // any answer, but inside its bytes
      if (answer.kind == Kind::kGood) {
        EXPECT_LE(answer.frame.entropy_at, other.size());
        EXPECT_LE(answer.frame.size_at + 4, answer.frame.header.size());
      }
    }
  }
}

TEST(BeginJpeg, GivesTheHeaderItsSizeAndTakesTheMarkersAway) {
  const std::vector<std::uint8_t> rgb(64 * 64 * 3, 90);
  Bytes jpeg = encode_jpeg({rgb.data(), 64, 64, 3}, 90);
  // A restart interval of 5 MCUs, twice: the last one counts.
  const Bytes interval = bytes_of({0xff, 0xdd, 0, 4, 0, 9, 0xff, 0xdd, 0, 4, 0, 5});
  jpeg.insert(jpeg.begin() + 2, interval.begin(), interval.end());
  const JpegFrame frame = parse_jpeg_frame(jpeg).frame;
  EXPECT_EQ(frame.restart_mcus, 5);
  EXPECT_FALSE(frame.full_color);  // 4:2:0
  for (const bool restarts : {true, false}) {
    Bytes out;
    begin_jpeg(frame, 48, 1032, restarts, out);
    const JpegFrameAnswer answer = parse_jpeg_frame(out);
    ASSERT_EQ(answer.kind, Kind::kGood);
    EXPECT_EQ(answer.frame.width_px, 48);
    EXPECT_EQ(answer.frame.height_px, 1032);
    EXPECT_EQ(answer.frame.restart_mcus, restarts ? 5 : 0);
  }
}

}  // namespace
}  // namespace her2fast::io
