// SPDX-License-Identifier: Apache-2.0
#include "her2fast/flip.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "her2fast/guideline.h"
#include "session/guideline_rule.h"

namespace her2fast {
namespace {

using Areas = std::array<std::int64_t, 4>;

/// "Classes [first, last] hold at least `least` px together."
struct Bound {
  std::size_t first, last;
  std::int64_t least;
  std::int64_t area(const Areas& areas) const {
    std::int64_t sum = 0;
    for (std::size_t c = first; c <= last; ++c) sum += areas[c];
    return sum;
  }
};

/// A rule set for one sum of areas, as bounds: a score is at least u exactly where one of
/// bounds(u) holds.
class Bounds {
 public:
  Bounds(const Rule& rule, std::int64_t total, const FlipOptions& options)
      : rule_(rule), cut_(rule.strict ? total / 10 + 1 : (total + 9) / 10) {
    for (std::size_t c = 0; c < 4; ++c) {
      const std::int64_t share = (options.floor_percent * total + 99) / 100;
      present_[c] = std::max<std::int64_t>(1, share);
      // As in the guideline, a floor of 0 switches the counting of patches off too.
      if (options.floor_percent > 0 && options.two_largest_px) {
        present_[c] = std::max(present_[c], (*options.two_largest_px)[c] + 1);
      }
    }
  }

  std::vector<Bound> at_least(std::size_t score) const {
    std::vector<Bound> bounds;
    if (rule_.cumulative) {
      bounds.push_back({score, 3, cut_});
    } else {
      for (std::size_t c = score; c < 4; ++c) bounds.push_back({c, c, cut_});
    }
    if (rule_.escalate && score <= 2) bounds.push_back({3, 3, present_[3]});
    if (rule_.heterogeneous) {
      for (std::size_t c = score + 1; c < 4; ++c) bounds.push_back({c, c, present_[c]});
    }
    return bounds;
  }

  int score(const Areas& areas) const {
    for (std::size_t u = 3; u >= 1; --u) {
      for (const Bound& bound : at_least(u)) {
        if (bound.area(areas) >= bound.least) return static_cast<int>(u);
      }
    }
    return 0;
  }

 private:
  const Rule& rule_;
  std::int64_t cut_;
  Areas present_{};
};

/// Takes up to `px` from class `from`; returns what is still to be taken.
std::int64_t take(Areas& areas, std::size_t from, std::int64_t px) {
  const std::int64_t taken = std::min(px, areas[from]);
  areas[from] -= taken;
  return px - taken;
}

/// The cheapest areas of a higher score: one bound must come to hold, so the nearest one.
std::optional<Areas> raised(const Areas& areas, const std::vector<Bound>& bounds) {
  const Bound* nearest = nullptr;
  const std::int64_t total = areas[0] + areas[1] + areas[2] + areas[3];
  for (const Bound& bound : bounds) {
    if (bound.least > total) continue;
    if (nearest == nullptr ||
        bound.least - bound.area(areas) < nearest->least - nearest->area(areas)) {
      nearest = &bound;
    }
  }
  if (nearest == nullptr) return std::nullopt;
  Areas moved = areas;
  const std::int64_t short_of = nearest->least - nearest->area(areas);
  std::int64_t left = short_of;
  for (std::size_t c = nearest->first; c-- > 0;) left = take(moved, c, left);
  for (std::size_t c = nearest->last + 1; c < 4; ++c) left = take(moved, c, left);
  moved[nearest->first] += short_of;
  return moved;
}

/// The cheapest areas of a score below `score`: every bound must cease to hold. The
/// bounds are single classes and at most one range that holds them all, so meeting the
/// single ones first wastes nothing; what is taken goes one class below, which no bound
/// names.
Areas lowered(const Areas& areas, std::size_t score, const std::vector<Bound>& bounds) {
  Areas moved = areas;
  const auto excess = [&moved](const Bound& bound) {
    return std::max<std::int64_t>(0, bound.area(moved) - (bound.least - 1));
  };
  std::int64_t taken = 0;
  for (const Bound& bound : bounds) {
    if (bound.first != bound.last) continue;
    const std::int64_t px = excess(bound);
    take(moved, bound.first, px);
    taken += px;
  }
  for (const Bound& bound : bounds) {
    const std::int64_t px = excess(bound);
    std::int64_t left = px;
    for (std::size_t c = bound.first; c <= bound.last; ++c) left = take(moved, c, left);
    taken += px;
  }
  moved[score - 1] += taken;
  return moved;
}

std::int64_t gained(const Areas& from, const Areas& to) {
  std::int64_t px = 0;
  for (std::size_t c = 0; c < 4; ++c) px += std::max<std::int64_t>(0, to[c] - from[c]);
  return px;
}

}  // namespace

std::optional<FlipCertificate> flip_certificate(const Areas& areas,
                                                std::string_view rule_set,
                                                const FlipOptions& options) {
  GuidelineOptions checked;
  checked.floor_percent = options.floor_percent;
  decide_guideline(areas, rule_set, checked);  // the engine's own checks
  if (options.two_largest_px) {
    for (std::size_t c = 0; c < 4; ++c) {
      const std::int64_t px = (*options.two_largest_px)[c];
      if (px < 0 || px > areas[c]) {
        throw std::invalid_argument(
            "need 0 <= two_largest_px <= areas, got " + std::to_string(px) + " of " +
            std::to_string(areas[c]) + " px in class " + std::to_string(c));
      }
    }
  }
  const std::int64_t total = areas[0] + areas[1] + areas[2] + areas[3];
  if (total == 0) return std::nullopt;
  const Bounds bounds(find_rule(rule_set), total, options);
  const auto score = static_cast<std::size_t>(bounds.score(areas));

  std::optional<Areas> best;
  if (score < 3) best = raised(areas, bounds.at_least(score + 1));
  if (score > 0) {
    const Areas down = lowered(areas, score, bounds.at_least(score));
    if (!best || gained(areas, down) < gained(areas, *best)) best = down;
  }
  // The cut of 3+ can always be reached and class 0 can always take all: never empty.
  FlipCertificate flip;
  flip.least_px = gained(areas, *best);
  flip.to_score = bounds.score(*best);
  for (std::size_t c = 0; c < 4; ++c) flip.change_px[c] = (*best)[c] - areas[c];
  return flip;
}

}  // namespace her2fast
