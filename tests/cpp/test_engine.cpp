// SPDX-License-Identifier: Apache-2.0
// A session driven by a table of functions: same bytes for any number of threads, and
// every way an engine can fail.
#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <stdexcept>
#include <thread>

#include "her2fast/engine.h"
#include "small_spec.h"

namespace her2fast {
namespace {

/// Answers by arithmetic on the pixels; what goes wrong is set by a test.
struct FakeEngine {
  std::atomic<int> batches{0};
  std::int32_t fail_with = 0;
  bool throws = false;
  const char* words = "";

  static std::int32_t run(void* context, std::int32_t model, std::int64_t,
                          const std::uint8_t* rgb, std::int32_t n, std::int32_t height_px,
                          std::int32_t width_px, float* output, std::int64_t outputs) {
    FakeEngine& self = *static_cast<FakeEngine*>(context);
    const int batch = ++self.batches;
    if (self.throws && batch == 2) throw std::runtime_error("out of luck");
    if (self.fail_with != 0 && batch == 2) return self.fail_with;
    const std::int64_t plane = std::int64_t{height_px} * width_px;
    for (std::int32_t i = 0; i < n; ++i) {
      const std::uint8_t* item = rgb + i * plane * 3;
      float* out = output + i * outputs;
      for (std::int64_t k = 0; k < outputs; ++k) {
        const std::int64_t at = model == 0 ? k : (k * 977) % plane;
        out[k] = static_cast<float>(180 - item[3 * at]) / 16.0F;
      }
    }
    return 0;
  }
  static const char* message(void* context) {
    return static_cast<FakeEngine*>(context)->words;
  }

