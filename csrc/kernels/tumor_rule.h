// SPDX-License-Identifier: Apache-2.0
/// What both devices ask of a pixel's logits.
#pragma once

#include <cstdint>

#include "kernels/host_device.h"

namespace her2fast {

/// sigmoid(z) >= p and softmax(z)[1] >= p are z >= log(p / (1 - p)): no exponential.
/// @param second  the second channel's logit at the same pixel, or null
HER2FAST_HOST_DEVICE inline bool is_tumor(const float* first, const float* second,
                                          float threshold) {
  const float logit = second == nullptr ? *first : *second - *first;
  return logit >= threshold;
}

/// Neither an infinity nor a NaN: what either leaves of itself is NaN, and that equals
/// nothing. No library call on either side.
HER2FAST_HOST_DEVICE inline bool is_finite_value(float value) {
  return value - value == 0.0F;
}

}  // namespace her2fast
