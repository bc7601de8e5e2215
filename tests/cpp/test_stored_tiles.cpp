// SPDX-License-Identifier: Apache-2.0
// What is pushed and measured as it will be stored, against reading the file that was
// stored: the same bits.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "her2fast/error.h"
#include "her2fast/slide.h"
#include "her2fast/tiff_writer.h"
#include "her2fast/tile_reader.h"
#include "io/codec/jpeg.h"
#include "session/stored_tiles.h"

namespace her2fast {
namespace {

namespace fs = std::filesystem;

using Pixels = std::vector<std::uint8_t>;
using Answers = std::map<std::int64_t, Pixels>;
constexpr std::size_t kPlenty = std::size_t{1} << 30;
constexpr Spacing kOneUm{1'000'000};

/// Colored blobs with grain: everything that JPEG changes.
struct Picture {
  std::int64_t width = 0, height = 0;
  Pixels rgb;

  Picture(std::int64_t width_, std::int64_t height_, unsigned seed = 1)
      : width(width_), height(height_) {
    std::mt19937 random(seed);
    rgb.resize(static_cast<std::size_t>(width * height * 3));
    for (std::int64_t y = 0; y < height; ++y) {
      for (std::int64_t x = 0; x < width; ++x) {
        const bool brown = (x / 7 + y / 5) % 3 == 0, blue = (x / 11 - y / 9) % 4 == 0;
        for (int c = 0; c < 3; ++c) {
          const int base = brown ? 150 - 40 * c : blue ? 90 + 45 * c : 225;
          rgb[static_cast<std::size_t>((y * width + x) * 3 + c)] =
              static_cast<std::uint8_t>(base + static_cast<int>(random() % 24));
        }
      }
    }
  }

  PixelRect cut(std::int64_t x, std::int64_t y, std::int64_t w, std::int64_t h) const {
    return {x, y, w, h, rgb.data() + (y * width + x) * 3, width * 3, PixelFormat::kRgb};
  }
  PixelRect all() const { return cut(0, 0, width, height); }
};

/// Tiles with a halo on the working grid, as a session plans them.
std::vector<ReadRequest> plan(const SlideFrame& frame, std::int64_t side,
                              std::int64_t halo) {
  std::vector<ReadRequest> requests;
  for (std::int64_t y = 0; y < frame.grid_height_px(kOneUm); y += side) {
    for (std::int64_t x = 0; x < frame.grid_width_px(kOneUm); x += side) {
      requests.push_back({static_cast<std::int64_t>(requests.size()), x - halo, y - halo,
                          side + 2 * halo, side + 2 * halo, kOneUm});
    }
  }
  return requests;
}

SlideFrame frame_of(const Picture& picture, double um) {
  return {picture.width, picture.height, Spacing::from_um(um), Spacing::from_um(um)};
}

/// A scan as a session has it: stored tiles, then answers.
struct Scan {
  Answers answers;
  StripAssembler strips;
  StoredTiles stored;

