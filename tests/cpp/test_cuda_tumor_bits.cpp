// SPDX-License-Identifier: Apache-2.0
/// tumor_bits: by hand, against a walk over pixels, and its CUDA twin on the CPU.
#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <stdexcept>
#include <utility>

#include "cuda_device.h"
#include "her2fast/tumor_bits.h"

namespace her2fast {
namespace {

INSTANTIATE_TEST_SUITE_P(Orders, Cuda, testing::Values(0, 1, 2));

using Words = std::vector<std::uint64_t>;

struct Tumor {
  Words bits;
  std::vector<std::uint32_t> counts;
};

/// Pixel by pixel, as the words of tumor_bits.h say it.
Tumor walked(const float* logits, const Words& tissue, const TumorRule& rule) {
  Tumor out{Words(rule.words()), std::vector<std::uint32_t>(rule.patches())};
  const std::int64_t side = rule.side_px(), words = rule.words_per_row();
  for (std::int64_t y = 0; y < rule.tile_px; ++y) {
    for (std::int64_t x = 0; x < rule.tile_px; ++x) {
      const std::int64_t at = (y + rule.halo_px) * side + x + rule.halo_px;
      const float logit =
          rule.channels == 1 ? logits[at] : logits[side * side + at] - logits[at];
      const auto word = static_cast<std::size_t>(y * words + x / 64);
      if (logit < rule.threshold || (tissue[word] >> (x % 64) & 1) == 0) continue;
      out.bits[word] |= std::uint64_t{1} << (x % 64);
      ++out.counts[static_cast<std::size_t>(
          y / rule.patch_px * (rule.tile_px / rule.patch_px) + x / rule.patch_px)];
    }
  }
  return out;
}

Tumor on_cpu(const float* logits, const Words& tissue, const TumorRule& rule) {
  Tumor out{Words(rule.words(), 7), std::vector<std::uint32_t>(rule.patches(), 7)};
  tumor_bits(logits, tissue.data(), rule, out.bits.data(), out.counts.data());
  return out;
}

// Halos that begin within a half word, tiles that end within one, patches across them.
const std::vector<TumorRule> kRules{{1, 32, 64, 32, 0.0F},   {2, 32, 32, 16, 0.5F},
                                    {1, 16, 90, 9, -0.25F},  {2, 5, 65, 65, 0.0F},
                                    {1, 0, 32, 8, 0.0F},     {1, 33, 40, 20, 0.0F},
                                    {1, 1, 130, 10, 0.125F}, {1, 32, 8, 8, 0.0F}};
const TumorRule kUsual{1, 32, 256, 64, 0.0F};

std::vector<float> logits_of(std::size_t count, std::mt19937& random) {
  std::vector<float> out(count);
  // Eighths, so that some lie on the threshold.
  for (float& value : out) value = static_cast<float>(random() % 17) / 8 - 1;
  return out;
}

TEST(TumorBits, ByHand) {
  const TumorRule rule{1, 1, 8, 8, 0.5F};
  std::vector<float> logits(100, 0.0F);
  logits[1 * 10 + 1] = 0.5F;   // first pixel: on the threshold is tumor
  logits[8 * 10 + 8] = 3.0F;   // last pixel
  logits[3 * 10 + 4] = 0.49F;  // too low
  logits[0] = logits[99] = 9;  // the halo does not count
  logits[2 * 10 + 3] = 1.0F;   // pixel (2, 1): tumor, were it tissue
  Words tissue(8, ~std::uint64_t{0});
  tissue[1] = ~std::uint64_t{4};
  const Tumor got = on_cpu(logits.data(), tissue, rule);
  EXPECT_EQ(got.bits, (Words{1, 0, 0, 0, 0, 0, 0, 128}));
  EXPECT_EQ(got.counts, std::vector<std::uint32_t>{2});
}

TEST(TumorBits, AWalkOverPixelsGivesTheSame) {
  std::mt19937_64 random(3);
  std::mt19937 numbers(4);
  std::vector<TumorRule> rules = kRules;
  rules.push_back(kUsual);
  for (const TumorRule& rule : rules) {
    const auto outputs =
        static_cast<std::size_t>(rule.channels * rule.side_px() * rule.side_px());
    const std::vector<float> logits = logits_of(outputs, numbers);
    Words tissue(rule.words());
    for (auto& word : tissue) word = random() | random();
    const Tumor got = on_cpu(logits.data(), tissue, rule);
    const Tumor wanted = walked(logits.data(), tissue, rule);
    EXPECT_EQ(got.bits, wanted.bits) << rule.tile_px;
    EXPECT_EQ(got.counts, wanted.counts) << rule.tile_px;
  }
}

TEST(TumorBits, RulesThatCannotBeAreRefused) {
  for (const TumorRule& rule :
       {TumorRule{3, 32, 256, 64, 0}, TumorRule{1, -1, 256, 64, 0},
        TumorRule{1, 32, 256, 60, 0}, TumorRule{1, 32, 256, 4, 0},
        TumorRule{1, 32, 8192, 64, 0},
        TumorRule{1, 32, 256, 64, std::numeric_limits<float>::quiet_NaN()}}) {
    EXPECT_THROW(check_tumor_rule(rule), std::invalid_argument);
    const Her2TumorRule plain{rule.channels, rule.halo_px, rule.tile_px, rule.patch_px,
                              rule.threshold};
    EXPECT_EQ(table().tumor_bits(nullptr, nullptr, 1, &plain, nullptr, nullptr, nullptr,
                                 kStream, nullptr),
              HER2_CUDA_BAD_ARGUMENT);
  }
}

/// What the twin gives for n tiles; `fault` apart.
std::vector<Tumor> on_twin(const std::vector<float>& logits, const Words& tissue,
                           const TumorRule& rule, std::size_t n, std::int32_t& fault) {
  const Her2TumorRule plain{rule.channels, rule.halo_px, rule.tile_px, rule.patch_px,
                            rule.threshold};
  const OnDevice<float> in(logits);
  const OnDevice<std::uint64_t> within(tissue), bits(n * rule.words());
  const OnDevice<std::uint32_t> counts(n * rule.patches());
  const OnDevice<std::int32_t> told(1);
  call_cuda("tumor_bits", table().tumor_bits, static_cast<const float*>(in.get()),
            static_cast<const std::uint64_t*>(within.get()), static_cast<std::int64_t>(n),
            &plain, bits.get(), counts.get(), told.get(), kStream);
  fault = told.read()[0];
  const Words all = bits.read();
  const std::vector<std::uint32_t> all_counts = counts.read();
  std::vector<Tumor> out;
  for (std::size_t i = 0; i < n; ++i) {
    const auto w = static_cast<std::ptrdiff_t>(i * rule.words());
    const auto p = static_cast<std::ptrdiff_t>(i * rule.patches());
    out.push_back(
        {{all.begin() + w, all.begin() + w + static_cast<std::ptrdiff_t>(rule.words())},
         {all_counts.begin() + p,
          all_counts.begin() + p + static_cast<std::ptrdiff_t>(rule.patches())}});
  }
  return out;
}

TEST_P(Cuda, TumorBitsAreTheCpus) {
  std::mt19937_64 words(5);
  constexpr std::size_t kTiles = 2;
  for (const TumorRule& rule : kRules) {
    const auto outputs =
        static_cast<std::size_t>(rule.channels * rule.side_px() * rule.side_px());
    std::vector<float> logits = logits_of(kTiles * outputs, random);
    Words tissue(kTiles * rule.words());
    for (auto& word : tissue) word = words() | words();
    std::int32_t fault = -1;
    const std::vector<Tumor> got = on_twin(logits, tissue, rule, kTiles, fault);
    EXPECT_EQ(fault, 0);
    for (std::size_t i = 0; i < kTiles; ++i) {
      const auto at = static_cast<std::ptrdiff_t>(i * rule.words());
      const Words own(tissue.begin() + at,
                      tissue.begin() + at + static_cast<std::ptrdiff_t>(rule.words()));
      const Tumor wanted = on_cpu(logits.data() + i * outputs, own, rule);
      EXPECT_EQ(got[i].bits, wanted.bits) << rule.tile_px;
      EXPECT_EQ(got[i].counts, wanted.counts) << rule.tile_px;
    }
    if (rule.tile_px > 40) continue;  // it is the same code, slowly
    float bad = std::numeric_limits<float>::quiet_NaN();
    // Anywhere, halo and all.
    for (const std::size_t at : {std::size_t{0}, outputs / 2, 2 * outputs - 1}) {
      const float before = std::exchange(logits[at], bad);
      on_twin(logits, tissue, rule, kTiles, fault);
      EXPECT_EQ(fault, 1) << rule.tile_px << ' ' << at;
      logits[at] = before;
      bad = -std::numeric_limits<float>::infinity();
    }
  }
  std::int32_t fault = -1;
  EXPECT_TRUE(on_twin({}, {}, kRules[0], 0, fault).empty());
}

}  // namespace
}  // namespace her2fast
