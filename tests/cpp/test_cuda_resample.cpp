// SPDX-License-Identifier: Apache-2.0
/// resample on the "device" (tests/cuda_on_host) against the reader's resampler: equal
/// to the bit, in three orders of a block's threads.
#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <string>
#include <vector>

#include "cuda_device.h"
#include "io/resample.h"

namespace her2fast {
namespace {

INSTANTIATE_TEST_SUITE_P(Orders, Cuda, testing::Values(0, 1, 2));

/// `count` grid pixels from `index` on, along one axis.
struct Axis {
  AxisStep step;
  std::int64_t index, count;
};

AxisWeights planned(const Axis& axis) {
  AxisWeights weights;
  weights.plan(axis.step, axis.index, axis.count);
  return weights;
}

/// Rows that the table reads, which the caller may spoil.
struct Rows {
  std::vector<std::int32_t> values;
  std::int64_t count, max_taps;

  explicit Rows(const AxisWeights& weights)
      : values(weights.integer_rows()),
        count(weights.count()),
        max_taps(weights.max_taps()) {}
  Rows(std::vector<std::int32_t> values_, std::int64_t count_, std::int64_t max_taps_)
      : values(std::move(values_)), count(count_), max_taps(max_taps_) {}
  Her2AxisWeights get() const { return {values.data(), count, max_taps}; }
};

std::uint64_t scratch_bytes(const Rows& x, const Rows& y) {
  const Her2AxisWeights across = x.get(), down = y.get();
  std::uint64_t bytes = 0;
  call_cuda("resample", table().resample_scratch_bytes, &across, &down, &bytes);
  return bytes;
}

/// @param shift  bytes by which the images miss the beginning of their memories
Bytes on_device(const Bytes& rgb, std::int64_t n, std::int64_t height, std::int64_t width,
                const Rows& x, const Rows& y, std::size_t shift = 0) {
  Bytes shifted(shift);
  shifted.insert(shifted.end(), rgb.begin(), rgb.end());
  const OnDevice<std::uint8_t> in(shifted);
  const auto size = static_cast<std::size_t>(n * y.count * x.count * 3);
  const OnDevice<std::uint8_t> out(size + shift);
  const std::uint64_t bytes = scratch_bytes(x, y);
  const OnDevice<std::uint8_t> scratch(bytes);
  const Her2AxisWeights across = x.get(), down = y.get();
  call_cuda("resample", table().resample, in.get() + shift, n, height, width, &across,
            &down, out.get() + shift, static_cast<void*>(scratch.get()), bytes, kStream);
  const Bytes got = out.read();
  return {got.begin() + static_cast<std::ptrdiff_t>(shift), got.end()};
}

Bytes on_cpu(const Bytes& rgb, std::int64_t n, std::int64_t height, std::int64_t width,
             const AxisWeights& x, const AxisWeights& y) {
  const std::int64_t size = 3 * y.count() * x.count();
  Bytes out(static_cast<std::size_t>(n * size));
  ResampleScratch scratch;
  for (std::int64_t i = 0; i < n; ++i) {
    resample(
        {rgb.data() + 3 * i * height * width, y.source_px(), x.source_px(), 3, 3 * width},
        x, y, {out.data() + i * size, y.count(), x.count(), 3}, scratch);
  }
  return out;
}

TEST_P(Cuda, ResampleByHand) {
  // As tests/cpp/test_resample.cpp has it: 2.5 is rounded up, 0.25 down, 0.5 up.
  const Rows two(planned({{2, 1}, 0, 1}));
  EXPECT_EQ(two.values, (std::vector<std::int32_t>{0, 2, 32768, 32768}));
  const Bytes square{1, 0, 0, 2, 0, 0, 3, 0, 1, 4, 1, 1};
  EXPECT_EQ(on_device(square, 1, 2, 2, two, two), (Bytes{3, 0, 1}));
  // 3 px become 2: (21845 * 90) / 65536 = 29.9995, (21845 * 90 + 43691 * 255) / 65536
  // = 200.0008.
  const Rows across(planned({{3, 2}, 0, 2})), down(planned({{1, 1}, 0, 1}));
  EXPECT_EQ(across.values,
            (std::vector<std::int32_t>{0, 2, 43691, 21845, 1, 2, 21845, 43691}));
  EXPECT_EQ(down.values, (std::vector<std::int32_t>{0, 1, 65536}));
  const Bytes row{0, 0, 0, 90, 90, 90, 255, 255, 255};
  EXPECT_EQ(on_device(row, 1, 1, 3, across, down), (Bytes{30, 30, 30, 200, 200, 200}));
}

TEST_P(Cuda, ResampleIsTheReaders) {
  const AxisStep steps[] = {{1, 1},   {2, 1},    {4, 1}, {8, 1}, {16, 1},
                            {25, 24}, {99, 100}, {7, 3}, {6, 5}, {1000000, 243907},
                            {1, 3},   {20, 1}};
  unsigned round = 0;
  for (const AxisStep across : steps) {
    for (const AxisStep down : steps) {
      ++round;
      const std::int64_t index = static_cast<int>(round % 23) - 11;
      const AxisWeights x = planned({across, index, 12 + round % 2});
      const AxisWeights y = planned({down, -index, 1 + round % 6});
      // Images wider and higher than what is asked for, at every alignment of rows.
      const std::int64_t height = y.source_px() + round % 2;
      const std::int64_t width = x.source_px() + round % 4, n = 1 + round % 3;
      const Bytes rgb =
          random_bytes(static_cast<std::size_t>(3 * n * height * width), random);
      EXPECT_EQ(on_device(rgb, n, height, width, Rows(x), Rows(y), round % 5),
                on_cpu(rgb, n, height, width, x, y))
          << across.num << '/' << across.den << ' ' << down.num << '/' << down.den;
    }
  }
}

TEST_P(Cuda, ResampleOfRowsLongerThanABlocksMemory) {
  // A block makes 128 pixels and holds the sums of 684: rows of several blocks, and a
  // block, a pixel even, over several such pieces.
  for (const auto& [step, count] : {std::pair{AxisStep{2, 1}, std::int64_t{700}},
                                    {{16, 1}, 180},
                                    {{25, 24}, 1003},
                                    {{9999, 7}, 5},
                                    {{3001, 1}, 2}}) {
    for (const std::int64_t extra : {0, 1}) {
      const AxisWeights x = planned({step, 3, count}), y = planned({{3, 2}, 1, 3});
      const std::int64_t width = (x.source_px() + 3) / 4 * 4 + extra;
      const std::int64_t height = y.source_px();
      const Bytes rgb =
          random_bytes(static_cast<std::size_t>(6 * height * width), random);
      EXPECT_EQ(on_device(rgb, 2, height, width, Rows(x), Rows(y)),
                on_cpu(rgb, 2, height, width, x, y))
          << step.num << '/' << step.den << ' ' << extra;
    }
  }
}

TEST_P(Cuda, ResampleKeepsWhiteAndBlack) {
  const AxisWeights weights = planned({{1000000, 243907}, 5, 40});
  const std::int64_t side = weights.source_px();
  for (const std::uint8_t value : {std::uint8_t{0}, std::uint8_t{255}}) {
    const Bytes rgb(static_cast<std::size_t>(3 * side * side), value);
    EXPECT_EQ(on_device(rgb, 1, side, side, Rows(weights), Rows(weights)),
              Bytes(3 * 40 * 40, value));
  }
}

/// What the table says of rows for x, over images of 2 x 4 px.
std::string refusal(const Rows& x, std::int64_t width = 4, std::int64_t n = 1) {
  const Rows y(planned({{2, 1}, 0, 1}));
  const OnDevice<std::uint8_t> in(24), out(64), scratch(4096);
  const Her2AxisWeights across = x.get(), down = y.get();
  Her2CudaError error;
  const std::int32_t status =
      table().resample(in.get(), n, 2, width, &across, &down, out.get(), scratch.get(),
                       4096, kStream, &error);
  if (status == HER2_CUDA_OK) return "";
  EXPECT_EQ(status, HER2_CUDA_BAD_ARGUMENT);
  return error.text;
}

TEST(CudaResample, BadRowsAreRefusedBeforeAnythingRuns) {
  set_order(0);
  const Rows good(planned({{2, 1}, 0, 2}));
  EXPECT_EQ(refusal(good), "");
  EXPECT_EQ(refusal(good, 4, 0), "");
  struct Case {
    std::vector<std::int32_t> rows;
    const char* words;
  };
  constexpr std::int32_t kMost = std::numeric_limits<std::int32_t>::max();
  const char *place = "need grid pixel 1 of x over source pixels of 0 to 4 in order",
             *sum = "sum to 65536 at grid pixel 1 of x";
  for (const Case& bad : {Case{{0, 2, 32768, 32768, 3, 2, 32768, 32768}, place},
                          {{1, 1, 65536, 0, 0, 2, 32768, 32768}, place},
                          {{0, 2, 32768, 32768, 1, 0, 0, 0}, place},
                          {{0, 2, 32768, 32768, 1, 3, 32768, 32768}, place},
                          {{0, 2, 32768, 32768, 0, 1, 65536, 0}, place},
                          {{0, 2, 32768, 32768, kMost, 2, 32768, 32768}, place},
                          {{0, 2, 32768, 32768, 2, 2, 32768, 32767}, sum},
                          {{0, 2, 32768, 32768, 2, 2, kMost, kMost}, sum},
                          {{0, 2, 32768, 32768, 2, 2, -1, 65537}, sum}}) {
    const std::string told = refusal(Rows(bad.rows, 2, 2));
    EXPECT_NE(told.find(bad.words), std::string::npos) << told;
  }
  const std::string first = refusal(Rows({-1, 2, 32768, 32768}, 1, 2));
  EXPECT_NE(first.find("got 2 of them from -1"), std::string::npos) << first;
  EXPECT_NE(refusal(good, 3).find("0 to 3 in order"), std::string::npos);
  EXPECT_NE(refusal(good, -1).find("need n, height, width"), std::string::npos);
  EXPECT_NE(refusal(good, 4, -1).find("need n, height, width"), std::string::npos);
  for (const auto& [count, taps] :
       {std::pair{std::int64_t{0}, std::int64_t{2}}, {2, 0}, {(1 << 24) + 1, 2}}) {
    const std::string told = refusal(Rows(good.values, count, taps));
    EXPECT_NE(told.find("count and max_taps of x of 1 to 2^24"), std::string::npos)
        << told;
  }
}

TEST(CudaResample, MemoryIsCheckedAsElsewhere) {
  set_order(0);
  const Rows rows(planned({{2, 1}, 0, 2}));
  const std::uint64_t bytes = scratch_bytes(rows, rows);
  EXPECT_EQ(bytes, 512);
  const OnDevice<std::uint8_t> in(48), out(12), scratch(bytes), elsewhere(bytes, 1);
  const Her2AxisWeights axis = rows.get();
  std::uint8_t host[48] = {};
  const auto status = [&](const std::uint8_t* from, void* at, std::uint64_t size,
                          Her2CudaError* error) {
    return table().resample(from, 1, 4, 4, &axis, &axis, out.get(), at, size, kStream,
                            error);
  };
  Her2CudaError error;
  EXPECT_EQ(HER2_CUDA_OK, status(in.get(), scratch.get(), bytes, &error));
  EXPECT_EQ(HER2_CUDA_BAD_ARGUMENT, status(in.get(), scratch.get(), bytes - 1, &error));
  EXPECT_STREQ(error.text, "need 512 bytes of scratch, got 511");
  EXPECT_EQ(HER2_CUDA_BAD_ARGUMENT, status(host, scratch.get(), bytes, &error));
  EXPECT_NE(std::string(error.text).find("host memory"), std::string::npos);
  EXPECT_EQ(HER2_CUDA_BAD_ARGUMENT, status(in.get(), elsewhere.get(), bytes, nullptr));
}

}  // namespace
}  // namespace her2fast
