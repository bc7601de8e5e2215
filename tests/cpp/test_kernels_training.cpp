// SPDX-License-Identifier: Apache-2.0
// Hand-worked cases, and many sizes for the sanitizers; the twins are in Python.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "core/parallel.h"
#include "her2fast/constraint_select.h"
#include "her2fast/logit_calibrate.h"
#include "kernels/log_odds.h"
#include "kernels/weighted_select.h"

namespace her2fast {
namespace {

struct Table {
  std::vector<float> logits;
  std::vector<std::uint32_t> tumor_px;
  std::vector<std::int64_t> offsets{0}, labels;

  SlideTable view() const { return {logits, tumor_px, offsets, labels}; }
  void add_slide(std::int64_t label, int patches, std::mt19937& random) {
    std::normal_distribution<float> normal;
    for (int i = 0; i < 4 * patches; ++i) logits.push_back(normal(random));
    for (int i = 0; i < patches; ++i) tumor_px.push_back(random() % 4096 + 1);
    offsets.push_back(static_cast<std::int64_t>(tumor_px.size()));
    labels.push_back(label);
  }
};

struct Selection {
  std::vector<std::uint8_t> action, admissible;
  std::vector<std::int8_t> class_id;
  std::vector<SlideConstraints> slides;
  explicit Selection(const Table& t)
      : action(t.tumor_px.size()),
        admissible(t.tumor_px.size()),
        class_id(t.tumor_px.size()),
        slides(t.labels.size()) {}
  SelectionView view() { return {action, class_id, admissible, slides}; }
};

Table several(int slides) {
  std::mt19937 random(7);
  Table table;
  for (int s = 0; s < slides; ++s) table.add_slide(s % 4, 37 * s, random);
  return table;
}

TEST(ConstraintSelect, TheLeastSureOfTheClassInExcessLeave) {
  Table table;
  for (const float sure : {3.f, 1.f, 2.f, 4.f, 5.f}) {
    table.logits.insert(table.logits.end(), {0.f, 0.f, sure, 0.f});
    table.tumor_px.push_back(2);
  }
  for (int i = 0; i < 45; ++i) {
    table.logits.insert(table.logits.end(), {0.f, 9.f, 0.f, 0.f});
    table.tumor_px.push_back(2);
  }
  table.offsets.push_back(50);
  table.labels = {1};
  FractionLimits limits = FractionLimits::pham();
  limits.upper_permille[1][2] = 60;  // 10 of 100 px; 5 may remain, so 2 patches do
  Selection found(table);
  constraint_select(table.view(), limits, Admissible::kNeighbors, 1, found.view());
  EXPECT_EQ(found.slides[0].excess_px[2], 5);
  EXPECT_EQ(found.slides[0].pushed_px[2], 6);
  const std::vector<std::uint8_t> want{1, 1, 1, 0, 0};
  EXPECT_TRUE(std::equal(want.begin(), want.end(), found.action.begin()));
  EXPECT_EQ(found.class_id[0], 2);
  EXPECT_EQ(found.admissible[0], 0b1010);
  EXPECT_EQ(std::accumulate(found.action.begin(), found.action.end(), 0), 3);
}

TEST(ConstraintSelect, ThreadsDoNotChangeTheResult) {
  const Table table = several(23);
  Selection one(table), four(table);
  const auto limits = FractionLimits::pham();
  constraint_select(table.view(), limits, Admissible::kComplement, 1, one.view());
  constraint_select(table.view(), limits, Admissible::kComplement, 4, four.view());
  EXPECT_EQ(one.action, four.action);
  EXPECT_EQ(one.admissible, four.admissible);
  EXPECT_GT(std::count(one.action.begin(), one.action.end(), 1), 0);
  EXPECT_GT(std::count(one.action.begin(), one.action.end(), 2), 0);
}

TEST(ConstraintSelect, RefusesAnOutputOfAnotherShape) {
  const Table table = several(3);
  Selection found(table);
  found.action.pop_back();
  EXPECT_THROW(constraint_select(table.view(), FractionLimits::pham(), Admissible::kLower,
                                 1, found.view()),
               std::invalid_argument);
}

TEST(SelectFront, EqualsSorting) {
  std::mt19937 random(3);
  for (int size = 1; size < 5000; size += size < 200 ? 1 : 311) {
    std::vector<Weighted> items;
    for (int i = 0; i < size; ++i) {
      items.push_back({std::uint64_t{random() % 5} << 32 | static_cast<unsigned>(i),
                       static_cast<std::int64_t>(random() % 4)});
    }
    items[0].weight = 3;
    std::shuffle(items.begin(), items.end(), random);
    auto sorted = items;
    std::sort(sorted.begin(), sorted.end(),
              [](const Weighted& a, const Weighted& b) { return a.key < b.key; });
    std::int64_t sum = 0;
    for (const Weighted& item : items) sum += item.weight;
    const std::int64_t need = 1 + static_cast<std::int64_t>(random()) % sum;
    std::size_t want = 0;
    for (std::int64_t got = 0; got < need; ++want) got += sorted[want].weight;
    const auto count = static_cast<std::size_t>(select_front(items, sum, need));
    ASSERT_EQ(count, want);
    const std::uint64_t last = sorted[want - 1].key;
    for (std::size_t i = 0; i < items.size(); ++i) {
      ASSERT_EQ(items[i].key <= last, i < count);
    }
  }
}

TEST(LogOdds, EqualTheMathLibraryAndOrder) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 20);
  for (int i = 0; i < 20000; ++i) {
    const float l[4] = {normal(random), normal(random), normal(random), normal(random)};
    const OthersInOrder o(l, 1);
    const float got = log_odds(l[1], o.top, o.middle - o.top, o.low - o.top);
    const double want =
        l[1] - o.top - std::log(1 + std::exp(o.middle - o.top) + std::exp(o.low - o.top));
    ASSERT_NEAR(got, want, 1e-7 * std::max(1.0, std::abs(want)));
  }
  EXPECT_EQ(ordered_bits(-0.0f), ordered_bits(0.0f));
  EXPECT_LT(ordered_bits(-2.0f), ordered_bits(-1.0f));
  EXPECT_LT(ordered_bits(-1.0f), ordered_bits(0.0f));
  EXPECT_LT(ordered_bits(0.0f), ordered_bits(1e-30f));
}

