// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <stdexcept>
#include <thread>
#include <vector>

#include "fake_slide.h"
#include "her2fast/error.h"
#include "her2fast/tile_reader.h"
#include "io/resample.h"
#include "io/tile_cache.h"

namespace her2fast {
namespace {

using Pixels = std::vector<std::uint8_t>;
constexpr Spacing kOneUm{1'000'000};

ReadRequest request(std::int64_t id, std::int64_t x, std::int64_t y, std::int64_t width,
                    std::int64_t height, Spacing spacing = kOneUm) {
  return {id, x, y, width, height, spacing};
}

Pixels read(const TileReader& reader, const ReadRequest& r,
            TileStatus* status = nullptr) {
  Pixels out(static_cast<std::size_t>(r.width_px * r.height_px * 3), 99);
  const TileStatus got = reader.read(r, {out.data(), r.height_px, r.width_px, 3});
  if (status != nullptr) *status = got;
  return out;
}

/// The definition over the whole slide at once: white beyond, no tiles, no cache.
Pixels expected(const FakeSlide& slide, const SlideFrame& frame, const ReadRequest& r,
                ReadingMode mode) {
  const ReadPlan plan = plan_read(slide, frame, r.spacing, mode);
  const Level& level = slide.info().levels[static_cast<std::size_t>(plan.level)];
  const int d = plan.denominator;
  const AxisStep sx = source_step(r.spacing, frame.spacing_x, level.down_x_num, 1, d);
  const AxisStep sy = source_step(r.spacing, frame.spacing_y, level.down_y_num, 1, d);
  const SourceSpan x = source_span(sx, r.x_px, r.width_px);
  const SourceSpan y = source_span(sy, r.y_px, r.height_px);
  Pixels window;
  for (std::int64_t v = y.first; v < y.end; ++v) {
    for (std::int64_t u = x.first; u < x.end; ++u) {
      const bool inside =
          u >= 0 && v >= 0 && u < level.width_px / d && v < level.height_px / d;
      for (int c = 0; c < 3; ++c) {
        window.push_back(inside ? slide.decoded(plan.level, u, v, d, c) : 255);
      }
    }
  }
  AxisWeights across, down;
  across.plan(sx, r.x_px, r.width_px);
  down.plan(sy, r.y_px, r.height_px);
  Pixels out(static_cast<std::size_t>(r.width_px * r.height_px * 3));
  ResampleScratch scratch;
  resample({window.data(), y.end - y.first, x.end - x.first, 3}, across, down,
           {out.data(), r.height_px, r.width_px, 3}, scratch);
  return out;
}

std::vector<ReadRequest> grid(std::int64_t count_x, std::int64_t count_y,
                              std::int64_t side, std::int64_t halo,
                              Spacing spacing = kOneUm) {
  std::vector<ReadRequest> requests;
  for (std::int64_t row = 0; row < count_y; ++row) {
    for (std::int64_t column = 0; column < count_x; ++column) {
      requests.push_back(request(static_cast<std::int64_t>(requests.size()),
                                 column * side - halo, row * side - halo, side + 2 * halo,
                                 side + 2 * halo, spacing));
    }
  }
  return requests;
}

TEST(TileReader, GivesTheDefinitionForAnyPlaceSpacingAndMode) {
  const auto slide =
      std::make_shared<FakeSlide>(1003, 777, std::vector<int>{1, 4}, 64, true);
  const std::pair<std::int64_t, std::int64_t> frames[] = {{250000, 250000},
                                                          {240000, 240000},
                                                          {252300, 249000},
                                                          {243907, 244500},
                                                          {251000, 251000}};
  for (const auto& [sx, sy] : frames) {
    const SlideFrame frame = slide->frame(sx, sy);
    for (const ReadingMode mode : {ReadingMode::kExact, ReadingMode::kScaled}) {
      TileReader reader(slide, frame, {.mode = mode});
      for (const std::int64_t pm : {250000, 500000, 700001, 1000000, 2000000, 4100000}) {
        for (const auto& [x, y, w, h] : {std::array<std::int64_t, 4>{0, 0, 31, 17},
                                         {-7, -9, 40, 21},
                                         {101, 55, 64, 64},
                                         {64, 64, 64, 64},
                                         {-400, -400, 900, 850},
                                         {100000, 3, 5, 5}}) {
          const ReadRequest r = request(0, x, y, w, h, {pm});
          EXPECT_TRUE(read(reader, r) == expected(*slide, frame, r, mode))
              << sx << " " << sy << " -> " << pm << " at " << x << " " << y << " mode "
              << static_cast<int>(mode);
        }
      }
    }
  }
}

TEST(TileReader, LargeRequestsAreWorkedOffInBlocksWithTheSameBits) {
  const auto slide =
      std::make_shared<FakeSlide>(4100, 3001, std::vector<int>{1}, 256, false);
  const SlideFrame frame = slide->frame(243907, 244500);
  TileReader reader(slide, frame, {.mode = ReadingMode::kExact});
  const ReadRequest r = request(0, -3, -3, 1010, 740);  // 12 million source pixels
  EXPECT_TRUE(read(reader, r) == expected(*slide, frame, r, ReadingMode::kExact));
  EXPECT_THROW(read(reader, request(0, 0, 0, 2, 2, Spacing::from_um(1e5))), Error);
}

TEST(TileReader, BeyondTheSlideIsWhiteAndOkAndTouchesNothing) {
  const auto slide = std::make_shared<FakeSlide>(512, 512, std::vector<int>{1}, 64, true);
  TileReader reader(slide, slide->frame(1000000, 1000000), {});
  TileStatus status = TileStatus::kMissing;
  const Pixels rgb = read(reader, request(0, 512, -64, 64, 64), &status);
  EXPECT_EQ(status, TileStatus::kOk);
  EXPECT_EQ(rgb, Pixels(64 * 64 * 3, 255));
  EXPECT_EQ(slide->decodes(), 0);
}

TEST(TileReader, ReportsTheWorstStatusOfTheTilesItTouched) {
  const auto slide = std::make_shared<FakeSlide>(512, 512, std::vector<int>{1}, 64, true);
  slide->faults[{0, 1, 0}] = TileStatus::kWarned;
  slide->faults[{0, 2, 0}] = TileStatus::kCorrupt;
  slide->faults[{0, 3, 0}] = TileStatus::kMissing;
  TileReader reader(slide, slide->frame(1000000, 1000000), {});
  const auto status = [&](std::int64_t x, std::int64_t y, std::int64_t w,
                          std::int64_t h) {
    TileStatus got;
    read(reader, request(0, x, y, w, h), &got);
    return got;
  };
  EXPECT_EQ(status(0, 0, 64, 64), TileStatus::kOk);
  EXPECT_EQ(status(0, 0, 65, 64), TileStatus::kWarned);
  EXPECT_EQ(status(64, 0, 65, 64), TileStatus::kCorrupt);
  EXPECT_EQ(status(0, -10, 256, 64), TileStatus::kMissing);
  EXPECT_EQ(status(0, 64, 256, 64), TileStatus::kOk);  // nothing stale from the row above
  EXPECT_EQ(read(reader, request(0, 128, 0, 64, 64)), Pixels(64 * 64 * 3, 255));
}

TEST(TileReader, DecodesEachSourceTileOnceForAllNeighborsAndThreads) {
  const auto slide =
      std::make_shared<FakeSlide>(1024, 1024, std::vector<int>{1}, 64, true);
  for (const int workers : {1, 2, 5}) {
    const int before = slide->decodes();
    TileReader reader(slide, slide->frame(1000000, 1000000), {.workers = workers});
    auto requests = grid(16, 16, 64, 8);
    bool given = false;
    std::atomic<int> answers{0};
    reader.run(
        [&] {
          if (given) return std::vector<ReadRequest>{};
          given = true;
          return requests;
        },
        [&](TileAnswer&&) { ++answers; });
    EXPECT_EQ(answers, 256);
    EXPECT_EQ(slide->decodes() - before, 256) << workers << " workers";
  }
}

TEST(TileReader, ACacheTooSmallForATileStillReadsRight) {
  const auto slide = std::make_shared<FakeSlide>(512, 512, std::vector<int>{1}, 64, true);
  const SlideFrame frame = slide->frame(900000, 900000);
  TileReader reader(slide, frame, {.cache_bytes = 0});
  const ReadRequest r = request(0, 3, 3, 300, 300);
  EXPECT_TRUE(read(reader, r) == expected(*slide, frame, r, ReadingMode::kScaled));
}

TEST(TileReader, RunGivesTheSameBytesForAnyWorkerCountAndOrder) {
  const auto slide =
      std::make_shared<FakeSlide>(2003, 1501, std::vector<int>{1, 4}, 128, true);
  const SlideFrame frame = slide->frame(243907, 244500);
  std::map<std::int64_t, Pixels> first;
  for (const int workers : {1, 2, 7}) {
    auto requests = grid(8, 6, 64, 9);
    if (workers == 2) std::reverse(requests.begin(), requests.end());
    TileReader reader(slide, frame, {.workers = workers, .cache_bytes = 200000});
    std::size_t at = 0;
    std::mutex mutex;
    std::map<std::int64_t, Pixels> got;
    reader.run(
        [&] {  // five at a time, as a session hands them out
          const std::size_t end = std::min(requests.size(), at + 5);
          std::vector<ReadRequest> some(
              requests.begin() + static_cast<std::ptrdiff_t>(at),
              requests.begin() + static_cast<std::ptrdiff_t>(end));
          at = end;
          return some;
        },
        [&](TileAnswer&& answer) {
          const std::lock_guard lock(mutex);
          got[answer.request.id] = answer.rgb;
        });
    ASSERT_EQ(got.size(), 48U);
    if (first.empty()) first = got;
    EXPECT_TRUE(got == first) << workers << " workers";
  }
}

TEST(TileReader, RunRethrowsWhatSourceSinkOrReadThrew) {
  const auto slide = std::make_shared<FakeSlide>(512, 512, std::vector<int>{1}, 64, true);
  const SlideFrame frame = slide->frame(1000000, 1000000);
  TileReader reader(slide, frame, {.workers = 3});
  const auto endless = [&] { return grid(4, 4, 64, 0); };
  EXPECT_THROW(
      reader.run([]() -> std::vector<ReadRequest> { throw std::domain_error("source"); },
                 [](TileAnswer&&) {}),
      std::domain_error);
  EXPECT_THROW(reader.run(endless, [](TileAnswer&&) { throw std::range_error("sink"); }),
               std::range_error);
  EXPECT_THROW(reader.run([] { return std::vector{request(0, 0, 0, 8, 8, {900000})}; },
                          [](TileAnswer&&) {}),
               Error);
  slide->throws_at = {0, 2, 2};
  EXPECT_THROW(reader.run(endless, [](TileAnswer&&) {}), Error);
  slide->throws_at = {-1, 0, 0};  // an I/O error leaves nothing behind
  EXPECT_TRUE(
      read(reader, request(0, 128, 128, 64, 64)) ==
      expected(*slide, frame, request(0, 128, 128, 64, 64), ReadingMode::kScaled));
}

TEST(TileReader, NextAnswersInTheOrderOfSubmitWithABoundedWindow) {
  const auto slide =
      std::make_shared<FakeSlide>(1024, 1024, std::vector<int>{1}, 64, true);
  const SlideFrame frame = slide->frame(1000000, 1000000);
  for (const int workers : {1, 4}) {
    for (const std::size_t max_ahead :
         {std::size_t{1}, std::size_t{3}, std::size_t{64}}) {
      TileReader reader(slide, frame, {.workers = workers, .max_ahead = max_ahead});
      const auto requests = grid(10, 10, 64, 5);
      TileAnswer answer;
      EXPECT_FALSE(reader.next(answer));
      reader.submit({requests.begin(), requests.begin() + 60});
      reader.submit({requests.begin() + 60, requests.end()});
      for (std::int64_t id = 0; id < 100; ++id) {
        ASSERT_TRUE(reader.next(answer));
        EXPECT_EQ(answer.request.id, id);
        if (id % 9 == 0) {
          EXPECT_TRUE(answer.rgb == expected(*slide, frame,
                                             requests[static_cast<std::size_t>(id)],
                                             ReadingMode::kScaled));
        }
      }
      EXPECT_FALSE(reader.next(answer));
    }
  }
}

TEST(TileReader, WritesIntoTheCallersMemoryAndHandsOutManyAtOnce) {
  const auto slide =
      std::make_shared<FakeSlide>(1003, 777, std::vector<int>{1}, 64, true);
  const SlideFrame frame = slide->frame(950000, 950000);
  const auto requests = grid(8, 8, 40, 3);
  constexpr std::size_t kBytes = 46 * 46 * 3;
  for (const int workers : {1, 3}) {
    for (const std::size_t max_ahead :
         {std::size_t{1}, std::size_t{5}, std::size_t{100}}) {
      TileReader reader(slide, frame, {.workers = workers, .max_ahead = max_ahead});
      Pixels out(64 * kBytes);
      reader.submit({requests.begin(), requests.begin() + 40}, out.data());
      reader.submit({requests.begin() + 40, requests.end()}, out.data() + 40 * kBytes);
      std::vector<TileStatus> statuses(25, TileStatus::kMissing);
      EXPECT_EQ(reader.next(statuses), 25U);
      EXPECT_EQ(statuses, std::vector<TileStatus>(25, TileStatus::kOk));
      EXPECT_EQ(reader.next(statuses), 25U);
      EXPECT_EQ(reader.next(statuses), 14U);
      EXPECT_EQ(reader.next(statuses), 0U);
      for (std::size_t k = 0; k < 64; ++k) {
        const Pixels tile(out.begin() + static_cast<std::ptrdiff_t>(k * kBytes),
                          out.begin() + static_cast<std::ptrdiff_t>((k + 1) * kBytes));
        ASSERT_TRUE(tile == expected(*slide, frame, requests[k], ReadingMode::kScaled))
            << k;
      }
    }
  }
  TileReader reader(slide, frame, {});
  EXPECT_THROW(reader.submit({request(0, 0, 0, 4, 4), request(1, 0, 0, 4, 5)}, nullptr),
               std::invalid_argument);
}

TEST(TileReader, AnErrorAmongManyEndsTheirWaitAndTheRestFollows) {
  const auto slide = std::make_shared<FakeSlide>(512, 512, std::vector<int>{1}, 64, true);
  slide->throws_at = {0, 2, 0};
  TileReader reader(slide, slide->frame(1000000, 1000000), {.workers = 2});
  Pixels out(8 * 64 * 64 * 3);
  reader.submit(grid(8, 1, 64, 0), out.data());
  std::vector<TileStatus> statuses(8);
  EXPECT_THROW(reader.next(statuses), Error);
  EXPECT_EQ(reader.next(statuses), 5U);
}

TEST(TileReader, NobodyWritesAfterCancel) {
  const auto slide =
      std::make_shared<FakeSlide>(1024, 1024, std::vector<int>{1}, 64, true);
  TileReader reader(slide, slide->frame(1000000, 1000000),
                    {.workers = 3, .max_ahead = 32});
  for (int round = 0; round < 30; ++round) {
    auto out = std::make_unique<Pixels>(256 * 64 * 64 * 3);
    reader.submit(grid(16, 16, 64, 0), out->data());
    std::vector<TileStatus> statuses(static_cast<std::size_t>(round % 5));
    reader.next(statuses);
    reader.cancel();
    std::fill(out->begin(), out->end(), std::uint8_t{7});
    std::this_thread::yield();
    EXPECT_TRUE(std::all_of(out->begin(), out->end(), [](auto v) { return v == 7; }));
  }
}

TEST(TileReader, ARequestForJustOneTileIsDecodedInPlace) {
  const auto slide = std::make_shared<FakeSlide>(512, 512, std::vector<int>{1}, 64, true);
  const SlideFrame frame = slide->frame(1000000, 1000000);
  slide->faults[{0, 3, 3}] = TileStatus::kCorrupt;
  TileReader reader(slide, frame, {});
  const ReadRequest one = request(0, 64, 64, 64, 64);
  EXPECT_TRUE(read(reader, one) == expected(*slide, frame, one, ReadingMode::kScaled));
  TileStatus status = TileStatus::kOk;
  EXPECT_EQ(read(reader, request(0, 192, 192, 64, 64), &status),
            Pixels(64 * 64 * 3, 255));
  EXPECT_EQ(status, TileStatus::kCorrupt);
  // Where a neighbor's halo brought it into the cache, it is not decoded again.
  read(reader, request(0, 250, 250, 20, 20));
  const int before = slide->decodes();
  read(reader, request(0, 256, 256, 64, 64));
  EXPECT_EQ(slide->decodes(), before);
}

TEST(TileReader, ARequestOfWholeTilesIsDecodedInPlace) {
  for (const bool scales : {true, false}) {
    const auto slide =
        std::make_shared<FakeSlide>(512, 512, std::vector<int>{1}, 64, scales);
    const SlideFrame frame = slide->frame(1000000, 1000000);
    slide->faults[{0, 3, 3}] = TileStatus::kCorrupt;
    TileReader reader(slide, frame, {});
    for (const std::int64_t scale : {1, 2}) {  // level-native, and two pixels to one
      const ReadRequest four =
          request(0, 64 / scale, 64 / scale, 128 / scale, 128 / scale, {scale * 1000000});
      const int before = slide->decodes();
      for (int times = 1; times <= 2; ++times) {
        EXPECT_TRUE(read(reader, four) ==
                    expected(*slide, frame, four, ReadingMode::kScaled));
        EXPECT_EQ(slide->decodes(), before + 4 * times);  // the cache holds none of them
      }
      TileStatus status = TileStatus::kOk;
      read(reader,
           request(0, 128 / scale, 128 / scale, 128 / scale, 128 / scale,
                   {scale * 1000000}),
           &status);
      EXPECT_EQ(status, TileStatus::kCorrupt);
    }
    // One pixel aside, neighbors share tiles: then each is decoded once.
    const int before = slide->decodes();
    read(reader, request(0, 257, 256, 64, 64));
    read(reader, request(0, 321, 256, 63, 64));
    EXPECT_EQ(slide->decodes(), before + 2);
    read(reader, request(0, 256, 256, 128, 64));  // and taken from where it is
    EXPECT_EQ(slide->decodes(), before + 2);
  }
}

TEST(TileReader, TellsTheFileSystemWhatComesNext) {
  const auto slide = std::make_shared<FakeSlide>(2048, 64, std::vector<int>{1}, 64, true);
  ReaderOptions options;
  options.workers = 1;
  TileReader reader(slide, slide->frame(1000000, 1000000), options);
  std::vector<ReadRequest> requests;
  for (int i = 0; i < 30; ++i) requests.push_back(request(i, 64 * i, 0, 72, 64));
  // Cannot be read, and must not end what comes before it with its error.
  requests.push_back(request(30, 0, 0, 64, 64, {1}));
  reader.submit(requests);
  TileAnswer answer;
  for (int i = 0; i < 30; ++i) EXPECT_TRUE(reader.next(answer));
  EXPECT_THROW(reader.next(answer), Error);
  const auto hints = slide->hints();
  // The fifth request behind the one at work, but for tiles that the one before it reads.
  EXPECT_EQ(hints.size(), 25U);
  for (const auto& [place, count] : hints) {
    EXPECT_EQ(count, 1);
    EXPECT_GE(std::get<1>(place), 6);
  }
}

TEST(TileReader, ASlowConsumerIsNotOverrun) {
  const auto slide =
      std::make_shared<FakeSlide>(1024, 1024, std::vector<int>{1}, 64, true);
  TileReader reader(slide, slide->frame(1000000, 1000000),
                    {.workers = 2, .max_ahead = 4});
  reader.submit(grid(16, 16, 64, 0));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_LE(slide->decodes(), 4);
  TileAnswer answer;
  ASSERT_TRUE(reader.next(answer));  // destroyed with work waiting: must not hang
}

TEST(TileReader, AnErrorComesInItsPlaceAndTheRestAfterIt) {
  const auto slide = std::make_shared<FakeSlide>(512, 512, std::vector<int>{1}, 64, true);
  slide->throws_at = {0, 1, 0};
  TileReader reader(slide, slide->frame(1000000, 1000000), {});
  reader.submit(grid(3, 1, 64, 0));
  TileAnswer answer;
  ASSERT_TRUE(reader.next(answer));
  EXPECT_THROW(reader.next(answer), Error);
  ASSERT_TRUE(reader.next(answer));
  EXPECT_EQ(answer.request.id, 2);
  EXPECT_FALSE(reader.next(answer));
}

TEST(TileReader, CancelEndsWaitingAndTheReaderCanBeUsedAgain) {
  const auto slide =
      std::make_shared<FakeSlide>(1024, 1024, std::vector<int>{1}, 64, true);
  const SlideFrame frame = slide->frame(1000000, 1000000);
  TileReader reader(slide, frame, {.workers = 2, .max_ahead = 4});
  TileAnswer answer;
  reader.cancel();
  EXPECT_FALSE(reader.next(answer));  // nothing was outstanding
  for (int round = 0; round < 20; ++round) {
    reader.submit(grid(16, 16, 64, 0));
    ASSERT_TRUE(reader.next(answer));
    reader.cancel();
    EXPECT_THROW(reader.next(answer), Error);
    reader.submit(grid(2, 1, 64, 3));
    ASSERT_TRUE(reader.next(answer));
    EXPECT_EQ(answer.request.id, 0);
    EXPECT_TRUE(answer.rgb == expected(*slide, frame, request(0, -3, -3, 70, 70),
                                       ReadingMode::kScaled));
    ASSERT_TRUE(reader.next(answer));
    EXPECT_FALSE(reader.next(answer));
  }
}

TEST(TileReader, CancelStopsARunMidway) {
  const auto slide =
      std::make_shared<FakeSlide>(1024, 1024, std::vector<int>{1}, 64, true);
  TileReader reader(slide, slide->frame(1000000, 1000000), {.workers = 2});
  std::atomic<int> answers{0}, after{0};
  std::atomic<bool> cancelled{false};
  try {
    reader.run([&] { return grid(4, 4, 64, 0); },
               [&](TileAnswer&&) {
                 after += cancelled;
                 if (++answers != 100) return;
                 reader.cancel();
                 cancelled = true;
               });
    FAIL() << "an endless source ended";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kCancelled);
  }
  EXPECT_GE(answers, 100);
  EXPECT_LE(after, 1);  // what the other worker was reading
}

TEST(TileReader, RefusesBadRequestsAndOptions) {
  const auto slide = std::make_shared<FakeSlide>(512, 512, std::vector<int>{1}, 64, true);
  const SlideFrame frame = slide->frame(1000000, 1000000);
  TileReader reader(slide, frame, {});
  EXPECT_THROW(read(reader, request(0, 0, 0, 0, 5)), std::invalid_argument);
  EXPECT_THROW(read(reader, request(0, std::int64_t{1} << 50, 0, 5, 5)),
               std::invalid_argument);
  EXPECT_THROW(read(reader, request(0, 0, 0, 5, 5, {0})), std::invalid_argument);
  Pixels out(64);
  EXPECT_THROW(reader.read(request(0, 0, 0, 4, 4), {out.data(), 4, 5, 3}),
               std::invalid_argument);
  EXPECT_THROW(TileReader(nullptr, frame, {}), std::invalid_argument);
  EXPECT_THROW(TileReader(slide, frame, {.workers = 0}), std::invalid_argument);
  EXPECT_THROW(TileReader(slide, frame, {.max_ahead = 0}), std::invalid_argument);
  SlideFrame other = frame;
  other.width_px = 511;
  EXPECT_THROW(TileReader(slide, other, {}), std::invalid_argument);
}

}  // namespace
}  // namespace her2fast
