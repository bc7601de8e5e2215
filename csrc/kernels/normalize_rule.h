// SPDX-License-Identifier: Apache-2.0
/// What a value of a channel becomes before a model; a table of 256 on either device.
#pragma once

namespace her2fast {

/// Each step by itself, as torch's ToTensor and Normalize: three roundings.
inline float normalized(int value, float mean, float std) {
  const float unit = static_cast<float>(value) / 255.0F;
  const float centered = unit - mean;
  return centered / std;
}

}  // namespace her2fast
