// SPDX-License-Identifier: Apache-2.0
#include "io/pixel_blocks.h"

#include <new>
#include <utility>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace her2fast {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kBlock = 2 * kHugePage;
// Larger pieces would leave much of a block unused.
constexpr std::size_t kMaxPiece = kBlock / 8;
constexpr std::size_t kAlign = 64;  // a cache line

}  // namespace

void HugeFree::operator()(std::uint8_t* bytes) const {
  ::operator delete[](bytes, std::align_val_t{kHugePage});
}

HugeBytes huge_bytes(std::size_t bytes) {
  HugeBytes out(
      static_cast<std::uint8_t*>(::operator new[](bytes, std::align_val_t{kHugePage})));
#ifdef __linux__
  // Where the system has no huge pages, ordinary ones do.
  static_cast<void>(madvise(out.get(), bytes, MADV_HUGEPAGE));
#endif
  return out;
}

PixelBlocks::Piece::~Piece() {
  if (owner_ == nullptr) {
    delete[] data_;
  } else {
    owner_->idle_.push_back(data_);  // has room: see take
  }
}

PixelBlocks::Piece PixelBlocks::take(std::size_t bytes) {
  if (piece_bytes_ == 0) piece_bytes_ = bytes;
  Piece piece;
  if (bytes != piece_bytes_ || bytes > kMaxPiece) {
    piece.data_ = new std::uint8_t[bytes];
    piece.bytes_ = bytes;
    return piece;
  }
  if (idle_.empty()) {
    const std::size_t step = (bytes + kAlign - 1) / kAlign * kAlign;
    const std::size_t count = kBlock / step;
    idle_.reserve((blocks_.size() + 1) * count);
    std::uint8_t* block = blocks_.emplace_back(huge_bytes(kBlock)).get();
    for (std::size_t i = count; i-- > 0;) idle_.push_back(block + i * step);
  }
  piece.data_ = idle_.back();
  idle_.pop_back();
  piece.bytes_ = bytes;
  piece.owner_ = this;
  return piece;
}

}  // namespace her2fast
