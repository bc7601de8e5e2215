// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "her2fast/decide.h"
#include "her2fast/session.h"

namespace her2fast {
namespace {

constexpr Spacing kOne{1'000'000};
const SlideFrame kFrame{1000, 700, kOne,
                        kOne};  // 1000 x 700 grid px: 4 x 3 tiles, cut at the edges

/// Pushes white tissue-colored tiles through the real method without a segmenter.
Measurement measure_square(const std::vector<float>& logits, std::uint8_t gray_r = 150,
                           const std::vector<std::string>& distance_names = {}) {
  PatchMethodSpec spec;
  spec.frame = kFrame;
  spec.spacing = kOne;
  spec.halo_px = kTissueReachPx;
  spec.class_names = {"0", "1+", "2+", "3+"};
  spec.distance_names = distance_names;
  spec.has_segmenter = false;
  Session session(make_patch_method(spec));
  for (;;) {
    const auto requests = session.wanted(5);
    for (const ReadRequest& r : requests) {
      std::vector<std::uint8_t> rgb;
      for (std::int64_t y = 0; y < r.height_px; ++y) {
        for (std::int64_t x = 0; x < r.width_px; ++x) {
          const std::int64_t gx = r.x_px + x, gy = r.y_px + y;
          const bool tissue = gx >= 100 && gx < 900 && gy >= 100 && gy < 600;
          // A brown that hematoxylin and DAB can mix, with texture.
          const auto wave = static_cast<std::uint8_t>((gx / 4 + gy / 4) % 2 * 12);
          rgb.push_back(tissue ? static_cast<std::uint8_t>(gray_r - wave) : 255);
          rgb.push_back(tissue ? static_cast<std::uint8_t>(gray_r - 40 - wave) : 255);
          rgb.push_back(tissue ? static_cast<std::uint8_t>(gray_r - 60 - wave) : 255);
        }
      }
      session.push(r.id, {rgb.data(), r.height_px, r.width_px, 3}, TileStatus::kOk);
    }
    while (const auto batch = session.next_batch()) {
      std::vector<float> out;
      for (int i = 0; i < 32; ++i) out.insert(out.end(), logits.begin(), logits.end());
      session.put(batch->id, out.data(), out.size());
    }
    if (requests.empty()) break;
  }
  return session.finish();
}

RoiPolygon rectangle(double x, double y, double w, double h, bool exclude = false) {
  return {{{{x, y}, {x + w, y}, {x + w, y + h}, {x, y + h}}}, exclude};
}

TEST(Roi, PixelCentersDecideAndRingsAreEvenOdd) {
  RoiPolygon donut = rectangle(10, 10, 20, 20);
  donut.rings.push_back(
      rectangle(14.5, 14.5, 5, 5).rings[0]);  // a hole from pixel 15 to 19
  const Roi roi({donut}, kFrame, kOne);
  std::vector<RoiSpan> spans;
  roi.row_spans(9, 1000, spans);
  EXPECT_TRUE(spans.empty());
  roi.row_spans(10, 1000, spans);
  EXPECT_EQ(spans, (std::vector<RoiSpan>{{10, 30}}));
  roi.row_spans(15, 1000, spans);
  EXPECT_EQ(spans, (std::vector<RoiSpan>{{10, 14}, {19, 30}}));
  const Roi cut({rectangle(0, 0, 100, 10), rectangle(50, 0, 100, 10),
                 rectangle(20, 0, 5, 10, true), rectangle(145, 0, 99, 10, true)},
                kFrame, kOne);
  cut.row_spans(3, 1000, spans);
  EXPECT_EQ(spans, (std::vector<RoiSpan>{{0, 20}, {25, 145}}));
  const Roi only_excluded({rectangle(990, 0, 100, 10, true)}, kFrame, kOne);
  only_excluded.row_spans(3, 1000, spans);
  EXPECT_EQ(spans, (std::vector<RoiSpan>{{0, 990}}));
  only_excluded.row_spans(30, 1000, spans);
  EXPECT_EQ(spans, (std::vector<RoiSpan>{{0, 1000}}));
}

TEST(Roi, RefusesWhatIsNoPolygon) {
  EXPECT_THROW(Roi({{{{{1, 1}, {2, 2}}}, false}}, kFrame, kOne), Error);
  EXPECT_THROW(Roi({rectangle(std::nan(""), 0, 1, 1)}, kFrame, kOne), Error);
}

TEST(Decide, WholeSlideCountsTissueOfCompletePatches) {
  const Measurement m = measure_square({0, 0, 5, 0});
  const Decision d = decide(m, {});
  EXPECT_EQ(d.status, Status::kScored);
  EXPECT_EQ(d.roi_px, 1000 * 700);
  EXPECT_EQ(d.tiles_total, 12);
  EXPECT_EQ(d.tiles_read, 12);
  EXPECT_EQ(d.class_px[2], d.kept_tumor_px);
  EXPECT_EQ(d.kept_tumor_px + d.dropped_tumor_px, d.tissue_px)
      << "no segmenter: tissue is tumor";
  // The tissue mask may move the rim by its reach, not more.
  EXPECT_GT(d.tissue_px, (800 - 32) * (500 - 32));
  EXPECT_LT(d.tissue_px, (800 + 32) * (500 + 32));
  ASSERT_TRUE(d.guideline);
  EXPECT_EQ(d.guideline->score, 2);
}

TEST(Decide, RoiEqualsCountingTheMaskPixelByPixel) {
  const Measurement m = measure_square({0, 0, 0, 5});
  std::vector<std::uint8_t> mask(1024 * 768);
  m.tumor_mask(0, 0, {mask.data(), 768, 1024});
  std::mt19937 random(7);
  for (int trial = 0; trial < 30; ++trial) {
    DecideOptions options;
    const auto at = [&](int limit) {
      return static_cast<double>(random() % static_cast<unsigned>(limit * 16)) / 16;
    };
    options.roi = {
        {{{{at(1000), at(700)}, {at(1000), at(700)}, {at(1000), at(700)}}}, false},
        rectangle(at(900), at(600), at(300), at(300)),
        rectangle(at(900), at(600), at(100), at(100), true)};
    const Roi roi(options.roi, m.frame, m.spacing);
    std::int64_t area = 0, tumor = 0;
    std::vector<RoiSpan> spans;
    for (std::int64_t y = 0; y < 700; ++y) {
      roi.row_spans(y, 1000, spans);
      for (const RoiSpan& span : spans) {
        area += span.end_px - span.begin_px;
        for (std::int64_t x = span.begin_px; x < span.end_px; ++x) {
          tumor += mask[static_cast<std::size_t>(y * 1024 + x)];
        }
      }
    }
    const Decision d = decide(m, options);
    EXPECT_EQ(d.roi_px, area);
    EXPECT_EQ(d.kept_tumor_px + d.dropped_tumor_px, tumor);
    std::int64_t listed = 0;
    for (const PatchOutcome& patch : patch_outcomes(m, options)) {
      listed += patch.tumor_px;
      EXPECT_EQ(patch.kept, 10 * patch.tumor_px > 64 * 64);
      EXPECT_EQ(patch.predicted, patch.kept ? 3 : -1);
    }
    EXPECT_EQ(listed, tumor);
  }
}

TEST(Decide, LimitsEndWithoutAScore) {
  const Measurement m = measure_square({5, 0, 0, 0});
  DecideOptions options;
  options.roi = {rectangle(300, 300, 100, 100)};  // 0.01 mm2
  Decision d = decide(m, options);
  EXPECT_EQ(d.code, Code::kNoTissue);
  options.roi = {rectangle(300, 300, 250, 250)};  // 0.0625 mm2
  d = decide(m, options);
  EXPECT_EQ(d.code, Code::kTooLittleTumor);
  EXPECT_EQ(d.status, Status::kIndeterminate);
  EXPECT_FALSE(d.guideline);
  options.roi = {rectangle(3000, 0, 10, 10)};
  EXPECT_THROW(decide(m, options), Error);

  Measurement missing = m;
  missing.tiles[5] = TileRecord{};
  options.roi.clear();
  EXPECT_EQ(decide(missing, options).code, Code::kMissingTiles);
  options.roi = {rectangle(0, 0, 255, 699)};  // does not need that tile
  EXPECT_EQ(decide(missing, options).code, Code::kTooLittleTumor);
  Measurement warned = m;
  warned.tiles[5].status = TileStatus::kWarned;
  EXPECT_EQ(decide(warned, {}).code, Code::kCorruptTiles);
}

TEST(Decide, CalibrationMovesTheClassAndTiesGoDown) {
  const Measurement m = measure_square({1, 1, 0.5f, -2});
  DecideOptions options;
  EXPECT_EQ(decide(m, options).guideline->score, 0) << "a tie never raises a score";
  options.calibration.scale_q16 = {1 << 16, 1 << 16, 3 << 16, 1 << 16};
  EXPECT_EQ(decide(m, options).guideline->score, 2);
  options.calibration.scale_q16 = {};
  options.calibration.bias_q16 = {0, 0, 0, 4 << 16};
  EXPECT_EQ(decide(m, options).guideline->score, 3);
  options.calibration.bias_q16 = {0, 0};
  EXPECT_THROW(decide(m, options), std::invalid_argument);
  options.calibration = {{0, 1, 1, 1}, {}};
  EXPECT_THROW(decide(m, options), std::invalid_argument);
}

TEST(Decide, WithoutAGuidelineAreasButNoScore) {
  DecideOptions options;
  options.rule_set = std::nullopt;
  const Decision d = decide(measure_square({0, 5, 0, 0}), options);
  EXPECT_EQ(d.status, Status::kScored);
  EXPECT_FALSE(d.guideline);
  EXPECT_GT(d.class_px[1], 0);
}

TEST(Measurement, BytesRoundTripAndDamageIsSeen) {
  const Measurement m = measure_square({0.125f, -3, 2, 1e9f});
  const auto bytes = m.to_bytes();
  EXPECT_EQ(Measurement::from_bytes(bytes.data(), bytes.size()), m);
  for (std::size_t cut = 0; cut < bytes.size(); cut += 101) {
    EXPECT_THROW(Measurement::from_bytes(bytes.data(), cut), Error);
  }
  for (std::size_t place = 0; place < bytes.size(); place += 37) {
    auto damaged = bytes;
    damaged[place] ^= 0x10;
    EXPECT_THROW(Measurement::from_bytes(damaged.data(), damaged.size()), Error);
  }
}

TEST(Decide, TumorFarFromTheTrainingDataIsFlagged) {
  const Measurement m =
      measure_square({1, 0, 0, 0, 2.5f, 0.5f}, 150, {"color", "feature"});
  const auto back = [&m] {
    const auto bytes = m.to_bytes();
    return Measurement::from_bytes(bytes.data(), bytes.size());
  }();
  EXPECT_TRUE(back == m);
  DecideOptions options;
  EXPECT_FALSE(decide(m, options).domain);
  options.domain = DomainLimits{{logit_to_fixed(2.5f), logit_to_fixed(1)}, 0};
  EXPECT_EQ(decide(m, options).domain->outside_px, 0);
  EXPECT_FALSE(decide(m, options).domain->is_outside);
  options.domain = DomainLimits{{logit_to_fixed(2.25f), logit_to_fixed(1)}, 999};
  const Decision d = decide(m, options);
  EXPECT_EQ(d.domain->outside_px, d.kept_tumor_px);
  EXPECT_EQ(d.domain->sum_q8_px[0], d.kept_tumor_px * 640);
  EXPECT_EQ(d.domain->sum_q8_px[1], d.kept_tumor_px * 128);
  EXPECT_EQ(d.review_flags, std::vector<std::string>{"OUT_OF_DOMAIN"});
  options.domain = DomainLimits{{1}, 100};
  EXPECT_THROW(decide(m, options), std::invalid_argument);
  EXPECT_THROW(decide(measure_square({1, 0, 0, 0}), options), std::invalid_argument);
}

TEST(Measurement, MasksComeBackWhetherTheyShrinkOrNot) {
  std::mt19937_64 random(1);
  std::vector<std::uint64_t> noise(1024), blob(1024, 0), back;
  for (auto& word : noise) word = random();
  std::fill(blob.begin() + 100, blob.begin() + 500, ~std::uint64_t{0});
  for (const auto& bits : {noise, blob}) {
    auto packed = pack_mask(bits);
    EXPECT_LE(packed.size(), 1 + bits.size() * 8);
    unpack_mask(packed, back, bits.size());
    EXPECT_EQ(back, bits);
    EXPECT_THROW(unpack_mask(packed, back, bits.size() + 1), Error);
    packed.pop_back();
    EXPECT_THROW(unpack_mask(packed, back, bits.size()), Error);
  }
  EXPECT_LT(pack_mask(blob).size(), 200u);
  EXPECT_THROW(unpack_mask({}, back, 4), Error);
}

TEST(FixedPoint, RoundsToEvenAndSaturates) {
  EXPECT_EQ(logit_to_fixed(1.0f), 65536);
  EXPECT_EQ(logit_to_fixed(-0.5f / 65536), 0);
  EXPECT_EQ(logit_to_fixed(1.5f / 65536), 2);
  EXPECT_EQ(logit_to_fixed(1e9f), std::numeric_limits<std::int32_t>::max());
  EXPECT_EQ(logit_to_fixed(-1e9f), std::numeric_limits<std::int32_t>::min());
  EXPECT_EQ(logit_from_fixed(logit_to_fixed(-2.25f)), -2.25);
}

TEST(PatchMethod, RefusesWhatCannotBeMeasured) {
  PatchMethodSpec spec;
  spec.frame = kFrame;
  spec.spacing = kOne;
  spec.class_names = {"a"};
  const auto with = [&spec](auto change) {
    PatchMethodSpec changed = spec;
    change(changed);
    EXPECT_ANY_THROW(make_patch_method(changed));
  };
  EXPECT_NO_THROW(make_patch_method(spec));
  with([](auto& s) { s.patch_px = 0; });
  with([](auto& s) { s.tile_px = 100; });
  with([](auto& s) { s.halo_px = kTissueReachPx - 1; });
  with([](auto& s) { s.class_names.clear(); });
  with([](auto& s) { s.segment_channels = 3; });
  with([](auto& s) { s.frame.spacing_x = Spacing{3'000'000}; });
  with([](auto& s) { s.frame.width_px = 0; });
}

}  // namespace
}  // namespace her2fast
