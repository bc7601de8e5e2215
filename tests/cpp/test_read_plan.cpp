// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fake_slide.h"
#include "her2fast/error.h"
#include "her2fast/tile_reader.h"
#include "io/tile_cache.h"

namespace her2fast {
namespace {

constexpr Spacing kOneUm{1'000'000};

TEST(PlanRead, TakesTheCoarsestLevelWithinOnePercentThenTheLargestDenominator) {
  const FakeSlide slide(4096, 4096, {1, 4, 16}, 256, true);
  const auto plan = [&](std::int64_t level0_pm, std::int64_t target_pm,
                        ReadingMode mode) {
    const ReadPlan p =
        plan_read(slide, slide.frame(level0_pm, level0_pm), {target_pm}, mode);
    return std::pair(p.level, p.denominator);
  };
  EXPECT_EQ(plan(250000, 1000000, ReadingMode::kExact), std::pair(1, 1));
  EXPECT_EQ(plan(252500, 1000000, ReadingMode::kExact), std::pair(1, 1));  // 1.01 exactly
  EXPECT_EQ(plan(252501, 1000000, ReadingMode::kExact), std::pair(0, 1));
  EXPECT_EQ(plan(252501, 1000000, ReadingMode::kScaled), std::pair(0, 2));
  EXPECT_EQ(plan(250000, 2000000, ReadingMode::kScaled), std::pair(1, 2));
  EXPECT_EQ(plan(250000, 8000000, ReadingMode::kScaled), std::pair(2, 2));
  EXPECT_EQ(plan(250000, 100000000, ReadingMode::kScaled), std::pair(2, 8));
  EXPECT_EQ(plan(500000, 496000, ReadingMode::kScaled), std::pair(0, 1));
  EXPECT_EQ(plan(250000, 1000000, ReadingMode::kLevel0), std::pair(0, 4));
  EXPECT_EQ(plan(252501, 1000000, ReadingMode::kLevel0), std::pair(0, 2));
  EXPECT_EQ(plan(250000, 8000000, ReadingMode::kLevel0), std::pair(0, 8));
  EXPECT_EQ(plan(1000000, 1000000, ReadingMode::kLevel0), std::pair(0, 1));
}

TEST(PlanRead, BothAxesMustPassAndTooFineIsRefused) {
  const FakeSlide slide(4096, 4096, {1, 4}, 256, true);
  EXPECT_EQ(
      plan_read(slide, slide.frame(250000, 252501), kOneUm, ReadingMode::kExact).level,
      0);
  EXPECT_EQ(
      plan_read(slide, slide.frame(252501, 250000), kOneUm, ReadingMode::kExact).level,
      0);
  try {
    plan_read(slide, slide.frame(500000, 500000), {495000}, ReadingMode::kScaled);
    FAIL() << "level 0 is more than 1 % too coarse";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kNoLevel);
  }
  EXPECT_THROW(
      plan_read(slide, slide.frame(500000, 500000), {495000}, ReadingMode::kLevel0),
      Error);
}

TEST(StoredLevel, IsNamedWhereJpegCompressedItAtAboutTheWorkingSpacing) {
  const FakeSlide jpeg(4096, 4096, {1, 2, 4}, 256, true);
  const FakeSlide other(4096, 4096, {1, 2, 4}, 256, false);  // no JPEG, or not ours
  const auto said = [&](const Slide& slide, std::int64_t x_pm, std::int64_t y_pm,
                        ReadingMode mode = ReadingMode::kScaled) {
    return stored_level_warning(slide, jpeg.frame(x_pm, y_pm), kOneUm, mode).value_or("");
  };
  const std::string text = said(jpeg, 250000, 250000);
  EXPECT_EQ(text.rfind("tiles are read from a level stored at 1 um/px, compressed", 0),
            0u);
  EXPECT_EQ(said(jpeg, 250000, 250000, ReadingMode::kExact), text);
  EXPECT_EQ(said(jpeg, 250000, 250000, ReadingMode::kLevel0), "");
  EXPECT_EQ(said(other, 250000, 250000), "");
  EXPECT_EQ(said(jpeg, 1000000, 1000000), "");  // level 0 itself
  EXPECT_EQ(said(jpeg, 1900000, 1900000), "");  // no level serves
  // A half of the working spacing is averaged, anything coarser hardly.
  EXPECT_EQ(said(jpeg, 125000, 125000), "");
  EXPECT_NE(said(jpeg, 125001, 125001), "");
  EXPECT_NE(said(jpeg, 125000, 125001), "");
  // The coarser axis is named.
  EXPECT_NE(said(jpeg, 200000, 240000).find("at 0.96 um/px"), std::string::npos);
}

TEST(TileCache, KeepsToItsBytesDropsTheOldestAndNeverWhatIsHeld) {
  constexpr std::size_t kTile = 8 * 8 * 3;
  TileCache cache(3 * kTile);
  int decodes = 0;
  const auto get = [&](std::int64_t column) {
    return cache.get({0, 1, column, 0}, 8, 8, [&](ImageView<std::uint8_t> rgb) {
      ++decodes;
      std::fill_n(rgb.data, kTile, static_cast<std::uint8_t>(column));
      return TileStatus::kOk;
    });
  };
  {
    const TileCache::Held first = get(100);
    for (std::int64_t column = 0; column < 50; ++column) {
      EXPECT_EQ(get(column).rgb().data[5], column);
      EXPECT_LE(cache.bytes(), 3 * kTile);
    }
    EXPECT_EQ(first.rgb().data[kTile - 1], 100);
  }
  EXPECT_EQ(decodes, 51);
  for (const std::int64_t column : {49, 100, 49, 48}) get(column);
  EXPECT_EQ(decodes, 51);
  get(7);  // the oldest is 100 now
  EXPECT_TRUE(cache.has({0, 1, 49, 0}));
  EXPECT_FALSE(cache.has({0, 1, 100, 0}));
}

TEST(TileCache, GrowsOnlyForWhatOneOfFullSizeWouldHave) {
  constexpr std::int32_t kSide = 512;
  constexpr std::size_t kTile = std::size_t{kSide} * kSide * 3;
  constexpr std::int64_t kCapacity = 80;  // tiles
  TileCache cache(kCapacity * kTile);
  const std::size_t start = cache.limit_bytes();
  ASSERT_LT(start, kCapacity * kTile / 3);
  int decodes = 0;
  const auto get = [&](std::int64_t column) {
    const auto mark = [&](ImageView<std::uint8_t> rgb) {
      ++decodes;
      rgb.data[kTile - 1] = static_cast<std::uint8_t>(column);
      return TileStatus::kOk;
    };
    const TileCache::Held tile = cache.get({0, 1, column, 0}, kSide, kSide, mark);
    EXPECT_EQ(tile.rgb().data[kTile - 1], column % 256);
  };
  for (std::int64_t column = 0; column < 3 * kCapacity; ++column) get(column);
  EXPECT_EQ(cache.limit_bytes(), start) << "nothing came back";
  EXPECT_LE(cache.bytes(), start);

  get(2 * kCapacity - 1);  // the last that 80 tiles would not have kept
  EXPECT_EQ(cache.limit_bytes(), start);
  get(2 * kCapacity + 1);  // the first that they would, for one came since
  EXPECT_EQ(cache.limit_bytes(), 2 * start);

  // Going over a band of 70 again and again: soon nothing of it is decoded twice.
  for (int round = 0; round < 4; ++round) {
    decodes = 0;
    for (std::int64_t column = 0; column < 70; ++column) get(column);
  }
  EXPECT_EQ(decodes, 0);
  EXPECT_EQ(cache.limit_bytes(), kCapacity * kTile);
  for (std::int64_t column = 0; column < 3 * kCapacity; ++column) get(column);
  EXPECT_EQ(cache.limit_bytes(), kCapacity * kTile);
  EXPECT_LE(cache.bytes(), kCapacity * kTile);

  EXPECT_EQ(TileCache(5).limit_bytes(), 5U);
}

TEST(TileCache, KeepsATileThatFillsMostOfIt) {
  TileCache cache(std::size_t{64} << 20);
  int decodes = 0;
  for (int round = 0; round < 6; ++round) {
    cache.get({0, 1, 0, 0}, 4096, 4096, [&](ImageView<std::uint8_t>) {
      ++decodes;
      return TileStatus::kOk;
    });
  }
  EXPECT_LE(decodes, 3) << "it grows twice, from 16 MB to 64";
  EXPECT_TRUE(cache.has({0, 1, 0, 0}));
}

TEST(PixelBlocks, PiecesNeitherOverlapNorLoseTheirMemory) {
  PixelBlocks blocks;
  constexpr std::size_t kPiece = 100001;
  const auto fill = [](const PixelBlocks::Piece& piece, int value) {
    std::fill_n(piece.data(), piece.bytes(), static_cast<std::uint8_t>(value));
  };
  std::vector<PixelBlocks::Piece> pieces;
  for (int i = 0; i < 100; ++i) {  // more than two blocks
    pieces.push_back(blocks.take(kPiece));
    fill(pieces.back(), i);
  }
  pieces.push_back(blocks.take(7));  // other sizes come singly
  fill(pieces.back(), 100);
  pieces.push_back(blocks.take(std::size_t{9} << 20));
  fill(pieces.back(), 101);
  for (int i = 0; i < 102; ++i) {
    const PixelBlocks::Piece& piece = pieces[static_cast<std::size_t>(i)];
    EXPECT_TRUE(std::all_of(piece.data(), piece.data() + piece.bytes(),
                            [i](std::uint8_t v) { return v == i; }));
  }
  const std::uint8_t* given = pieces[40].data();
  pieces[40] = PixelBlocks::Piece();
  EXPECT_EQ(blocks.take(kPiece).data(), given);
}

/// The decode of either tile ends only when that of the other has begun.
class PairedSlide final : public FakeSlide {
 public:
  PairedSlide() : FakeSlide(64, 128, {1}, 64, false) {}

