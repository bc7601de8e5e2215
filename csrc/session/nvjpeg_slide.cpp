// SPDX-License-Identifier: Apache-2.0
#include "session/nvjpeg_slide.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "core/cuda_library.h"
#include "io/container/jpeg_tiles.h"
#include "session/device_place.h"

namespace her2fast {
namespace {

// Two decoders overlap: one's bytes are read while the other's pixels are on their way.
constexpr std::size_t kLanes = 2;
// Above 50 items nvJPEG decodes Huffman codes on the GPU.
constexpr std::size_t kMostItems = 128;
constexpr std::size_t kBatchBytes = std::size_t{32} << 20;
// Decoded tiles that nobody has asked for yet.
constexpr std::size_t kUnaskedBytes = std::size_t{64} << 20;
constexpr std::size_t kMostExpected = 1024;

using Key = std::array<std::int64_t, 3>;  // level, column, row

enum class State { kWanted, kDecoding, kDone };

struct Tile {
  Key key{};
  State state = State::kWanted;
  bool asked = false;   // somebody waits for it
  bool on_cpu = false;  // done, and left to the CPU
  std::vector<std::uint8_t> rgb;
  std::exception_ptr failure;
};
using TilePtr = std::shared_ptr<Tile>;

/// One batch's decoder, stream and memory.
class Lane {
 public:
  Lane(const Her2CudaTable& table, const NvjpegOptions& options, std::size_t bytes)
      : table_(table), device_(options.device) {
    try {
      call_cuda("jpeg_decoder", table.jpeg_decoder_create, options.device,
                options.library.c_str(), options.backend, &decoder_);
      call_cuda("jpeg_decoder", table.jpeg_decoder_describe, decoder_, &told_);
      call_cuda("create_stream", table.create_stream, options.device, &stream_);
      call_cuda("allocate", table.allocate, options.device, std::uint64_t{bytes},
                &memory_);
      host_.emplace(table, bytes);
    } catch (...) {
      free();
      throw;
    }
  }
  ~Lane() { free(); }
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  const Her2JpegDecoder& told() const { return told_; }

  /// False where nvJPEG does not take one of them. @throws Error, DeviceError
  bool decode(const Her2JpegBatch& batch) const {
    Her2CudaError error{};
    const std::int32_t status = table_.jpeg_decode(
        decoder_, &batch, static_cast<std::uint8_t*>(memory_), stream_, &error);
    if (status == HER2_CUDA_BAD_ARGUMENT) return false;
    check_cuda(status, error, "jpeg_decode");
    return true;
  }
  /// The pixels of the last batch. @throws Error, DeviceError
  const std::uint8_t* pixels(std::size_t bytes) const {
    call_cuda("copy", table_.copy, static_cast<void*>(host_->data()),
              static_cast<const void*>(memory_), std::uint64_t{bytes},
              std::int32_t{HER2_CUDA_TO_HOST}, stream_);
    call_cuda("synchronize", table_.synchronize, device_, stream_);
    return host_->data();
  }

 private:
  /// On a GPU that is lost these say so again: there is nothing left to do.
  void free() noexcept {
    if (stream_ != nullptr) {
      static_cast<void>(table_.synchronize(device_, stream_, nullptr));
    }
    if (decoder_ != nullptr) {
      static_cast<void>(table_.jpeg_decoder_destroy(decoder_, nullptr));
    }
    host_.reset();
    if (memory_ != nullptr) static_cast<void>(table_.release(memory_, nullptr));
    if (stream_ != nullptr) static_cast<void>(table_.destroy_stream(stream_, nullptr));
  }

  const Her2CudaTable& table_;
  std::int32_t device_;
  Her2JpegDecoder told_{};
  void* decoder_ = nullptr;
  void* stream_ = nullptr;
  void* memory_ = nullptr;
  std::optional<HostBlock> host_;
};

std::size_t tile_bytes(const Level& level) {
  return std::size_t{3} * static_cast<std::size_t>(level.tile_width_px) *
         static_cast<std::size_t>(level.tile_height_px);
}

}  // namespace

struct NvjpegSlide::Impl {
  using Batch = std::vector<TilePtr>;

