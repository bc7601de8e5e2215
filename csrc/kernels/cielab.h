// SPDX-License-Identifier: Apache-2.0
/// CIELAB (D65, 2 degrees) of sRGB in whole steps of 1/64, by tables.
///
/// Powers and roots come from the math library when the tables are made, and are rounded
/// to integers there; none lies within 1e-6 of a half (tested), so every library gives
/// the same table and every pixel the same bits. Within 0.5 of double precision, within
/// 0.15 where no channel is below 60.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace her2fast {

inline constexpr std::int32_t kLabOne = 64;

struct Lab {
  std::int32_t l, a, b;  // 1/64
};

inline constexpr std::int32_t kLinearOne = 1 << 14;
inline constexpr std::int32_t kLabSteps = 1 << 13;  // of X, Y, Z from 0 to 1
inline constexpr std::int32_t kLabRootBits = 14;

/// IEC 61966-2-1: light of a value of sRGB, times kLinearOne.
inline double srgb_light(int value) {
  const double v = value / 255.0;
  return kLinearOne * (v > 0.04045 ? std::pow((v + 0.055) / 1.055, 2.4) : v / 12.92);
}

/// The root of CIELAB at step / kLabSteps, times 2^kLabRootBits.
inline double lab_root(int step) {
  const double t = static_cast<double>(step) / kLabSteps;
  return (1 << kLabRootBits) * (t > 0.008856 ? std::cbrt(t) : 7.787 * t + 16.0 / 116.0);
}

struct LabTables {
  std::array<std::int32_t, 256> light;
  std::array<std::int32_t, kLabSteps + 1> root;
};

inline const LabTables& lab_tables() {
  static const LabTables tables = [] {
    LabTables out{};
    for (int v = 0; v < 256; ++v) {
      out.light[static_cast<std::size_t>(v)] =
          static_cast<std::int32_t>(std::floor(srgb_light(v) + 0.5));
    }
    for (int s = 0; s <= kLabSteps; ++s) {
      out.root[static_cast<std::size_t>(s)] =
          static_cast<std::int32_t>(std::floor(lab_root(s) + 0.5));
    }
    return out;
  }();
  return tables;
}

inline Lab to_lab(const LabTables& tables, const std::uint8_t* rgb) {
  // sRGB to X, Y, Z over the white of D65 (.95047, 1, 1.08883), in 1/32768.
  constexpr std::int32_t kMatrix[3][3] = {
      {14220, 12328, 6220}, {6969, 23434, 2365}, {582, 3587, 28597}};
  constexpr int kDown = 15 + 14 - 13;
  const std::int32_t light[3] = {tables.light[rgb[0]], tables.light[rgb[1]],
                                 tables.light[rgb[2]]};
  std::int32_t root[3];
  for (int i = 0; i < 3; ++i) {
    const std::int32_t sum =
        kMatrix[i][0] * light[0] + kMatrix[i][1] * light[1] + kMatrix[i][2] * light[2];
    const std::int32_t step = (sum + (1 << (kDown - 1))) >> kDown;
    root[i] = tables.root[static_cast<std::size_t>(std::min(step, kLabSteps))];
  }
  const auto scaled = [](std::int32_t factor, std::int32_t value) {
    return (factor * kLabOne * value + (1 << (kLabRootBits - 1))) >> kLabRootBits;
  };
  return {scaled(116, root[1]) - 16 * kLabOne, scaled(500, root[0] - root[1]),
          scaled(200, root[1] - root[2])};
}

}  // namespace her2fast
