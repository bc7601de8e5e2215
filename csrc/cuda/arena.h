// SPDX-License-Identifier: Apache-2.0
/// Lays arrays out in the caller's scratch, each aligned to 256 bytes. With no memory it
/// only counts, so that a size and a layout cannot differ.
#pragma once

#include <cstddef>
#include <cstdint>

namespace her2fast::cuda {

inline constexpr std::size_t kScratchAlignment = 256;

class Arena {
 public:
  explicit Arena(void* memory = nullptr) : memory_(static_cast<char*>(memory)) {}

  template <typename T>
  T* take(std::int64_t count) {
    char* const at = memory_ == nullptr ? nullptr : memory_ + used_;
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    used_ += (bytes + kScratchAlignment - 1) / kScratchAlignment * kScratchAlignment;
    return reinterpret_cast<T*>(at);
  }
  std::uint64_t used() const { return used_; }

 private:
  char* memory_;
  std::size_t used_ = 0;
};

}  // namespace her2fast::cuda
