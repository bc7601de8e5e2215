// SPDX-License-Identifier: Apache-2.0
/// Sums over square boxes of an image that streams by, row after row; outside it is 0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace her2fast {

/// The last 32 rows of a plane; rows never written are 0.
template <typename T>
class RowRing {
 public:
  static constexpr std::int64_t kRows = 32;
  explicit RowRing(std::int64_t width)
      : width_(width), values_(static_cast<std::size_t>(width * kRows)) {}
  T* row(std::int64_t y) { return values_.data() + (y & (kRows - 1)) * width_; }
  const T* row(std::int64_t y) const {
    return values_.data() + (y & (kRows - 1)) * width_;
  }

 private:
  std::int64_t width_;
  std::vector<T> values_;
};

/// Box sums of side 2 * kRadius + 1 of consecutive rows. Sums are unsigned and wrap: pick
/// T wide enough. kAny: a sum is only 0 or positive, so bytes suffice for any radius
/// below 128.
template <typename T, int kRadius, bool kAny = false>
class BoxRows {
 public:
  static constexpr int kSide = 2 * kRadius + 1;

  explicit BoxRows(std::int64_t width)
      : width_(width),
        columns_(static_cast<std::size_t>(width)),
        work_(static_cast<std::size_t>(width + kSide)),
        sums_(static_cast<std::size_t>(width)) {}

  /// Sums of row y; call for consecutive y, with rows up to y + kRadius in the ring.
  const T* next(const RowRing<T>& plane, std::int64_t y) {
    const T* const enters = plane.row(y + kRadius);
    const T* const leaves = plane.row(y - kRadius - 1);
    T* const column = columns_.data();
    T* const middle = work_.data() + kRadius;
    for (std::int64_t x = 0; x < width_; ++x) {
      column[x] = static_cast<T>(column[x] + enters[x] - leaves[x]);
      middle[x] = kAny ? static_cast<T>(column[x] != 0) : column[x];
    }
    for (int k = 0; k < kRadius; ++k) work_[static_cast<std::size_t>(k)] = 0;
    for (int k = 0; k <= kRadius; ++k) middle[width_ + k] = 0;
    add_along<1, 0>();
    return sums_.data();
  }

 private:
  /// work_ holds sums of kLength neighbors: the side is put together from powers of two,
  /// so that every pass is one vector add (4 passes for a side of 9, not 8 adds in a
  /// dependent chain).
  template <int kLength, int kDone>
  void add_along() {
    T* const work = work_.data();
    T* const sums = sums_.data();
    if constexpr ((kSide & kLength) != 0) {
      for (std::int64_t x = 0; x < width_; ++x) {
        sums[x] = kDone == 0 ? work[x] : static_cast<T>(sums[x] + work[x + kDone]);
      }
    }
    constexpr int kNow = kDone + (kSide & kLength);
    if constexpr (kNow < kSide) {
      for (std::int64_t x = 0; x < width_ + kSide - 2 * kLength; ++x) {
        work[x] = static_cast<T>(work[x] + work[x + kLength]);
      }
      add_along<2 * kLength, kNow>();
    }
  }

  std::int64_t width_;
  std::vector<T> columns_, work_, sums_;
};

}  // namespace her2fast
