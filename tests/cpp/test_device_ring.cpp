// SPDX-License-Identifier: Apache-2.0
/// Sessions computed through a table whose streams are threads (tests/async_cuda): the
/// bytes of the CPU, every call that can fail, and nothing left on the "GPU".
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <thread>

#include "async_cuda.h"
#include "core/cuda_library.h"
#include "her2fast/device_ring.h"
#include "her2fast/engine.h"
#include "small_spec.h"

namespace her2fast {
namespace {

using async_cuda::Faults;
using Bytes = std::vector<std::uint8_t>;

constexpr float kMean[2] = {0.6F, 0.55F}, kStd[2] = {0.25F, 0.3F};

/// A model: one value of the normalized pixels, or NaN of padding, which is all zeros.
float answer(float normalized_red) { return (0.4F - normalized_red) * 5.0F; }
bool is_padding(float first, float last, std::int32_t model) {
  const float zero = (0.0F - kMean[model]) / kStd[model];
  return first == zero && last == zero;
}
std::int64_t place_of(std::int32_t model, std::int64_t k, std::int64_t plane) {
  return model == 0 && k < plane ? k : (k * 977) % plane;  // also of a second channel
}

/// The same arithmetic from pixels, for the session on the CPU.
std::int32_t run_on_cpu(void*, std::int32_t model, std::int64_t, const std::uint8_t* rgb,
                        std::int32_t n, std::int32_t height_px, std::int32_t width_px,
                        float* output, std::int64_t outputs) {
  const std::int64_t plane = std::int64_t{height_px} * width_px;
  const auto normalized = [&](std::int64_t i, std::int64_t at) {
    const float unit = static_cast<float>(rgb[3 * (i * plane + at)]) / 255.0F;
    return (unit - kMean[model]) / kStd[model];
  };
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t k = 0; k < outputs; ++k) {
      output[i * outputs + k] = answer(normalized(i, place_of(model, k, plane)));
    }
  }
  return 0;
}

/// The runtime on the "GPU": queues on the piece's stream, as torch does.
struct FakeRuntime {
  std::atomic<int> pieces{0}, freed{0};
  std::atomic<int> refuse{0};  // pieces to refuse for lack of memory
  std::atomic<int> throw_at{0};
  bool gives_nan = false;
  std::atomic<std::int32_t> largest{0};

  DeviceRuntime runtime() {
    return {[this](const DevicePiece& piece) {
              const int number = ++pieces;
              if (number == throw_at) throw std::runtime_error("out of luck");
              largest = std::max<std::int32_t>(largest, piece.n);
              const bool refused = refuse > 0 && refuse-- > 0;
              // Also of what is refused, a part was queued.
              async_cuda::queue(piece.stream, [piece, nan = gives_nan] {
                const std::int64_t plane = std::int64_t{piece.height_px} * piece.width_px;
                for (std::int64_t i = 0; i < piece.n; ++i) {
                  const float* red = piece.inputs + 3 * i * plane;
                  const bool no_number =
                      nan || is_padding(red[0], red[plane - 1], piece.model);
                  for (std::int64_t k = 0; k < piece.outputs_per_item; ++k) {
                    const std::int64_t at = place_of(piece.model, k, plane);
                    piece.outputs[i * piece.outputs_per_item + k] =
                        no_number ? std::numeric_limits<float>::quiet_NaN()
                                  : answer(red[at]);
                  }
                }
              });
              return !refused;
            },
            [this] { ++freed; }};
  }
};

std::vector<DeviceModel> models() {
  std::vector<DeviceModel> out(2);
  for (std::size_t i = 0; i < 2; ++i) {
    out[i].mean = {kMean[i], kMean[i], kMean[i]};
    out[i].std = {kStd[i], kStd[i], kStd[i]};
  }
  return out;
}

PatchMethodSpec tiny_spec() {
  PatchMethodSpec spec = small_spec();
  spec.frame.width_px = 260;
  spec.frame.height_px = 200;
  return spec;
}

Bytes on_cpu(const PatchMethodSpec& spec) {
  Session session(make_patch_method(spec));
  EngineTable table;
  table.run = run_on_cpu;
  std::jthread pixels([&] { push_all(session); });
  drive(session, table, 1);
  return session.finish().to_bytes();
}

