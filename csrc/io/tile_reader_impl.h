// SPDX-License-Identifier: Apache-2.0
/// What tile_reader.cpp (one request) and tile_reader_queue.cpp (many) share.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "her2fast/tile_reader.h"
#include "io/resample.h"
#include "io/tile_cache.h"

namespace her2fast {

/// Everything a thread needs to answer requests without allocating.
struct ReadScratch {
  DecodeScratchPtr decode = make_decode_scratch();
  AxisWeights x, y;
  ResampleScratch resample;
  std::vector<std::uint8_t> window;  // source pixels of a request that spans tiles
  std::vector<std::pair<std::int64_t, std::int64_t>> later;  // columns, rows of tiles
  SourceTiles tiles;                  // of a request that is averaged from where they lie
  std::vector<TileCache::Held> held;  // these tiles
};

struct TileReader::Impl {
  Impl(std::shared_ptr<const Slide> slide_, SlideFrame frame_, ReaderOptions options_);
  ~Impl();

  TileStatus read(const ReadRequest& request, ImageView<std::uint8_t> out,
                  ReadScratch& scratch);
  TileStatus read_block(const ReadPlan& plan, AxisStep step_x, AxisStep step_y,
                        const ReadRequest& block, ImageView<std::uint8_t> out,
                        ReadScratch& scratch);
  /// How many requests behind the one at work the file system is told about: far enough
  /// for a disk to answer, near enough for the pages to stay.
  std::size_t ahead() const { return 4 * static_cast<std::size_t>(options.workers); }
  /// Tells the file system which bytes a request will need that `before` does not.
  void expect(const ReadRequest& request, const ReadRequest& before);
  /// Reads into `answer`, reusing its buffer.
  void answer(const ReadRequest& request, TileAnswer& answer, ReadScratch& scratch);

  std::unique_ptr<ReadScratch> take_scratch();
  void give_scratch(std::unique_ptr<ReadScratch> scratch);
  /// A scratch on loan for the length of a scope.
  class ScratchLoan {
   public:
    explicit ScratchLoan(Impl& impl) : impl_(impl), scratch_(impl.take_scratch()) {}
    ~ScratchLoan() { impl_.give_scratch(std::move(scratch_)); }
    ScratchLoan(const ScratchLoan&) = delete;
    ScratchLoan& operator=(const ScratchLoan&) = delete;
    ReadScratch& operator*() { return *scratch_; }

   private:
    Impl& impl_;
    std::unique_ptr<ReadScratch> scratch_;
  };

  const std::shared_ptr<const Slide> slide;
  const SlideFrame frame;
  const ReaderOptions options;
  TileCache cache;
  std::atomic<std::uint64_t> cancels{0};  // a `run` that began under another count stops

  std::mutex scratch_mutex;
  std::vector<std::unique_ptr<ReadScratch>> idle_scratch;

  // submit, next, cancel: a window of `max_ahead` slots slides over the requests in their
  // order.
  struct Job {
    ReadRequest request;
    std::uint8_t* out = nullptr;  // null: the answer owns its pixels
  };
  struct Slot {
    TileAnswer answer;
    std::exception_ptr error;
    bool done = false;
  };
  void enqueue(const std::vector<ReadRequest>& requests, std::uint8_t* out);
  void work();
  /// Waits for the next `wanted` answers; returns how many are ready at the head, 0 at
  /// the end.
  std::size_t wait_for(std::size_t wanted, std::unique_lock<std::mutex>& lock);
  Slot& slot(std::uint64_t number) { return slots[number % options.max_ahead]; }
  std::mutex queue_mutex;
  std::condition_variable work_changed;  // workers wait: requests or room
  std::condition_variable slot_done;     // `next` waits: its answers
  std::condition_variable idle;          // `cancel` waits: nobody writes any more
  std::deque<Job> queue;                 // not yet taken by a worker
  std::vector<Slot> slots;               // answer n lies in slot n % max_ahead
  std::uint64_t taken = 0;               // requests taken by workers
  std::uint64_t handed = 0;              // answers handed out
  std::uint64_t awaited = 0;             // the answer whose end wakes a lone `next`
  int waiting = 0;                       // calls of `next` that wait
  int busy = 0;                          // workers at a request
  std::uint64_t generation = 0;          // raised by cancel: late answers are dropped
  bool cancelled = false;                // `next` says so until the next submit
  bool closing = false;
  std::vector<std::vector<std::uint8_t>> idle_buffers;
  std::vector<std::thread> threads;
};

}  // namespace her2fast
