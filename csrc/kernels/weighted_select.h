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

/// A key near the one that `share` of the weight lies below, never the highest of the
/// range, so that every split leaves something on both sides.
inline std::uint64_t guess_pivot(const Weighted* items, std::int64_t count, double share,
                                 std::uint64_t& random) {
  // One item of each stretch. A small range is not worth a large sample.
  constexpr std::int64_t kMost = 31;
  const std::int64_t size = count >= 1000 ? kMost : 3;
  const std::int64_t stretch = count / size;
  std::uint64_t keys[kMost];
  for (std::int64_t i = 0; i < size; ++i) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    const auto step =
        static_cast<std::int64_t>((random >> 33) % static_cast<std::uint64_t>(stretch));
    keys[i] = items[i * stretch + step].key;
  }
  if (size == 3) {
    return std::max(std::min(keys[0], keys[1]),
                    std::min(std::max(keys[0], keys[1]), keys[2]));
  }
  std::sort(keys, keys + size);
  // Two places toward the middle: the larger part is then the one that is cut off.
  const double rank = share * size + (share < 0.5 ? 2 : -2);
  return keys[std::clamp<std::int64_t>(static_cast<std::int64_t>(rank), 0, size - 2)];
}

/// Moves to the front the fewest items, lowest keys first, whose weights reach `need`,
/// and returns their count. `sum` is that of all weights; needs 0 < need <= sum. Linear
/// expected time; the pivots are pseudorandom, but the same on every call.
inline std::int64_t select_front(std::vector<Weighted>& items, std::int64_t sum,
                                 std::int64_t need) {
  constexpr std::int64_t kSortBelow = 24;
  std::int64_t first = 0, last = static_cast<std::int64_t>(items.size());
  Weighted* const at = items.data();
  std::uint64_t random = 0x9e3779b97f4a7c15u;
  while (last - first > kSortBelow) {
    const double share = static_cast<double>(need) / static_cast<double>(sum);
    const std::uint64_t pivot = guess_pivot(at + first, last - first, share, random);
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
      sum = front;
    } else {
      first = split;
      sum -= front;
      need -= front;
    }
  }
  std::sort(at + first, at + last,
            [](const Weighted& a, const Weighted& b) { return a.key < b.key; });
  while (need > 0) need -= at[first++].weight;
  return first;
}

}  // namespace her2fast
