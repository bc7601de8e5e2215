// SPDX-License-Identifier: Apache-2.0
#include "session/scan_feed.h"

#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <limits>
#include <mutex>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "session/fail_or_cancel.h"

namespace her2fast {
namespace {

// Rectangles of one pixel must not grow the queue beyond what their pixels say.
constexpr std::size_t kMaxQueued = 4096;
// Buffers of earlier copies that are kept.
constexpr std::size_t kMaxPooled = 64;
// How long the thread sleeps before it looks for work again; twice as long each time that
// there is none. At 1 GB/s as much comes in the longest as a quarter of the queue holds.
constexpr std::chrono::milliseconds kShortestNap(1), kLongestNap(16);

std::vector<ReadRequest> all_requests(Session& session) {
  std::vector<ReadRequest> all;
  for (;;) {
    std::vector<ReadRequest> some =
        session.wanted(std::numeric_limits<std::size_t>::max());
    if (some.empty()) return all;
    all.insert(all.end(), some.begin(), some.end());
  }
}

/// First in, first out, in memory that stays: the standard's queue asks for some with
/// every few elements.
template <typename T>
class Ring {
 public:
  bool empty() const { return size_ == 0; }
  std::size_t size() const { return size_; }
  void push_back(T&& value) {
    if (size_ == slots_.size()) grow();
    slots_[(first_ + size_++) % slots_.size()] = std::move(value);
  }
  T pop_front() {
    T value = std::move(slots_[first_]);
    first_ = (first_ + 1) % slots_.size();
    --size_;
    return value;
  }

 private:
  void grow() {
    std::vector<T> more(std::max<std::size_t>(64, 2 * slots_.size()));
    for (std::size_t i = 0; i < size_; ++i) {
      more[i] = std::move(slots_[(first_ + i) % slots_.size()]);
    }
    slots_ = std::move(more);
    first_ = 0;
  }
  std::vector<T> slots_;
  std::size_t first_ = 0, size_ = 0;
};

}  // namespace

ScanFeedLimits ScanFeedLimits::share(std::size_t max_memory_bytes, bool stored) {
  const std::size_t quarter = max_memory_bytes / 4;
  const std::size_t rest = max_memory_bytes - 2 * quarter;
  const std::size_t tiles = stored ? rest / 2 : 0;
  return {quarter, rest - tiles, quarter, tiles};
}

struct ScanFeed::Impl {
  struct Item {
    PixelRect rect;
    PixelRelease release;
    std::vector<std::uint8_t> copy;
    std::size_t bytes = 0;
  };

  Session& session;
  SlideFrame frame;
  ScanFeedLimits limits;
  StripAssembler strips;
  std::optional<StoredTiles> stored;  // what it codes goes to `strips`
  std::atomic<bool> ended = false;    // tells it to code no more
  mutable std::mutex mutex;
  std::condition_variable changed;
  Ring<Item> queue;
  std::vector<std::vector<std::uint8_t>> pool;  // memory of earlier copies
  std::size_t queue_bytes = 0, pool_bytes = 0, peak_held_bytes = 0;
  std::size_t reserved = 0;  // pushes that copy just now
  std::int64_t would_block = 0;
  bool working = false, draining = false, stopped = false;
  std::optional<Error> error;
  std::jthread thread;

  Impl(Session& session_, const SlideFrame& frame_, ScanFeedLimits limits_,
       const std::optional<StoredCoding>& coding)
      : session(session_),
        frame(frame_),
        limits(limits_),
        strips(
            coding ? coding->decoded(frame_) : frame_, all_requests(session_),
            [this](const ReadRequest& request, ImageView<const std::uint8_t> rgb) {
              session.wait_for_batches(limits.batch_bytes);
              session.push(request.id, rgb, TileStatus::kOk);
            },
            limits_.block_bytes) {
    if (coding) {
      stored.emplace(
          frame_, *coding,
          [this](const PixelRect& rect) {
            if (ended) throw Error(Code::kCancelled, "the session was cancelled");
            strips.add(rect);
          },
          limits_.stored_bytes);
    }
    pool.reserve(kMaxPooled);  // so that keeping memory needs none
  }

