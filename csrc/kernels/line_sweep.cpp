// SPDX-License-Identifier: Apache-2.0
#include "kernels/line_sweep.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace her2fast {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::uint64_t ordered(double value) {
  const auto bits = std::bit_cast<std::uint64_t>(value);
  return bits >> 63 ? ~bits : bits | std::uint64_t{1} << 63;
}

void sort_small(ClassChange* first, ClassChange* last) {
  std::sort(first, last,
            [](const ClassChange& a, const ClassChange& b) { return a.at < b.at; });
}

/// By place: buckets of equal width in the order of the bits, then each by itself, so
/// that the comparisons stay in the cache. The order of equal places does not matter.
void sort_events(SweepScratch& scratch) {
  auto& events = scratch.events;
  constexpr std::size_t kSmall = 4096, kBuckets = std::size_t{1} << 16;
  if (events.size() < kSmall) {
    sort_small(events.data(), events.data() + events.size());
    return;
  }
  // Offsets crowd around zero, where the bits of a double are sparse: shift them away.
  double low = kInfinity, high = -kInfinity;
  for (const ClassChange& e : events) {
    low = std::min(low, e.at);
    high = std::max(high, e.at);
  }
  const std::uint64_t first = ordered(low);
  const int shift = std::max(0, 64 - std::countl_zero((ordered(high) - first) | 1) - 16);
  auto& begins = scratch.buckets;
  begins.assign(kBuckets + 2, 0);
  const auto bucket = [&](const ClassChange& e) {
    return static_cast<std::size_t>((ordered(e.at) - first) >> shift);
  };
  for (const ClassChange& e : events) ++begins[bucket(e) + 2];
  for (std::size_t b = 2; b < begins.size(); ++b) begins[b] += begins[b - 1];
  scratch.sorted.resize(events.size());
  for (const ClassChange& e : events) {
    scratch.sorted[static_cast<std::size_t>(begins[bucket(e) + 1]++)] = e;
  }
  for (std::size_t b = 0; b < kBuckets; ++b) {
    sort_small(scratch.sorted.data() + begins[b], scratch.sorted.data() + begins[b + 1]);
  }
  events.swap(scratch.sorted);
}

struct Winner {
  double value = -kInfinity;
  unsigned id = 0;
};

struct Interval {
  double low, high;
};

/// Ends without a change of class get room of their own.
Interval bounded(Interval i, CalibrationMode mode) {
  if (mode == CalibrationMode::kScale) {
    if (i.low == 0) i.low = i.high == kInfinity ? 0.25 : i.high / 4;
    if (i.high == kInfinity) i.high = i.low * 4;
  } else {
    if (i.low == -kInfinity) i.low = i.high == kInfinity ? -1 : i.high - 2;
    if (i.high == kInfinity) i.high = i.low + 2;
  }
  return i;
}

double middle(Interval i, CalibrationMode mode) {
  i = bounded(i, mode);
  return mode == CalibrationMode::kScale ? std::sqrt(i.low) * std::sqrt(i.high)
                                         : 0.5 * i.low + 0.5 * i.high;
}

double width(Interval i, CalibrationMode mode) {
  i = bounded(i, mode);
  return mode == CalibrationMode::kScale ? i.high / i.low : i.high - i.low;
}

/// The widest run of intervals of the lowest loss, and the widest interval in it.
class BestStretch {
 public:
  explicit BestStretch(CalibrationMode mode) : mode_(mode) {}

  void add(Interval interval, std::int64_t fixed) {
    if (fixed == run_fixed_) {
      run_.high = interval.high;
      if (width(interval, mode_) > width(inner_, mode_)) inner_ = interval;
      return;
    }
    close();
    run_ = inner_ = interval;
    run_fixed_ = fixed;
  }
  Stretch best() {
    close();
    return {fixed_, middle(best_, mode_), middle(best_inner_, mode_)};
  }

 private:
  void close() {
    if (run_fixed_ < 0 || run_fixed_ > fixed_) return;
    if (run_fixed_ == fixed_ && width(run_, mode_) <= width(best_, mode_)) return;
    fixed_ = run_fixed_;
    best_ = run_;
    best_inner_ = inner_;
  }

  CalibrationMode mode_;
  std::int64_t run_fixed_ = -1, fixed_ = std::numeric_limits<std::int64_t>::max();
  Interval run_{}, inner_{}, best_{}, best_inner_{};
};

/// Fills events, and areas as they are at the line's lower end.
void find_events(const CalibrationTable& table, const ClassValues& values, unsigned group,
                 SweepScratch& scratch) {
  scratch.events.clear();
  scratch.px.assign(table.losses.size(), Areas{});
  const bool scale = table.mode == CalibrationMode::kScale;
  for (std::size_t s = 0; s < table.losses.size(); ++s) {
    Areas& px = scratch.px[s];
    for (std::int64_t k = table.offsets[s]; k < table.offsets[s + 1]; ++k) {
      const auto p = static_cast<std::size_t>(k);
      const auto l = calibrated(table.logits[p], values, table.mode);
      Winner inside, outside;
      for (unsigned c = 0; c < kScores; ++c) {
        Winner& side = group >> c & 1u ? inside : outside;
        if (l[c] > side.value) side = {l[c], c};
      }
      const double a = inside.value, b = outside.value;
      // At the lower end: t * a has come to 0, t + a to minus infinity.
      bool starts_inside = false;
      double at = b - a;
      if (scale) {
        starts_inside =
            b < 0 || (b == 0 && (a > 0 || (a == 0 && inside.id < outside.id)));
        const bool changes = starts_inside ? a < 0 && b < 0 : a > 0 && b > 0;
        at = changes ? b / a : kInfinity;
        if (at <= 0) {  // underflow: changes before anything else
          starts_inside = !starts_inside;
          at = kInfinity;
        }
      }
      const unsigned from = starts_inside ? inside.id : outside.id;
      const unsigned to = starts_inside ? outside.id : inside.id;
      px[from] += table.tumor_px[p];
      if (std::abs(at) == kInfinity) continue;
      scratch.events.push_back(
          {at, table.tumor_px[p], static_cast<std::uint32_t>(s << 4) | from << 2 | to});
    }
  }
}

}  // namespace

Stretch sweep_line(const CalibrationTable& table, const ClassValues& values,
                   unsigned group, SweepScratch& scratch) {
  find_events(table, values, group, scratch);
  sort_events(scratch);
  scratch.losses.resize(table.losses.size());
  std::int64_t fixed = 0;
  for (std::size_t s = 0; s < table.losses.size(); ++s) {
    scratch.losses[s] = table.losses[s].of(scratch.px[s]);
    fixed += scratch.losses[s];
  }
  BestStretch best(table.mode);
  double low = table.mode == CalibrationMode::kScale ? 0.0 : -kInfinity;
  const auto& events = scratch.events;
  for (std::size_t k = 0; k < events.size();) {
    const double at = events[k].at;
    best.add({low, at}, fixed);
    for (; k < events.size() && events[k].at == at; ++k) {
      const std::uint32_t packed = events[k].slide_and_classes;
      const std::size_t s = packed >> 4;
      Areas& px = scratch.px[s];
      px[packed >> 2 & 3u] -= events[k].tumor_px;
      px[packed & 3u] += events[k].tumor_px;
      const std::int64_t now = table.losses[s].of(px);
      fixed += now - scratch.losses[s];
      scratch.losses[s] = now;
    }
    low = at;
  }
  best.add({low, kInfinity}, fixed);
  return best.best();
}

}  // namespace her2fast