  std::shared_ptr<const Slide> slide;
  const io::HasJpegTiles* files = nullptr;  // the same slide
  NvjpegOptions options;
  const Her2CudaTable& table = cuda_table();               // another may be opened later
  std::vector<std::optional<io::JpegTileFormat>> formats;  // of levels decoded there
  std::size_t lane_bytes = kBatchBytes;
  Her2JpegDecoder told{};

  mutable std::mutex mutex;  // guards all below
  std::condition_variable changed;
  std::map<Key, TilePtr> tiles;  // wanted, under way, and done and not taken
  std::deque<TilePtr> expected;  // those that nobody asked for when they came
  std::deque<TilePtr> unasked;   // done before anybody asked
  std::size_t unasked_bytes = 0;
  std::vector<std::unique_ptr<Lane>> idle;
  std::size_t lanes = 0;
  Counts counts;

  Impl(std::shared_ptr<const Slide> slide_, const NvjpegOptions& options_);
  bool decodes(int level) const {
    return formats[static_cast<std::size_t>(level)].has_value();
  }
  bool has(int level, std::int64_t column, std::int64_t row) const;
  std::size_t batch_limit(int level) const {
    const auto& info = slide->info().levels[static_cast<std::size_t>(level)];
    return std::clamp<std::size_t>(lane_bytes / tile_bytes(info), 1, kMostItems);
  }
  TilePtr tile_of(const Key& key, bool asked);
  Batch next_batch(const TilePtr& first);
  void decode(Lane& lane, const Batch& batch);
  void decode_or_throw(Lane& lane, const Batch& batch);
  bool on_gpu(Lane& lane, const Batch& some,
              const std::vector<std::vector<std::byte>>& bytes, std::size_t first);
  void run(std::unique_lock<std::mutex>& lock, const TilePtr& first);
  void settle(const Batch& batch);
  TilePtr get(const Key& key);
};

NvjpegSlide::Impl::Impl(std::shared_ptr<const Slide> slide_,
                        const NvjpegOptions& options_)
    : slide(std::move(slide_)), options(options_) {
  if (slide == nullptr) throw std::invalid_argument("need a slide, got none");
  files = dynamic_cast<const io::HasJpegTiles*>(slide.get());
  const std::vector<Level>& levels = slide->info().levels;
  formats.resize(levels.size());
  for (std::size_t i = 0; files != nullptr && i < levels.size(); ++i) {
    std::optional<io::JpegTileFormat> format = files->jpeg_format(static_cast<int>(i));
    if (!format || format->rgb) continue;  // nvJPEG would take RGB for YCbCr
    formats[i] = std::move(format);
    lane_bytes = std::max(lane_bytes, tile_bytes(levels[i]));
  }
  // The first one now: whether there is an nvJPEG is known before any work.
  idle.push_back(std::make_unique<Lane>(table, options, lane_bytes));
  lanes = 1;
  told = idle.back()->told();
  options.backend = told.backend;  // one kind for good
}

bool NvjpegSlide::Impl::has(int level, std::int64_t column, std::int64_t row) const {
  const Level& info = slide->info().levels[static_cast<std::size_t>(level)];
  return column >= 0 && row >= 0 && column * info.tile_width_px < info.width_px &&
         row * info.tile_height_px < info.height_px;
}

/// With the lock held.
TilePtr NvjpegSlide::Impl::tile_of(const Key& key, bool asked) {
  TilePtr& tile = tiles[key];
  if (!tile) {
    tile = std::make_shared<Tile>();
    tile->key = key;
    if (!asked) expected.push_back(tile);
  }
  if (asked && !tile->asked) {
    tile->asked = true;
    if (tile->state == State::kDone) {
      std::erase(unasked, tile);
      unasked_bytes -= tile->rgb.size();
    }
  }
  return tile;
}

/// With the lock held: `first`, what others wait for and what is expected, of its level.
NvjpegSlide::Impl::Batch NvjpegSlide::Impl::next_batch(const TilePtr& first) {
  const std::size_t most = batch_limit(static_cast<int>(first->key[0]));
  Batch batch{first};
  const auto take = [&](const TilePtr& tile) {
    if (batch.size() == most || tile == first || tile->key[0] != first->key[0] ||
        tile->state != State::kWanted) {
      return;
    }
    batch.push_back(tile);
  };
  for (const auto& [key, tile] : tiles) {
    if (tile->asked) take(tile);
  }
  for (const TilePtr& tile : expected) take(tile);
  for (const TilePtr& tile : batch) tile->state = State::kDecoding;
  std::erase_if(expected,
                [](const TilePtr& tile) { return tile->state != State::kWanted; });
  return batch;
}

/// Tiles [first, first + some.size()) of `bytes`, all with bytes. False where nvJPEG does
/// not take one of them.
bool NvjpegSlide::Impl::on_gpu(Lane& lane, const Batch& some,
                               const std::vector<std::vector<std::byte>>& bytes,
                               std::size_t first) {
  const auto level = static_cast<std::size_t>(some.front()->key[0]);
  const Level& info = slide->info().levels[level];
  std::vector<const std::uint8_t*> data;
  std::vector<std::uint64_t> sizes;
  for (std::size_t i = 0; i < some.size(); ++i) {
    data.push_back(reinterpret_cast<const std::uint8_t*>(bytes[first + i].data()));
    sizes.push_back(bytes[first + i].size());
  }
  const std::vector<std::byte>& tables = formats[level]->tables;
  Her2JpegBatch batch{};
  batch.streams = data.data();
  batch.sizes = sizes.data();
  batch.tables = reinterpret_cast<const std::uint8_t*>(tables.data());
  batch.tables_size = tables.size();
  batch.n = static_cast<std::int64_t>(some.size());
  batch.height = info.tile_height_px;
  batch.width = info.tile_width_px;
  batch.color = HER2_CUDA_JPEG_YCBCR;
  if (!lane.decode(batch)) return false;
  const std::size_t each = tile_bytes(info);
  const std::uint8_t* pixels = lane.pixels(each * some.size());
  for (std::size_t i = 0; i < some.size(); ++i) {
    some[i]->rgb.assign(pixels + i * each, pixels + (i + 1) * each);
  }
  return true;
}

void NvjpegSlide::Impl::decode_or_throw(Lane& lane, const Batch& batch) {
  Batch there;  // those with bytes; the CPU says what is missing
  std::vector<std::vector<std::byte>> bytes;
  for (const TilePtr& tile : batch) {
    std::vector<std::byte> stream =
        files->jpeg_bytes(static_cast<int>(tile->key[0]), tile->key[1], tile->key[2]);
    tile->on_cpu = stream.empty();
    if (stream.empty()) continue;
    there.push_back(tile);
    bytes.push_back(std::move(stream));
  }
  std::int64_t calls = 1, refused = 0;
  if (there.empty()) return;
  if (!on_gpu(lane, there, bytes, 0)) {
    // A batch has one verdict. Each by itself, so that it does not depend on the others.
    for (std::size_t i = 0; i < there.size(); ++i, ++calls) {
      there[i]->on_cpu = !on_gpu(lane, {there[i]}, bytes, i);
      refused += there[i]->on_cpu;
    }
  }
  const std::lock_guard lock(mutex);
  counts.batches += calls;
  counts.tiles += static_cast<std::int64_t>(there.size()) - refused;
}

/// Without the lock; the tiles are this thread's until they are done.
void NvjpegSlide::Impl::decode(Lane& lane, const Batch& batch) {
  try {
    decode_or_throw(lane, batch);
  } catch (...) {
    for (const TilePtr& tile : batch) tile->failure = std::current_exception();
  }
}

/// With the lock held: makes a batch known, and keeps what is early within its limit.
void NvjpegSlide::Impl::settle(const Batch& batch) {
  for (const TilePtr& tile : batch) {
    tile->state = State::kDone;
    if (tile->asked) continue;
    if (tile->failure) {
      tiles.erase(tile->key);  // told to who asks, by then
      continue;
    }
    unasked.push_back(tile);
    unasked_bytes += tile->rgb.size();
  }
  while (unasked_bytes > kUnaskedBytes) {
    unasked_bytes -= unasked.front()->rgb.size();
    tiles.erase(unasked.front()->key);
    unasked.pop_front();
  }
}

/// With the lock held, and a lane to be had.
void NvjpegSlide::Impl::run(std::unique_lock<std::mutex>& lock, const TilePtr& first) {
  std::unique_ptr<Lane> lane;
  const bool fresh = idle.empty();
  if (!fresh) {
    lane = std::move(idle.back());
    idle.pop_back();
  } else {
    ++lanes;
  }
  const Batch batch = next_batch(first);
  lock.unlock();
  try {
    if (fresh) lane = std::make_unique<Lane>(table, options, lane_bytes);
    decode(*lane, batch);
  } catch (...) {
    for (const TilePtr& tile : batch) tile->failure = std::current_exception();
  }
  lock.lock();
  if (lane) {
    idle.push_back(std::move(lane));
  } else {
    --lanes;
  }
  settle(batch);
  changed.notify_all();
}

/// A tile that is done, and that is nobody else's from then on.
TilePtr NvjpegSlide::Impl::get(const Key& key) {
  std::unique_lock lock(mutex);
  const TilePtr tile = tile_of(key, true);
  while (tile->state != State::kDone) {
    if (tile->state == State::kWanted && (!idle.empty() || lanes < kLanes)) {
      run(lock, tile);
    } else {
      changed.wait(lock);
    }
  }
  const auto found = tiles.find(key);
  if (found != tiles.end() && found->second == tile) tiles.erase(found);
  counts.on_cpu += tile->on_cpu;
  return tile;
}

NvjpegSlide::NvjpegSlide(std::shared_ptr<const Slide> slide, const NvjpegOptions& options)
    : impl_(std::make_unique<Impl>(std::move(slide), options)) {}

NvjpegSlide::~NvjpegSlide() = default;

const SlideInfo& NvjpegSlide::info() const { return impl_->slide->info(); }

std::string NvjpegSlide::fingerprint() const { return impl_->slide->fingerprint(); }

const Her2JpegDecoder& NvjpegSlide::decoder() const { return impl_->told; }

NvjpegSlide::Counts NvjpegSlide::counts() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->counts;
}

