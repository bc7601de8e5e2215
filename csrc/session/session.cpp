// SPDX-License-Identifier: Apache-2.0
#include "her2fast/session.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <stdexcept>
#include <unordered_map>
#include <unordered_set>

#include "her2fast/error.h"

namespace her2fast {
namespace {

struct BatchBuffer {
  std::vector<std::uint8_t> rgb;
  std::vector<std::int64_t> items;  // reserved so far
  std::int32_t filled = 0;          // of them, copied
};

void check_slot(const ModelSlot& slot) {
  if (slot.batch < 1 || slot.batch > 4096 || slot.height_px < 1 || slot.width_px < 1 ||
      slot.height_px > 8192 || slot.width_px > 8192 || slot.outputs < 1) {
    throw std::invalid_argument(
        "model " + slot.name +
        ": need 1 to 4096 items of 1 to 8192 px a side and at least one "
        "output, got " +
        std::to_string(slot.batch) + " of " + std::to_string(slot.height_px) + " x " +
        std::to_string(slot.width_px) + " with " + std::to_string(slot.outputs));
  }
}

}  // namespace

struct Session::Impl final : ItemSink {
  /// One model and its batches on their way: forming -> ready -> out -> pool.
  struct Lane {
    ModelSlot slot;
    std::shared_ptr<BatchBuffer> forming;
    std::deque<std::shared_ptr<BatchBuffer>> ready;
    std::map<std::int64_t, std::shared_ptr<BatchBuffer>> out;
    std::vector<std::shared_ptr<BatchBuffer>> pool;
    std::int64_t filling = 0;  // buffers full but not yet copied into
    std::int64_t putting = 0;
    std::size_t item_bytes() const {
      return static_cast<std::size_t>(slot.height_px) *
             static_cast<std::size_t>(slot.width_px) * 3;
    }
    std::size_t batch_bytes() const {
      return item_bytes() * static_cast<std::size_t>(slot.batch);
    }
    bool idle() const {
      return !forming && ready.empty() && out.empty() && filling == 0 && putting == 0;
    }
  };

  std::unique_ptr<Method> method;
  std::vector<ModelSlot> models;
  std::size_t budget_bytes = 0;

  mutable std::mutex mutex;
  mutable std::condition_variable changed;
  std::vector<Lane> lanes;
  std::vector<ReadRequest> round;
  std::size_t next = 0;
  int round_number = -1;
  bool planned_all = false;
  std::unordered_map<std::int64_t, ReadRequest> issued;
  std::unordered_set<std::int64_t> answered_ids;
  std::int64_t accepting = 0;
  std::size_t open_bytes = 0;
  std::int64_t next_batch_id = 1;
  Progress counts;
  std::optional<Error> error;
  bool cancelled = false;
  bool closed = false;
  std::int64_t snapshots = 0;  // being taken
  std::optional<Measurement> measurement;

  static std::size_t bytes_of(const ReadRequest& r) {
    return static_cast<std::size_t>(r.width_px) * static_cast<std::size_t>(r.height_px) *
           3;
  }

  // All below to `submit` is called with the lock held.

  bool stopped() const { return error.has_value() || cancelled; }

  bool reading_settled() const {
    return next == round.size() && issued.empty() && accepting == 0;
  }

  bool settled() const {
    return reading_settled() && std::all_of(lanes.begin(), lanes.end(),
                                            [](const Lane& lane) { return lane.idle(); });
  }

  bool done() const { return stopped() || (planned_all && settled()); }

  /// Plans the next round once nothing of this one is left.
  void advance() {
    while (!planned_all && !stopped() && settled()) {
      if (closed) {
        planned_all = true;
        break;
      }
      round = method->plan(++round_number);
      next = 0;
      planned_all = round.empty();
      counts.planned += static_cast<std::int64_t>(round.size());
      std::size_t widest = 0;
      for (const Lane& lane : lanes) widest = std::max(widest, lane.batch_bytes());
      std::size_t largest = 0;
      for (const ReadRequest& r : round) {
        if (r.width_px < 1 || r.height_px < 1 || r.width_px > 65536 ||
            r.height_px > 65536) {
          throw std::invalid_argument("a method planned a request of " +
                                      std::to_string(r.width_px) + " x " +
                                      std::to_string(r.height_px) + " px");
        }
        largest = std::max(largest, bytes_of(r));
      }
      // A budget under this could stall: batches wait for requests that may not be asked
      // for.
      budget_bytes = std::max(budget_bytes, 3 * widest + 2 * largest);
    }
    changed.notify_all();
  }

