// SPDX-License-Identifier: Apache-2.0
/// What the kernels of nuclei and cells share: their checks and the membrane on the grid.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "her2fast/nuclei.h"
#include "kernels/check.h"

namespace her2fast {

/// A plane of the grid, rows without gaps.
template <typename T>
struct GridPlane {
  std::int64_t height, width;
  std::vector<T> values;

  GridPlane(std::int64_t height_, std::int64_t width_)
      : height(height_),
        width(width_),
        values(static_cast<std::size_t>(height_ * width_)) {}
  T* row(std::int64_t y) { return values.data() + y * width; }
  const T* row(std::int64_t y) const { return values.data() + y * width; }
};

inline void check_step(std::int32_t step) {
  if (step < 1 || step > kMaxCellStep) {
    throw std::invalid_argument("need 1 <= step <= " + std::to_string(kMaxCellStep) +
                                ", got step=" + std::to_string(step));
  }
}

/// `fine` covers the grid of `coarse` with step x step pixels each.
template <typename A, typename B>
void check_covers(const ImageView<A>& coarse, const ImageView<B>& fine, std::int32_t step,
                  const char* what) {
  if (fine.height != coarse.height * step || fine.width != coarse.width * step) {
    throw std::invalid_argument(
        std::string("need ") + what + " of " + std::to_string(coarse.height * step) +
        " x " + std::to_string(coarse.width * step) + ", got " +
        std::to_string(fine.height) + " x " + std::to_string(fine.width));
  }
}

inline void check_halo(std::int64_t height, std::int64_t width, std::int32_t halo_px,
                       std::int32_t least) {
  if (halo_px < least || height <= 2 * halo_px || width <= 2 * halo_px) {
    throw std::invalid_argument(
        "need halo_px >= " + std::to_string(least) +
        " and planes larger than twice that, got halo_px=" + std::to_string(halo_px) +
        " and " + std::to_string(height) + " x " + std::to_string(width));
  }
}

/// A grid pixel is membrane where any of its pixels is: a wall one pixel thin holds.
GridPlane<std::uint8_t> walls_of(ImageView<const std::uint8_t> mask, std::int32_t step);

}  // namespace her2fast
