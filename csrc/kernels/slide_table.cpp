// SPDX-License-Identifier: Apache-2.0
#include "her2fast/slide_table.h"

#include <stdexcept>
#include <string>

namespace her2fast {
namespace {

[[noreturn]] void refuse(const std::string& message) {
  throw std::invalid_argument(message);
}

}  // namespace

FractionLimits FractionLimits::pham() {
  FractionLimits limits{{700, 100, 100, 100}, {}};
  for (auto& row : limits.upper_permille) row.fill(100);
  return limits;
}

void check_table(const SlideTable& table) {
  const std::int64_t patches = table.patches(), slides = table.slides();
  if (static_cast<std::int64_t>(table.logits.size()) != kScores * patches) {
    refuse("need logits of " + std::to_string(patches) + " x 4, got " +
           std::to_string(table.logits.size()) + " values");
  }
  if (static_cast<std::int64_t>(table.offsets.size()) != slides + 1) {
    refuse("need " + std::to_string(slides + 1) + " offsets for " +
           std::to_string(slides) + " labels, got " +
           std::to_string(table.offsets.size()));
  }
  if (table.offsets[0] != 0 || table.offsets.back() != patches) {
    refuse("need offsets from 0 to " + std::to_string(patches) + ", got " +
           std::to_string(table.offsets[0]) + " to " +
           std::to_string(table.offsets.back()));
  }
  for (std::int64_t i = 0; i < slides; ++i) {
    const auto s = static_cast<std::size_t>(i);
    const std::int64_t begin = table.offsets[s], end = table.offsets[s + 1];
    if (end < begin || end > patches) {
      refuse("need ascending offsets, got " + std::to_string(begin) + " before " +
             std::to_string(end) + " at slide " + std::to_string(i));
    }
    if (end - begin >= std::int64_t{1} << 32) {
      refuse("need fewer than 2^32 patches in slide " + std::to_string(i));
    }
    if (table.labels[s] < 0 || table.labels[s] >= kScores) {
      refuse("need labels 0 to 3, got " + std::to_string(table.labels[s]) + " at slide " +
             std::to_string(i));
    }
    std::int64_t sum = 0;
    for (std::int64_t p = begin; p < end; ++p) {
      sum += table.tumor_px[static_cast<std::size_t>(p)];
    }
    if (sum >= kMaxSlidePx) {
      refuse("need under 2^50 tumor pixels in slide " + std::to_string(i) + ", got " +
             std::to_string(sum));
    }
  }
}

void check_limits(const FractionLimits& limits) {
  for (const std::int32_t lower : limits.lower_permille) {
    if (lower < 0 || lower > 1000) {
      refuse("need 0 <= lower_permille <= 1000, got " + std::to_string(lower));
    }
  }
  for (std::size_t y = 0; y < kScores; ++y) {
    for (std::size_t c = y + 1; c < kScores; ++c) {
      const std::int32_t upper = limits.upper_permille[y][c];
      if (upper < 1 || upper > 1001) {
        refuse("need 1 <= upper_permille <= 1001 above the diagonal, got " +
               std::to_string(upper));
      }
    }
  }
}

}  // namespace her2fast
