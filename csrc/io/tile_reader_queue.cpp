// SPDX-License-Identifier: Apache-2.0
// Many requests on native threads: `run` in any order, `submit` and `next` in order.
#include <algorithm>
#include <deque>
#include <stdexcept>
#include <string>
#include <utility>

#include "her2fast/error.h"
#include "her2fast/tile_reader.h"
#include "io/tile_reader_impl.h"

namespace her2fast {
namespace {

Error cancelled_error() { return {Code::kCancelled, "reading was cancelled"}; }

}  // namespace

TileReader::TileReader(std::shared_ptr<const Slide> slide, SlideFrame frame,
                       ReaderOptions options)
    : impl_(std::make_unique<Impl>(std::move(slide), frame, options)) {}

TileReader::~TileReader() = default;

TileReader::Impl::~Impl() {
  {
    const std::lock_guard lock(queue_mutex);
    closing = true;
    queue.clear();
  }
  work_changed.notify_all();
  slot_done.notify_all();
  for (std::thread& thread : threads) thread.join();
}

void TileReader::Impl::answer(const ReadRequest& request, TileAnswer& answer,
                              ReadScratch& scratch) {
  answer.request = request;
  // The sizes are checked by `read`; here only what would make the allocation absurd.
  if (request.width_px < 1 || request.height_px < 1 ||
      static_cast<__int128>(request.width_px) * request.height_px >
          (std::int64_t{1} << 30)) {
    throw std::invalid_argument("need a request of 1 to 2^30 px, got " +
                                std::to_string(request.width_px) + " x " +
                                std::to_string(request.height_px));
  }
  answer.rgb.resize(static_cast<std::size_t>(request.width_px * request.height_px * 3));
  answer.status =
      read(request, {answer.rgb.data(), request.height_px, request.width_px, 3}, scratch);
}

void TileReader::run(const std::function<std::vector<ReadRequest>()>& source,
                     const std::function<void(TileAnswer&&)>& sink) const {
  struct Shared {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<ReadRequest> queue;
    bool fetching = false;
    bool ended = false;
    std::exception_ptr error;
  } shared;
  Impl& impl = *impl_;
  const std::uint64_t cancels = impl.cancels.load();

  const auto fail = [&shared](std::exception_ptr error) {
    const std::lock_guard lock(shared.mutex);
    if (!shared.error) shared.error = std::move(error);
    shared.changed.notify_all();
  };
  const auto work = [&] {
    try {
      Impl::ScratchLoan scratch(impl);
      TileAnswer answer;
      std::unique_lock lock(shared.mutex);
      while (!shared.error) {
        if (impl.cancels.load() != cancels) throw cancelled_error();
        if (!shared.queue.empty()) {
          const ReadRequest request = shared.queue.front();
          shared.queue.pop_front();
          const std::size_t ahead = impl.ahead();
          const bool known = shared.queue.size() > ahead;
          const ReadRequest later = known ? shared.queue[ahead] : request;
          const ReadRequest before = known ? shared.queue[ahead - 1] : request;
          lock.unlock();
          if (known) impl.expect(later, before);
          impl.answer(request, answer, *scratch);
          sink(std::move(answer));
          lock.lock();
        } else if (shared.ended) {
          return;
        } else if (shared.fetching) {
          shared.changed.wait(lock);
        } else {
          shared.fetching =
              true;  // one thread asks; the others go on with what is queued
          lock.unlock();
          std::vector<ReadRequest> more = source();
          lock.lock();
          shared.fetching = false;
          shared.ended = more.empty();
          shared.queue.insert(shared.queue.end(), more.begin(), more.end());
          shared.changed.notify_all();
        }
      }
    } catch (...) {
      fail(std::current_exception());
    }
  };

  std::vector<std::thread> threads;
  try {
    for (int i = 1; i < impl.options.workers; ++i) threads.emplace_back(work);
  } catch (...) {
    fail(std::current_exception());  // no more threads to be had: the ones that run must
                                     // end
  }
  work();  // the caller's thread is one of the workers
  for (std::thread& thread : threads) thread.join();
  if (shared.error) std::rethrow_exception(shared.error);
}

void TileReader::submit(std::vector<ReadRequest> requests) {
  impl_->enqueue(requests, nullptr);
}

void TileReader::submit(std::vector<ReadRequest> requests, std::uint8_t* out) {
  for (const ReadRequest& request : requests) {
    if (request.width_px != requests[0].width_px ||
        request.height_px != requests[0].height_px || request.width_px < 1 ||
        request.height_px < 1) {
      throw std::invalid_argument("need requests of one size, got " +
                                  std::to_string(request.width_px) + " x " +
                                  std::to_string(request.height_px) + " px beside " +
                                  std::to_string(requests[0].width_px) + " x " +
                                  std::to_string(requests[0].height_px) + " px");
    }
  }
  impl_->enqueue(requests, out);
}

void TileReader::Impl::enqueue(const std::vector<ReadRequest>& requests,
                               std::uint8_t* out) {
  {
    const std::lock_guard lock(queue_mutex);
    cancelled = false;
    slots.resize(options.max_ahead);
    for (const ReadRequest& request : requests) {
      queue.push_back({request, out});
      if (out != nullptr) out += request.width_px * request.height_px * 3;
    }
    while (threads.size() < static_cast<std::size_t>(options.workers)) {
      threads.emplace_back([this] { work(); });
    }
  }
  work_changed.notify_all();
  slot_done.notify_all();
}

void TileReader::Impl::work() {
  std::unique_ptr<ReadScratch> scratch;
  std::unique_lock lock(queue_mutex);
  for (;;) {
    work_changed.wait(lock, [&] {
      return closing || (!queue.empty() && taken - handed < options.max_ahead);
    });
    if (closing) return;
    const Job job = queue.front();
    queue.pop_front();
    const std::size_t ahead = this->ahead();
    const bool known = queue.size() > ahead;
    const ReadRequest later = known ? queue[ahead].request : job.request;
    const ReadRequest before = known ? queue[ahead - 1].request : job.request;
    const std::uint64_t number = taken++;
    const std::uint64_t started = generation;
    ++busy;
    TileAnswer answer;
    if (job.out == nullptr && !idle_buffers.empty()) {
      answer.rgb = std::move(idle_buffers.back());
      idle_buffers.pop_back();
    }
    lock.unlock();
    std::exception_ptr error;
    try {
      if (!scratch) scratch = take_scratch();
      if (known) expect(later, before);
      if (job.out == nullptr) {
        this->answer(job.request, answer, *scratch);
      } else {
        answer.request = job.request;
        answer.status =
            read(job.request, {job.out, job.request.height_px, job.request.width_px, 3},
                 *scratch);
      }
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    --busy;
    if (generation != started) {  // cancelled meanwhile: nobody waits for it
      if (busy == 0) idle.notify_all();
      continue;
    }
    Slot& mine = slot(number);
    mine.answer = std::move(answer);
    mine.error = error;
    mine.done = true;
    // A wake-up a tile would cost as much as copying it.
    if (waiting > 1 || (waiting == 1 && number == awaited)) slot_done.notify_all();
  }
}

std::size_t TileReader::Impl::wait_for(std::size_t wanted,
                                       std::unique_lock<std::mutex>& lock) {
  ++waiting;
  const auto leave = [this](std::size_t ready) {
    // Others may wait for an answer that is handed out now, or for the end.
    if (--waiting > 0) slot_done.notify_all();
    return ready;
  };
  for (;;) {
    if (closing || cancelled) {
      leave(0);
      throw cancelled_error();
    }
    const std::uint64_t outstanding = taken - handed + queue.size();
    const std::uint64_t want =
        std::min<std::uint64_t>({wanted, outstanding, options.max_ahead});
    std::uint64_t last_open = want;
    std::uint64_t ready = want;
    for (std::uint64_t i = want; i-- > 0;) {
      if (handed + i < taken && slot(handed + i).done) continue;
      last_open = std::max(last_open == want ? 0 : last_open, i);
      ready = i;
    }
    // An error is handed out in its place, so nothing after it is waited for.
    for (std::uint64_t i = 0; i < ready; ++i) {
      if (slot(handed + i).error) return leave(static_cast<std::size_t>(i + 1));
    }
    if (ready == want) return leave(static_cast<std::size_t>(ready));
    awaited = handed + last_open;
    slot_done.wait(lock);
  }
}

bool TileReader::next(TileAnswer& answer) {
  Impl& impl = *impl_;
  std::unique_lock lock(impl.queue_mutex);
  // The caller's old buffer serves a later answer.
  if (answer.rgb.capacity() > 0 && impl.idle_buffers.size() < impl.options.max_ahead) {
    impl.idle_buffers.push_back(std::move(answer.rgb));
  }
  answer = TileAnswer{};
  if (impl.wait_for(1, lock) == 0) return false;
  Impl::Slot& slot = impl.slot(impl.handed);
  answer = std::move(slot.answer);
  const std::exception_ptr error = std::exchange(slot.error, nullptr);
  slot.done = false;
  ++impl.handed;
  impl.work_changed.notify_one();
  if (error) std::rethrow_exception(error);
  return true;
}

std::size_t TileReader::next(std::span<TileStatus> statuses) {
  Impl& impl = *impl_;
  std::unique_lock lock(impl.queue_mutex);
  std::size_t given = 0;
  while (given < statuses.size()) {
    const std::size_t ready = impl.wait_for(statuses.size() - given, lock);
    if (ready == 0) break;
    std::exception_ptr error;
    for (std::size_t i = 0; i < ready && !error; ++i) {
      Impl::Slot& slot = impl.slot(impl.handed);
      statuses[given++] = slot.answer.status;
      error = std::exchange(slot.error, nullptr);
      slot.done = false;
      ++impl.handed;
    }
    impl.work_changed.notify_all();
    if (error) std::rethrow_exception(error);
  }
  return given;
}

void TileReader::cancel() {
  Impl& impl = *impl_;
  ++impl.cancels;
  std::unique_lock lock(impl.queue_mutex);
  impl.cancelled = impl.cancelled || !impl.queue.empty() || impl.taken != impl.handed;
  impl.queue.clear();
  ++impl.generation;
  impl.handed = impl.taken;
  for (Impl::Slot& slot : impl.slots) {
    slot.done = false;
    slot.error = nullptr;
  }
  impl.slot_done.notify_all();
  // Whoever submitted memory may free it after this.
  impl.idle.wait(lock, [&impl] { return impl.busy == 0; });
}

}  // namespace her2fast
