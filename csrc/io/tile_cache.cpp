// SPDX-License-Identifier: Apache-2.0
#include "io/tile_cache.h"

#include <algorithm>
#include <new>
#include <utility>

namespace her2fast {
namespace {

// Evicted entries kept for reuse; a thread that just lost a race needs one each.
constexpr std::size_t kMaxSpare = 8;
// Two rows of 40 tiles of 256 px: neighbors of a slide of 10,000 px share theirs.
constexpr std::size_t kFirstLimit = std::size_t{16} << 20;

std::size_t tile_bytes(std::int32_t width_px, std::int32_t height_px) {
  return static_cast<std::size_t>(width_px) * static_cast<std::size_t>(height_px) * 3;
}

}  // namespace

std::size_t TileCache::Hash::operator()(const TileKey& key) const {
  // Tiles of one level form a grid: mix so that neighbors do not share a bucket.
  std::uint64_t h = static_cast<std::uint64_t>(key.row) * 0x9E3779B97F4A7C15U;
  h ^= static_cast<std::uint64_t>(key.column) * 0xC2B2AE3D27D4EB4FU;
  h ^= static_cast<std::uint64_t>(key.level) * 0x165667B19E3779F9U;
  h ^= static_cast<std::uint64_t>(key.denominator) << 56;
  return static_cast<std::size_t>(h ^ (h >> 29));
}

TileCache::TileCache(std::size_t capacity_bytes)
    : capacity_bytes_(capacity_bytes),
      limit_bytes_(std::min(capacity_bytes, kFirstLimit)) {
  spare_.reserve(kMaxSpare);  // giving back never fails
}

TileCache::Held TileCache::get(const TileKey& key, std::int32_t width_px,
                               std::int32_t height_px, const Decode& decode) {
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto found = tiles_.find(key);
    if (found == tiles_.end()) break;
    Tile& tile = found->second;
    if (tile.ready) {
      if (tile.holders++ == 0) unlink(tile);
      return Held(*this, tile);
    }
    decoded_.wait(lock);  // another thread decodes it; if it fails, this one tries
  }
  Tile& tile = insert(key, width_px, height_px);
  const std::size_t bytes = tile_bytes(width_px, height_px);
  TileStatus status = TileStatus::kOk;
  try {
    if (tile.pixels.bytes() < bytes) tile.pixels = blocks_.take(bytes);
    lock.unlock();
    status = decode({tile.pixels.data(), height_px, width_px, 3});
  } catch (...) {
    if (!lock.owns_lock()) lock.lock();
    bytes_ -= bytes;
    tiles_.erase(key);
    decoded_.notify_all();
    throw;
  }
  lock.lock();
  tile.status = status;
  tile.ready = true;
  decoded_.notify_all();
  return Held(*this, tile);
}

bool TileCache::has(const TileKey& key) const {
  const std::lock_guard lock(mutex_);
  return tiles_.contains(key);
}

bool TileCache::busy(const TileKey& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = tiles_.find(key);
  return found != tiles_.end() && !found->second.ready;
}

std::size_t TileCache::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

std::size_t TileCache::limit_bytes() const {
  const std::lock_guard lock(mutex_);
  return limit_bytes_;
}

void TileCache::grow_for(const TileKey& key) {
  const auto found = gone_.find(key);
  if (found == gone_.end()) return;
  gone_bytes_ -= found->second;
  gone_.erase(found);
  limit_bytes_ += std::min(limit_bytes_, capacity_bytes_ - limit_bytes_);
  if (limit_bytes_ == capacity_bytes_) {
    gone_ = {};
    gone_order_ = {};
    gone_bytes_ = 0;
  }
}

void TileCache::remember(const TileKey& key, std::size_t bytes) try {
  if (limit_bytes_ == capacity_bytes_) return;
  gone_order_.push_back(key);
  gone_.emplace(key, bytes);
  gone_bytes_ += bytes;
  // What is here now, not what may be: a tile larger than the limit goes at once.
  while (gone_bytes_ + bytes_ > capacity_bytes_) {
    if (const auto oldest = gone_.find(gone_order_.front()); oldest != gone_.end()) {
      gone_bytes_ -= oldest->second;
      gone_.erase(oldest);
    }
    gone_order_.pop_front();
  }
} catch (const std::bad_alloc&) {
  return;  // the cache only grows later; a tile is given back whatever memory there is
}

TileCache::Tile& TileCache::insert(const TileKey& key, std::int32_t width_px,
                                   std::int32_t height_px) {
  grow_for(key);
  bytes_ += tile_bytes(width_px, height_px);
  trim();
  Map::iterator place;
  if (spare_.empty()) {
    place = tiles_.try_emplace(key).first;
  } else {
    Map::node_type node = std::move(spare_.back());
    spare_.pop_back();
    node.key() = key;
    place = tiles_.insert(std::move(node)).position;
  }
  Tile& tile = place->second;
  tile.key = key;
  tile.width_px = width_px;
  tile.height_px = height_px;
  tile.ready = false;
  tile.holders = 1;
  return tile;
}

void TileCache::release(Tile& tile) {
  const std::lock_guard lock(mutex_);
  if (--tile.holders == 0) {
    link_newest(tile);
    trim();
  }
}

void TileCache::trim() {
  while (bytes_ > limit_bytes_ && oldest_ != nullptr) {
    Tile& tile = *oldest_;
    unlink(tile);
    const std::size_t bytes = tile_bytes(tile.width_px, tile.height_px);
    bytes_ -= bytes;
    remember(tile.key, bytes);
    Map::node_type node = tiles_.extract(tile.key);
    if (spare_.size() < kMaxSpare) spare_.push_back(std::move(node));
  }
}

void TileCache::link_newest(Tile& tile) {
  tile.older = newest_;
  tile.newer = nullptr;
  (newest_ == nullptr ? oldest_ : newest_->newer) = &tile;
  newest_ = &tile;
}

void TileCache::unlink(Tile& tile) {
  (tile.newer == nullptr ? newest_ : tile.newer->older) = tile.older;
  (tile.older == nullptr ? oldest_ : tile.older->newer) = tile.newer;
  tile.newer = tile.older = nullptr;
}

}  // namespace her2fast