  EngineTable table() {
    EngineTable table;
    table.context = this;
    table.run = run;
    table.message = message;
    return table;
  }
};

std::vector<std::uint8_t> measured(int threads) {
  Session session(make_patch_method(small_spec()));
  FakeEngine engine;
  std::jthread pixels([&] { push_all(session); });
  drive(session, engine.table(), threads);
  EXPECT_GT(engine.batches, 20);
  return session.finish().to_bytes();
}

TEST(Engine, SameBytesForAnyNumberOfThreads) {
  const auto one = measured(1);
  EXPECT_EQ(one, measured(2));
  EXPECT_EQ(one, measured(7));
}

TEST(Engine, ASnapshotHoldsWhatIsSettledAndNothingElse) {
  Session session(make_patch_method(small_spec()));
  FakeEngine engine;
  const auto push = [&](std::size_t count) {
    for (const ReadRequest& r : session.wanted(count)) {
      const auto rgb = pixels_of(r);
      session.push(r.id, {rgb.data(), r.height_px, r.width_px, 3}, TileStatus::kOk);
    }
  };
  push(40);
  while (const auto batch = session.next_batch()) {
    const ModelSlot& slot = session.models()[static_cast<std::size_t>(batch->model)];
    std::vector<float> output(static_cast<std::size_t>(slot.batch * slot.outputs));
    FakeEngine::run(&engine, batch->model, batch->id, batch->rgb, slot.batch,
                    slot.height_px, slot.width_px, output.data(), slot.outputs);
    session.put(batch->id, output.data(), output.size());
  }
  const Snapshot half = session.snapshot();
  session.close();
  EXPECT_TRUE(session.wanted(1).empty());
  drive(session, engine.table(), 1);
  const Measurement whole = session.finish();
  EXPECT_EQ(session.snapshot().measurement, whole);
  EXPECT_EQ(session.snapshot().open_tiles, 0);

  // Half-filled batches hold some of the tiles back; the others are as they end.
  std::int64_t missing = 0, classified = 0;
  ASSERT_EQ(half.measurement.tiles.size(), whole.tiles.size());
  for (std::size_t i = 0; i < whole.tiles.size(); ++i) {
    const TileRecord& tile = half.measurement.tiles[i];
    if (tile == TileRecord{}) {
      ++missing;
    } else {
      EXPECT_EQ(tile, whole.tiles[i]) << i;
      classified += !tile.slots.empty();
    }
  }
  EXPECT_EQ(half.open_tiles, missing);
  EXPECT_GE(missing, static_cast<std::int64_t>(whole.tiles.size()) - 40);
  EXPECT_GT(classified, 5);
}

/// The error with which a session ends that this engine drives.
Error failure_of(FakeEngine& engine, const EngineTable& table) {
  Session session(make_patch_method(small_spec()));
  std::jthread pixels([&] {
    try {
      push_all(session);
    } catch (const Error&) {
      // the failure that the test asks for below
    }
  });
  drive(session, table, 2);
  EXPECT_GE(engine.batches, 2);
  try {
    session.finish();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "the session did not fail";
  return Error(Code::kSelftest, "");
}

TEST(Engine, AFailedBatchEndsTheSessionWithItsCodeAndWords) {
  FakeEngine engine;
  engine.fail_with = engine_status(Code::kGpuOom);
  engine.words = "device 0 is full";
  const Error error = failure_of(engine, engine.table());
  EXPECT_EQ(error.code(), Code::kGpuOom);
  EXPECT_STREQ(error.what(), "device 0 is full");
}

TEST(Engine, AStatusOfNoCodeIsACrash) {
  for (const std::int32_t status : {-1, kCodeCount + 1, 1 << 30}) {
    FakeEngine engine;
    engine.fail_with = status;
    const Error error = failure_of(engine, engine.table());
    EXPECT_EQ(error.code(), Code::kCrash);
    EXPECT_NE(std::string(error.what()).find(std::to_string(status)), std::string::npos);
  }
}

TEST(Engine, EveryCodeHasItsStatus) {
  for (int i = 0; i < kCodeCount; ++i) {
    FakeEngine engine;
    engine.fail_with = engine_status(static_cast<Code>(i));
    EXPECT_EQ(failure_of(engine, engine.table()).code(), static_cast<Code>(i));
  }
}

TEST(Engine, AnExceptionEndsTheSessionOnly) {
  FakeEngine engine;
  engine.throws = true;
  const Error error = failure_of(engine, engine.table());
  EXPECT_EQ(error.code(), Code::kCrash);
  EXPECT_NE(std::string(error.what()).find("out of luck"), std::string::npos);
}

TEST(Engine, ATableOfAnOlderHost) {
  FakeEngine engine;
  engine.fail_with = engine_status(Code::kGpuLost);
  engine.words = "not in this table";
  EngineTable table = engine.table();
  table.struct_size = offsetof(EngineTable, message);
  const Error error = failure_of(engine, table);
  EXPECT_EQ(error.code(), Code::kGpuLost);
  EXPECT_STRNE(error.what(), engine.words);
}

TEST(Engine, WhatIsNoEngine) {
  Session session(make_patch_method(small_spec()));
  FakeEngine engine;
  EngineTable table = engine.table();
  EXPECT_THROW(drive(session, table, 0), std::invalid_argument);
  EXPECT_THROW(drive(session, table, 257), std::invalid_argument);
  table.run = nullptr;
  EXPECT_THROW(drive(session, table, 1), std::invalid_argument);
  table = engine.table();
  table.struct_size = offsetof(EngineTable, close) - 1;
  EXPECT_THROW(drive(session, table, 1), std::invalid_argument);
}

TEST(Engine, WhatWasNeverPushedIsMissingAfterTheSecondFinish) {
  Session session(make_patch_method(small_spec()));
  FakeEngine engine;
  EngineDriver driver(session, engine.table(), 2);
  std::size_t left_out = 0;
  for (const ReadRequest& r : session.wanted(10'000)) {
    if (r.id % 5 == 0) {
      ++left_out;
      continue;
    }
    const auto rgb = pixels_of(r);
    session.push(r.id, {rgb.data(), r.height_px, r.width_px, 3}, TileStatus::kOk);
  }
  EXPECT_GT(left_out, 0U);
  try {
    session.finish();
  } catch (const std::logic_error&) {
    // half-filled batches waited for what is now missing; the driver computes them
  }
  driver.join();
  std::size_t missing = 0;
  for (const TileRecord& tile : session.finish().tiles) {
    missing += tile.status == TileStatus::kMissing;
  }
  EXPECT_EQ(missing, left_out);
}

TEST(Engine, ADriverThatIsDroppedCancelsTheSession) {
  Session session(make_patch_method(small_spec()));
  FakeEngine engine;
  { const EngineDriver driver(session, engine.table(), 3); }
  try {
    session.finish();
    FAIL() << "need CANCELLED";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kCancelled);
  }
}

}  // namespace
}  // namespace her2fast