  /// Bytes of batches that somebody has to compute.
  std::size_t waiting_bytes() const {
    std::size_t bytes = 0;
    for (const Lane& lane : lanes) {
      bytes += (lane.ready.size() + lane.out.size()) * lane.batch_bytes();
    }
    return bytes;
  }

  bool may_issue() const {
    return next < round.size() &&
           (open_bytes == 0 || open_bytes + bytes_of(round[next]) <= budget_bytes);
  }

  /// True when nothing that is under way can add an item to lane k.
  bool upstream_quiet(std::size_t k) const {
    if (!issued.empty() || accepting > 0 || may_issue()) return false;
    for (std::size_t j = 0; j < k; ++j) {
      if (!lanes[j].ready.empty() || !lanes[j].out.empty() || lanes[j].filling > 0)
        return false;
    }
    for (std::size_t j = 0; j <= k; ++j) {
      if (lanes[j].putting > 0) return false;
    }
    // Shallower partial batches go first; they may fill this one.
    for (std::size_t j = 0; j < k; ++j) {
      if (lanes[j].forming) return false;
    }
    return true;
  }

  std::shared_ptr<BatchBuffer> take_ready(std::size_t& model) {
    for (std::size_t k = lanes.size(); k-- > 0;) {
      if (!lanes[k].ready.empty()) {
        auto buffer = std::move(lanes[k].ready.front());
        lanes[k].ready.pop_front();
        model = k;
        return buffer;
      }
    }
    for (std::size_t k = lanes.size(); k-- > 0;) {
      Lane& lane = lanes[k];
      if (!lane.forming || lane.filling > 0 || !upstream_quiet(k)) continue;
      auto buffer = std::move(lane.forming);
      lane.forming = nullptr;
      const std::size_t used = buffer->items.size() * lane.item_bytes();
      std::memset(buffer->rgb.data() + used, 0, buffer->rgb.size() - used);
      model = k;
      return buffer;
    }
    return nullptr;
  }

  void set_error(Code code, const std::string& message) {
    if (!error) error.emplace(code, message);
    changed.notify_all();
  }

  void throw_if_failed() const {
    if (error) throw *error;
  }

  /// Runs the method's code outside the lock; what it throws ends the session.
  template <typename Work>
  void guarded(std::unique_lock<std::mutex>& lock, const Work& work) {
    lock.unlock();
    try {
      work();
    } catch (const Error& e) {
      lock.lock();
      set_error(e.code(), e.what());
      return;
    } catch (const std::exception& e) {
      lock.lock();
      set_error(Code::kCrash, std::string("internal error while measuring: ") + e.what());
      return;
    }
    lock.lock();
  }

  void submit(int model, std::int64_t item, ImageView<const std::uint8_t> rgb) override {
    std::shared_ptr<BatchBuffer> buffer;
    std::size_t place = 0;
    Lane& lane = lanes.at(static_cast<std::size_t>(model));
    if (rgb.height != lane.slot.height_px || rgb.width != lane.slot.width_px ||
        rgb.channels != 3) {
      throw std::invalid_argument("model " + lane.slot.name +
                                  ": a method submitted pixels of "
                                  "another shape");
    }
    {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!lane.forming) {
        if (lane.pool.empty()) {
          lane.forming = std::make_shared<BatchBuffer>();
          lane.forming->rgb.resize(lane.batch_bytes());
          lane.forming->items.reserve(static_cast<std::size_t>(lane.slot.batch));
          counts.batch_bytes += lane.batch_bytes();  // for good: they are kept
        } else {
          lane.forming = std::move(lane.pool.back());
          lane.pool.pop_back();
        }
        open_bytes += lane.batch_bytes();
      }
      buffer = lane.forming;
      place = buffer->items.size();
      buffer->items.push_back(item);
      ++counts.items_planned;
      if (buffer->items.size() == static_cast<std::size_t>(lane.slot.batch)) {
        lane.forming = nullptr;
        ++lane.filling;
      }
    }
    const std::size_t row_bytes = static_cast<std::size_t>(rgb.width) * 3;
    std::uint8_t* out = buffer->rgb.data() + place * lane.item_bytes();
    for (std::int64_t y = 0; y < rgb.height; ++y) {
      std::memcpy(out + static_cast<std::size_t>(y) * row_bytes, rgb.row(y), row_bytes);
    }
    const std::lock_guard<std::mutex> lock(mutex);
    if (++buffer->filled == lane.slot.batch) {
      --lane.filling;
      lane.ready.push_back(std::move(buffer));
      changed.notify_all();
    }
  }
};

