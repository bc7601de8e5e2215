// SPDX-License-Identifier: Apache-2.0
/// Decoded source tiles shared by threads: each is decoded once while it stays in the
/// cache.
///
/// Thread-safe. Memory: at most `capacity_bytes` of tiles that nobody holds, plus the
/// held ones (one a thread). Least recently used tiles go first; their buffers are
/// reused, so a full cache does not allocate. It starts small and doubles when a tile is
/// asked for again that a cache of full size would still have: memory that was never used
/// before is slow, most of all where a host has to find it for its guest, and most reads
/// share little. A decode that throws leaves no entry, so the next caller tries again.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "her2fast/geometry.h"
#include "her2fast/image.h"
#include "io/pixel_blocks.h"

namespace her2fast {

struct TileKey {
  std::int32_t level = 0;
  std::int32_t denominator = 1;
  std::int64_t column = 0;
  std::int64_t row = 0;
  bool operator==(const TileKey&) const = default;
};

class TileCache {
 public:
  struct Tile;
  /// Keeps a tile's pixels in place until it goes.
  class Held {
   public:
    Held(TileCache& cache, Tile& tile) : cache_(&cache), tile_(&tile) {}
    Held(Held&& other) noexcept
        : cache_(other.cache_), tile_(std::exchange(other.tile_, nullptr)) {}
    Held& operator=(Held&&) = delete;
    ~Held() {
      if (tile_ != nullptr) cache_->release(*tile_);
    }
    ImageView<const std::uint8_t> rgb() const;  ///< (tile height, tile width, 3)
    TileStatus status() const;

   private:
    TileCache* cache_;
    Tile* tile_;
  };
  /// Fills every pixel of its argument; runs without the cache's lock.
  using Decode = std::function<TileStatus(ImageView<std::uint8_t>)>;

  explicit TileCache(std::size_t capacity_bytes);
  TileCache(const TileCache&) = delete;
  TileCache& operator=(const TileCache&) = delete;

  /// The tile, decoded by this call, by an earlier one, or by another thread that is
  /// waited for.
  Held get(const TileKey& key, std::int32_t width_px, std::int32_t height_px,
           const Decode& decode);

  /// True where `get` would not decode.
  bool has(const TileKey& key) const;
  /// True where `get` would wait for another thread.
  bool busy(const TileKey& key) const;
  std::size_t bytes() const;  ///< of all tiles, held ones included
  /// What tiles that nobody holds may take by now.
  std::size_t limit_bytes() const;

 private:
  struct Hash {
    std::size_t operator()(const TileKey& key) const;
  };
  using Map = std::unordered_map<TileKey, Tile, Hash>;

  void release(Tile& tile);
  void link_newest(Tile& tile);
  void unlink(Tile& tile);
  void trim();  // under the lock
  void grow_for(const TileKey& key);
  void remember(const TileKey& key, std::size_t bytes);
  Tile& insert(const TileKey& key, std::int32_t width_px, std::int32_t height_px);

  mutable std::mutex mutex_;
  std::condition_variable decoded_;
  const std::size_t capacity_bytes_;
  std::size_t limit_bytes_;
  // Tiles that went and that `capacity_bytes` would have kept, the oldest first; a key of
  // the order that the map lacks came back.
  std::unordered_map<TileKey, std::size_t, Hash> gone_;
  std::deque<TileKey> gone_order_;
  std::size_t gone_bytes_ = 0;
  PixelBlocks blocks_;  // outlives the tiles
  std::size_t bytes_ = 0;
  Map tiles_;
  Tile* newest_ = nullptr;  // list of the tiles that nobody holds
  Tile* oldest_ = nullptr;
  std::vector<Map::node_type> spare_;  // evicted entries, kept for their buffers
};

struct TileCache::Tile {
  TileKey key;
  PixelBlocks::Piece pixels;  // the decoder writes every element
  std::int32_t width_px = 0;
  std::int32_t height_px = 0;
  TileStatus status = TileStatus::kOk;
  bool ready = false;
  int holders = 0;
  Tile* newer = nullptr;
  Tile* older = nullptr;
};

inline ImageView<const std::uint8_t> TileCache::Held::rgb() const {
  return {tile_->pixels.data(), tile_->height_px, tile_->width_px, 3};
}
inline TileStatus TileCache::Held::status() const { return tile_->status; }

}  // namespace her2fast
