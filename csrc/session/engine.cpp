// SPDX-License-Identifier: Apache-2.0
#include "her2fast/engine.h"

#include <algorithm>
#include <cstddef>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "session/fail_or_cancel.h"

namespace her2fast {
namespace {

constexpr int kMaxThreads = 256;

/// The table as this library knows it: what the filler did not know is null.
EngineTable checked(const EngineTable& engine) {
  if (engine.struct_size < offsetof(EngineTable, close)) {
    throw std::invalid_argument(
        "need an engine table of at least " +
        std::to_string(offsetof(EngineTable, close)) +
        " bytes, got struct_size=" + std::to_string(engine.struct_size));
  }
  EngineTable table;
  table.context = engine.context;
  table.run = engine.run;
  const auto has = [&](std::size_t end) { return engine.struct_size >= end; };
  if (has(offsetof(EngineTable, message))) table.close = engine.close;
  if (has(sizeof(EngineTable))) table.message = engine.message;
  if (table.run == nullptr) throw std::invalid_argument("need an engine with `run`");
  return table;
}

std::string failure_text(const EngineTable& engine, const ModelSlot& slot,
                         std::int32_t status) {
  const char* words = engine.message != nullptr ? engine.message(engine.context) : "";
  if (words != nullptr && *words != '\0') return words;
  return "model " + slot.name + ": the engine returned status " + std::to_string(status);
}

Code failure_code(std::int32_t status) {
  const bool named = status >= 1 && status <= kCodeCount;
  return named ? static_cast<Code>(status - 1) : Code::kCrash;
}

/// Batch after batch on one thread; a failure ends the session, so every thread stops.
void compute(Session& session, const EngineTable& engine) noexcept {
  try {
    std::vector<float> output;
    while (const std::optional<Batch> batch = session.next_batch(true)) {
      const ModelSlot& slot = session.models()[static_cast<std::size_t>(batch->model)];
      output.resize(static_cast<std::size_t>(slot.batch) *
                    static_cast<std::size_t>(slot.outputs));
      const std::int32_t status =
          engine.run(engine.context, batch->model, batch->id, batch->rgb, slot.batch,
                     slot.height_px, slot.width_px, output.data(), slot.outputs);
      if (status != 0) {
        session.fail(failure_code(status), failure_text(engine, slot, status));
        return;
      }
      session.put(batch->id, output.data(), output.size());
    }
  } catch (const Error& error) {
    // Mostly what the session has ended with already: then this changes nothing.
    session.fail(error.code(), error.what());
  } catch (const std::exception& error) {
    fail_or_cancel(session, Code::kCrash,
                   "internal error while computing models: ", error.what());
  } catch (...) {
    fail_or_cancel(session, Code::kCrash, "the engine threw something that is ",
                   "no exception");
  }
}

}  // namespace

struct EngineDriver::Impl {
  Session& session;
  EngineTable engine;
  std::vector<std::jthread> threads;
};

EngineDriver::EngineDriver(Session& session, const EngineTable& engine, int threads) {
  if (threads < 1 || threads > kMaxThreads) {
    throw std::invalid_argument("need 1 <= threads <= " + std::to_string(kMaxThreads) +
                                ", got threads=" + std::to_string(threads));
  }
  impl_ = std::make_unique<Impl>(Impl{session, checked(engine), {}});
  Impl* impl = impl_.get();
  impl->threads.reserve(static_cast<std::size_t>(threads));
  for (int i = 0; i < threads; ++i) {
    try {
      impl->threads.emplace_back([impl] { compute(impl->session, impl->engine); });
    } catch (const std::system_error& error) {
      // Fewer threads do the same work; without any there is none.
      if (i > 0) break;
      session.fail(Code::kCrash,
                   std::string("no thread to compute with: ") + error.what());
    }
  }
}

EngineDriver::~EngineDriver() {
  if (!impl_->threads.empty()) impl_->session.cancel();
  join();
}

void EngineDriver::join() { impl_->threads.clear(); }

void drive(Session& session, const EngineTable& engine, int threads) {
  EngineDriver(session, engine, threads).join();
}

}  // namespace her2fast