Session::Session(std::unique_ptr<Method> method, SessionOptions options)
    : impl_(std::make_unique<Impl>()) {
  if (!method) throw std::invalid_argument("need a method");
  impl_->method = std::move(method);
  impl_->models = impl_->method->models();
  for (const ModelSlot& slot : impl_->models) {
    check_slot(slot);
    impl_->lanes.emplace_back().slot = slot;
  }
  impl_->budget_bytes = options.max_open_bytes;
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  impl_->advance();
}

Session::~Session() = default;

const std::vector<ModelSlot>& Session::models() const { return impl_->models; }

std::vector<ReadRequest> Session::wanted(std::size_t max, bool wait) {
  Impl& s = *impl_;
  std::unique_lock<std::mutex> lock(s.mutex);
  if (wait) {
    s.changed.wait(lock, [&s] { return s.may_issue() || s.closed || s.done(); });
  }
  s.throw_if_failed();
  std::vector<ReadRequest> requests;
  if (s.cancelled || s.closed) return requests;
  while (requests.size() < max && s.may_issue()) {
    const ReadRequest& request = s.round[s.next++];
    s.open_bytes += Impl::bytes_of(request);
    s.issued.emplace(request.id, request);
    requests.push_back(request);
  }
  return requests;
}

void Session::push(std::int64_t id, ImageView<const std::uint8_t> rgb,
                   TileStatus status) {
  Impl& s = *impl_;
  std::unique_lock<std::mutex> lock(s.mutex);
  s.throw_if_failed();
  if (s.cancelled || s.closed)
    return;  // late answers of a reader that is still winding down
  const auto found = s.issued.find(id);
  if (found == s.issued.end()) {
    throw std::invalid_argument(
        "request " + std::to_string(id) +
        (s.answered_ids.count(id) ? " was answered before" : " was never asked for"));
  }
  const ReadRequest request = found->second;
  const bool has_pixels = status == TileStatus::kOk || status == TileStatus::kWarned;
  if (has_pixels && (rgb.data == nullptr || rgb.height != request.height_px ||
                     rgb.width != request.width_px || rgb.channels != 3)) {
    throw std::invalid_argument(
        "request " + std::to_string(id) + ": need " + std::to_string(request.height_px) +
        " x " + std::to_string(request.width_px) + " x 3 pixels, got " +
        std::to_string(rgb.height) + " x " + std::to_string(rgb.width) + " x " +
        std::to_string(rgb.channels));
  }
  s.issued.erase(found);
  s.answered_ids.insert(id);
  ++s.accepting;
  s.guarded(lock, [&] {
    s.method->accept(request, status, has_pixels ? rgb : ImageView<const std::uint8_t>{},
                     s);
  });
  --s.accepting;
  s.open_bytes -= Impl::bytes_of(request);
  ++s.counts.answered;
  s.advance();
  s.throw_if_failed();
}

std::optional<Batch> Session::next_batch(bool wait) {
  Impl& s = *impl_;
  std::unique_lock<std::mutex> lock(s.mutex);
  std::size_t model = 0;
  std::shared_ptr<BatchBuffer> buffer;
  const auto take = [&] {
    if (!s.stopped()) buffer = s.take_ready(model);
    return buffer != nullptr;
  };
  if (wait) {
    s.changed.wait(lock, [&] { return take() || s.done(); });
  } else {
    take();
  }
  if (!buffer) return std::nullopt;
  Batch batch;
  batch.id = s.next_batch_id++;
  batch.model = static_cast<std::int32_t>(model);
  batch.valid = static_cast<std::int32_t>(buffer->items.size());
  batch.rgb = buffer->rgb.data();
  s.lanes[model].out.emplace(batch.id, std::move(buffer));
  return batch;
}

