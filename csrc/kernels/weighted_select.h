// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace her2fast {

/// A key, unique among its peers, and a weight of at least 0.
struct Weighted {
  std::uint64_t key;
  std::int64_t weight;
};

/// Moves to the front the fewest items, lowest keys first, whose weights reach `need`,
/// and returns their count. Linear expected time; the pivots are pseudorandom, but the
/// same on every call. Needs 0 < need <= sum of all weights.
inline std::int64_t select_front(std::vector<Weighted>& items, std::int64_t need) {
  constexpr std::int64_t kSortBelow = 24;
  std::int64_t first = 0, last = static_cast<std::int64_t>(items.size());
  Weighted* const at = items.data();
  std::uint64_t random = 0x9e3779b97f4a7c15u;
  while (last - first > kSortBelow) {
    // One item of each third: keys differ, so the median leaves something on both sides.
    const std::int64_t third = (last - first) / 3;
    std::uint64_t key[3];
    for (int i = 0; i < 3; ++i) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      const auto step =
          static_cast<std::int64_t>((random >> 33) % static_cast<std::uint64_t>(third));
      key[i] = at[first + i * third + step].key;
    }
    const std::uint64_t pivot =
        std::max(std::min(key[0], key[1]), std::min(std::max(key[0], key[1]), key[2]));
    // Without a branch on the comparison, which no predictor could guess.
    std::int64_t split = first, front = 0;
    for (std::int64_t i = first; i < last; ++i) {
      const Weighted item = at[i];
      const std::int64_t low = item.key <= pivot;
      at[i] = at[split];
      at[split] = item;
      split += low;
      front += item.weight & -low;
    }
    if (front >= need) {
      last = split;
    } else {
      need -= front;
      first = split;
    }
  }
  std::sort(at + first, at + last,
            [](const Weighted& a, const Weighted& b) { return a.key < b.key; });
  while (need > 0) need -= at[first++].weight;
  return first;
}

}  // namespace her2fast
