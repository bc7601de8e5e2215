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
#include <new>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include "core/cuda_library.h"
#include "her2fast/error.h"
#include "io/container/jpeg_tiles.h"
#include "io/container/tiff_slide.h"
#include "session/device_place.h"

namespace her2fast {
namespace {

// Two decoders overlap: one's bytes are read while the other's pixels are on their way.
constexpr std::size_t kLanes = 2;
// The largest tile that a native slide may have.
constexpr std::size_t kLaneBytes = 3 * io::kMaxTilePx;
// Tiles that were named and decoded, and that nobody has read yet.
constexpr std::size_t kUnaskedBytes = std::size_t{64} << 20, kMostUnasked = 1024;
constexpr std::size_t kMostNamed = 1024;

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
using Tiles = std::vector<TilePtr>;

/// What goes wrong in the middle is a fault of the GPU, whatever it is called: that
/// there is one, and an nvJPEG, was seen before.
void check_at_work(std::int32_t status, const Her2CudaError& error, const char* what) {
  try {
    check_cuda(status, error, what);
  } catch (const DeviceError& failure) {
    throw Error(Code::kGpuLost, failure.what());
  } catch (const std::invalid_argument& failure) {
    throw Error(Code::kGpuLost, failure.what());
  }
}

/// One batch's decoder, stream and memory.
class Lane {
 public:
  Lane(const Her2CudaTable& table, const NvjpegOptions& options)
      : table_(table), device_(options.device) {
    try {
      call_cuda("jpeg_decoder", table.jpeg_decoder_create, options.device,
                options.library.c_str(), options.backend, &decoder_);
      call_cuda("jpeg_decoder", table.jpeg_decoder_describe, decoder_, &told_);
      call_cuda("create_stream", table.create_stream, options.device, &stream_);
      call_cuda("allocate", table.allocate, options.device, std::uint64_t{kLaneBytes},
                &memory_);
      host_.emplace(table, kLaneBytes);
    } catch (...) {
      free();
      throw;
    }
  }
  ~Lane() { free(); }
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  const Her2JpegDecoder& told() const { return told_; }

