// SPDX-License-Identifier: Apache-2.0
// Strips and tiles of a scanner against the reader: any partition, any order, the same
// bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <random>
#include <stdexcept>
#include <thread>

#include "fake_slide.h"
#include "her2fast/strip_assembler.h"
#include "her2fast/tile_reader.h"

namespace her2fast {
namespace {

using Pixels = std::vector<std::uint8_t>;
using Answers = std::map<std::int64_t, Pixels>;
constexpr Spacing kOneUm{1'000'000};
constexpr std::size_t kPlenty = std::size_t{1} << 30;

/// Tiles with a halo over all of the slide, as a session plans them.
std::vector<ReadRequest> plan(const SlideFrame& frame, std::int64_t side,
                              std::int64_t halo, Spacing spacing = kOneUm) {
  std::vector<ReadRequest> requests;
  for (std::int64_t y = 0; y < frame.grid_height_px(spacing); y += side) {
    for (std::int64_t x = 0; x < frame.grid_width_px(spacing); x += side) {
      requests.push_back({static_cast<std::int64_t>(requests.size()), x - halo, y - halo,
                          side + 2 * halo, side + 2 * halo, spacing});
    }
  }
  return requests;
}

/// What the reader gives for the same requests: the twin.
Answers read_all(const std::shared_ptr<FakeSlide>& slide, const SlideFrame& frame,
                 const std::vector<ReadRequest>& requests) {
  const TileReader reader(slide, frame, {.workers = 1, .mode = ReadingMode::kExact});
  Answers answers;
  for (const ReadRequest& r : requests) {
    Pixels rgb(static_cast<std::size_t>(r.width_px * r.height_px * 3));
    reader.read(r, {rgb.data(), r.height_px, r.width_px, 3});
    answers[r.id] = std::move(rgb);
  }
  return answers;
}

/// An assembler whose answers are kept; a request is answered once.
struct Collector {
  Answers answers;
  std::mutex mutex;
  StripAssembler strips;

