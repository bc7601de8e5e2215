// SPDX-License-Identifier: Apache-2.0
#include "her2fast/tumor_count.h"

#include <string>

#include "kernels/check.h"

namespace her2fast {
namespace {

/// Bytes of `p[0, n)` that are not 0, for n up to 4096 (PatchGrid sees to it): at most
/// 128 rounds of 32 lanes, so a byte a lane holds the sum, and the inner loop is one
/// compare and one subtraction a vector, whatever the width the compiler picks.
std::uint32_t count_nonzero(const std::uint8_t* p, std::int64_t n) {
  constexpr int kLanes = 32;
  std::uint8_t lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      lanes[j] = static_cast<std::uint8_t>(lanes[j] + (p[i + j] != 0));
    }
  }
  std::uint32_t total = 0;
  for (int j = 0; j < kLanes; ++j) total += lanes[j];
  for (; i < n; ++i) total += p[i] != 0;
  return total;
}

}  // namespace

void tumor_count(ImageView<const std::uint8_t> mask, PatchGrid grid,
                 ImageView<std::uint32_t> out, Device device) {
  check_device(device, "tumor_count");
  check_channels(mask, 1, "a mask");
  check_channels(out, 1, "an output");
  check_grid(grid, mask.height, mask.width, out);
  for (std::int64_t r = 0; r < out.height; ++r) {
    std::uint32_t* counts = out.row(r);
    for (std::int64_t c = 0; c < out.width; ++c) counts[c] = 0;
    for (std::int32_t y = 0; y < grid.patch_px; ++y) {
      const std::uint8_t* row = mask.row(r * grid.stride_px + y);
      for (std::int64_t c = 0; c < out.width; ++c) {
        counts[c] += count_nonzero(row + c * grid.stride_px, grid.patch_px);
      }
    }
  }
}

}  // namespace her2fast