  Scan(const SlideFrame& frame, const StoredCoding& coding,
       const std::vector<ReadRequest>& requests, std::size_t max_bytes = kPlenty)
      : strips(
            coding.decoded(frame), requests,
            [this](const ReadRequest& r, ImageView<const std::uint8_t> rgb) {
              answers[r.id] = Pixels(rgb.data, rgb.data + rgb.height * rgb.stride);
            },
            kPlenty),
        stored(
            frame, coding, [this](const PixelRect& rect) { strips.add(rect); },
            max_bytes) {}
};

class StoredFile : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("her2fast-stored-" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  /// What reading the stored file gives for the requests, and what was read.
  Answers read(const Picture& picture, double um, const StoredCoding& coding,
               const std::vector<int>& downsamples,
               const std::vector<ReadRequest>& requests, ReadPlan& planned) const {
    PyramidOptions options;
    options.spacing_um = um;
    options.tile_px = coding.tile_px;
    options.jpeg_quality = coding.jpeg_quality;
    options.downsamples = downsamples;
    const std::string path = (folder_ / "stored.tiff").string();
    write_pyramid(
        path, picture.width, picture.height,
        [&](std::int64_t y, ImageView<std::uint8_t> rows) {
          const std::uint8_t* from = picture.rgb.data() + y * picture.width * 3;
          std::copy(from, from + rows.height * rows.stride, rows.data);
        },
        options);
    const SlideFrame frame = frame_of(picture, um);
    const TileReader reader(
        open_slide(path), frame,
        {.workers = 1,
         .mode = coding.denominator == 1 ? ReadingMode::kExact : ReadingMode::kScaled});
    planned = reader.plan(kOneUm);
    Answers answers;
    for (const ReadRequest& r : requests) {
      Pixels rgb(static_cast<std::size_t>(r.width_px * r.height_px * 3));
      EXPECT_EQ(reader.read(r, {rgb.data(), r.height_px, r.width_px, 3}),
                TileStatus::kOk);
      answers[r.id] = std::move(rgb);
    }
    return answers;
  }

  fs::path folder_;
};

struct Kind {
  double um;
  std::int32_t downsample, denominator, tile_px;
  int quality;
  std::int64_t width, height;
};

TEST_F(StoredFile, IsMeasuredToTheBitWhileItIsScanned) {
  // Whole tiles and cut ones; blocks that the level leaves out at the edge (513 / 4).
  const Kind kinds[] = {
      {0.5, 1, 1, 64, 70, 448, 320},   {0.5, 1, 1, 256, 90, 701, 533},
      {0.25, 4, 1, 64, 80, 1024, 768}, {0.25, 4, 1, 128, 70, 1027, 769},
      {0.25, 2, 1, 112, 85, 643, 515}, {0.2527, 3, 1, 64, 75, 803, 611},
      {1.0, 1, 1, 240, 70, 300, 260},  {0.5, 1, 2, 256, 70, 701, 533},
      {0.25, 1, 4, 64, 80, 643, 515},  {0.125, 2, 4, 112, 85, 1283, 1026},
      {0.12, 1, 8, 64, 90, 770, 517}};
  std::mt19937 random(3);
  for (const Kind& kind : kinds) {
    SCOPED_TRACE(std::to_string(kind.um) + " um/px, 1/" +
                 std::to_string(kind.downsample) + ", decoded at 1/" +
                 std::to_string(kind.denominator));
    const Picture picture(kind.width, kind.height);
    const SlideFrame frame = frame_of(picture, kind.um);
    StoredCoding coding;
    coding.jpeg_quality = kind.quality;
    coding.tile_px = kind.tile_px;
    coding.downsample = kind.downsample;
    coding.denominator = kind.denominator;
    const auto requests = plan(frame, 96, 16);
    std::vector<int> downsamples{1};
    if (kind.downsample > 1) downsamples.push_back(kind.downsample);
    ReadPlan planned;
    const Answers read_back =
        read(picture, kind.um, coding, downsamples, requests, planned);
    ASSERT_EQ(planned.level, kind.downsample > 1 ? 1 : 0);
    ASSERT_EQ(planned.denominator, kind.denominator);

    Scan at_once(frame, coding, requests);
    at_once.stored.add(picture.all());
    EXPECT_EQ(at_once.answers, read_back);

    // Rectangles that no tile and no block of 8 px divides, in any order.
    std::vector<PixelRect> pieces;
    for (std::int64_t y = 0; y < kind.height; y += 45) {
      for (std::int64_t x = 0; x < kind.width; x += 131) {
        pieces.push_back(picture.cut(x, y, std::min<std::int64_t>(131, kind.width - x),
                                     std::min<std::int64_t>(45, kind.height - y)));
      }
    }
    std::shuffle(pieces.begin(), pieces.end(), random);
    Scan in_pieces(frame, coding, requests);
    for (const PixelRect& piece : pieces) in_pieces.stored.add(piece);
    EXPECT_EQ(in_pieces.answers, read_back);
    EXPECT_EQ(in_pieces.stored.counts().delivered_px, kind.width * kind.height);
    EXPECT_EQ(in_pieces.stored.counts().bytes, 0u);
  }
}

TEST_F(StoredFile, IsNotWhatWasPushed) {
  const Picture picture(256, 256);
  const SlideFrame frame = frame_of(picture, 1.0);
  const auto requests = plan(frame, 256, 0);
  StoredCoding coding;
  coding.jpeg_quality = 70;
  Scan scan(frame, coding, requests);
  scan.stored.add(picture.all());
  ASSERT_EQ(scan.answers.size(), 1u);
  EXPECT_NE(scan.answers[0], picture.rgb);
}

/// The largest change of a channel of a picture of one tile.
int worst(const Picture& picture, io::JpegChroma chroma) {
  const SlideFrame frame = frame_of(picture, 1.0);
  StoredCoding coding;
  coding.jpeg_quality = 100;
  coding.chroma = chroma;
  coding.tile_px = 64;
  Scan scan(frame, coding, plan(frame, 64, 0));
  scan.stored.add(picture.all());
  int out = 0;
  for (std::size_t i = 0; i < picture.rgb.size(); ++i) {
    out = std::max(out, std::abs(scan.answers.at(0)[i] - picture.rgb[i]));
  }
  return out;
}

TEST(StoredTiles, ChromaIsSharedByAsManyPixelsAsSaid) {
  Picture columns(64, 64), rows(64, 64);
  for (std::int64_t y = 0; y < 64; ++y) {
    for (std::int64_t x = 0; x < 64; ++x) {
      for (int c = 0; c < 3; ++c) {
        const auto at = static_cast<std::size_t>((y * 64 + x) * 3 + c);
        // Red or blue of about one brightness.
        columns.rgb[at] = static_cast<std::uint8_t>(x % 2 == 0 ? (c == 0 ? 200 : 60)
                                                               : (c == 2 ? 200 : 90));
        rows.rgb[at] = static_cast<std::uint8_t>(y % 2 == 0 ? (c == 0 ? 200 : 60)
                                                            : (c == 2 ? 200 : 90));
      }
    }
  }
  EXPECT_LE(worst(columns, io::JpegChroma::k444), 3);
  EXPECT_LE(worst(rows, io::JpegChroma::k444), 3);
  EXPECT_GE(worst(columns, io::JpegChroma::k422), 30);
  EXPECT_LE(worst(rows, io::JpegChroma::k422), 3);
  EXPECT_GE(worst(columns, io::JpegChroma::k420), 30);
  EXPECT_GE(worst(rows, io::JpegChroma::k420), 30);
}

/// The answers of a picture of one tile.
Pixels stored_pixels(const Picture& picture, const StoredCoding& coding) {
  const SlideFrame frame = frame_of(picture, 1.0);
  Scan scan(frame, coding, plan(frame, 256, 0));
  scan.stored.add(picture.all());
  return scan.answers.at(0);
}

TEST(StoredTiles, TablesOfTheHostStandForAQuality) {
  const Picture picture(256, 256);
  StoredCoding by_quality, by_tables, finest, own;
  by_quality.jpeg_quality = 75;
  by_tables.tables = io::jpeg_quantization(75);
  finest.jpeg_quality = 100;
  own.tables = io::jpeg_quantization(100);
  own.tables->chroma.fill(255);  // grays and what little is left of color
  EXPECT_EQ(stored_pixels(picture, by_tables), stored_pixels(picture, by_quality));
  const Pixels fine = stored_pixels(picture, finest), gray = stored_pixels(picture, own);
  const auto colors = [](const Pixels& rgb) {
    double sum = 0;
    for (std::size_t i = 0; i < rgb.size(); i += 3) sum += std::abs(rgb[i] - rgb[i + 2]);
    return sum;
  };
  EXPECT_LT(colors(gray), 0.5 * colors(fine));
}

TEST(StoredTiles, WhatIsMissingOfATileIsMissingWithAllOfIt) {
  const Picture picture(256, 128);
  const SlideFrame frame = frame_of(picture, 1.0);
  StoredCoding coding;
  coding.jpeg_quality = 80;
  coding.tile_px = 128;
  Scan scan(frame, coding, plan(frame, 32, 0));
  scan.stored.add(picture.cut(0, 0, 255, 128));
  EXPECT_EQ(scan.answers.size(), 4u * 4u);  // all of the left tile, none of the right one
  scan.stored.add(picture.cut(255, 0, 1, 128));
  EXPECT_EQ(scan.answers.size(), 8u * 4u);
}

TEST(StoredTiles, FirstDeliveryWinsAndIsCounted) {
  const Picture first(128, 128, 1), second(128, 128, 2);
  const SlideFrame frame = frame_of(first, 1.0);
  StoredCoding coding;
  coding.jpeg_quality = 80;
  coding.tile_px = 128;
  const auto requests = plan(frame, 128, 0);
  Scan once(frame, coding, requests), twice(frame, coding, requests);
  once.stored.add(first.all());
  twice.stored.add(first.cut(0, 0, 128, 90));
  twice.stored.add(second.cut(0, 70, 128, 20));
  twice.stored.add(first.cut(0, 90, 128, 38));
  EXPECT_EQ(twice.answers, once.answers);
  EXPECT_GT(twice.stored.counts().repeated_px, 0);
  EXPECT_GT(twice.stored.counts().differing_px, 0);
}

TEST(StoredTiles, GlassStaysWhite) {
  const SlideFrame frame{256, 256, kOneUm, kOneUm};
  StoredCoding coding;
  coding.jpeg_quality = 70;
  Scan scan(frame, coding, plan(frame, 256, 0));
  scan.stored.add({0, 0, 256, 256, nullptr, 0, PixelFormat::kBlank});
  EXPECT_EQ(scan.answers.at(0), Pixels(256 * 256 * 3, 255));
}

TEST(StoredTiles, ThreadsGiveTheSameBits) {
  const Picture picture(1024, 640);
  const SlideFrame frame = frame_of(picture, 0.5);
  StoredCoding coding;
  coding.jpeg_quality = 75;
  coding.tile_px = 64;
  const auto requests = plan(frame, 96, 16);
  Scan alone(frame, coding, requests);
  alone.stored.add(picture.all());
  std::mutex mutex;
  Answers answers;
  StripAssembler strips(
      coding.decoded(frame), requests,
      [&](const ReadRequest& r, ImageView<const std::uint8_t> rgb) {
        const std::lock_guard lock(mutex);
        answers[r.id] = Pixels(rgb.data, rgb.data + rgb.height * rgb.stride);
      },
      kPlenty);
  StoredTiles stored(
      frame, coding, [&](const PixelRect& rect) { strips.add(rect); }, kPlenty);
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::int64_t y = t * 40; y < picture.height; y += 160) {
        stored.add(picture.cut(0, y, picture.width, 40));
      }
    });
  }
  threads.clear();
  EXPECT_EQ(answers, alone.answers);
}