bool NvjpegSlide::can_scale(int level, int denominator) const {
  if (denominator != 1 && impl_->decodes(level)) return false;
  return impl_->slide->can_scale(level, denominator);
}

void NvjpegSlide::expect_tile(int level, std::int64_t column, std::int64_t row) const {
  Impl& slide = *impl_;
  slide.slide->expect_tile(level, column, row);
  if (!slide.decodes(level) || !slide.has(level, column, row)) return;
  try {
    const std::lock_guard lock(slide.mutex);
    if (slide.expected.size() < kMostExpected) {
      slide.tile_of({level, column, row}, false);
    }
  } catch (const std::bad_alloc&) {
    return;  // a hint
  }
}

TileStatus NvjpegSlide::read_tile(int level, std::int64_t column, std::int64_t row,
                                  int denominator, ImageView<std::uint8_t> out,
                                  DecodeScratch& scratch) const {
  Impl& slide = *impl_;
  const Level& info = slide.slide->info().levels.at(static_cast<std::size_t>(level));
  const bool whole = denominator == 1 && out.channels == 3 &&
                     out.width == info.tile_width_px && out.height == info.tile_height_px;
  if (slide.decodes(level) && whole && slide.has(level, column, row)) {
    const TilePtr tile = slide.get({level, column, row});
    if (tile->failure) std::rethrow_exception(tile->failure);
    if (!tile->on_cpu) {
      const auto row_bytes = static_cast<std::size_t>(3 * out.width);
      for (std::int64_t y = 0; y < out.height; ++y) {
        std::memcpy(out.row(y),
                    tile->rgb.data() + static_cast<std::size_t>(y) * row_bytes,
                    row_bytes);
      }
      return TileStatus::kOk;
    }
  }
  return slide.slide->read_tile(level, column, row, denominator, out, scratch);
}

}  // namespace her2fast
