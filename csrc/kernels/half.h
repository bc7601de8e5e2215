// SPDX-License-Identifier: Apache-2.0
/// IEEE float16 from float32, on the host, with the bits of the hardware's conversion.
#pragma once

#include <bit>
#include <cstdint>

namespace her2fast {

/// To the nearest, ties to even; beyond 65504 infinite, NaN stays NaN.
inline std::uint16_t half_bits(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7fffu);
  if (magnitude >= 0x47800000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
  const std::int32_t exponent = static_cast<std::int32_t>(magnitude >> 23);
  if (exponent < 102) return sign;  // below half of the smallest subnormal, 2^-25
  // The significand in units of the result's last place, with what falls off.
  const std::uint32_t significand = (magnitude & 0x7fffffu) | 0x800000u;
  const std::int32_t shift = exponent >= 113 ? 13 : 126 - exponent;
  const std::uint32_t kept = significand >> shift;
  const std::uint32_t lost = significand & ((1u << shift) - 1), half = 1u << (shift - 1);
  // A normal's hidden bit is counted in the exponent; a carry runs into it rightly.
  std::uint32_t out =
      exponent >= 113 ? (static_cast<std::uint32_t>(exponent - 113) << 10) + kept : kept;
  out += lost > half || (lost == half && (kept & 1u) != 0);
  return static_cast<std::uint16_t>(sign | out);
}

}  // namespace her2fast
