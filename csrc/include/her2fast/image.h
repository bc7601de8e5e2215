// SPDX-License-Identifier: Apache-2.0
/// Views of pixels and the grid of patches. Views do not own; the caller keeps the memory
/// alive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace her2fast {

enum class Device { kCpu, kCuda };

/// (H, W, channels) interleaved, rows `stride` elements apart. Invalid views cannot
/// exist.
template <typename T>
struct ImageView {
  T* data = nullptr;
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t channels = 1;
  std::int64_t stride = 0;  // elements between rows, >= width * channels

  ImageView() = default;
  ImageView(T* data_, std::int64_t height_, std::int64_t width_,
            std::int64_t channels_ = 1, std::int64_t stride_ = 0)
      : data(data_),
        height(height_),
        width(width_),
        channels(channels_),
        stride(stride_ == 0 ? width_ * channels_ : stride_) {
    if (height < 0 || width < 0 || channels < 1 || stride < width * channels) {
      throw std::invalid_argument(
          "need height, width >= 0, channels >= 1 and a stride of at "
          "least a row, got " +
          std::to_string(height) + " x " + std::to_string(width) + " x " +
          std::to_string(channels) + " with stride " + std::to_string(stride));
    }
  }
  T* row(std::int64_t y) const { return data + y * stride; }
  operator ImageView<const T>() const { return {data, height, width, channels, stride}; }
};

/// Patch (r, c) covers rows [r*stride_px, r*stride_px + patch_px), columns alike.
/// Patches that do not fit are left out.
struct PatchGrid {
  std::int32_t patch_px;
  std::int32_t stride_px;

  PatchGrid(std::int32_t patch_px_, std::int32_t stride_px_)
      : patch_px(patch_px_), stride_px(stride_px_) {
    if (patch_px < 1 || patch_px > 4096) {
      throw std::invalid_argument("need 1 <= patch_px <= 4096, got patch_px=" +
                                  std::to_string(patch_px));
    }
    if (stride_px < 1 || stride_px > 4096) {
      throw std::invalid_argument("need 1 <= stride_px <= 4096, got stride_px=" +
                                  std::to_string(stride_px));
    }
  }
  std::int64_t count_along(std::int64_t length_px) const {
    return length_px < patch_px ? 0 : (length_px - patch_px) / stride_px + 1;
  }
};

}  // namespace her2fast
