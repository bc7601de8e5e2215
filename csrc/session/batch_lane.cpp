// SPDX-License-Identifier: Apache-2.0
#include "session/batch_lane.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "session/not_finite.h"

namespace her2fast {

void check_finite(const ModelSlot& slot, const float* output, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    if (!std::isfinite(output[i])) throw_not_finite(slot.name);
  }
}

void check_slot(const ModelSlot& slot) {
  if (slot.batch < 1 || slot.batch > 4096 || slot.height_px < 1 || slot.width_px < 1 ||
      slot.height_px > 8192 || slot.width_px > 8192 || slot.outputs < 1) {
    throw std::invalid_argument(
        "model " + slot.name +
        ": need 1 to 4096 items of 1 to 8192 px a side and at least one "
        "output, got " +
        std::to_string(slot.batch) + " of " + std::to_string(slot.height_px) + " x " +
        std::to_string(slot.width_px) + " with " + std::to_string(slot.outputs));
  }
  if (!slot.tumor) return;
  check_tumor_rule(*slot.tumor);
  const std::int64_t side = slot.tumor->side_px();
  if (slot.height_px != side || slot.width_px != side ||
      slot.outputs != slot.tumor->channels * side * side) {
    throw std::invalid_argument("model " + slot.name +
                                ": its outputs are not what its tumor rule reads");
  }
}

}  // namespace her2fast
