// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "her2fast/slide.h"
#include "her2fast/tiff_writer.h"

namespace her2fast {
namespace {

namespace fs = std::filesystem;

class TiffWriter : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        fs::temp_directory_path() / ("her2fast-writer-" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const char* name) const { return (folder_ / name).string(); }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder_), {}));
  }

  fs::path folder_;
};

std::uint8_t value_at(std::int64_t x, std::int64_t y, std::int64_t c) {
  return static_cast<std::uint8_t>(3 * x + 5 * y + 70 * c);
}

void fill(std::int64_t y_px, ImageView<std::uint8_t> rows) {
  for (std::int64_t y = 0; y < rows.height; ++y) {
    for (std::int64_t i = 0; i < rows.width * 3; ++i) {
      rows.row(y)[i] = value_at(i / 3, y_px + y, i % 3);
    }
  }
}

PyramidOptions lossless(int workers) {
  PyramidOptions options;
  options.spacing_um = 0.25;
  options.tile_px = 64;
  options.jpeg_quality = 0;
  options.downsamples = {1, 2, 4};
  options.workers = workers;
  return options;
}

TEST_F(TiffWriter, LosslessPixelsComeBack) {
  constexpr std::int64_t kWidth = 203, kHeight = 131;
  write_pyramid(path("a.tiff"), kWidth, kHeight, fill, lossless(3));
  EXPECT_EQ(files(), 1u);
  const auto slide = open_slide(path("a.tiff"));
  ASSERT_EQ(slide->info().levels.size(), 2u);  // a quarter would be under one tile high
  EXPECT_FALSE(slide->can_scale(0, 2));        // Deflate has no scaled decoding
  const auto scratch = make_decode_scratch();
  std::vector<std::uint8_t> rgb(64 * 64 * 3);
  const ImageView<std::uint8_t> tile(rgb.data(), 64, 64, 3);
  for (std::int64_t row = 0; row < 3; ++row) {
    for (std::int64_t column = 0; column < 4; ++column) {
      ASSERT_EQ(slide->read_tile(0, column, row, 1, tile, *scratch), TileStatus::kOk);
      for (std::int64_t y = 0; y < 64 && row * 64 + y < kHeight; ++y) {
        for (std::int64_t x = 0; x < 64 && column * 64 + x < kWidth; ++x) {
          ASSERT_EQ(tile.row(y)[x * 3 + 1], value_at(column * 64 + x, row * 64 + y, 1));
        }
      }
    }
  }
}

TEST_F(TiffWriter, WorkersDoNotChangeTheBytes) {
  const auto bytes = [&](int workers, int quality) {
    PyramidOptions options = lossless(workers);
    options.jpeg_quality = quality;
    write_pyramid(path("b.tiff"), 500, 300, fill, options);
    std::ifstream file(path("b.tiff"), std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  for (const int quality : {0, 75}) {
    const std::string one = bytes(1, quality);
    EXPECT_GT(one.size(), 1000u);
    EXPECT_EQ(one, bytes(4, quality));
  }
}

TEST_F(TiffWriter, AFailedSourceLeavesNothing) {
  const auto broken = [](std::int64_t y_px, ImageView<std::uint8_t> rows) {
    if (y_px > 100) throw std::runtime_error("source");
    fill(y_px, rows);
  };
  EXPECT_THROW(write_pyramid(path("c.tiff"), 300, 300, broken, lossless(2)),
               std::runtime_error);
  EXPECT_EQ(files(), 0u);
  EXPECT_THROW(write_pyramid(path("c.tiff"), 1 << 25, 1 << 25, fill, lossless(2)),
               std::invalid_argument);  // more tiles than a reader takes
  EXPECT_EQ(files(), 0u);
}

}  // namespace
}  // namespace her2fast
