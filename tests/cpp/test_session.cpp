// SPDX-License-Identifier: Apache-2.0
// The shape of the session, proved with three small methods: one round with halo, two
// rounds at two spacings, random access.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <thread>

#include "her2fast/session.h"

namespace her2fast {
namespace {

constexpr Spacing kOne{1'000'000};
constexpr Spacing kQuarter{250'000};

std::uint8_t pixel_at(std::int64_t x, std::int64_t y) {
  return static_cast<std::uint8_t>((x * 7 + y * 13) & 0xff);
}

std::vector<std::uint8_t> pixels_of(const ReadRequest& r) {
  std::vector<std::uint8_t> rgb;
  for (std::int64_t y = 0; y < r.height_px; ++y) {
    for (std::int64_t x = 0; x < r.width_px; ++x) {
      for (int c = 0; c < 3; ++c) rgb.push_back(pixel_at(r.x_px + x, r.y_px + y));
    }
  }
  return rgb;
}

/// Sums per item, kept in the census of one tile each, so that results can be compared.
class TestMethod : public Method {
 public:
  explicit TestMethod(std::size_t tiles) {
    m_.frame = {1024, 1024, kQuarter, kQuarter};
    m_.spacing = kOne;
    m_.tile_px = m_.patch_px = 64;
    m_.tiles_x = static_cast<std::int64_t>(tiles);
    m_.tiles_y = 1;
    m_.class_names = {"a"};
    m_.tiles.resize(tiles);
  }
  std::vector<ModelSlot> models() const override { return {{"sum", 4, 8, 8, 1}}; }
  void accept(const ReadRequest& r, TileStatus status, ImageView<const std::uint8_t> rgb,
              ItemSink& sink) override {
    TileRecord& tile = m_.tiles.at(static_cast<std::size_t>(r.id));
    tile.status = status;
    if (rgb.data == nullptr) return;
    const std::int64_t y = (r.height_px - 8) / 2,
                       x = (r.width_px - 8) / 2;  // inside the halo
    sink.submit(0, r.id, {rgb.row(y) + 3 * x, 8, 8, 3, rgb.stride});
  }
  void accept_output(int, std::int64_t item, ImageView<const std::uint8_t> rgb,
                     const float* out, ItemSink&) override {
    TileRecord& tile = m_.tiles.at(static_cast<std::size_t>(item));
    tile.census.pixels = static_cast<std::int64_t>(out[0]);
    tile.census.dark = rgb.row(0)[0];
  }
  Snapshot snapshot() const override { return {m_, 0}; }
  Measurement measure() override { return std::move(m_); }

 protected:
  Measurement m_;
};

/// One round: 9 tiles of 8 px with a halo of 4 px.
class OneRound : public TestMethod {
 public:
  OneRound() : TestMethod(9) {}
  std::vector<ReadRequest> plan(int round) override {
    std::vector<ReadRequest> out;
    for (std::int64_t i = 0; i < (round == 0 ? 9 : 0); ++i) {
      out.push_back({i, i % 3 * 8 - 4, i / 3 * 8 - 4, 16, 16, kOne});
    }
    return out;
  }
};

/// A coarse round, then a fine one where the coarse output was odd.
class TwoRounds : public TestMethod {
 public:
  TwoRounds() : TestMethod(8) {}
  std::vector<ReadRequest> plan(int round) override {
    std::vector<ReadRequest> out;
    for (std::int64_t i = 0; i < 4; ++i) {
      if (round == 0) out.push_back({i, i * 3, 0, 8, 8, kOne});
      if (round == 1 && m_.tiles[static_cast<std::size_t>(i)].census.pixels % 2 == 1) {
        out.push_back({4 + i, i * 12, 0, 8, 8, kQuarter});
      }
    }
    return out;
  }
};

/// Positions in no order, some overlapping, one far outside.
class RandomAccess : public TestMethod {
 public:
  RandomAccess() : TestMethod(5) {}
  std::vector<ReadRequest> plan(int round) override {
    if (round > 0) return {};
    return {{3, 100, 7, 8, 8, kOne},
            {0, 5, 5, 8, 8, kQuarter},
            {4, 6, 6, 8, 12, kQuarter},
            {1, -50, 900, 8, 8, kOne},
            {2, 5, 5, 8, 8, kOne}};
  }
};

std::vector<float> sums(const Batch& batch, const ModelSlot& slot) {
  std::vector<float> out(static_cast<std::size_t>(slot.batch));
  for (int i = 0; i < slot.batch; ++i) {
    const std::uint8_t* p = batch.rgb + i * 8 * 8 * 3;
    float total = 0;
    for (int k = 0; k < 8 * 8 * 3; ++k) total += p[k];
    if (i >= batch.valid) {
      EXPECT_EQ(total, 0) << "padding is zero";
    }
    out[static_cast<std::size_t>(i)] = total;
  }
  return out;
}

void run_models(Session& session, bool wait) {
  while (const auto batch = session.next_batch(wait)) {
    const auto out = sums(*batch, session.models()[0]);
    session.put(batch->id, out.data(), out.size());
  }
}

template <typename M>
Measurement run_in_order(std::size_t chunk, SessionOptions options = {}) {
  Session session(std::make_unique<M>(), options);
  for (;;) {
    const auto requests = session.wanted(chunk);
    for (const ReadRequest& r : requests) {
      session.push(r.id, {pixels_of(r).data(), r.height_px, r.width_px, 3},
                   TileStatus::kOk);
    }
    run_models(session, false);
    if (requests.empty()) break;
  }
  return session.finish();
}

template <typename M>
Measurement run_threaded(int threads, SessionOptions options = {}) {
  Session session(std::make_unique<M>(), options);
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t) {
    pool.emplace_back([&session, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      for (;;) {
        auto requests = session.wanted(3, true);
        if (requests.empty()) return;
        std::shuffle(requests.begin(), requests.end(), random);
        for (const ReadRequest& r : requests) {
          session.push(r.id, {pixels_of(r).data(), r.height_px, r.width_px, 3},
                       TileStatus::kOk);
        }
      }
    });
    pool.emplace_back([&session] { run_models(session, true); });
  }
  for (std::thread& thread : pool) thread.join();
  return session.finish();
}

template <typename M>
class SessionShape : public testing::Test {};
using Methods = testing::Types<OneRound, TwoRounds, RandomAccess>;
TYPED_TEST_SUITE(SessionShape, Methods);

TYPED_TEST(SessionShape, SameMeasurementForAnyOrderThreadsAndMemory) {
  const Measurement expected = run_in_order<TypeParam>(1000);
  EXPECT_GT(expected.tiles[0].census.pixels, 0);
  EXPECT_EQ(run_in_order<TypeParam>(1), expected);
  EXPECT_EQ(run_in_order<TypeParam>(2, {1}), expected)
      << "the least memory still finishes";
  for (int threads = 1; threads <= 4; ++threads) {
    EXPECT_EQ(run_threaded<TypeParam>(threads), expected);
    EXPECT_EQ(run_threaded<TypeParam>(threads, {1}), expected);
  }
}

TEST(Session, TwoRoundsAskFinelyOnlyWhereTheCoarseAnswerSaysSo) {
  const Measurement m = run_in_order<TwoRounds>(10);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(m.tiles[4 + i].status,
              m.tiles[i].census.pixels % 2 == 1 ? TileStatus::kOk : TileStatus::kMissing);
  }
}

TEST(Session, HaloIsSeenAndCutOff) {
  const Measurement m = run_in_order<OneRound>(9);
  EXPECT_EQ(m.tiles[4].census.dark, pixel_at(8, 8)) << "the inner tile starts at (8, 8)";
}

TEST(Session, UnansweredCountsAsMissingAndFinishIsIdempotent) {
  Session session(std::make_unique<OneRound>());
  const auto requests = session.wanted(3);
  ASSERT_EQ(requests.size(), 3u);
  const auto pixels = pixels_of(requests[1]);
  session.push(requests[1].id, {pixels.data(), 16, 16, 3}, TileStatus::kWarned);
  EXPECT_THROW(session.finish(), std::logic_error) << "one item waits for its model";
  EXPECT_TRUE(session.wanted(9).empty()) << "closed";
  run_models(session, false);
  const Measurement& m = session.finish();
  EXPECT_EQ(m.tiles[1].status, TileStatus::kWarned);
  for (const std::size_t i : {0, 2, 8})
    EXPECT_EQ(m.tiles[i].status, TileStatus::kMissing);
  EXPECT_EQ(&session.finish(), &m);
}

TEST(Session, RefusesWrongPushes) {
  Session session(std::make_unique<OneRound>());
  const auto r = session.wanted(1).front();
  const auto pixels = pixels_of(r);
  const ImageView<const std::uint8_t> good{pixels.data(), 16, 16, 3};
  EXPECT_THROW(session.push(8, good, TileStatus::kOk), std::invalid_argument)
      << "never asked for";
  EXPECT_THROW(session.push(r.id, {pixels.data(), 8, 16, 3}, TileStatus::kOk),
               std::invalid_argument);
  EXPECT_THROW(session.push(r.id, {}, TileStatus::kOk), std::invalid_argument)
      << "no pixels";
  session.push(r.id, good, TileStatus::kOk);
  EXPECT_THROW(session.push(r.id, good, TileStatus::kOk), std::invalid_argument)
      << "twice";
}

TEST(Session, WrongOutputsEndIt) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity()}) {
    Session session(std::make_unique<RandomAccess>());
    for (const auto& r : session.wanted(9)) {
      session.push(r.id, {pixels_of(r).data(), r.height_px, r.width_px, 3},
                   TileStatus::kOk);
    }
    const auto batch = session.next_batch();
    ASSERT_TRUE(batch);
    std::vector<float> out(4, 1.0f);
    out[2] = bad;
    try {
      session.put(batch->id, out.data(), 4);
      FAIL() << "a value that is not finite passed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kNonFinite);
    }
    EXPECT_THROW(session.finish(), Error);
    EXPECT_FALSE(session.next_batch(true)) << "waiting models are let go";
  }
  Session session(std::make_unique<RandomAccess>());
  for (const auto& r : session.wanted(9)) {
    session.push(r.id, {pixels_of(r).data(), r.height_px, r.width_px, 3},
                 TileStatus::kOk);
  }
  const std::vector<float> out(3);
  const auto batch = session.next_batch();
  EXPECT_THROW(session.put(batch->id + 1, out.data(), 3), std::invalid_argument);
  EXPECT_THROW(session.put(batch->id, out.data(), 3), Error);
}

