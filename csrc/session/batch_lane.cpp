// SPDX-License-Identifier: Apache-2.0
#include "session/batch_lane.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "session/not_finite.h"

namespace her2fast {

std::size_t BatchLane::begin(const std::shared_ptr<BatchMemory>& memory) {
  if (!pool.empty()) {
    forming = std::move(pool.back());
    pool.pop_back();
    return 0;
  }
  auto made = std::make_shared<BatchBuffer>(memory, batch_bytes(), tissue_bytes());
  made->items.reserve(static_cast<std::size_t>(slot.batch));
  forming = std::move(made);
  return forming->bytes;
}

std::shared_ptr<BatchBuffer> BatchLane::take_padded() {
  auto buffer = std::move(forming);
  forming = nullptr;
  const std::size_t used = buffer->items.size() * item_bytes();
  std::memset(buffer->rgb + used, 0, buffer->rgb_bytes - used);
  const std::size_t filled = buffer->items.size() * words();
  std::memset(buffer->tissue() + filled, 0,
              tissue_bytes() - filled * sizeof(std::uint64_t));
  return buffer;
}

void BatchLane::copy_item(BatchBuffer& buffer, std::size_t place,
                          const ImageView<const std::uint8_t>& rgb,
                          const std::uint64_t* tissue) const {
  const std::size_t row_bytes = static_cast<std::size_t>(rgb.width) * 3;
  std::uint8_t* out = buffer.rgb + place * item_bytes();
  for (std::int64_t y = 0; y < rgb.height; ++y) {
    std::memcpy(out + static_cast<std::size_t>(y) * row_bytes, rgb.row(y), row_bytes);
  }
  if (tissue != nullptr) {
    std::copy_n(tissue, words(), buffer.tissue() + place * words());
  }
}

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