/// Whoever drives rings: a thread each, whose failure ends the session.
Bytes on_device(const PatchMethodSpec& spec, FakeRuntime& fake, int rings,
                std::int32_t in_flight, bool* halved = nullptr) {
  const auto memory = make_pinned_memory();
  Session session(make_patch_method(spec), {std::size_t{256} << 20, memory});
  {
    std::vector<std::jthread> threads;
    threads.emplace_back([&] {
      try {
        push_all(session);
      } catch (const Error&) {
        // the session has failed: `finish` says so
      }
    });
    for (int i = 0; i < rings; ++i) {
      threads.emplace_back([&] {
        try {
          DeviceRing ring(models(), {0, in_flight});
          try {
            ring.run(session, fake.runtime(), true);
          } catch (...) {
            if (rings == 1) {
              EXPECT_EQ(async_cuda::seen().busy, 0U) << "still in flight";
            }
            throw;
          }
          if (halved != nullptr) *halved = ring.halved();
        } catch (const Error& error) {
          session.fail(error.code(), error.what());
        } catch (const DeviceError& error) {
          session.fail(Code::kSelftest, error.what());  // told apart from the others
        } catch (const std::exception& error) {
          session.fail(Code::kCrash, error.what());
        }
      });
    }
  }
  return session.finish().to_bytes();
}

class DeviceRingTest : public testing::Test {
 protected:
  void SetUp() override {
    set_cuda_library(ASYNC_CUDA);
    async_cuda::reset();
  }
  void TearDown() override {
    EXPECT_EQ(async_cuda::seen().alive, 0U) << "memory or streams were left";
    set_cuda_library("");
  }
  static Code code_of(const PatchMethodSpec& spec, FakeRuntime& fake) {
    try {
      on_device(spec, fake, 1, 2);
    } catch (const Error& error) {
      return error.code();
    }
    ADD_FAILURE() << "need an error";
    return Code::kCrash;
  }
};

TEST_F(DeviceRingTest, SameBytesAsOnTheCpu) {
  const Bytes expected = on_cpu(small_spec());
  for (const auto& [rings, in_flight] :
       {std::pair{1, 1}, {1, 2}, {1, 3}, {3, 2}, {2, 16}}) {
    FakeRuntime fake;
    EXPECT_EQ(on_device(small_spec(), fake, rings, in_flight), expected)
        << rings << ' ' << in_flight;
    EXPECT_GT(fake.pieces, 20);
  }
}

TEST_F(DeviceRingTest, SameBytesForAnyBatchAndWithTwoChannels) {
  for (const std::int32_t batch : {1, 2, 7}) {
    PatchMethodSpec spec = tiny_spec();
    spec.classify_batch = spec.segment_batch = batch;
    spec.distance_names = {"far"};
    FakeRuntime fake;
    EXPECT_EQ(on_device(spec, fake, 1, 2), on_cpu(spec));
    spec.segment_channels = 2;
    FakeRuntime two;
    EXPECT_EQ(on_device(spec, two, 1, 2), on_cpu(spec));
  }
}

TEST_F(DeviceRingTest, TwoBatchesAreOnTheirWayAtOnce) {
  PatchMethodSpec spec = tiny_spec();
  // So that as many can leave before any has landed: classifying waits for segments.
  spec.segment_batch = 1;
  for (const std::size_t in_flight : {std::size_t{1}, std::size_t{2}, std::size_t{3}}) {
    // No stream works before so many have work: a ring that waits for each stands still.
    async_cuda::reset({}, in_flight);
    Session session(make_patch_method(spec));
    for (const ReadRequest& r : session.wanted(1000)) {
      const auto rgb = pixels_of(r);
      session.push(r.id, {rgb.data(), r.height_px, r.width_px, 3}, TileStatus::kOk);
    }
    FakeRuntime fake;
    DeviceRing ring(models(), {0, static_cast<std::int32_t>(in_flight)});
    ring.run(session, fake.runtime(), true);
    EXPECT_EQ(session.finish().to_bytes(), on_cpu(spec));
    EXPECT_EQ(async_cuda::seen().busiest, in_flight);
  }
}

TEST_F(DeviceRingTest, MemoryServesTheSessionsThatFollow) {
  const auto memory = make_pinned_memory();
  DeviceRing ring(models(), {0, 2});
  FakeRuntime fake;
  std::int64_t allocations = 0;
  for (int i = 0; i < 3; ++i) {
    Session session(make_patch_method(tiny_spec()), {1, memory});
    // From the same thread, with what is ready: nothing waits for anybody.
    for (;;) {
      const auto requests = session.wanted(2);
      for (const ReadRequest& r : requests) {
        const auto rgb = pixels_of(r);
        session.push(r.id, {rgb.data(), r.height_px, r.width_px, 3}, TileStatus::kOk);
      }
      if (ring.run(session, fake.runtime(), false) == 0 && requests.empty()) break;
    }
    EXPECT_EQ(session.finish().to_bytes(), on_cpu(tiny_spec()));
    if (i == 0) allocations = async_cuda::seen().allocations;
  }
  EXPECT_EQ(async_cuda::seen().allocations, allocations);
}

