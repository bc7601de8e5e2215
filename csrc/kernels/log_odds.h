// SPDX-License-Identifier: Apache-2.0
/// Log-odds of a class from logits in plain IEEE arithmetic: a math library's last bit
/// would make another machine choose other patches.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

#include "kernels/host_device.h"

namespace her2fast {

/// exp(x) for x <= 0, to 1e-12; below -700 as at -700.
HER2FAST_HOST_DEVICE inline double exp_nonpositive(double x) {
  constexpr double kRound = 0x1.8p52;  // adding it leaves an integer in the low bits
  x = x < -700.0 ? -700.0 : x;
  const double shifted = x * 0x1.71547652b82fep0 + kRound;
  const double k = shifted - kRound;
  const double r = (x - k * 0x1.62e42feep-1) - k * 0x1.a39ef35793c76p-33;
  // Written out: a loop here would keep the compiler from computing several x at once.
  double p = r * (1.0 / 3628800) + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const auto power = std::bit_cast<std::uint64_t>(shifted) + 1023;
  return p * std::bit_cast<double>(power << 52);
}

/// log(s) for 1 <= s <= 3, to 1e-12: twice the artanh of (s - 1) / (s + 1), halved
/// into [3/4, 3/2) first.
HER2FAST_HOST_DEVICE inline double log_one_to_three(double s) {
  const bool halve = s >= 1.5;
  s *= halve ? 0.5 : 1.0;
  const double z = (s - 1) / (s + 1), z2 = z * z;
  double p = z2 * (1.0 / 15) + 1.0 / 13;
  p = p * z2 + 1.0 / 11;
  p = p * z2 + 1.0 / 9;
  p = p * z2 + 1.0 / 7;
  p = p * z2 + 1.0 / 5;
  p = p * z2 + 1.0 / 3;
  p = p * z2 + 1.0;
  return 2 * z * p + (halve ? 0x1.62e42fefa39efp-1 : 0.0);
}

/// The three logits of the other classes in order, without a branch.
struct OthersInOrder {
  double low, middle, top;
  HER2FAST_HOST_DEVICE OthersInOrder(const float* logits, int c) {
    const float a = logits[(c + 1) & 3], b = logits[(c + 2) & 3], d = logits[(c + 3) & 3];
    const float less = std::min(a, b), more = std::max(a, b);
    low = std::min(less, d);
    top = std::max(more, d);
    middle = std::max(less, std::min(more, d));
  }
};

/// log(p / (1 - p)) under softmax, rounded once, to float32: the class's own logit and
/// the others' highest, and how far the two below that are (at most 0).
HER2FAST_HOST_DEVICE inline float log_odds(double own, double top, double middle,
                                           double low) {
  // The highest adds exp(0).
  const double sum = std::min(1.0 + exp_nonpositive(middle) + exp_nonpositive(low), 3.0);
  const double value = (own - top) - log_one_to_three(sum);
  constexpr double kMax = std::numeric_limits<float>::max();
  const double above = value < -kMax ? -kMax : value;
  return static_cast<float>(above > kMax ? kMax : above);
}

/// Unsigned integers in the order of the floats; both zeros are one.
HER2FAST_HOST_DEVICE inline std::uint32_t ordered_bits(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/// The class of the highest logit, the lower one where two are equal; no branch.
HER2FAST_HOST_DEVICE inline unsigned predicted_class(const float* l) {
  const unsigned low = l[1] > l[0], high = 2u + (l[3] > l[2]);
  const unsigned upper = std::max(l[2], l[3]) > std::max(l[0], l[1]);
  return low ^ ((low ^ high) & (0u - upper));
}

HER2FAST_HOST_DEVICE inline bool all_finite(const float* values, std::int64_t count) {
  std::uint32_t not_finite = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    // Only an exponent of all ones carries into the sign bit.
    const auto bits = std::bit_cast<std::uint32_t>(values[i]) & 0x7f800000u;
    not_finite |= bits + 0x00800000u;
  }
  return not_finite >> 31 == 0;
}

}  // namespace her2fast