TEST(ParallelFor, DoesEverythingOnceAndPassesExceptionsOn) {
  std::vector<int> done(1000);
  parallel_for(1000, 4, [&](std::int64_t i, int worker) {
    done[static_cast<std::size_t>(i)] += 1 + (worker < 0 || worker > 3);
  });
  EXPECT_EQ(std::count(done.begin(), done.end(), 1), 1000);
  EXPECT_THROW(parallel_for(100, 3,
                            [](std::int64_t i, int) {
                              if (i == 50) throw std::invalid_argument("fifty");
                            }),
               std::invalid_argument);
}

TEST(LogitCalibrate, NeverAboveAStartInEitherModeAndOnASample) {
  const Table table = several(12);
  const auto limits = FractionLimits::pham();
  for (const auto mode : {CalibrationMode::kScale, CalibrationMode::kBias}) {
    CalibrateOptions options;
    options.mode = mode;
    options.search_patches = 500;
    options.workers = 3;
    const std::vector<ClassValues> starts{{0.5, 1, 2, 4}, {3, 0.25, 1, 1}};
    const auto found = logit_calibrate(table.view(), limits, starts, options);
    for (const ClassValues& start : starts) {
      EXPECT_LE(found.loss, calibration_loss(table.view(), limits, start, options).loss);
    }
    EXPECT_LT(found.loss, found.identity_loss);
    EXPECT_EQ(found.loss,
              calibration_loss(table.view(), limits, found.values, options).loss);
  }
}

TEST(LogitCalibrate, WithoutSlidesNothingIsLost) {
  const Table table;
  const auto found = logit_calibrate(table.view(), FractionLimits::pham(), {}, {});
  EXPECT_EQ(found.loss, 0);
  EXPECT_EQ(found.values, (ClassValues{1, 1, 1, 1}));
}

}  // namespace
}  // namespace her2fast
