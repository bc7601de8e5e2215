// SPDX-License-Identifier: Apache-2.0
/// The integers of constraint_select, for both devices.
#pragma once

#include "her2fast/constraint_select.h"
#include "kernels/host_device.h"

namespace her2fast {

/// Classes that a patch pushed away from class c may become, as bits.
HER2FAST_HOST_DEVICE inline std::uint8_t admissible_bits(Admissible admissible, int c) {
  const unsigned below = (1u << c) >> 1, above = (2u << c) & 15u;
  switch (admissible) {
    case Admissible::kComplement:
      return static_cast<std::uint8_t>(15u & ~(1u << c));
    case Admissible::kLower:
      return static_cast<std::uint8_t>(below);
    case Admissible::kNeighbors:
      break;
  }
  return static_cast<std::uint8_t>(below | above);
}

/// The most pixels that may remain of a class: 1000 * remaining < U * total, strictly.
HER2FAST_HOST_DEVICE inline std::int64_t most_allowed(std::int32_t upper_permille,
                                                      std::int64_t total) {
  return (upper_permille * total - 1) / 1000;
}

/// The fewest pixels that the label needs: 1000 * px >= L * total.
HER2FAST_HOST_DEVICE inline std::int64_t least_wanted(std::int32_t lower_permille,
                                                      std::int64_t total) {
  return (lower_permille * total + 999) / 1000;
}

}  // namespace her2fast
