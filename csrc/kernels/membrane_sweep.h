// SPDX-License-Identifier: Apache-2.0
/// Labels the components of one tile in one sweep over its rows: mask (8-connected) and
/// what is not mask (4-connected) together, since each bounds the other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "her2fast/image.h"
#include "her2fast/membrane.h"
#include "kernels/membrane_tile.h"

namespace her2fast {

constexpr std::int32_t kNoGap = -1;

struct SweptMembrane {
  MembraneSums sums;
  bool on_border;
};

struct SweptGap {
  GapSums sums;
  bool on_border;
  std::int32_t above;  ///< membrane above its first pixel; -1 in the tile's first row
};

/// Grows without clearing what is about to be written.
template <typename T>
class Buffer {
 public:
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  void reserve(std::size_t used, std::size_t more) {
    if (used + more <= capacity_) return;
    capacity_ = std::max(2 * capacity_, used + more);
    auto next = std::make_unique_for_overwrite<T[]>(capacity_);
    std::copy_n(data_.get(), used, next.get());
    data_ = std::move(next);
  }

 private:
  std::size_t capacity_ = 0;
  std::unique_ptr<T[]> data_;
};

using Column = std::uint16_t;  // a tile is at most 8192 wide

/// Rows as the columns where they turn: start and end of each run of mask. Gap k of a row
/// lies before its run k, the last one behind all of them.
struct SweptTile {
  std::int32_t height = 0, width = 0;
  /// Offsets into `turns` by row, height + 1; run k of row y is turns[row[y] + 2 * k].
  std::vector<std::int32_t> row;
  Buffer<Column> turns;
  /// Of run row[y] / 2 + k, and of gap row[y] / 2 + y + k, which is kNoGap where the row
  /// begins or ends with a run. Components by label: below.
  Buffer<std::int32_t> run_label, gap_label;
  std::vector<std::int32_t> membrane_of, gap_of;
  std::vector<SweptMembrane> membranes;  ///< in the order of their first pixels
  std::vector<SweptGap> gaps;

  std::int32_t runs_in(std::int32_t y) const { return (row[y + 1] - row[y]) / 2; }
  const Column* turns_of(std::int32_t y) const { return turns.data() + row[y]; }
  std::int32_t membrane(std::int32_t y, std::int32_t run) const {
    return membrane_of[run_label.data()[row[y] / 2 + run]];
  }
  /// kNoGap where there is none.
  std::int32_t gap(std::int32_t y, std::int32_t place) const {
    const std::int32_t label = gap_label.data()[row[y] / 2 + y + place];
    return label == kNoGap ? kNoGap : gap_of[label];
  }
};

/// Windows of 2 x 2 are counted where all four pixels lie within the tile.
SweptTile sweep_tile(const ImageView<const std::uint8_t>& mask);

}  // namespace her2fast