TEST(StoredTiles, AnOrderThatNeedsTooMuchEndsWithALimit) {
  const Picture picture(2048, 512);
  const SlideFrame frame = frame_of(picture, 1.0);
  StoredCoding coding;
  coding.jpeg_quality = 70;
  Scan scan(frame, coding, plan(frame, 96, 0), std::size_t{1} << 20);
  try {
    for (std::int64_t y = 0; y < 512; y += 2) scan.stored.add(picture.cut(0, y, 2048, 1));
    FAIL() << "no limit";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kLimitExceeded);
  }
}

TEST(StoredTiles, MoreTilesThanAFileHoldsAreALimit) {
  const SlideFrame frame{200'000, 200'000, Spacing::from_um(0.25),
                         Spacing::from_um(0.25)};
  StoredCoding coding;
  coding.jpeg_quality = 80;
  coding.tile_px = 64;
  try {
    StoredTiles stored(
        frame, coding, [](const PixelRect&) {}, kPlenty);
    FAIL() << "no limit";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kLimitExceeded);
    EXPECT_NE(std::string(error.what()).find("larger stored tiles"), std::string::npos);
  }
}

TEST(StoredTiles, WhatTheSinkThrowsIsThrown) {
  const Picture picture(256, 128);
  StoredCoding coding;
  coding.jpeg_quality = 80;
  coding.tile_px = 128;
  int taken = 0;
  StoredTiles stored(
      frame_of(picture, 1.0), coding,
      [&](const PixelRect&) {
        if (++taken == 1) throw std::runtime_error("the sink");
      },
      kPlenty);
  EXPECT_THROW(stored.add(picture.all()), std::runtime_error);
}

