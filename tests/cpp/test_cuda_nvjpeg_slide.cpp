// SPDX-License-Identifier: Apache-2.0
/// Slides whose tiles are decoded on a GPU, with stand-ins for nvJPEG and the CUDA
/// runtime: its pixels are libjpeg-turbo's, so everything must be the slide's own to the
/// bit. That says nothing of NVIDIA's pixels.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cuda_device.h"
#include "fake_nvjpeg_calls.h"
#include "her2fast/error.h"
#include "her2fast/tiff_writer.h"
#include "her2fast/tile_reader.h"
#include "io/container/jpeg_tiles.h"
#include "session/nvjpeg_slide.h"

namespace her2fast {
namespace {

namespace fs = std::filesystem;

constexpr int kBadJpeg = 3, kAllocatorFailure = 5, kExecutionFailed = 6,
              kArchMismatch = 7, kNotSupported = 9;

NvjpegOptions options() {
  static_cast<void>(table());
  return {0, FAKE_NVJPEG, HER2_CUDA_JPEG_ANY};
}
std::shared_ptr<NvjpegDecoders> decoders() {
  return std::make_shared<NvjpegDecoders>(options());
}

struct Answer {
  TileStatus status = TileStatus::kOk;
  Bytes rgb;
  bool operator==(const Answer&) const = default;
};

class CudaNvjpegSlide : public testing::Test {
 protected:
  void SetUp() override {
    of_fake<FakeNvjpegReset>("fake_nvjpeg_reset")();
    folder_ = fs::temp_directory_path() / ("her2fast-nvjpeg-" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override {
    fs::remove_all(folder_);
    EXPECT_EQ(seen("alive"), 0);
  }
  std::string path() const { return (folder_ / "slide.tiff").string(); }

  std::shared_ptr<const Slide> write(std::int64_t width, std::int64_t height,
                                     int quality = 80, std::int32_t tile_px = 64,
                                     std::vector<int> downsamples = {1, 4}) const {
    PyramidOptions pyramid;
    pyramid.spacing_um = 0.25;
    pyramid.tile_px = tile_px;
    pyramid.jpeg_quality = quality;
    pyramid.downsamples = std::move(downsamples);
    write_pyramid(
        path(), width, height,
        [](std::int64_t y_px, ImageView<std::uint8_t> rows) {
          for (std::int64_t y = 0; y < rows.height; ++y) {
            for (std::int64_t i = 0; i < rows.width * 3; ++i) {
              rows.row(y)[i] = static_cast<std::uint8_t>((i / 40 + (y + y_px) / 9) * 31 +
                                                         i % 3 * 50 + i * y % 13);
            }
          }
        },
        pyramid);
    return open_slide(path());
  }

  static Answer tile(const Slide& slide, int level, std::int64_t column,
                     std::int64_t row) {
    const Level& info = slide.info().levels[static_cast<std::size_t>(level)];
    Answer out;
    out.rgb.resize(
        static_cast<std::size_t>(3 * info.tile_width_px * info.tile_height_px));
    const auto scratch = make_decode_scratch();
    out.status = slide.read_tile(
        level, column, row, 1,
        {out.rgb.data(), info.tile_height_px, info.tile_width_px, 3}, *scratch);
    return out;
  }

  /// Tiles of level 0 by row and column.
  static std::vector<std::pair<std::int64_t, std::int64_t>> places(const Slide& slide) {
    const Level& info = slide.info().levels.front();
    std::vector<std::pair<std::int64_t, std::int64_t>> out;
    for (std::int64_t row = 0; row * info.tile_height_px < info.height_px; ++row) {
      for (std::int64_t column = 0; column * info.tile_width_px < info.width_px;
           ++column) {
        out.emplace_back(column, row);
      }
    }
    return out;
  }

  /// Sets the byte count of tile `index` of level 0, which is `count`, to 0 and its
  /// offset beyond the file, and opens it again.
  std::shared_ptr<const Slide> without_bytes(std::uint32_t count,
                                             std::size_t index) const {
    std::string bytes;
    {
      std::ifstream file(path(), std::ios::binary);
      bytes.assign(std::istreambuf_iterator<char>(file), {});
    }
    const auto number = [&](std::size_t at, std::size_t size) {
      std::uint64_t value = 0;
      for (std::size_t i = size; i-- > 0;) {
        value = value << 8 | static_cast<std::uint8_t>(bytes[at + i]);
      }
      return value;
    };
    const auto put = [&](std::size_t at, std::uint32_t value) {
      for (int i = 0; i < 4; ++i) {
        bytes[at + static_cast<std::size_t>(i)] = static_cast<char>(value >> 8 * i);
      }
    };
    const std::size_t directory = number(4, 4);
    for (std::size_t i = 0; i < number(directory, 2); ++i) {
      const std::size_t entry = directory + 2 + 12 * i;
      const std::size_t values = number(entry + 8, 4) + 4 * index;
      if (number(entry, 2) == 324) put(values, 0x7fffffff);
      if (number(entry, 2) == 325) {
        EXPECT_EQ(number(values, 4), count);
        put(values, 0);
      }
    }
    std::ofstream(path(), std::ios::binary) << bytes;
    return open_slide(path());
  }

  /// Changes bytes of a tile of level 0 in the file, and opens it again.
  std::shared_ptr<const Slide> damage(const Slide& slide, std::int64_t column,
                                      std::int64_t row, std::size_t at) const {
    const auto stream =
        dynamic_cast<const io::HasJpegTiles&>(slide).jpeg_bytes(0, column, row);
    std::fstream file(path(), std::ios::binary | std::ios::in | std::ios::out);
    std::string bytes(std::istreambuf_iterator<char>(file), {});
    const auto found =
        std::search(bytes.begin(), bytes.end(), stream.begin(), stream.end(),
                    [](char a, std::byte b) { return static_cast<std::byte>(a) == b; });
    EXPECT_NE(found, bytes.end());
    file.clear();
    file.seekp(found - bytes.begin() + static_cast<std::ptrdiff_t>(at));
    file.write("\x41\x41\x41\x41", 4);
    file.close();
    return open_slide(path());
  }

  fs::path folder_;
};

std::map<std::int64_t, Answer> read_all(std::shared_ptr<const Slide> slide,
                                        ReadingMode mode, int workers, double um) {
  const SlideInfo& info = slide->info();
  const SlideFrame frame{info.levels[0].width_px, info.levels[0].height_px,
                         Spacing::from_um(0.25), Spacing::from_um(0.25)};
  const Spacing spacing = Spacing::from_um(um);
  std::vector<ReadRequest> requests;
  for (std::int64_t y = 0; y < frame.grid_height_px(spacing); y += 50) {
    for (std::int64_t x = 0; x < frame.grid_width_px(spacing); x += 50) {
      requests.push_back(
          {static_cast<std::int64_t>(requests.size()), x - 8, y - 8, 66, 66, spacing});
    }
  }
  TileReader reader(slide, frame, {.workers = workers, .mode = mode});
  std::map<std::int64_t, Answer> out;
  std::mutex mutex;
  std::size_t next = 0;
  reader.run(
      [&] {
        const std::lock_guard lock(mutex);
        const std::size_t begin = next;
        next = std::min(next + 8, requests.size());
        return std::vector<ReadRequest>(
            requests.begin() + static_cast<std::ptrdiff_t>(begin),
            requests.begin() + static_cast<std::ptrdiff_t>(next));
      },
      [&](TileAnswer&& answer) {
        const std::lock_guard lock(mutex);
        out[answer.request.id] = {answer.status, std::move(answer.rgb)};
      });
  return out;
}

TEST_F(CudaNvjpegSlide, ReadersGetTheFullyDecodedPixels) {
  const auto slide = write(700, 500);
  for (const double um : {0.25, 0.5, 0.9, 1.0}) {
    const auto want = read_all(slide, ReadingMode::kExact, 1, um);
    for (const int workers : {1, 4}) {
      for (const ReadingMode mode : {ReadingMode::kExact, ReadingMode::kScaled}) {
        const auto there = std::make_shared<NvjpegSlide>(slide, decoders());
        EXPECT_EQ(read_all(there, mode, workers, um), want) << um;
        EXPECT_EQ(there->counts().on_cpu, 0);
        EXPECT_GT(there->counts().tiles, 0);
        // Readers name the tiles of a request: where it needs several new ones, they are
        // one batch.
        if (um == 0.5) {
          EXPECT_LT(there->counts().batches, there->counts().tiles);
        }
        EXPECT_EQ(there->fingerprint(), slide->fingerprint());
      }
    }
  }
}

TEST_F(CudaNvjpegSlide, ABatchHasAtMostAsManyAsOneCodeDecodes) {
  const auto slide = write(560, 560);
  const NvjpegSlide there(slide, decoders());
  const auto all = places(*slide);
  ASSERT_EQ(all.size(), 81u);
  for (const auto& [column, row] : all) there.will_read(0, column, row);
  tile(there, 0, 0, 0);
  EXPECT_EQ(seen("items"), 50);
  tile(there, 0, 8, 8);
  EXPECT_EQ(seen("items"), 31);
}

TEST_F(CudaNvjpegSlide, WhatIsNamedIsDecodedWithWhatIsAskedFor) {
  const auto slide = write(440, 440);
  const auto two = decoders();
  EXPECT_EQ(two->told().backend, HER2_CUDA_JPEG_ENGINE);
  const NvjpegSlide there(slide, two);
  const auto all = places(*slide);
  for (const auto& [column, row] : all) there.will_read(0, column, row);
  there.will_read(0, 1000, 0);  // none: a hint may be wrong
  there.will_read(0, -1, 0);
  EXPECT_EQ(there.counts().batches, 0);  // a hint decodes nothing
  for (const auto& [column, row] : all) {
    EXPECT_EQ(tile(there, 0, column, row), tile(*slide, 0, column, row));
  }
  ASSERT_EQ(all.size(), 49u);
  EXPECT_EQ(there.counts().batches, 1);
  EXPECT_EQ(seen("items"), 49);
  EXPECT_EQ(there.counts().tiles, static_cast<std::int64_t>(all.size()));
  EXPECT_EQ(tile(there, 1, 0, 0), tile(*slide, 1, 0, 0));  // another level, another batch
  EXPECT_EQ(there.counts().batches, 2);
}

TEST_F(CudaNvjpegSlide, ManyThreadsGetEachTileOnce) {
  const auto slide = write(1500, 1100);
  const NvjpegSlide there(slide, decoders());
  auto all = places(*slide);
  std::mt19937 random(4);
  std::shuffle(all.begin(), all.end(), random);
  std::map<std::pair<std::int64_t, std::int64_t>, Answer> got;
  std::mutex mutex;
  std::vector<std::jthread> threads;
  for (std::size_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = t; i < all.size(); i += 8) {
        // Of this thread and of others: a tile may be named before and after it is asked.
        for (std::size_t k = 1; k < 12 && i % 3 == 0 && i + k < all.size(); ++k) {
          there.will_read(0, all[i + k].first, all[i + k].second);
        }
        Answer answer = tile(there, 0, all[i].first, all[i].second);
        const std::lock_guard lock(mutex);
        got[all[i]] = std::move(answer);
      }
    });
  }
  threads.clear();
  ASSERT_EQ(got.size(), all.size());
  for (const auto& [place, answer] : got) {
    ASSERT_EQ(answer, tile(*slide, 0, place.first, place.second));
  }
  // Some are named again after they were read.
  EXPECT_GE(there.counts().tiles, static_cast<std::int64_t>(all.size()));
  EXPECT_LT(there.counts().batches, there.counts().tiles / 2);
}

TEST_F(CudaNvjpegSlide, WhatNobodyAsksForIsKeptWithinALimit) {
  // 25 tiles of 3 MiB, 16 a batch; 21 of them fit, so two of the first are dropped.
  const auto slide = write(5120, 5120, 70, 1024, {1});
  const NvjpegSlide there(slide, decoders());
  const auto all = places(*slide);
  for (const auto& [column, row] : all) there.will_read(0, column, row);
  for (auto place = all.rbegin(); place != all.rend(); ++place) {
    ASSERT_EQ(tile(there, 0, place->first, place->second),
              tile(*slide, 0, place->first, place->second));
  }
  EXPECT_EQ(there.counts().tiles, 27);
}

TEST_F(CudaNvjpegSlide, TilesThatNvjpegRefusesAreTheCpus) {
  const auto whole = write(700, 500);
  const auto slide = damage(*whole, 3, 2, 0);  // no JPEG any more
  const NvjpegSlide there(slide, decoders());
  const auto all = places(*slide);
  for (const auto& [column, row] : all) there.will_read(0, column, row);
  for (const auto& [column, row] : all) {
    const Answer want = tile(*slide, 0, column, row);
    EXPECT_EQ(want.status,
              column == 3 && row == 2 ? TileStatus::kCorrupt : TileStatus::kOk);
    EXPECT_EQ(tile(there, 0, column, row), want);
  }
  EXPECT_EQ(there.counts().on_cpu, 1);
  EXPECT_EQ(there.counts().tiles, static_cast<std::int64_t>(all.size()) - 1);
}

TEST_F(CudaNvjpegSlide, ABatchThatFailsIsDecodedTileByTile) {
  const auto slide = write(440, 440);
  const NvjpegSlide there(slide, decoders());
  const auto all = places(*slide);
  for (const auto& [column, row] : all) there.will_read(0, column, row);
  fake_fail("nvjpegDecodeBatched", kBadJpeg);
  for (const auto& [column, row] : all) {
    EXPECT_EQ(tile(there, 0, column, row), tile(*slide, 0, column, row));
  }
  EXPECT_EQ(there.counts().on_cpu, 0);  // alone each of them is taken
  EXPECT_GE(there.counts().batches, 49);
}

TEST_F(CudaNvjpegSlide, WhatTheEngineDoesNotTakeIsTheCpus) {
  const auto slide = write(440, 440);
  const NvjpegSlide there(slide, decoders());
  fake_set("refused", 1);
  for (const auto& [column, row] : places(*slide)) {
    EXPECT_EQ(tile(there, 0, column, row), tile(*slide, 0, column, row));
  }
  EXPECT_EQ(there.counts().on_cpu, 49);
  EXPECT_EQ(there.counts().tiles, 0);
}

TEST_F(CudaNvjpegSlide, AMissingTileIsMissing) {
  const auto whole = write(440, 440);
  // The eighth tile gets no bytes, at an offset beyond the file: the directory's arrays
  // stand behind the tiles.
  const auto stream = dynamic_cast<const io::HasJpegTiles&>(*whole).jpeg_bytes(0, 0, 1);
  const auto slide = without_bytes(static_cast<std::uint32_t>(stream.size()), 7);
  ASSERT_EQ(tile(*slide, 0, 0, 1).status, TileStatus::kMissing);
  const NvjpegSlide there(slide, decoders());
  for (const auto& [column, row] : places(*slide)) there.will_read(0, column, row);
  for (const auto& [column, row] : places(*slide)) {
    EXPECT_EQ(tile(there, 0, column, row), tile(*slide, 0, column, row));
  }
  EXPECT_EQ(there.counts().tiles, 48);
  EXPECT_EQ(there.counts().on_cpu, 0);
}

TEST_F(CudaNvjpegSlide, SlidesShareDecodersAndTheSecondGpuServes) {
  NvjpegOptions second = options();
  second.device = 1;
  const auto two = std::make_shared<NvjpegDecoders>(second);
  EXPECT_EQ(two->told().device, 1);
  const auto slide = write(700, 500);
  const auto a = std::make_shared<NvjpegSlide>(slide, two);
  const auto b = std::make_shared<NvjpegSlide>(slide, two);
  const auto want = read_all(slide, ReadingMode::kExact, 1, 1.0);
  std::map<std::int64_t, Answer> from_a, from_b;
  {
    const std::jthread one([&] { from_a = read_all(a, ReadingMode::kExact, 2, 1.0); });
    const std::jthread other([&] { from_b = read_all(b, ReadingMode::kExact, 2, 1.0); });
  }
  EXPECT_EQ(from_a, want);
  EXPECT_EQ(from_b, want);
}

TEST_F(CudaNvjpegSlide, FaultsAreToldToWhoeverAsks) {
  const auto slide = write(700, 500);
  struct Case {
    int status;
    Code code;
  };
  // What is called "no device" in the middle is a fault, too.
  for (const Case& fault :
       {Case{kAllocatorFailure, Code::kGpuOom}, Case{kExecutionFailed, Code::kGpuLost},
        Case{kArchMismatch, Code::kGpuLost}, Case{kNotSupported, Code::kGpuLost}}) {
    const NvjpegSlide there(slide, decoders());
    there.will_read(0, 1, 0);
    fake_fail("nvjpegDecodeBatched", fault.status);
    try {
      tile(there, 0, 0, 0);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), fault.code);
    }
    // The stand-in is well again, and nothing of the failure is left.
    EXPECT_EQ(tile(there, 0, 0, 0), tile(*slide, 0, 0, 0));
    EXPECT_EQ(tile(there, 0, 1, 0), tile(*slide, 0, 1, 0));
  }
}

