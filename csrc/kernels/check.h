// SPDX-License-Identifier: Apache-2.0
/// Argument checks that every kernel shares.
#pragma once

#include <stdexcept>
#include <string>

#include "her2fast/error.h"
#include "her2fast/image.h"

namespace her2fast {

/// @throws DeviceError: a device is a promise, never silently the CPU.
void check_device(Device device, const char* operation);
void check_workers(int workers);

template <typename A, typename B>
void check_same_size(const ImageView<A>& a, const ImageView<B>& b, const char* what) {
  if (a.height != b.height || a.width != b.width) {
    throw std::invalid_argument(
        std::string("need ") + what + " of " + std::to_string(a.height) + " x " +
        std::to_string(a.width) + ", got " + std::to_string(b.height) + " x " +
        std::to_string(b.width));
  }
}

template <typename T>
void check_channels(const ImageView<T>& image, int channels, const char* what) {
  if (image.channels != channels) {
    throw std::invalid_argument(std::string("need ") + what + " with " +
                                std::to_string(channels) + " channels, got " +
                                std::to_string(image.channels));
  }
}

template <typename T>
void check_sides(const ImageView<T>& image, std::int64_t most_px, const char* what) {
  if (image.height < 1 || image.width < 1 || image.height > most_px ||
      image.width > most_px) {
    throw std::invalid_argument(std::string("need ") + what + " of 1 to " +
                                std::to_string(most_px) + " pixels a side, got " +
                                std::to_string(image.height) + " x " +
                                std::to_string(image.width));
  }
}

/// `out` has one element for every patch of the grid on a `height` x `width` image.
template <typename T>
void check_grid(PatchGrid grid, std::int64_t height, std::int64_t width,
                const ImageView<T>& out) {
  const std::int64_t rows = grid.count_along(height), columns = grid.count_along(width);
  if (out.height != rows || out.width != columns) {
    throw std::invalid_argument("need an output of " + std::to_string(rows) + " x " +
                                std::to_string(columns) + " patches, got " +
                                std::to_string(out.height) + " x " +
                                std::to_string(out.width));
  }
}

}  // namespace her2fast