  TileStatus read_tile(int level, std::int64_t column, std::int64_t row, int denominator,
                       ImageView<std::uint8_t> out,
                       DecodeScratch& scratch) const override {
    {
      std::unique_lock lock(mutex_);
      ++begun_;
      changed_.notify_all();
      const auto both = [&] { return begun_ > 1; };
      if (!changed_.wait_for(lock, std::chrono::seconds(20), both)) met_ = false;
    }
    return FakeSlide::read_tile(level, column, row, denominator, out, scratch);
  }
  bool met() const { return met_; }
  /// Until a decode has begun: else both threads may choose the same tile.
  void wait_for_one() const {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return begun_ > 0; });
  }

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  mutable int begun_ = 0;
  mutable bool met_ = true;
};

TEST(TileReader, ThreadsDecodeTheTilesOfOneRequestSideBySide) {
  const auto slide = std::make_shared<PairedSlide>();
  const TileReader reader(slide, slide->frame(1'000'000, 1'000'000), {});
  // Both requests lie on both tiles and begin with the same one.
  std::vector<std::uint8_t> pixels[2];
  std::vector<std::thread> threads;
  for (auto& rgb : pixels) {
    rgb.resize(32 * 96 * 3);
    threads.emplace_back([&] {
      reader.read({0, 0, 16, 32, 96, kOneUm}, {rgb.data(), 96, 32, 3});
    });
    slide->wait_for_one();
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(slide->met());
  EXPECT_EQ(slide->decodes(), 2);
  EXPECT_EQ(pixels[0], pixels[1]);
  EXPECT_EQ(pixels[0][0], slide->decoded(0, 0, 16, 1, 0));
}

}  // namespace
}  // namespace her2fast