TEST_F(CudaNvjpegSlide, ThreadsThatWaitHearOfAFault) {
  const auto slide = write(1500, 1100);
  const NvjpegSlide there(slide, decoders());
  fake_fail("nvjpegDecodeBatched", kExecutionFailed, 2);
  std::atomic<int> failed = 0, good = 0;
  std::vector<std::jthread> threads;
  for (std::int64_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (std::int64_t row = 0; row < 17; ++row) {
        try {
          good += tile(there, 0, t, row).status == TileStatus::kOk;
        } catch (const Error& error) {
          failed += error.code() == Code::kGpuLost;
        }
      }
    });
  }
  threads.clear();
  EXPECT_GT(failed, 0);
  EXPECT_EQ(failed + good, 8 * 17);
}

TEST_F(CudaNvjpegSlide, OtherCodecsAreTheSlidesOwn) {
  const auto slide = write(300, 200, 0);  // Deflate
  const auto there = std::make_shared<NvjpegSlide>(slide, decoders());
  EXPECT_EQ(read_all(there, ReadingMode::kScaled, 2, 0.5),
            read_all(slide, ReadingMode::kScaled, 1, 0.5));
  EXPECT_EQ(there->counts().tiles + there->counts().on_cpu, 0);
  EXPECT_FALSE(there->can_scale(0, 2));
}

TEST_F(CudaNvjpegSlide, ScalesOnlyWhatItDoesNotDecode) {
  const auto slide = write(300, 200);
  const NvjpegSlide there(slide, decoders());
  EXPECT_TRUE(slide->can_scale(0, 2));
  EXPECT_TRUE(there.can_scale(0, 1));
  EXPECT_FALSE(there.can_scale(0, 2));
}

TEST_F(CudaNvjpegSlide, WithoutNvjpegThereIsNone) {
  const auto slide = write(300, 200);
  NvjpegOptions missing = options();
  missing.library = (folder_ / "libnone.so").string();
  EXPECT_THROW(NvjpegDecoders{missing}, DeviceError);
  EXPECT_THROW(NvjpegSlide(nullptr, decoders()), std::invalid_argument);
  EXPECT_THROW(NvjpegSlide(slide, nullptr), std::invalid_argument);
  for (const int at : {1, 2}) {  // either of the two
    fake_fail("nvjpegJpegStateCreate", kAllocatorFailure, at);
    EXPECT_THROW(decoders(), Error);
  }
}

}  // namespace
}  // namespace her2fast