  /// False where nvJPEG does not take one of them. @throws Error
  bool decode(const Her2JpegBatch& batch) const {
    Her2CudaError error{};
    const std::int32_t status = table_.jpeg_decode(
        decoder_, &batch, static_cast<std::uint8_t*>(memory_), stream_, &error);
    // Bytes are refused by item, or by nvJPEG of a batch; any other bad argument is ours.
    const std::string_view words(error.text);
    if (status == HER2_CUDA_BAD_ARGUMENT &&
        (words.starts_with("item ") || words.starts_with("nvJPEG: "))) {
      return false;
    }
    check_at_work(status, error, "jpeg_decode");
    return true;
  }
  /// The pixels of the last batch. @throws Error
  const std::uint8_t* pixels(std::size_t bytes) const {
    Her2CudaError error{};
    check_at_work(table_.copy(host_->data(), memory_, std::uint64_t{bytes},
                              HER2_CUDA_TO_HOST, stream_, &error),
                  error, "copy");
    check_at_work(table_.synchronize(device_, stream_, &error), error, "synchronize");
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

struct NvjpegDecoders::Impl {
  Her2JpegDecoder told{};
  std::mutex mutex;  // guards `idle`, and the tiles of all slides
  std::condition_variable changed;
  std::vector<std::unique_ptr<Lane>> idle;

  explicit Impl(NvjpegOptions options) {
    const Her2CudaTable& table = cuda_table();  // another may be opened later
    idle.reserve(kLanes);                       // so that giving back needs no memory
    for (std::size_t i = 0; i < kLanes; ++i) {
      idle.push_back(std::make_unique<Lane>(table, options));
      told = idle.back()->told();
      options.backend = told.backend;  // one kind for both
    }
  }
};

NvjpegDecoders::NvjpegDecoders(const NvjpegOptions& options)
    : impl_(std::make_unique<Impl>(options)) {}

NvjpegDecoders::~NvjpegDecoders() = default;

const Her2JpegDecoder& NvjpegDecoders::told() const { return impl_->told; }

struct NvjpegSlide::Impl {
  std::shared_ptr<const Slide> slide;
  std::shared_ptr<NvjpegDecoders> owner;
  NvjpegDecoders::Impl& decoders;
  const io::HasJpegTiles* files = nullptr;                 // the same slide
  std::vector<std::optional<io::JpegTileFormat>> formats;  // of levels decoded there

  // Under the decoders' lock.
  std::map<Key, TilePtr> tiles;  // wanted, under way, and done and not taken
  std::deque<TilePtr> named;     // wanted, and that nobody had asked for when they came
  std::deque<TilePtr> unasked;   // done before anybody asked
  std::size_t unasked_bytes = 0;
  Counts counts;

  Impl(std::shared_ptr<const Slide> slide_, std::shared_ptr<NvjpegDecoders> owner_);
  const Level& level(std::int64_t index) const {
    return slide->info().levels.at(static_cast<std::size_t>(index));
  }
  bool decodes(int index, std::int64_t column, std::int64_t row) const {
    const Level& info = level(index);
    return formats[static_cast<std::size_t>(index)].has_value() && column >= 0 &&
           row >= 0 && column * info.tile_width_px < info.width_px &&
           row * info.tile_height_px < info.height_px;
  }
  TilePtr tile_of(const Key& key, bool asked);
  Tiles next_batch(const TilePtr& first);
  void decode(const Lane& lane, const Tiles& batch);
  void decode_or_throw(const Lane& lane, const Tiles& batch);
  bool on_gpu(const Lane& lane, const Tiles& some,
              const std::vector<std::vector<std::byte>>& bytes, std::size_t first);
  void run(std::unique_lock<std::mutex>& lock, const TilePtr& first);
  void settle(const Tiles& batch) noexcept;
  TilePtr get(const Key& key);
};

NvjpegSlide::Impl::Impl(std::shared_ptr<const Slide> slide_,
                        std::shared_ptr<NvjpegDecoders> owner_)
    : slide(std::move(slide_)), owner(std::move(owner_)), decoders(*owner->impl_) {
  files = dynamic_cast<const io::HasJpegTiles*>(slide.get());
  const std::vector<Level>& levels = slide->info().levels;
  formats.resize(levels.size());
  for (std::size_t i = 0; files != nullptr && i < levels.size(); ++i) {
    std::optional<io::JpegTileFormat> format = files->jpeg_format(static_cast<int>(i));
    // nvJPEG would take RGB for YCbCr.
    if (format && !format->rgb && tile_bytes(levels[i]) <= kLaneBytes) {
      formats[i] = std::move(format);
    }
  }
}

/// With the lock held.
TilePtr NvjpegSlide::Impl::tile_of(const Key& key, bool asked) {
  const auto found = tiles.find(key);
  TilePtr tile = found != tiles.end() ? found->second : std::make_shared<Tile>();
  if (found == tiles.end()) {
    tile->key = key;
    if (!asked) named.push_back(tile);
    tiles.emplace(key, tile);
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

/// With the lock held: `first`, what others wait for and what was named, of its level.
Tiles NvjpegSlide::Impl::next_batch(const TilePtr& first) {
  const std::size_t most = std::clamp<std::size_t>(
      kLaneBytes / tile_bytes(level(first->key[0])), 1, kMostItems);
  Tiles batch;
  batch.reserve(most);
  const auto take = [&](const TilePtr& tile) {
    if (batch.size() == most || tile->key[0] != first->key[0] ||
        tile->state != State::kWanted) {
      return;
    }
    tile->state = State::kDecoding;
    batch.push_back(tile);
  };
  take(first);
  for (const auto& [key, tile] : tiles) {
    if (tile->asked) take(tile);
  }
  for (const TilePtr& tile : named) take(tile);
  std::erase_if(named, [](const TilePtr& tile) { return tile->state != State::kWanted; });
  return batch;
}

/// Those of `some`, whose bytes begin with number `first`. False where nvJPEG does not
/// take one of them.
bool NvjpegSlide::Impl::on_gpu(const Lane& lane, const Tiles& some,
                               const std::vector<std::vector<std::byte>>& bytes,
                               std::size_t first) {
  const Level& info = level(some.front()->key[0]);
  std::vector<const std::uint8_t*> data;
  std::vector<std::uint64_t> sizes;
  for (std::size_t i = 0; i < some.size(); ++i) {
    data.push_back(reinterpret_cast<const std::uint8_t*>(bytes[first + i].data()));
    sizes.push_back(bytes[first + i].size());
  }
  const std::vector<std::byte>& tables =
      formats[static_cast<std::size_t>(some.front()->key[0])]->tables;
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

void NvjpegSlide::Impl::decode_or_throw(const Lane& lane, const Tiles& batch) {
  Tiles there;  // those with bytes; the CPU says what is missing
  std::vector<std::vector<std::byte>> bytes;
  for (const TilePtr& tile : batch) {
    std::vector<std::byte> stream =
        files->jpeg_bytes(static_cast<int>(tile->key[0]), tile->key[1], tile->key[2]);
    tile->on_cpu = stream.empty();
    if (stream.empty()) continue;
    there.push_back(tile);
    bytes.push_back(std::move(stream));
  }
  if (there.empty()) return;
  std::int64_t calls = 1, refused = 0;
  if (!on_gpu(lane, there, bytes, 0)) {
    // A batch has one verdict. Each by itself, so that it does not depend on the others.
    for (std::size_t i = 0; i < there.size(); ++i, ++calls) {
      there[i]->on_cpu = !on_gpu(lane, {there[i]}, bytes, i);
      refused += there[i]->on_cpu;
    }
  }
  const std::lock_guard lock(decoders.mutex);
  counts.batches += calls;
  counts.tiles += static_cast<std::int64_t>(there.size()) - refused;
  counts.on_cpu += refused;
}

/// Without the lock; the tiles are this thread's until they are done.
void NvjpegSlide::Impl::decode(const Lane& lane, const Tiles& batch) {
  try {
    decode_or_throw(lane, batch);
  } catch (...) {
    for (const TilePtr& tile : batch) tile->failure = std::current_exception();
  }
}

/// With the lock held: makes a batch known, and keeps what is early within its limits.
void NvjpegSlide::Impl::settle(const Tiles& batch) noexcept {
  for (const TilePtr& tile : batch) {
    tile->state = State::kDone;
    if (tile->asked) continue;
    bool kept = !tile->failure;  // that is told to who asks, by then
    try {
      if (kept) unasked.push_back(tile);
    } catch (const std::bad_alloc&) {
      kept = false;
    }
    if (kept) {
      unasked_bytes += tile->rgb.size();
    } else {
      tiles.erase(tile->key);
    }
  }
  while (unasked_bytes > kUnaskedBytes || unasked.size() > kMostUnasked) {
    unasked_bytes -= unasked.front()->rgb.size();
    tiles.erase(unasked.front()->key);
    unasked.pop_front();
  }
}

/// With the lock held, and an idle lane.
void NvjpegSlide::Impl::run(std::unique_lock<std::mutex>& lock, const TilePtr& first) {
  const Tiles batch = next_batch(first);
  std::unique_ptr<Lane> lane = std::move(decoders.idle.back());
  decoders.idle.pop_back();
  lock.unlock();
  decode(*lane, batch);
  lock.lock();
  decoders.idle.push_back(std::move(lane));
  settle(batch);
  decoders.changed.notify_all();
}

/// A tile that is done.
TilePtr NvjpegSlide::Impl::get(const Key& key) {
  std::unique_lock lock(decoders.mutex);
  const TilePtr tile = tile_of(key, true);
  while (tile->state != State::kDone) {
    if (tile->state == State::kWanted && !decoders.idle.empty()) {
      run(lock, tile);
    } else {
      decoders.changed.wait(lock);
    }
  }
  const auto found = tiles.find(key);
  if (found != tiles.end() && found->second == tile) tiles.erase(found);
  return tile;
}

NvjpegSlide::NvjpegSlide(std::shared_ptr<const Slide> slide,
                         std::shared_ptr<NvjpegDecoders> decoders) {
  if (slide == nullptr) throw std::invalid_argument("need a slide, got none");
  if (decoders == nullptr) throw std::invalid_argument("need decoders, got none");
  impl_ = std::make_unique<Impl>(std::move(slide), std::move(decoders));
}

NvjpegSlide::~NvjpegSlide() = default;

const SlideInfo& NvjpegSlide::info() const { return impl_->slide->info(); }

std::string NvjpegSlide::fingerprint() const { return impl_->slide->fingerprint(); }

NvjpegSlide::Counts NvjpegSlide::counts() const {
  const std::lock_guard lock(impl_->decoders.mutex);
  return impl_->counts;
}

bool NvjpegSlide::can_scale(int level, int denominator) const {
  if (denominator != 1 && impl_->decodes(level, 0, 0)) return false;
  return impl_->slide->can_scale(level, denominator);
}

void NvjpegSlide::expect_tile(int level, std::int64_t column, std::int64_t row) const {
  impl_->slide->expect_tile(level, column, row);
}

void NvjpegSlide::will_read(int level, std::int64_t column, std::int64_t row) const {
  Impl& slide = *impl_;
  if (!slide.decodes(level, column, row)) return;
  try {
    const std::lock_guard lock(slide.decoders.mutex);
    if (slide.named.size() < kMostNamed) slide.tile_of({level, column, row}, false);
  } catch (const std::bad_alloc&) {
    return;  // then it is decoded when it is read
  }
}

TileStatus NvjpegSlide::read_tile(int level, std::int64_t column, std::int64_t row,
                                  int denominator, ImageView<std::uint8_t> out,
                                  DecodeScratch& scratch) const {
  Impl& slide = *impl_;
  const Level& info = slide.level(level);
  const bool whole = denominator == 1 && out.channels == 3 &&
                     out.width == info.tile_width_px && out.height == info.tile_height_px;
  if (whole && slide.decodes(level, column, row)) {
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