void Session::put(std::int64_t batch_id, const float* output, std::size_t count,
                  std::optional<std::size_t> rows) {
  Impl& s = *impl_;
  std::unique_lock<std::mutex> lock(s.mutex);
  s.throw_if_failed();
  std::size_t model = 0;
  while (model < s.lanes.size() && s.lanes[model].out.count(batch_id) == 0) ++model;
  if (model == s.lanes.size()) {
    throw std::invalid_argument("batch " + std::to_string(batch_id) +
                                " is not out: unknown, or put before");
  }
  Impl::Lane& lane = s.lanes[model];
  const auto outputs = static_cast<std::size_t>(lane.slot.outputs);
  const auto batch = static_cast<std::size_t>(lane.slot.batch);
  if (count != outputs * batch || rows.value_or(batch) != batch) {
    s.set_error(Code::kModelShape,
                "model " + lane.slot.name + ": need " + std::to_string(lane.slot.batch) +
                    " x " + std::to_string(outputs) + " outputs, got " +
                    std::to_string(count) + " in all" +
                    (rows ? ", " + std::to_string(*rows) + " along the first axis" : ""));
    throw *s.error;
  }
  const std::shared_ptr<BatchBuffer> buffer = std::move(lane.out.at(batch_id));
  lane.out.erase(batch_id);
  ++lane.putting;
  s.guarded(lock, [&] {
    const auto items = buffer->items.size();
    for (std::size_t i = 0; i < items * outputs; ++i) {
      if (!std::isfinite(output[i])) {
        throw Error(Code::kNonFinite,
                    "model " + lane.slot.name +
                        " gave a value that is not finite; check the package "
                        "with `her2fast models check`");
      }
    }
    for (std::size_t i = 0; i < items; ++i) {
      const ImageView<const std::uint8_t> rgb{buffer->rgb.data() + i * lane.item_bytes(),
                                              lane.slot.height_px, lane.slot.width_px, 3};
      s.method->accept_output(static_cast<int>(model), buffer->items[i], rgb,
                              output + i * outputs, s);
    }
  });
  s.counts.items_done += static_cast<std::int64_t>(buffer->items.size());
  buffer->items.clear();
  buffer->filled = 0;
  lane.pool.push_back(buffer);
  s.open_bytes -= lane.batch_bytes();
  --lane.putting;
  s.advance();
  s.throw_if_failed();
}

Session::Progress Session::progress() const {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  return impl_->counts;
}

void Session::cancel() {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  impl_->cancelled = true;
  impl_->changed.notify_all();
}

void Session::fail(Code code, const std::string& message) {
  const std::lock_guard<std::mutex> lock(impl_->mutex);
  impl_->set_error(code, message);
}

Snapshot Session::snapshot() const {
  Impl& s = *impl_;
  std::unique_lock<std::mutex> lock(s.mutex);
  if (s.measurement) return {*s.measurement, 0};
  s.throw_if_failed();
  ++s.snapshots;
  const auto end = [&s] {
    --s.snapshots;
    s.changed.notify_all();
  };
  lock.unlock();
  try {
    Snapshot snapshot = s.method->snapshot();
    lock.lock();
    end();
    return snapshot;
  } catch (...) {
    lock.lock();
    end();
    throw;
  }
}

void Session::wait_for_batches(std::size_t max_bytes) const {
  Impl& s = *impl_;
  std::unique_lock<std::mutex> lock(s.mutex);
  s.changed.wait(lock, [&] { return s.stopped() || s.waiting_bytes() <= max_bytes; });
}

void Session::close() {
  Impl& s = *impl_;
  std::unique_lock<std::mutex> lock(s.mutex);
  if (s.closed || s.measurement || s.stopped()) return;
  s.closed = true;
  std::vector<ReadRequest> rest(s.round.begin() + static_cast<std::ptrdiff_t>(s.next),
                                s.round.end());
  s.next = s.round.size();
  for (const auto& [id, request] : s.issued) rest.push_back(request);
  for (const ReadRequest& request : rest) {
    if (s.issued.erase(request.id) > 0) s.open_bytes -= Impl::bytes_of(request);
  }
  ++s.accepting;
  s.guarded(lock, [&] {
    for (const ReadRequest& request : rest) {
      s.method->accept(request, TileStatus::kMissing, {}, s);
    }
  });
  --s.accepting;
  s.advance();
}

const Measurement& Session::finish() {
  Impl& s = *impl_;
  {
    const std::lock_guard<std::mutex> lock(s.mutex);
    if (s.measurement) return *s.measurement;
    s.throw_if_failed();
    if (s.cancelled) throw Error(Code::kCancelled, "the session was cancelled");
  }
  close();
  std::unique_lock<std::mutex> lock(s.mutex);
  s.throw_if_failed();
  if (!s.settled()) {
    throw std::logic_error(
        "batches are open: drive next_batch and put until next_batch is "
        "empty, then call finish again");
  }
  s.changed.wait(lock, [&s] { return s.snapshots == 0; });
  if (!s.measurement) s.measurement = s.method->measure();
  return *s.measurement;
}

}  // namespace her2fast
