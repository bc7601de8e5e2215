// SPDX-License-Identifier: Apache-2.0
#include "her2fast/tumor_bits.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <stdexcept>
#include <string>

#include "kernels/tumor_rule.h"

namespace her2fast {

void check_tumor_rule(const TumorRule& rule) {
  const bool good = (rule.channels == 1 || rule.channels == 2) && rule.halo_px >= 0 &&
                    rule.halo_px <= 1024 && rule.patch_px >= 8 && rule.patch_px <= 4096 &&
                    rule.tile_px >= rule.patch_px && rule.tile_px <= 4096 &&
                    rule.tile_px % rule.patch_px == 0 && std::isfinite(rule.threshold);
  if (good) return;
  throw std::invalid_argument(
      "need 1 or 2 channels, a halo of 0 to 1024 px, patches of 8 to 4096 px that divide "
      "a tile of up to 4096 px, and a finite threshold, got " +
      std::to_string(rule.channels) + ", " + std::to_string(rule.halo_px) + ", " +
      std::to_string(rule.patch_px) + ", " + std::to_string(rule.tile_px) + " and " +
      std::to_string(rule.threshold));
}

void tumor_bits(const float* logits, const std::uint64_t* tissue, const TumorRule& rule,
                std::uint64_t* bits, std::uint32_t* counts) {
  const std::int64_t side = rule.side_px(), plane = side * side;
  const std::int64_t words = rule.words_per_row();
  const std::int64_t per_side = rule.tile_px / rule.patch_px;
  std::fill_n(counts, rule.patches(), 0U);
  for (std::int64_t y = 0; y < rule.tile_px; ++y) {
    const float* row = logits + (y + rule.halo_px) * side + rule.halo_px;
    std::uint32_t* of_row = counts + y / rule.patch_px * per_side;
    for (std::int64_t w = 0; w < words; ++w) {
      const std::int64_t first = 64 * w;
      const std::int64_t end = std::min<std::int64_t>(rule.tile_px, first + 64);
      std::uint64_t word = 0;
      for (std::int64_t x = first; x < end; ++x) {
        const float* second = rule.channels == 2 ? row + x + plane : nullptr;
        word |= std::uint64_t{is_tumor(row + x, second, rule.threshold)} << (x - first);
      }
      word &= tissue[y * words + w];
      bits[y * words + w] = word;
      for (std::int64_t x = first; x < end;) {
        const std::int64_t patch = x / rule.patch_px;
        const std::int64_t stop = std::min(end, (patch + 1) * rule.patch_px);
        const std::uint64_t keep = ~std::uint64_t{0} >> (64 - (stop - x));
        of_row[patch] +=
            static_cast<std::uint32_t>(std::popcount((word >> (x - first)) & keep));
        x = stop;
      }
    }
  }
}

}  // namespace her2fast