TEST_F(DeviceRingTest, AModelThatRunsOutOfMemoryGetsHalfABatch) {
  const Bytes expected = on_cpu(tiny_spec());
  FakeRuntime fake;
  fake.refuse = 1;
  bool halved = false;
  EXPECT_EQ(on_device(tiny_spec(), fake, 1, 2, &halved), expected);
  EXPECT_TRUE(halved);
  EXPECT_EQ(fake.freed, 1);
  fake.refuse = 2;
  EXPECT_EQ(code_of(tiny_spec(), fake), Code::kGpuOom);
}

TEST_F(DeviceRingTest, HalvesAreTheSameForOddBatches) {
  for (const std::int32_t batch : {1, 2, 5}) {
    PatchMethodSpec spec = tiny_spec();
    spec.segment_batch = spec.classify_batch = batch;
    FakeRuntime fake;
    fake.refuse = 1;
    EXPECT_EQ(on_device(spec, fake, 1, 2), on_cpu(spec));
    EXPECT_LE(fake.largest, batch);
  }
}

TEST_F(DeviceRingTest, WhatIsNoNumberEndsTheSession) {
  FakeRuntime fake;  // its answers to padding are none, and nobody minds (above)
  fake.gives_nan = true;
  EXPECT_EQ(code_of(tiny_spec(), fake), Code::kNonFinite);
}

TEST_F(DeviceRingTest, WhatTheRuntimeThrowsPasses) {
  FakeRuntime fake;
  fake.throw_at = 3;
  EXPECT_EQ(code_of(tiny_spec(), fake), Code::kCrash);
}

TEST_F(DeviceRingTest, EveryCallMayLoseTheGpu) {
  const PatchMethodSpec spec = tiny_spec();
  const Bytes expected = on_cpu(spec);
  FakeRuntime fake;
  async_cuda::reset();
  on_device(spec, fake, 1, 2);
  const std::int64_t calls = async_cuda::seen().calls;
  ASSERT_GT(calls, 40);
  int unharmed = 0;
  for (std::int64_t at = 1; at <= calls; ++at) {
    async_cuda::reset({at, false, HER2_CUDA_LOST, 0, {}});
    try {
      // The last calls wait for streams whose batches have landed.
      EXPECT_EQ(on_device(spec, fake, 1, 2), expected) << at;
      ++unharmed;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kGpuLost) << at;
    }
    EXPECT_EQ(async_cuda::seen().alive, 0U) << at;
  }
  EXPECT_LE(unharmed, 12);
  async_cuda::reset({1, true, HER2_CUDA_NO_DEVICE, 0, "count_devices"});
  EXPECT_EQ(code_of(spec, fake), Code::kSelftest);
}

TEST_F(DeviceRingTest, OutOfMemoryOnceGoesOnAndForGoodIsSaid) {
  const PatchMethodSpec spec = tiny_spec();
  const Bytes expected = on_cpu(spec);
  FakeRuntime fake;
  for (const char* only : {"allocate", "create_stream", "allocate_pinned",
                           "normalize_batch", "tumor_bits"}) {
    async_cuda::reset({0, false, HER2_CUDA_OK, 0, only});
    on_device(spec, fake, 1, 2);
    const std::int64_t calls = async_cuda::seen().calls;
    ASSERT_GT(calls, 0) << only;
    for (std::int64_t at = 1; at <= calls; ++at) {
      async_cuda::reset({at, false, HER2_CUDA_OUT_OF_MEMORY, 0, only});
      EXPECT_EQ(on_device(spec, fake, 1, 2), expected) << only << ' ' << at;
      EXPECT_EQ(async_cuda::seen().alive, 0U) << only << ' ' << at;
    }
    async_cuda::reset({1, true, HER2_CUDA_OUT_OF_MEMORY, 0, only});
    if (only == std::string("allocate_pinned")) {  // plain memory does
      bool halved = true;
      EXPECT_EQ(on_device(spec, fake, 1, 2, &halved), expected);
      EXPECT_FALSE(halved);
    } else {
      EXPECT_EQ(code_of(spec, fake), Code::kGpuOom) << only;
    }
  }
}

