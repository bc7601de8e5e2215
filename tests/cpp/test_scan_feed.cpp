// SPDX-License-Identifier: Apache-2.0
// The queue between who scans and the thread that assembles.
#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

#include "session/scan_feed.h"

#ifdef __linux__
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "small_spec.h"

namespace her2fast {
namespace {

const std::int64_t kWidth = small_spec().frame.width_px;

/// A session that scans glass, so that nobody has to compute models.
struct Scan {
  Session session{make_patch_method(small_spec())};
  ScanFeed feed;

  explicit Scan(std::size_t memory = std::size_t{64} << 20)
      : feed(session, small_spec().frame, ScanFeedLimits::share(memory)) {}

  bool assembles_by_itself() {
    for (int i = 0; i < 5000; ++i) {
      const ScanFeed::Counts counts = feed.counts();
      if (counts.queued == 0 && counts.queue_bytes == 0) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }
};

PixelRect glass(std::int64_t row) {
  return {0, row, kWidth, 1, nullptr, 0, PixelFormat::kBlank};
}

TEST(ScanFeed, FindsWhatWasPushedLongAfterTheLastPush) {
  Scan scan;
  for (std::int64_t row = 0; row < 3; ++row) {
    ASSERT_TRUE(scan.feed.try_push(glass(row), {}));
    EXPECT_TRUE(scan.assembles_by_itself());
    std::this_thread::sleep_for(std::chrono::milliseconds(40));
  }
  EXPECT_EQ(scan.feed.counts().strips.delivered_px, 3 * kWidth);
}

TEST(ScanFeed, DrainsAndStopsWhileTheThreadSleeps) {
  Scan drained, stopped;
  std::this_thread::sleep_for(std::chrono::milliseconds(40));
  ASSERT_TRUE(drained.feed.try_push(glass(0), {}));
  drained.feed.drain();
  EXPECT_EQ(drained.feed.counts().strips.delivered_px, kWidth);
  stopped.feed.end();
}

// Tissue fills the batches, which nobody computes: the thread waits for room. When the
// session ends it must not code the many tiles that are left of the rectangle.
TEST(ScanFeed, CodesNoMoreTilesOfASessionThatEnded) {
  const PatchMethodSpec spec = small_spec();
  Session session(make_patch_method(spec));
  StoredCoding coding;
  coding.jpeg_quality = 80;
  coding.tile_px = 64;
  ScanFeedLimits limits = ScanFeedLimits::share(std::size_t{64} << 20, true);
  limits.batch_bytes = 1;
  ScanFeed feed(session, spec.frame, limits, coding);
  const auto rgb = pixels_of({0, 0, 0, kWidth, spec.frame.height_px, {}});
  ASSERT_TRUE(feed.try_push({0, 0, kWidth, spec.frame.height_px, rgb.data()}, {}));
  std::int64_t before = -1, now = 0;
  while (now == 0 || now != before) {  // until it waits
    before = now;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    now = feed.counts().strips.answered;
  }
  const std::int64_t all = session.progress().planned;
  ASSERT_LT(now, all / 2);
  feed.end();
  EXPECT_LE(feed.counts().strips.answered, now + 1);
}

/// The first release holds the thread until the test lets it go.
struct Releases {
  std::promise<void> held, go;
  std::mutex mutex;
  std::vector<const void*> order;

