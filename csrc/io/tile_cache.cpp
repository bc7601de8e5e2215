// SPDX-License-Identifier: Apache-2.0
#include "io/tile_cache.h"

#include <utility>

namespace her2fast {
namespace {

// Evicted entries kept for reuse; a thread that just lost a race needs one each.
constexpr std::size_t kMaxSpare = 8;

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

TileCache::Tile& TileCache::insert(const TileKey& key, std::int32_t width_px,
                                   std::int32_t height_px) {
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
  while (bytes_ > capacity_bytes_ && oldest_ != nullptr) {
    Tile& tile = *oldest_;
    unlink(tile);
    bytes_ -= tile_bytes(tile.width_px, tile.height_px);
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
