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

template <typename A, typename B>
void check_same_size(const ImageView<A>& a, const ImageView<B>& b, const char* what) {
  if (a.height != b.height || a.width != b.width) {
    throw std::invalid_argument(std::string("need ") + what + " of " + std::to_string(a.height) +
                                " x " + std::to_string(a.width) + ", got " +
                                std::to_string(b.height) + " x " + std::to_string(b.width));
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

}  // namespace her2fast