/// Coded and decoded by hand, tile by tile, against what the level gives.
TEST(StoredTiles, EveryChromaIsThatOfItsOwnCodingAtEveryScale) {
  const Picture picture(256, 128);
  for (const io::JpegChroma chroma :
       {io::JpegChroma::k420, io::JpegChroma::k422, io::JpegChroma::k444}) {
    for (const int n : {1, 2, 4, 8}) {
      StoredCoding coding;
      coding.jpeg_quality = 85;
      coding.chroma = chroma;
      coding.tile_px = 128;
      coding.denominator = n;
      const SlideFrame frame = frame_of(picture, 0.125);
      int seen = 0;
      StoredTiles stored(
          frame, coding,
          [&](const PixelRect& rect) {
            const std::int64_t x0 = rect.x0_px * n, small = 128 / n;
            const io::JpegQuantization tables = io::jpeg_quantization(85);
            const auto stream = io::encode_jpeg(
                {picture.rgb.data() + 3 * x0, 128, 128, 3, 256 * 3}, tables, chroma);
            Pixels want(static_cast<std::size_t>(small * small * 3));
            io::JpegDecoder decoder;
            ASSERT_EQ(
                decoder.decode(io::jpeg_tables(tables), stream, io::JpegColor::kYCbCr,
                               128, 128, n, {want.data(), small, small, 3}),
                TileStatus::kOk);
            ASSERT_EQ(rect.width_px, small);
            ASSERT_EQ(Pixels(rect.data, rect.data + want.size()), want);
            ++seen;
          },
          kPlenty);
      stored.add(picture.all());
      EXPECT_EQ(seen, 2);
    }
  }
}