  Collector(const SlideFrame& frame, const std::vector<ReadRequest>& requests,
            std::size_t max_bytes = kPlenty)
      : strips(
            frame, requests,
            [this](const ReadRequest& r, ImageView<const std::uint8_t> rgb) {
              ASSERT_EQ(rgb.height, r.height_px);
              ASSERT_EQ(rgb.width, r.width_px);
              const std::lock_guard lock(mutex);
              const bool first =
                  answers
                      .emplace(r.id, Pixels(rgb.data, rgb.data + rgb.height * rgb.stride))
                      .second;
              ASSERT_TRUE(first) << "request " << r.id << " was answered twice";
            },
            max_bytes) {}
};

/// A rectangle with memory of its own, in any format and stride.
struct Piece {
  PixelRect rect;
  Pixels bytes;
};

Piece cut(const FakeSlide& slide, std::int64_t x, std::int64_t y, std::int64_t width,
          std::int64_t height, PixelFormat format = PixelFormat::kRgb,
          std::int64_t padding = 0) {
  Piece piece;
  const std::int64_t pixel = bytes_per_pixel(format);
  const std::int64_t stride = width * pixel + padding;
  piece.bytes.assign(static_cast<std::size_t>(stride * height), 111);
  const bool swapped = format == PixelFormat::kBgr || format == PixelFormat::kBgra;
  for (std::int64_t v = 0; v < height; ++v) {
    for (std::int64_t u = 0; u < width; ++u) {
      for (int c = 0; c < 3; ++c) {
        piece.bytes[static_cast<std::size_t>(v * stride + u * pixel +
                                             (swapped ? 2 - c : c))] =
            slide.decoded(0, x + u, y + v, 1, c);
      }
    }
  }
  piece.rect = {x, y, width, height, nullptr, padding == 0 ? 0 : stride, format};
  return piece;
}

void add(StripAssembler& strips, const Piece& piece) {
  PixelRect rect = piece.rect;
  rect.data = piece.bytes.data();
  strips.add(rect);
}

/// Cuts the slide at random into rectangles, some of them thin.
void split(std::mt19937& random, std::int64_t x, std::int64_t y, std::int64_t width,
           std::int64_t height, int depth,
           std::vector<std::array<std::int64_t, 4>>& out) {
  const bool across = width > 1 && (height == 1 || random() % 2 == 0);
  if (depth == 0 || (width == 1 && height == 1)) {
    out.push_back({x, y, width, height});
    return;
  }
  const std::int64_t length = across ? width : height;
  const std::int64_t at = 1 + static_cast<std::int64_t>(random() % (length - 1));
  if (across) {
    split(random, x, y, at, height, depth - 1, out);
    split(random, x + at, y, width - at, height, depth - 1, out);
  } else {
    split(random, x, y, width, at, depth - 1, out);
    split(random, x, y + at, width, height - at, depth - 1, out);
  }
}

TEST(StripAssembler, AnyPartitionInAnyOrderGivesTheReadersBits) {
  std::mt19937 random(3);
  const PixelFormat formats[] = {PixelFormat::kRgb, PixelFormat::kBgr, PixelFormat::kRgba,
                                 PixelFormat::kBgra};
  const std::int64_t spacings_pm[][2] = {{250'000, 250'000},     {242'500, 243'100},
                                         {500'000, 500'000},     {1'000'000, 999'000},
                                         {1'009'000, 1'000'000}, {117'300, 230'000}};
  for (int trial = 0; trial < 60; ++trial) {
    const auto* pm = spacings_pm[trial % 6];
    const auto slide = std::make_shared<FakeSlide>(
        60 + random() % 300, 60 + random() % 300, std::vector<int>{1}, 64, false);
    const SlideFrame frame = slide->frame(pm[0], pm[1]);
    const auto requests = plan(frame, 24 + random() % 30, random() % 12);
    const Answers expected = read_all(slide, frame, requests);
    std::vector<std::array<std::int64_t, 4>> parts;
    split(random, 0, 0, frame.width_px, frame.height_px, static_cast<int>(random() % 7),
          parts);
    std::shuffle(parts.begin(), parts.end(), random);
    Collector collector(frame, requests);
    for (const auto& [x, y, width, height] : parts) {
      add(collector.strips, cut(*slide, x, y, width, height, formats[random() % 4],
                                static_cast<std::int64_t>(random() % 3 * 5)));
    }
    ASSERT_EQ(collector.answers, expected) << "trial " << trial;
    const auto counts = collector.strips.counts();
    EXPECT_EQ(counts.delivered_px, frame.width_px * frame.height_px);
    EXPECT_EQ(counts.repeated_px, 0);
    EXPECT_EQ(counts.bytes, 0U) << "all of the memory is let go";
    EXPECT_EQ(counts.answered, static_cast<std::int64_t>(requests.size()));
  }
}

TEST(StripAssembler, FourPixelsMakeOneByTheirMean) {
  const SlideFrame frame{2, 2, Spacing{500'000}, Spacing{500'000}};
  Collector collector(frame, {{5, 0, 0, 1, 1, kOneUm}});
  const Pixels rgb{10, 20, 30, 11, 20, 30, 10, 21, 34, 10, 21, 30};
  collector.strips.add({0, 0, 2, 2, rgb.data(), 0, PixelFormat::kRgb});
  // 41/4 = 10.25, 82/4 = 20.5 rounded half up, 124/4 = 31
  EXPECT_EQ(collector.answers.at(5), (Pixels{10, 21, 31}));
}

class Delivered : public testing::Test {
 protected:
  Delivered()
      : slide(std::make_shared<FakeSlide>(400, 300, std::vector<int>{1}, 64, false)),
        frame(slide->frame(250'000, 250'000)),
        requests(plan(frame, 32, 8)),
        expected(read_all(slide, frame, requests)) {}
  std::shared_ptr<FakeSlide> slide;
  SlideFrame frame;
  std::vector<ReadRequest> requests;
  Answers expected;
};

TEST_F(Delivered, OverlapsOfEqualPixelsAreDroppedAndCounted) {
  Collector collector(frame, requests);
  for (std::int64_t y = 0; y < 300; y += 40) {  // strips of 60 rows, 20 of them again
    add(collector.strips, cut(*slide, 0, y, 400, std::min<std::int64_t>(60, 300 - y)));
  }
  add(collector.strips, cut(*slide, 100, 100, 77, 55));  // long answered
  EXPECT_EQ(collector.answers, expected);
  const auto counts = collector.strips.counts();
  // 7 overlaps of 20 rows and the last piece; blocks share no pixel at this spacing
  EXPECT_EQ(counts.repeated_px, 7 * 20 * 400 + 77 * 55);
  EXPECT_GE(counts.uncompared_px, 77 * 55) << "at least what was answered";
  EXPECT_LE(counts.uncompared_px, counts.repeated_px);
  EXPECT_EQ(counts.differing_px, 0);
}

TEST_F(Delivered, TheFirstDeliveryWinsAndDifferencesAreCounted) {
  Collector collector(frame, requests);
  add(collector.strips, cut(*slide, 0, 0, 400, 30));
  Piece other = cut(*slide, 0, 0, 400, 300);
  for (std::uint8_t& v : other.bytes) v = static_cast<std::uint8_t>(v ^ 1);
  for (std::int64_t y = 30; y < 300; ++y) {
    const Piece row = cut(*slide, 0, y, 400, 1);
    std::copy(row.bytes.begin(), row.bytes.end(), other.bytes.begin() + y * 1200);
  }
  add(collector.strips, other);  // its first 30 rows differ in every pixel
  EXPECT_EQ(collector.answers, expected);
  EXPECT_EQ(collector.strips.counts().repeated_px, 30 * 400);
  EXPECT_EQ(collector.strips.counts().differing_px, 30 * 400);
  EXPECT_EQ(collector.strips.counts().uncompared_px, 0);
}

TEST_F(Delivered, WhatNeverComesStaysUnanswered) {
  Collector collector(frame, requests);
  for (std::int64_t y = 0; y < 300; ++y) {  // all but one pixel
    if (y != 150) add(collector.strips, cut(*slide, 0, y, 400, 1));
  }
  add(collector.strips, cut(*slide, 0, 150, 200, 1));
  add(collector.strips, cut(*slide, 201, 150, 199, 1));
  std::size_t unanswered = 0;
  for (const ReadRequest& r : requests) {
    // Grid pixel (50, 37) covers level-0 (200, 150).
    const bool needs = r.x_px <= 50 && 50 < r.x_px + r.width_px && r.y_px <= 37 &&
                       37 < r.y_px + r.height_px;
    // A block is all or nothing, so a request beside it may wait with it.
    if (needs) {
      EXPECT_EQ(collector.answers.count(r.id), 0U);
    }
    unanswered += collector.answers.count(r.id) == 0;
  }
  EXPECT_LE(unanswered, 9U);
  for (const auto& [id, rgb] : collector.answers) EXPECT_EQ(rgb, expected.at(id));
  add(collector.strips, cut(*slide, 200, 150, 1, 1));
  EXPECT_EQ(collector.answers, expected);
}

TEST_F(Delivered, BlankCountsAsWhite) {
  Collector collector(frame, requests);
  collector.strips.add({0, 0, 400, 300, nullptr, 0, PixelFormat::kBlank});
  ASSERT_EQ(collector.answers.size(), requests.size());
  for (const auto& [id, rgb] : collector.answers) {
    EXPECT_TRUE(std::all_of(rgb.begin(), rgb.end(), [](int v) { return v == 255; }));
  }
  add(collector.strips, cut(*slide, 0, 0, 400, 300));  // too late, and it can be seen
  const auto counts = collector.strips.counts();
  EXPECT_EQ(counts.repeated_px, 400 * 300);
  EXPECT_EQ(counts.uncompared_px, 400 * 300);
}

TEST_F(Delivered, ThreadsGiveTheSameBits) {
  for (int trial = 0; trial < 5; ++trial) {
    Collector collector(frame, requests);
    std::vector<std::array<std::int64_t, 4>> parts;
    std::mt19937 random(static_cast<unsigned>(trial));
    split(random, 0, 0, 400, 300, 7, parts);
    std::shuffle(parts.begin(), parts.end(), random);
    {
      std::vector<std::jthread> threads;
      for (std::size_t t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
          for (std::size_t i = t; i < parts.size(); i += 4) {
            add(collector.strips,
                cut(*slide, parts[i][0], parts[i][1], parts[i][2], parts[i][3]));
          }
        });
      }
    }
    EXPECT_EQ(collector.answers, expected);
    EXPECT_EQ(collector.strips.counts().bytes, 0U);
  }
}

/// The most memory an order of 100 px tiles of a blank slide takes.
template <typename Order>
std::size_t peak_bytes(std::int64_t width, std::int64_t height, std::size_t limit,
                       const Order& order) {
  const SlideFrame frame{width, height, Spacing{250'000}, Spacing{250'000}};
  StripAssembler strips(
      frame, plan(frame, 256, 32), [](const ReadRequest&, auto) {}, limit);
  std::vector<std::array<std::int64_t, 2>> tiles;
  for (std::int64_t y = 0; y < height; y += 100) {
    for (std::int64_t x = 0; x < width; x += 100) tiles.push_back({x, y});
  }
  order(tiles);
  for (const auto& [x, y] : tiles) {
    strips.add({x, y, std::min<std::int64_t>(100, width - x),
                std::min<std::int64_t>(100, height - y), nullptr, 0,
                PixelFormat::kBlank});
  }
  EXPECT_EQ(strips.counts().bytes, 0U);
  return strips.counts().peak_bytes;
}

TEST(StripAssembler, MemoryIsThatOfABandForRowsSerpentineAndColumns) {
  const auto rows = [](auto&) {};
  const auto serpentine = [](auto& tiles) {
    std::stable_sort(tiles.begin(), tiles.end(), [](const auto& a, const auto& b) {
      if (a[1] != b[1]) return a[1] < b[1];
      return a[1] / 100 % 2 == 0 ? a[0] < b[0] : a[0] > b[0];
    });
  };
  const auto columns = [](auto& tiles) {
    std::stable_sort(tiles.begin(), tiles.end(),
                     [](const auto& a, const auto& b) { return a[0] < b[0]; });
  };
  const std::size_t row_peak = peak_bytes(6000, 6000, kPlenty, rows);
  // Per column of level-0 pixels: 128 rows of a cut block, 352 finished rows at a
  // quarter.
  EXPECT_LT(row_peak, 6000U * (3 * 128 + 3 * 352 / 4 + 100));
  EXPECT_EQ(row_peak, peak_bytes(6000, 12000, kPlenty, rows)) << "flat in the height";
  EXPECT_LT(peak_bytes(6000, 6000, kPlenty, serpentine), row_peak * 11 / 10);
  const std::size_t column_peak = peak_bytes(6000, 6000, kPlenty, columns);
  EXPECT_LT(column_peak, row_peak * 11 / 10);
  EXPECT_EQ(column_peak, peak_bytes(12000, 6000, kPlenty, columns))
      << "flat in the width";
}

TEST(StripAssembler, AnotherOrderEndsAtItsLimitAndStaysEnded) {
  const auto shuffled = [](auto& tiles) {
    std::mt19937 random(1);
    std::shuffle(tiles.begin(), tiles.end(), random);
  };
  const std::size_t needed = peak_bytes(4000, 4000, kPlenty, shuffled);
  EXPECT_EQ(peak_bytes(4000, 4000, needed, shuffled), needed);
  try {
    peak_bytes(4000, 4000, needed - 1, shuffled);
    FAIL() << "needed " << needed;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kLimitExceeded);
    EXPECT_NE(std::string(error.what()).find(std::to_string(needed - 1)),
              std::string::npos);
  }
  const SlideFrame frame{400, 300, Spacing{250'000}, Spacing{250'000}};
  StripAssembler strips(
      frame, plan(frame, 256, 32), [](const ReadRequest&, auto) {}, 1000);
  const PixelRect part{0, 0, 10, 10, nullptr, 0, PixelFormat::kBlank};
  const PixelRect all{0, 0, 400, 300, nullptr, 0, PixelFormat::kBlank};
  EXPECT_THROW(strips.add(part), Error);
  EXPECT_THROW(strips.add(all), Error);
}

