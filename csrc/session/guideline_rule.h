// SPDX-License-Identifier: Apache-2.0
/// What the rule sets are made of, for the parts of a decision that ask them often.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace her2fast {

/// A cut is passed where a class, or it and all above, covers a tenth of the tumor.
struct Rule {
  std::string_view name, title, source;
  bool cumulative;     // a cut compares the class and all above it, else the class alone
  bool strict;         // "more than 10 %", else "10 % or more"
  bool escalate;       // any 3+ above the floor is at least 2+
  bool heterogeneous;  // at least one below the highest class above the floor (Pham, 6.1)
};

// A share counts from three patches on: one false patch must not move a slide (P15).
inline constexpr std::int64_t kMinPatches = 3;

/// @throws std::invalid_argument  no rule set of this name.
const Rule& find_rule(std::string_view name);

/// The score alone, without allocating: for replicates and islands, on areas that come
/// from counted pixels and need no check.
/// @param patches  per class, or null where patches are not counted.
/// @return 0 to 3; -1 without any area, which is not evaluable.
int score_areas(const Rule& rule, const std::array<std::int64_t, 4>& areas,
                int floor_percent, const std::array<std::int64_t, 4>* patches);

}  // namespace her2fast
