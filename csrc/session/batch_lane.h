// SPDX-License-Identifier: Apache-2.0
/// A session's batches of one model: their memory, and where each one is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "her2fast/session.h"

namespace her2fast {

/// Pixels, then the tissue's bits, so that both can travel at once.
struct BatchBuffer {
  BatchBuffer(std::shared_ptr<BatchMemory> from, std::size_t rgb_size,
              std::size_t tissue_size)
      : memory(std::move(from)),
        rgb_bytes(rgb_size),
        tissue_at((rgb_size + 255) / 256 * 256),
        bytes(tissue_at + tissue_size) {
    if (memory) {
      rgb = memory->allocate(bytes);
    } else {
      // As the heap aligns it: enough for words.
      heap = std::make_unique_for_overwrite<std::uint8_t[]>(bytes);
      rgb = heap.get();
    }
  }
  ~BatchBuffer() {
    if (memory) memory->release(rgb, bytes);
  }
  BatchBuffer(const BatchBuffer&) = delete;
  BatchBuffer& operator=(const BatchBuffer&) = delete;

  std::uint64_t* tissue() const {
    return reinterpret_cast<std::uint64_t*>(rgb + tissue_at);
  }

  std::shared_ptr<BatchMemory> memory;
  std::unique_ptr<std::uint8_t[]> heap;
  std::size_t rgb_bytes, tissue_at, bytes;
  std::uint8_t* rgb = nullptr;
  std::vector<std::int64_t> items;  // reserved so far
  std::int32_t filled = 0;          // of them, copied
};

/// One model and its batches on their way: forming -> ready -> out -> pool.
struct BatchLane {
  ModelSlot slot;
  std::shared_ptr<BatchBuffer> forming;
  std::deque<std::shared_ptr<BatchBuffer>> ready;
  std::map<std::int64_t, std::shared_ptr<BatchBuffer>> out;
  std::vector<std::shared_ptr<BatchBuffer>> pool;
  std::int64_t filling = 0;  // buffers full but not yet copied into
  std::int64_t putting = 0;
  std::size_t item_bytes() const {
    return static_cast<std::size_t>(slot.height_px) *
           static_cast<std::size_t>(slot.width_px) * 3;
  }
  std::size_t words() const { return slot.tumor ? slot.tumor->words() : 0; }
  std::size_t batch_bytes() const {
    return item_bytes() * static_cast<std::size_t>(slot.batch);
  }
  std::size_t tissue_bytes() const {
    return words() * static_cast<std::size_t>(slot.batch) * sizeof(std::uint64_t);
  }
  /// A buffer begins to form: one of the pool, or a new one. @returns bytes of a new one
  std::size_t begin(const std::shared_ptr<BatchMemory>& memory);
  /// The buffer that forms, padded with zeros; it forms no more.
  std::shared_ptr<BatchBuffer> take_padded();
  /// An item's pixels, and words() of tissue where that is not null. Touches nothing
  /// else: items of a buffer may be copied side by side.
  void copy_item(BatchBuffer& buffer, std::size_t place,
                 const ImageView<const std::uint8_t>& rgb,
                 const std::uint64_t* tissue) const;
  bool idle() const {
    return !forming && ready.empty() && out.empty() && filling == 0 && putting == 0;
  }
};

/// @throws std::invalid_argument
void check_slot(const ModelSlot& slot);
/// @throws Error kNonFinite
void check_finite(const ModelSlot& slot, const float* output, std::size_t count);

}  // namespace her2fast
