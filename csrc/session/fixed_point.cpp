// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "her2fast/measurement.h"

namespace her2fast {

std::int32_t logit_to_fixed(float logit) {
  // Doubles hold every scaled float exactly; llrint rounds ties to even.
  const double scaled = std::ldexp(static_cast<double>(logit), kLogitFractionBits);
  constexpr auto low = std::numeric_limits<std::int32_t>::min();
  constexpr auto high = std::numeric_limits<std::int32_t>::max();
  if (scaled <= low) return low;
  if (scaled >= high) return high;
  return static_cast<std::int32_t>(std::llrint(scaled));
}

double logit_from_fixed(std::int32_t fixed) {
  return std::ldexp(static_cast<double>(fixed), -kLogitFractionBits);
}

}  // namespace her2fast