TEST_F(Delivered, RefusesWhatIsNoRectangleOfTheSlide) {
  Collector collector(frame, requests);
  const Pixels rgb(400 * 300 * 3);
  const auto refused = [&](PixelRect rect) {
    EXPECT_THROW(collector.strips.add(rect), std::invalid_argument);
  };
  const PixelFormat kRgb = PixelFormat::kRgb;
  refused({-1, 0, 10, 10, rgb.data(), 0, kRgb});
  refused({0, 0, 401, 10, rgb.data(), 0, kRgb});
  refused({0, 299, 10, 2, rgb.data(), 0, kRgb});
  refused({0, 0, 0, 10, rgb.data(), 0, kRgb});
  refused({std::int64_t{1} << 62, 0, std::int64_t{1} << 62, 10, rgb.data(), 0, kRgb});
  refused({0, 0, 10, 10, nullptr, 0, kRgb});
  refused({0, 0, 10, 10, rgb.data(), 29, kRgb});
  refused({0, 0, 10, 10, rgb.data(), -1200, kRgb});
  refused({0, 0, 10, 10, rgb.data(), 0, static_cast<PixelFormat>(9)});
  EXPECT_EQ(collector.strips.counts().delivered_px, 0);
}

TEST(StripAssembler, RefusesRequestsItCannotAnswer) {
  const SlideFrame frame{400, 300, Spacing{250'000}, Spacing{250'000}};
  const auto make = [&](std::vector<ReadRequest> requests, const SlideFrame& of) {
    StripAssembler(
        of, std::move(requests), [](const ReadRequest&, auto) {}, kPlenty);
  };
  EXPECT_THROW(make({}, frame), std::invalid_argument);
  EXPECT_THROW(make({{0, 200, 0, 10, 10, kOneUm}}, frame), std::invalid_argument);
  EXPECT_THROW(make({{0, 0, 0, 0, 10, kOneUm}}, frame), std::invalid_argument);
  EXPECT_THROW(make({{0, 0, 0, 9, 9, kOneUm}, {1, 0, 0, 9, 9, Spacing{500'000}}}, frame),
               std::invalid_argument);
  SlideFrame coarse = frame;
  coarse.spacing_x = Spacing{1'011'000};
  try {
    make({{0, 0, 0, 9, 9, kOneUm}}, coarse);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kNoLevel);
  }
}

}  // namespace
}  // namespace her2fast