  void run() noexcept;
  void assemble(const PixelRect& rect) noexcept;
  void fail(Code code, const char* doing, const char* what) noexcept;
  void let_go(Item& item);
  void drop_queue(std::unique_lock<std::mutex>& lock);
  bool filling() const;
  std::vector<std::uint8_t> take_memory(std::size_t bytes);
  void trim_pool(std::unique_lock<std::mutex>& lock);
  void note_held();
};

void ScanFeed::Impl::fail(Code code, const char* doing, const char* what) noexcept {
  fail_or_cancel(session, code, doing, what);
  const std::lock_guard lock(mutex);
  stopped = true;
  try {
    if (!error) error.emplace(code, std::string(doing) + what);
  } catch (const std::bad_alloc&) {
    error.reset();  // pushes then say that the session was cancelled
  }
}

void ScanFeed::Impl::assemble(const PixelRect& rect) noexcept {
  constexpr char kDoing[] = "internal error while assembling: ";
  try {
    if (stored) {
      stored->add(rect);
    } else {
      strips.add(rect);
    }
  } catch (const Error& e) {
    fail(e.code(), "", e.what());
  } catch (const std::exception& e) {
    fail(Code::kCrash, kDoing, e.what());
  } catch (...) {
    fail(Code::kCrash, kDoing, "what was thrown is no exception");
  }
}

/// Without the lock: the release is the host's.
void ScanFeed::Impl::let_go(Item& item) {
  if (item.release.call != nullptr) {
    item.release.call(item.release.context, item.rect.data);
  }
}

/// With the lock held: whether the thread is to be woken, because the queue could be full
/// before it looks.
bool ScanFeed::Impl::filling() const {
  return queue_bytes > limits.queue_bytes / 2 || queue.size() > kMaxQueued / 2;
}

/// Waking, the thread must not take the processor from who pushes.
static void let_others_finish() {
#ifdef __linux__
  const sched_param none{};
  sched_setscheduler(0, SCHED_BATCH,
                     &none);  // of this thread; where refused, all the same
#endif
}

/// Nothing in here allocates but what `assemble` catches.
///
/// The thread looks for work by itself. To wake it is a system call, and in that call the
/// scheduler sees whether the one who pushes has had its time slice, and takes its core
/// when others want it: under load every second push then took tens of milliseconds.
void ScanFeed::Impl::run() noexcept {
  let_others_finish();
  std::unique_lock lock(mutex);
  auto nap = kShortestNap;
  for (;;) {
    if (stopped) return drop_queue(lock);
    if (queue.empty()) {
      changed.wait_for(lock, nap, [&] { return stopped || !queue.empty(); });
      nap = std::min(2 * nap, kLongestNap);
      continue;
    }
    nap = kShortestNap;
    Item item = queue.pop_front();
    working = true;
    lock.unlock();
    assemble(item.rect);
    let_go(item);
    const std::size_t kept = item.copy.capacity();
    std::vector<std::uint8_t> dropped = std::move(item.copy);
    lock.lock();
    working = false;
    queue_bytes -= item.bytes;
    if (kept > 0 && pool.size() < kMaxPooled &&
        queue_bytes + pool_bytes + kept <= limits.queue_bytes) {
      pool_bytes += kept;
      pool.push_back(std::move(dropped));
    }
    changed.notify_all();
    if (dropped.capacity() == 0) continue;
    lock.unlock();  // to give memory back takes the system a while
    dropped = {};
    lock.lock();
  }
}

void ScanFeed::Impl::drop_queue(std::unique_lock<std::mutex>& lock) {
  while (!queue.empty()) {
    Item item = queue.pop_front();
    queue_bytes -= item.bytes;
    lock.unlock();
    let_go(item);
    item.copy = {};
    lock.lock();
  }
}

/// With the lock held. Memory that was used before spares its page faults. It counts by
/// its capacity: what is larger than needed is taken where all of it finds room.
std::vector<std::uint8_t> ScanFeed::Impl::take_memory(std::size_t bytes) {
  for (std::size_t i = pool.size(); i-- > 0;) {
    const std::size_t held = pool[i].capacity();
    if (held < bytes || held / 2 > bytes || queue_bytes + held > limits.queue_bytes) {
      continue;
    }
    std::vector<std::uint8_t> memory = std::move(pool[i]);
    pool_bytes -= memory.capacity();
    pool.erase(pool.begin() + static_cast<std::ptrdiff_t>(i));
    return memory;
  }
  return {};
}

/// With the lock held, after `trim_pool`.
void ScanFeed::Impl::note_held() {
  peak_held_bytes = std::max(peak_held_bytes, queue_bytes + pool_bytes);
}

/// Kept memory makes room for pixels that wait. It is given back without the lock,
/// because that takes the system a while.
void ScanFeed::Impl::trim_pool(std::unique_lock<std::mutex>& lock) {
  while (!pool.empty() && queue_bytes + pool_bytes > limits.queue_bytes) {
    std::vector<std::uint8_t> dropped = std::move(pool.back());
    pool.pop_back();
    pool_bytes -= dropped.capacity();
    lock.unlock();
    dropped = {};
    lock.lock();
  }
}

ScanFeed::ScanFeed(Session& session, const SlideFrame& frame, ScanFeedLimits limits,
                   const std::optional<StoredCoding>& stored)
    : impl_(std::make_unique<Impl>(session, frame, limits, stored)) {
  Impl* impl = impl_.get();
  impl->thread = std::jthread([impl] { impl->run(); });
}

ScanFeed::~ScanFeed() { end(); }

void ScanFeed::end() {
  stop();
  if (impl_->thread.joinable()) impl_->thread.join();
  std::unique_lock lock(impl_->mutex);
  impl_->drop_queue(lock);
}

bool ScanFeed::try_push(const PixelRect& rect, PixelRelease release) {
  Impl& f = *impl_;
  rect.check(f.frame);
  const bool copies = release.call == nullptr && rect.format != PixelFormat::kBlank;
  const auto row_bytes =
      static_cast<std::size_t>(rect.width_px * bytes_per_pixel(rect.format));
  const std::size_t bytes = row_bytes * static_cast<std::size_t>(rect.height_px);
  if (copies && bytes > f.limits.queue_bytes) {
    throw std::invalid_argument("need at most " + std::to_string(f.limits.queue_bytes) +
                                " bytes in one copied push, got " +
                                std::to_string(bytes) +
                                "; push less at once, or with a release callback");
  }
  Impl::Item item{rect, release, {}, bytes};
  std::unique_lock lock(f.mutex);
  if (f.error) throw *f.error;
  if (f.stopped || f.draining) {
    throw Error(Code::kCancelled,
                "the session takes no more pixels: it was finished or cancelled");
  }
  const bool first = f.queue_bytes == 0;  // one may be larger where it is not copied
  if ((!first && f.queue_bytes + bytes > f.limits.queue_bytes) ||
      f.queue.size() + f.reserved >= kMaxQueued) {
    ++f.would_block;
    return false;
  }
  if (copies) {
    item.copy = f.take_memory(bytes);
    item.bytes = std::max(bytes, item.copy.capacity());
  }
  f.queue_bytes += item.bytes;
  ++f.reserved;  // before the lock is let go: `drain` waits for it
  f.trim_pool(lock);
  f.note_held();
  std::exception_ptr failure;
  if (copies) {
    lock.unlock();
    try {
      item.copy.resize(bytes);
    } catch (...) {
      failure = std::current_exception();
    }
    if (!failure) {
      for (std::int64_t y = 0; y < rect.height_px; ++y) {
        std::memcpy(item.copy.data() + static_cast<std::size_t>(y) * row_bytes,
                    rect.data + y * rect.row_step(), row_bytes);
      }
      item.rect.data = item.copy.data();
      item.rect.stride_bytes = 0;
    }
    lock.lock();
  }
  --f.reserved;
  if (failure) {
    f.queue_bytes -= item.bytes;
    f.changed.notify_all();
    std::rethrow_exception(failure);
  }
  try {
    f.queue.push_back(std::move(item));
  } catch (...) {
    f.queue_bytes -= item.bytes;
    f.changed.notify_all();
    throw;
  }
  const bool wake = f.filling() || f.draining;
  lock.unlock();
  if (wake) f.changed.notify_all();  // whom it wakes finds the lock free
  return true;
}

void ScanFeed::drain() {
  Impl& f = *impl_;
  std::unique_lock lock(f.mutex);
  f.draining = true;
  f.changed.notify_all();
  f.changed.wait(lock, [&] {
    return f.stopped || (f.queue.empty() && !f.working && f.reserved == 0);
  });
}

void ScanFeed::stop() {
  Impl& f = *impl_;
  f.session.cancel();  // or the thread could wait for batches for ever
  f.ended = true;
  const std::lock_guard lock(f.mutex);
  f.stopped = true;
  f.changed.notify_all();
}

ScanFeed::Counts ScanFeed::counts() const {
  Counts counts;
  counts.strips = impl_->strips.counts();
  if (impl_->stored) {
    StripAssembler::Counts pushed = impl_->stored->counts();
    pushed.answered = counts.strips.answered;
    pushed.bytes += counts.strips.bytes;
    pushed.peak_bytes += counts.strips.peak_bytes;  // at most: they may peak apart
    counts.strips = pushed;
  }
  const std::lock_guard lock(impl_->mutex);
  counts.queue_bytes = impl_->queue_bytes;
  counts.held_bytes = impl_->queue_bytes + impl_->pool_bytes;
  counts.peak_held_bytes = impl_->peak_held_bytes;
  counts.queued = static_cast<std::int64_t>(impl_->queue.size());
  counts.would_block = impl_->would_block;
  return counts;
}

}  // namespace her2fast
