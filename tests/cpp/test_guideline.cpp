// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>

#include "her2fast/guideline.h"

namespace her2fast {
namespace {

using Areas = std::array<std::int64_t, 4>;

GuidelineDecision decide(const Areas& areas, std::string_view rule_set = "asco-cap-2018",
                         const GuidelineOptions& options = {}) {
  return decide_guideline(areas, rule_set, options);
}

bool has(const GuidelineDecision& decision, std::string_view flag) {
  return std::ranges::find(decision.flags, flag) != decision.flags.end();
}

struct Row {
  Areas percent;
  int pham, heterogeneous, asco_cap;
  bool ultralow = false, gap = false;
};

// The worked table of docs/decisions/guidelines.md.
const std::vector<Row> kRows{
    {{100, 0, 0, 0}, 0, 0, 0},
    {{98, 2, 0, 0}, 0, 0, 0, true},
    {{90, 10, 0, 0}, 1, 1, 0, true},
    {{89, 11, 0, 0}, 1, 1, 1},
    {{82, 9, 9, 0}, 0, 1, 1, false, true},
    {{91, 5, 4, 0}, 0, 1, 0, true, true},
    {{90, 0, 10, 0}, 2, 2, 0, true, true},
    {{50, 36, 14, 0}, 2, 2, 2},
    {{90, 0, 0, 10}, 3, 3, 2},
    {{89, 0, 0, 11}, 3, 3, 3},
    {{99, 0, 0, 1}, 0, 2, 2},
    {{73, 9, 9, 9}, 0, 2, 2},
    {{85, 0, 6, 9}, 0, 2, 2},
    {{70, 10, 10, 10}, 3, 3, 2},
    {{0, 89, 11, 0}, 2, 2, 2},
};

TEST(Guideline, WorkedTable) {
  ASSERT_EQ(kRows.size(), 15U);
  for (const Row& row : kRows) {
    for (const std::int64_t unit : {std::int64_t{1}, std::int64_t{90'071'992'547'409}}) {
      Areas areas = row.percent;
      for (auto& area : areas) area *= unit;
      SCOPED_TRACE(testing::PrintToString(areas));
      EXPECT_EQ(decide(areas, "pham-2022").score, row.pham);
      EXPECT_EQ(decide(areas, "pham-2022-heterogeneous").score, row.heterogeneous);
      const GuidelineDecision got = decide(areas);
      EXPECT_EQ(got.score, row.asco_cap);
      EXPECT_EQ(decide(areas, "gefpics-2021").score, row.asco_cap);
      EXPECT_EQ(has(got, "ULTRALOW"), row.ultralow);
      EXPECT_EQ(has(got, "GUIDELINE_GAP"), row.gap);
      EXPECT_EQ(got.alternative.has_value(), row.gap);
      EXPECT_EQ(has(got, "HETEROGENEOUS"), row.pham != row.heterogeneous);
      EXPECT_EQ(got.ihc0_membrane_staining, "not_assessable");
      EXPECT_TRUE(!row.gap || got.review_required);
    }
  }
}

TEST(Guideline, MeasuredMembranesTellNullFromUltralowAndUnusualPatterns) {
  GuidelineOptions options;
  options.unusual = 0;
  const auto of = [&](const Areas& areas) {
    return decide_guideline(areas, "asco-cap-2018", options);
  };
  EXPECT_EQ(of({1000, 0, 0, 0}).ihc0_membrane_staining, "null");
  EXPECT_EQ(of({990, 10, 0, 0}).ihc0_membrane_staining, "ultralow");
  EXPECT_EQ(of({800, 200, 0, 0}).ihc0_membrane_staining, "not_assessable");
  options.unusual = 11;
  EXPECT_TRUE(has(of({89, 0, 11, 0}), "UNUSUAL_PATTERN"));
  EXPECT_TRUE(of({89, 0, 11, 0}).review_required);
  options.unusual = 10;
  EXPECT_FALSE(has(of({90, 0, 10, 0}), "UNUSUAL_PATTERN"));
  EXPECT_THROW(of({91, 0, 9, 0}), std::invalid_argument);
}

TEST(Guideline, GastricCutsAreInclusiveAndDoNotEscalate) {
  EXPECT_EQ(decide({90, 0, 0, 10}, "gastric-2016").score, 3);
  EXPECT_EQ(decide({90, 0, 1, 9}, "gastric-2016").score, 2);
  EXPECT_EQ(decide({91, 0, 0, 9}, "gastric-2016").score, 0);
  EXPECT_EQ(decide({90, 10, 0, 0}, "gastric-2016").score, 1);
}

TEST(Guideline, OnePixelDecidesAtTheLargestAreas) {
  const std::int64_t n3 = 900'719'925'474'099;  // ten times this is 2^53 - 2
  const GuidelineDecision on = decide({9 * n3, 0, 0, n3});
  EXPECT_EQ(on.margins.at(0).margin, 0);
  EXPECT_FALSE(on.margins.at(0).passed);
  EXPECT_EQ(on.score, 2);
  const GuidelineDecision above = decide({9 * n3 - 1, 0, 0, n3 + 1});
  EXPECT_EQ(above.margins.at(0).margin, 10);
  EXPECT_EQ(above.score, 3);
}

TEST(Guideline, LargestAreasDoNotOverflow) {
  const std::int64_t most = (std::int64_t{1} << 53) - 1;
  GuidelineOptions options;
  options.floor_percent = 100;
  for (const RuleSetInfo& info : rule_sets()) {
    EXPECT_EQ(decide({most, most, most, most}, info.name, options).score, 3);
    EXPECT_EQ(decide({0, 0, 0, most}, info.name, options).margins.at(0).margin, 9 * most);
  }
}

TEST(Guideline, FloorCountsAreaAndPatches) {
  EXPECT_EQ(decide({991, 0, 0, 9}).score, 0);   // 0.9 % is below 1 %
  EXPECT_EQ(decide({990, 0, 0, 10}).score, 2);  // 1 % is on it
  GuidelineOptions options;
  options.patches = {{300, 0, 0, 2}};
  EXPECT_EQ(decide({95, 0, 0, 5}, "asco-cap-2018", options).score, 0);
  options.patches = {{300, 0, 0, 3}};
  EXPECT_EQ(decide({95, 0, 0, 5}, "asco-cap-2018", options).score, 2);
  options.patches = {{300, 0, 0, 1}};
  options.floor_percent = 0;  // switches both off
  EXPECT_EQ(decide({9999, 0, 0, 1}, "asco-cap-2018", options).score, 2);
}

TEST(Guideline, BorderlineIsOnePercentagePoint) {
  EXPECT_FALSE(has(decide({889, 0, 0, 111}), "BORDERLINE"));
  EXPECT_TRUE(has(decide({890, 0, 0, 110}), "BORDERLINE"));
  EXPECT_TRUE(has(decide({910, 90, 0, 0}), "BORDERLINE"));
  EXPECT_FALSE(has(decide({911, 89, 0, 0}), "BORDERLINE"));
}

TEST(Guideline, NothingIsNeverZero) {
  const GuidelineDecision got = decide({0, 0, 0, 0});
  EXPECT_FALSE(got.score);
  EXPECT_FALSE(got.binary || got.three_way || got.her2_view || got.alternative);
  EXPECT_TRUE(got.flags.empty());
  EXPECT_TRUE(got.margins.empty());
  EXPECT_TRUE(got.review_required);
}

TEST(Guideline, ViewsFollowTheScoreAndIshFor2Plus) {
  using Text = std::optional<std::string>;
  const auto expect = [](const Areas& areas, std::optional<Ish> ish, const Text& binary,
                         const Text& three_way, const Text& view) {
    GuidelineOptions options;
    options.ish = ish;
    const GuidelineDecision got = decide(areas, "asco-cap-2018", options);
    EXPECT_EQ(got.binary, binary);
    EXPECT_EQ(got.three_way, three_way);
    EXPECT_EQ(got.her2_view, view);
  };
  expect({100, 0, 0, 0}, {}, "negative", "negative", "zero");
  expect({50, 50, 0, 0}, {}, "negative", "negative", "low");
  expect({50, 0, 50, 0}, {}, {}, "equivocal", {});
  expect({50, 0, 50, 0}, Ish::kNegative, "negative", "negative", "low");
  expect({50, 0, 50, 0}, Ish::kPositive, "positive", "positive", "high");
  expect({50, 0, 0, 50}, {}, "positive", "positive", "high");
  expect({50, 0, 0, 50}, Ish::kNegative, "positive", "positive", "high");
  expect({100, 0, 0, 0}, Ish::kPositive, "negative", "negative", "zero");
}

TEST(Guideline, BadInputSaysWhatWasWanted) {
  EXPECT_THROW(decide({-1, 0, 0, 0}), std::invalid_argument);
  EXPECT_THROW(decide({std::int64_t{1} << 53, 0, 0, 0}), std::invalid_argument);
  EXPECT_THROW(decide({1, 0, 0, 0}, "asco"), std::invalid_argument);
  GuidelineOptions options;
  options.floor_percent = 101;
  EXPECT_THROW(decide({1, 0, 0, 0}, "pham-2022", options), std::invalid_argument);
  options.floor_percent = 1;
  options.patches = {{0, -1, 0, 0}};
  EXPECT_THROW(decide({1, 0, 0, 0}, "pham-2022", options), std::invalid_argument);
  EXPECT_THROW(score_name(4), std::invalid_argument);
  EXPECT_EQ(rule_sets().front().name, "asco-cap-2018");
  EXPECT_EQ(rule_sets().size(), 5U);
}

}  // namespace
}  // namespace her2fast