TEST(StoredTiles, RefusesWhatNoFileHolds) {
  const auto refused = [](auto change, const std::string& part) {
    StoredCoding coding;
    coding.jpeg_quality = 80;
    SlideFrame frame{512, 512, Spacing::from_um(0.25), Spacing::from_um(0.25)};
    change(coding, frame);
    try {
      StoredTiles stored(
          frame, coding, [](const PixelRect&) {}, kPlenty);
      ADD_FAILURE() << "not refused: " << part;
    } catch (const std::invalid_argument& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  using C = StoredCoding;
  using F = SlideFrame;
  refused([](C& c, F&) { c.jpeg_quality = 0; }, "quality of 1 to 100, got 0");
  refused([](C& c, F&) { c.jpeg_quality = 101; }, "got 101");
  refused([](C& c, F&) { c.tables = io::jpeg_quantization(80); }, "0 beside tables");
  refused([](C& c, F&) { c.tile_px = 100; }, "multiple of 16 px, 64 to 4096, got 100");
  refused([](C& c, F&) { c.tile_px = 48; }, "got 48");
  refused([](C& c, F&) { c.downsample = 0; }, "downsample of 1 to 64, got 0");
  refused([](C& c, F&) { c.downsample = 65; }, "got 65");
  refused([](C& c, F&) { c.chroma = static_cast<io::JpegChroma>(3); }, "got 3");
  refused([](C& c, F&) { c.denominator = 3; }, "got 1/3");
  refused([](C& c, F& f) { c.downsample = 4, f.width_px = 3; }, "got 3 x 512");
  refused([](C& c, F& f) { c.downsample = 2, c.denominator = 8, f.height_px = 9; },
          "at least 8 px");
  refused([](C&, F& f) { f.spacing_y = Spacing::from_um(0.3); }, "one spacing for both");
}

}  // namespace
}  // namespace her2fast
