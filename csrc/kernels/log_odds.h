// SPDX-License-Identifier: Apache-2.0
/// Log-odds of a class from logits in plain IEEE arithmetic: a math library's last bit
/// would make another machine choose other patches.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

namespace her2fast {

/// exp(x) for x <= 0, to about 1e-14; below -700 as at -700.
inline double exp_nonpositive(double x) {
  constexpr double kRound = 0x1.8p52;  // adding it leaves an integer in the low bits
  x = std::max(x, -700.0);
  const double shifted = x * 0x1.71547652b82fep0 + kRound;
  const double k = shifted - kRound;
  const double r = (x - k * 0x1.62e42feep-1) - k * 0x1.a39ef35793c76p-33;
  double p = 1.0 / 479001600;
  for (const double inverse_factorial :
       {1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720,
        1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0}) {
    p = p * r + inverse_factorial;
  }
  const auto power = std::bit_cast<std::uint64_t>(shifted) + 1023;
  return p * std::bit_cast<double>(power << 52);
}

/// log(s) for 1 <= s <= 3, to about 1e-14: twice the artanh of (s - 1) / (s + 1), halved
/// into [3/4, 3/2) first.
inline double log_one_to_three(double s) {
  const bool halve = s >= 1.5;
  s = halve ? 0.5 * s : s;
  const double z = (s - 1) / (s + 1), z2 = z * z;
  double p = 1.0 / 21;
  for (const double inverse : {1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13, 1.0 / 11, 1.0 / 9,
                               1.0 / 7, 1.0 / 5, 1.0 / 3, 1.0}) {
    p = p * z2 + inverse;
  }
  return 2 * z * p + (halve ? 0x1.62e42fefa39efp-1 : 0.0);
}

/// log(p / (1 - p)) of class c under softmax, rounded once, to float32.
inline float log_odds(const float* logits, int c) {
  const double a = logits[(c + 1) & 3], b = logits[(c + 2) & 3], d = logits[(c + 3) & 3];
  const double top = std::max(a, std::max(b, d));
  const double sum =
      exp_nonpositive(a - top) + exp_nonpositive(b - top) + exp_nonpositive(d - top);
  const double value = (logits[c] - top) - log_one_to_three(std::clamp(sum, 1.0, 3.0));
  constexpr double kMax = std::numeric_limits<float>::max();
  return static_cast<float>(std::clamp(value, -kMax, kMax));
}

/// Unsigned integers in the order of the floats; both zeros are one.
inline std::uint32_t ordered_bits(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

inline bool all_finite(const float* logits) {
  bool finite = true;
  for (int c = 0; c < 4; ++c) {
    finite &= (std::bit_cast<std::uint32_t>(logits[c]) & 0x7f800000u) != 0x7f800000u;
  }
  return finite;
}

}  // namespace her2fast