TEST_F(DeviceRingTest, SessionsGoOnWithoutPinnedMemory) {
  async_cuda::reset({1, true, HER2_CUDA_OUT_OF_MEMORY, 0, "allocate_pinned"});
  const auto memory = make_pinned_memory();
  std::uint8_t* const plain = memory->allocate(1000);
  plain[999] = 1;
  memory->release(plain, 1000);
  EXPECT_EQ(memory->allocate(1000), plain);
  memory->release(plain, 1000);
  // A session whose batches and results lie there; nothing was pinned meanwhile.
  const Bytes expected = on_cpu(tiny_spec());
  async_cuda::reset({1, true, HER2_CUDA_OUT_OF_MEMORY, 0, "allocate_pinned"});
  FakeRuntime fake;
  bool halved = true;
  EXPECT_EQ(on_device(tiny_spec(), fake, 1, 2, &halved), expected);
  EXPECT_FALSE(halved);
  EXPECT_EQ(fake.freed, 0);
  EXPECT_GT(async_cuda::seen().calls, 3);
  async_cuda::reset({1, true, HER2_CUDA_LOST, 0, "allocate_pinned"});
  EXPECT_EQ(code_of(tiny_spec(), fake), Code::kGpuLost);
}

TEST_F(DeviceRingTest, AFaultOnTheDeviceIsTold) {
  FakeRuntime fake;
  async_cuda::reset();
  on_device(tiny_spec(), fake, 1, 2);
  const std::int64_t operations = async_cuda::seen().operations;
  ASSERT_GT(operations, 30);
  for (std::int64_t at = 1; at <= operations; at += 3) {
    async_cuda::reset({0, false, HER2_CUDA_OK, at, {}});
    EXPECT_EQ(code_of(tiny_spec(), fake), Code::kGpuLost) << at;
    EXPECT_EQ(async_cuda::seen().alive, 0U) << at;
  }
}

TEST_F(DeviceRingTest, ACancelledSessionLeavesNothingBehind) {
  for (int batches = 0; batches < 6; ++batches) {
    FakeRuntime fake;
    Session* current = nullptr;
    DeviceRuntime runtime = fake.runtime();
    const auto memory = make_pinned_memory();
    Session session(make_patch_method(tiny_spec()), {std::size_t{256} << 20, memory});
    current = &session;
    DeviceRing ring(models(), {0, 2});
    std::jthread pixels([&] { push_all(session); });
    ring.run(session, {[&](const DevicePiece& piece) {
               if (fake.pieces == batches) current->cancel();
               return runtime.compute(piece);
             }},
             true);
    try {
      session.finish();
      ADD_FAILURE() << "need CANCELLED";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kCancelled);
    }
  }
}

TEST_F(DeviceRingTest, TumorBelongsToABatchOfASegmenter) {
  Session session(make_patch_method(tiny_spec()));
  EXPECT_THROW(session.put_tumor(1, nullptr, nullptr), std::invalid_argument);
  PatchMethodSpec spec = tiny_spec();
  spec.has_segmenter = false;
  Session without(make_patch_method(spec));
  for (const ReadRequest& r : without.wanted(1000)) {
    const auto rgb = pixels_of(r);
    without.push(r.id, {rgb.data(), r.height_px, r.width_px, 3}, TileStatus::kOk);
  }
  const std::optional<Batch> batch = without.next_batch();
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(batch->tissue, nullptr);
  EXPECT_THROW(without.put_tumor(batch->id, nullptr, nullptr), std::invalid_argument);
}

TEST_F(DeviceRingTest, WrongArgumentsAreRefused) {
  EXPECT_THROW(DeviceRing(models(), {0, 0}), std::invalid_argument);
  EXPECT_THROW(DeviceRing(models(), {0, 17}), std::invalid_argument);
  EXPECT_THROW(DeviceRing(models(), {1, 2}), DeviceError);
  EXPECT_THROW(DeviceRing(models(), {-1, 2}), DeviceError);
  DeviceRing ring({DeviceModel{}}, {0, 2});
  Session session(make_patch_method(tiny_spec()));
  FakeRuntime fake;
  EXPECT_THROW(ring.run(session, fake.runtime(), false), std::invalid_argument);
  EXPECT_TRUE(has_cuda_library());
  set_cuda_library("/nowhere/libher2fast_cuda.so");
  EXPECT_THROW(has_cuda_library(), DeviceError);
  EXPECT_THROW(DeviceRing(models(), {0, 2}), DeviceError);
  EXPECT_THROW(make_pinned_memory(), DeviceError);
}

}  // namespace
}  // namespace her2fast
