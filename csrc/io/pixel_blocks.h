// SPDX-License-Identifier: Apache-2.0
/// Memory of decoded tiles, cut from blocks of huge pages.
///
/// A tile of 256 px is 48 ordinary pages, and its first use a fault for each: over a
/// region of new tiles that costs a sixth of the reading. The size that is asked for
/// first is cut from blocks, which stay until the end; other sizes are allocated singly.
///
/// Not thread-safe. Pieces end before their `PixelBlocks`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace her2fast {

/// Memory in huge pages where the system has them.
struct HugeFree {
  void operator()(std::uint8_t* bytes) const;
};
using HugeBytes = std::unique_ptr<std::uint8_t[], HugeFree>;
/// `bytes` bytes without a value. @throws std::bad_alloc
HugeBytes huge_bytes(std::size_t bytes);

class PixelBlocks {
 public:
  /// Gives its bytes back where they came from.
  class Piece {
   public:
    Piece() = default;
    Piece(Piece&& other) noexcept { swap(other); }
    Piece& operator=(Piece&& other) noexcept {
      Piece moved(std::move(other));
      swap(moved);
      return *this;
    }
    ~Piece();
    std::uint8_t* data() const { return data_; }
    std::size_t bytes() const { return bytes_; }

   private:
    friend class PixelBlocks;
    void swap(Piece& other) noexcept {
      std::swap(data_, other.data_);
      std::swap(bytes_, other.bytes_);
      std::swap(owner_, other.owner_);
    }
    std::uint8_t* data_ = nullptr;
    std::size_t bytes_ = 0;
    PixelBlocks* owner_ = nullptr;  // null: allocated singly
  };

  PixelBlocks() = default;
  PixelBlocks(const PixelBlocks&) = delete;
  PixelBlocks& operator=(const PixelBlocks&) = delete;

  /// `bytes` bytes without a value, bytes > 0. @throws std::bad_alloc
  Piece take(std::size_t bytes);

 private:
  std::size_t piece_bytes_ = 0;
  std::vector<HugeBytes> blocks_;
  std::vector<std::uint8_t*> idle_;
};

}  // namespace her2fast