  static void call(void* context, const void* data) {
    Releases& self = *static_cast<Releases*>(context);
    bool first = false;
    {
      const std::lock_guard lock(self.mutex);
      first = self.order.empty();
      self.order.push_back(data);
    }
    if (!first) return;
    self.held.set_value();
    self.go.get_future().wait();
  }
};

TEST(ScanFeed, KeepsTheOrderOfManyThatWait) {
  constexpr std::int64_t kCount = 700;  // the queue grows, and goes round in its memory
  // Each push has an address of its own.
  std::vector<std::uint8_t> rows(static_cast<std::size_t>(kWidth * 3 + kCount), 255);
  Releases releases;
  Scan scan;
  std::vector<const void*> pushed;
  const auto push = [&](std::int64_t row) {
    const PixelRect rect{0, row, kWidth, 1, rows.data() + row, 0, PixelFormat::kRgb};
    pushed.push_back(rect.data);
    ASSERT_TRUE(scan.feed.try_push(rect, {Releases::call, &releases}));
  };
  push(0);
  releases.held.get_future().wait();
  for (std::int64_t row = 1; row < kCount; ++row) push(row);
  EXPECT_EQ(scan.feed.counts().queued, kCount - 1);
  releases.go.set_value();
  EXPECT_TRUE(scan.assembles_by_itself());
  scan.feed.drain();
  EXPECT_EQ(releases.order, pushed);
  EXPECT_EQ(scan.feed.counts().strips.delivered_px, kCount * kWidth);
}

// Copies of 900,000 bytes, whose memory is kept, and then of 454,500 bytes: that is taken
// again for each, and is what counts, though each uses half of it.
TEST(ScanFeed, KeptMemoryCountsWithAllOfIt) {
  constexpr std::int64_t kLarge = 200, kSmall = 101;  // rows of 4,500 bytes
  constexpr std::size_t kQueue = std::size_t{4} << 20;
  const std::vector<std::uint8_t> pixels(static_cast<std::size_t>(kWidth * 3 * kLarge));
  Releases first, second;
  Scan scan(4 * kQueue);
  const auto push = [&](std::int64_t rows, PixelRelease release) {
    return scan.feed.try_push({0, 0, kWidth, rows, pixels.data()}, release);
  };
  ASSERT_TRUE(push(1, {Releases::call, &first}));
  first.held.get_future().wait();
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(push(kLarge, {}));
  EXPECT_EQ(scan.feed.counts().queue_bytes, 4'500u + 4 * 900'000u);
  first.go.set_value();
  ASSERT_TRUE(scan.assembles_by_itself());
  EXPECT_EQ(scan.feed.counts().held_bytes, 4 * 900'000u);
  ASSERT_TRUE(push(1, {Releases::call, &second}));
  second.held.get_future().wait();
  int taken = 0;
  while (push(kSmall, {})) ++taken;
  // Four in kept memory and one in memory of its own; by what they use it would be nine.
  EXPECT_EQ(taken, 5);
  EXPECT_EQ(scan.feed.counts().held_bytes, 4'500u + 4 * 900'000u + 454'500u);
  EXPECT_LE(scan.feed.counts().peak_held_bytes, kQueue);
  second.go.set_value();
  EXPECT_TRUE(scan.assembles_by_itself());
}

#if defined(__linux__) && defined(SYS_futex)
thread_local volatile sig_atomic_t wakes = 0;

void count_wake(int) { wakes = wakes + 1; }

/// From here on every futex wake of this thread is counted, and does not happen.
bool trap_wakes_of_this_thread() {
  struct sigaction action {};
  action.sa_handler = count_wake;
  if (sigaction(SIGSYS, &action, nullptr) != 0) return false;
  constexpr std::uint32_t kNumber = offsetof(seccomp_data, nr);
  constexpr std::uint32_t kOperation = offsetof(seccomp_data, args) + 8;
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNumber),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kOperation),
      BPF_STMT(BPF_ALU | BPF_AND | BPF_K, FUTEX_CMD_MASK & 0xFF),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FUTEX_WAKE, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
  };
  const sock_fprog program{sizeof filter / sizeof filter[0], filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// To wake a thread is when the scheduler looks whether others want the core.
TEST(ScanFeed, APushWakesNobody) {
  Scan scan;
  int during_pushes = -1, counted = -1;
  std::thread pusher([&] {
    if (!trap_wakes_of_this_thread()) return;
    int word = 0;
    syscall(SYS_futex, &word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, nullptr, nullptr, 0);
    counted = wakes;
    wakes = 0;
    for (std::int64_t row = 0; row < 20; ++row) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));  // it sleeps by then
      scan.feed.try_push(glass(row), {});
    }
    during_pushes = wakes;
  });
  pusher.join();
  if (counted < 0) GTEST_SKIP() << "no seccomp filters here";
  EXPECT_EQ(counted, 1);
  // A feed that meets the lock taken is woken by its release: chance, and rare.
  EXPECT_LE(during_pushes, 3);
  EXPECT_TRUE(scan.assembles_by_itself());
}
#endif

}  // namespace
}  // namespace her2fast
