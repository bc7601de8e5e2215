// SPDX-License-Identifier: Apache-2.0
#include "her2fast/session.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <unordered_map>
#include <unordered_set>

#include "her2fast/error.h"
#include "session/batch_lane.h"

namespace her2fast {

struct Session::Impl final : ItemSink {
  std::unique_ptr<Method> method;
  std::vector<ModelSlot> models;
  std::shared_ptr<BatchMemory> memory;
  std::size_t budget_bytes = 0;

  mutable std::mutex mutex;
  mutable std::condition_variable changed;
  std::vector<BatchLane> lanes;
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
    return reading_settled() &&
           std::all_of(lanes.begin(), lanes.end(),
                       [](const BatchLane& lane) { return lane.idle(); });
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
      for (const BatchLane& lane : lanes) widest = std::max(widest, lane.batch_bytes());
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
    for (const BatchLane& lane : lanes) {
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
      BatchLane& lane = lanes[k];
      if (!lane.forming || lane.filling > 0 || !upstream_quiet(k)) continue;
      model = k;
      return lane.take_padded();
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

  /// A batch that came back: `each` hands an item's results to the method.
  template <typename Each>
  void settle(std::unique_lock<std::mutex>& lock, std::size_t model,
              std::int64_t batch_id, const Each& each) {
    BatchLane& lane = lanes[model];
    const std::shared_ptr<BatchBuffer> buffer = std::move(lane.out.at(batch_id));
    lane.out.erase(batch_id);
    ++lane.putting;
    guarded(lock, [&] {
      for (std::size_t i = 0; i < buffer->items.size(); ++i) {
        each(*buffer, i,
             ImageView<const std::uint8_t>{buffer->rgb + i * lane.item_bytes(),
                                           lane.slot.height_px, lane.slot.width_px, 3});
      }
    });
    counts.items_done += static_cast<std::int64_t>(buffer->items.size());
    buffer->items.clear();
    buffer->filled = 0;
    lane.pool.push_back(buffer);
    open_bytes -= lane.batch_bytes();
    --lane.putting;
    advance();
    throw_if_failed();
  }

  std::size_t model_of(std::int64_t batch_id) const {
    std::size_t model = 0;
    while (model < lanes.size() && lanes[model].out.count(batch_id) == 0) ++model;
    if (model < lanes.size()) return model;
    throw std::invalid_argument("batch " + std::to_string(batch_id) +
                                " is not out: unknown, or put before");
  }

  void submit(int model, std::int64_t item, ImageView<const std::uint8_t> rgb,
              const std::uint64_t* tissue) override {
    std::shared_ptr<BatchBuffer> buffer;
    std::size_t place = 0;
    BatchLane& lane = lanes.at(static_cast<std::size_t>(model));
    if (rgb.height != lane.slot.height_px || rgb.width != lane.slot.width_px ||
        rgb.channels != 3 || lane.slot.tumor.has_value() != (tissue != nullptr)) {
      throw std::invalid_argument("model " + lane.slot.name +
                                  ": a method submitted pixels of another shape, or "
                                  "tissue where none is asked for");
    }
    {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!lane.forming) {
        counts.batch_bytes += lane.begin(memory);  // for good: they are kept
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
    lane.copy_item(*buffer, place, rgb, tissue);
    const std::lock_guard<std::mutex> lock(mutex);
    if (++buffer->filled == lane.slot.batch) {
      --lane.filling;
      lane.ready.push_back(std::move(buffer));
      changed.notify_all();
    }
  }
};

void Method::accept_tumor(int, std::int64_t, ImageView<const std::uint8_t>,
                          const std::uint64_t*, const std::uint32_t*, ItemSink&) {
  throw std::logic_error("a method with a tumor rule takes no tumor");
}

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
  impl_->memory = std::move(options.memory);
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
  batch.rgb = buffer->rgb;
  if (s.models[model].tumor) batch.tissue = buffer->tissue();
  s.lanes[model].out.emplace(batch.id, std::move(buffer));
  return batch;
}

void Session::put(std::int64_t batch_id, const float* output, std::size_t count,
                  std::optional<std::size_t> rows) {
  Impl& s = *impl_;
  std::unique_lock<std::mutex> lock(s.mutex);
  s.throw_if_failed();
  const std::size_t model = s.model_of(batch_id);
  const ModelSlot& slot = s.models[model];
  const auto outputs = static_cast<std::size_t>(slot.outputs);
  const auto batch = static_cast<std::size_t>(slot.batch);
  if (count != outputs * batch || rows.value_or(batch) != batch) {
    s.set_error(Code::kModelShape,
                "model " + slot.name + ": need " + std::to_string(slot.batch) + " x " +
                    std::to_string(outputs) + " outputs, got " + std::to_string(count) +
                    " in all" +
                    (rows ? ", " + std::to_string(*rows) + " along the first axis" : ""));
    throw *s.error;
  }
  std::vector<std::uint64_t> bits(slot.tumor ? slot.tumor->words() : 0);
  std::vector<std::uint32_t> counts(slot.tumor ? slot.tumor->patches() : 0);
  s.settle(lock, model, batch_id,
           [&](const BatchBuffer& buffer, std::size_t i,
               const ImageView<const std::uint8_t>& rgb) {
             // All of the batch before any of it: a session that fails keeps none.
             if (i == 0) check_finite(slot, output, buffer.items.size() * outputs);
             const float* of_item = output + i * outputs;
             const int number = static_cast<int>(model);
             if (!slot.tumor) {
               s.method->accept_output(number, buffer.items[i], rgb, of_item, s);
               return;
             }
             tumor_bits(of_item, buffer.tissue() + i * bits.size(), *slot.tumor,
                        bits.data(), counts.data());
             s.method->accept_tumor(number, buffer.items[i], rgb, bits.data(),
                                    counts.data(), s);
           });
}

void Session::put_tumor(std::int64_t batch_id, const std::uint64_t* bits,
                        const std::uint32_t* counts) {
  Impl& s = *impl_;
  std::unique_lock<std::mutex> lock(s.mutex);
  s.throw_if_failed();
  const std::size_t model = s.model_of(batch_id);
  const ModelSlot& slot = s.models[model];
  if (!slot.tumor) {
    throw std::invalid_argument("model " + slot.name + " has no tumor rule");
  }
  s.settle(lock, model, batch_id,
           [&](const BatchBuffer& buffer, std::size_t i,
               const ImageView<const std::uint8_t>& rgb) {
             s.method->accept_tumor(static_cast<int>(model), buffer.items[i], rgb,
                                    bits + i * slot.tumor->words(),
                                    counts + i * slot.tumor->patches(), s);
           });
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
        "batches are open: drive next_batch and put until next_batch is empty, then call "
        "finish again");
  }
  s.changed.wait(lock, [&s] { return s.snapshots == 0; });
  if (!s.measurement) s.measurement = s.method->measure();
  return *s.measurement;
}

}  // namespace her2fast