TEST(Session, NotFiniteInThePaddingIsNobodysConcern) {
  Session session(std::make_unique<RandomAccess>());
  for (const auto& r : session.wanted(9)) {
    session.push(r.id, {pixels_of(r).data(), r.height_px, r.width_px, 3},
                 TileStatus::kOk);
  }
  std::vector<float> out(4, 1.0f);
  const auto full = session.next_batch();
  session.put(full->id, out.data(), 4);
  const auto rest = session.next_batch();
  ASSERT_EQ(rest->valid, 1);
  out[3] = std::numeric_limits<float>::quiet_NaN();
  session.put(rest->id, out.data(), 4);
  session.finish();
}

TEST(Session, CancelFreesThoseWhoWait) {
  Session session(std::make_unique<OneRound>());
  std::thread model([&] { EXPECT_FALSE(session.next_batch(true)); });
  session.cancel();
  model.join();
  EXPECT_TRUE(session.wanted(3, true).empty());
  try {
    session.finish();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kCancelled);
  }
}

TEST(Session, MemoryStaysUnderItsLimit) {
  // Nine requests of 768 bytes and batches of 768; five is the least that cannot stall.
  Session session(std::make_unique<OneRound>(), {6 * 768});
  EXPECT_EQ(session.wanted(100).size(), 6u);
  EXPECT_TRUE(session.wanted(100).empty());
}

TEST(Session, BatchesCountWithWhatIsKeptOfThem) {
  Session session(std::make_unique<OneRound>(), {1 << 20});
  EXPECT_EQ(session.progress().batch_bytes, 0u);
  std::size_t pushed = 0;
  for (const ReadRequest& r : session.wanted(100)) {
    session.push(r.id, {pixels_of(r).data(), r.height_px, r.width_px, 3},
                 TileStatus::kOk);
    EXPECT_EQ(session.progress().batch_bytes, (pushed++ / 4 + 1) * 768);
  }
  run_models(session, false);
  EXPECT_EQ(session.progress().batch_bytes, 3u * 768);  // nine items in batches of four
  // One after the other they have one batch's memory.
  Session slow(std::make_unique<OneRound>(), {1 << 20});
  for (const ReadRequest& r : slow.wanted(100)) {
    slow.push(r.id, {pixels_of(r).data(), r.height_px, r.width_px, 3}, TileStatus::kOk);
    run_models(slow, false);
  }
  EXPECT_EQ(slow.progress().batch_bytes, 768u);
}

}  // namespace
}  // namespace her2fast
