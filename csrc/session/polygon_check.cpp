// SPDX-License-Identifier: Apache-2.0
#include "session/polygon_check.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/number_text.h"

namespace her2fast {
namespace {

// Comparisons of two sides: a second or so. Drawings take a ten-thousandth.
constexpr std::int64_t kMaxWork = std::int64_t{1} << 28;

struct Side {
  RoiPoint a, b;
  std::size_t ring = 0, index = 0;
  double top() const { return std::min(a.y0_px, b.y0_px); }
  double bottom() const { return std::max(a.y0_px, b.y0_px); }
  double left() const { return std::min(a.x0_px, b.x0_px); }
  double right() const { return std::max(a.x0_px, b.x0_px); }
};

bool same(RoiPoint a, RoiPoint b) { return a.x0_px == b.x0_px && a.y0_px == b.y0_px; }

/// -1, 0, 1: c is to the right of, on or to the left of the line from a to b.
int turn(RoiPoint a, RoiPoint b, RoiPoint c) {
  const double d = (b.x0_px - a.x0_px) * (c.y0_px - a.y0_px) -
                   (b.y0_px - a.y0_px) * (c.x0_px - a.x0_px);
  return (d > 0) - (d < 0);
}

/// For c on the line of `s`: whether it lies between its ends, ends included.
bool within(const Side& s, RoiPoint c) {
  return c.x0_px >= s.left() && c.x0_px <= s.right() && c.y0_px >= s.top() &&
         c.y0_px <= s.bottom();
}

enum class Meeting { kNone, kTouch, kCross, kLine };

Meeting meet(const Side& s, const Side& t) {
  const int t1 = turn(s.a, s.b, t.a), t2 = turn(s.a, s.b, t.b);
  const int s1 = turn(t.a, t.b, s.a), s2 = turn(t.a, t.b, s.b);
  if (t1 == 0 && t2 == 0) {  // on one line
    const bool vertical = s.left() == s.right();
    const double low =
        vertical ? std::max(s.top(), t.top()) : std::max(s.left(), t.left());
    const double high =
        vertical ? std::min(s.bottom(), t.bottom()) : std::min(s.right(), t.right());
    if (low > high) return Meeting::kNone;
    return low == high ? Meeting::kTouch : Meeting::kLine;
  }
  if (t1 * t2 < 0 && s1 * s2 < 0) return Meeting::kCross;
  const bool touch = (t1 == 0 && within(s, t.a)) || (t2 == 0 && within(s, t.b)) ||
                     (s1 == 0 && within(t, s.a)) || (s2 == 0 && within(t, s.b));
  return touch ? Meeting::kTouch : Meeting::kNone;
}

std::string place_text(RoiPoint p) {
  return "near " + short_text(p.x0_px, 9) + " " + short_text(p.y0_px, 9);
}

/// 1 inside, 0 on a side, -1 outside.
int position(const std::vector<RoiPoint>& ring, RoiPoint p) {
  bool inside = false;
  for (std::size_t i = 0, j = ring.size() - 1; i < ring.size(); j = i++) {
    const Side side{ring[j], ring[i], 0, 0};
    const int side_of = turn(side.a, side.b, p);
    if (side_of == 0 && within(side, p)) return 0;
    const bool below = ring[i].y0_px > p.y0_px, above = ring[j].y0_px > p.y0_px;
    if (below != above && (side_of > 0) == below) inside = !inside;
  }
  return inside ? 1 : -1;
}

/// Where a ring lies against another, by its first vertex that is not on it.
int position(const std::vector<RoiPoint>& ring, const std::vector<RoiPoint>& other) {
  for (const RoiPoint p : other) {
    const int at = position(ring, p);
    if (at != 0) return at;
  }
  return 0;
}

using Rings = std::vector<std::vector<RoiPoint>>;

/// Sides of all rings, vertices that repeat left out.
std::vector<Side> sides_of(const Rings& rings, std::vector<std::size_t>& counts) {
  std::vector<Side> sides;
  for (std::size_t r = 0; r < rings.size(); ++r) {
    std::size_t index = 0;
    for (std::size_t i = 0; i < rings[r].size(); ++i) {
      const RoiPoint a = rings[r][i], b = rings[r][(i + 1) % rings[r].size()];
      if (!same(a, b)) sides.push_back({a, b, r, index++});
    }
    counts.push_back(index);
  }
  return sides;
}

std::optional<std::string> crossing(const Rings& rings, std::int64_t& work) {
  std::vector<std::size_t> counts;
  std::vector<Side> sides = sides_of(rings, counts);
  std::sort(sides.begin(), sides.end(),
            [](const Side& s, const Side& t) { return s.top() < t.top(); });
  std::vector<const Side*> active;
  for (const Side& side : sides) {
    std::erase_if(active, [&](const Side* s) { return s->bottom() < side.top(); });
    work += static_cast<std::int64_t>(active.size());
    if (work > kMaxWork) return "too tangled to be checked";
    for (const Side* other : active) {
      if (other->left() > side.right() || other->right() < side.left()) continue;
      const Meeting meeting = meet(*other, side);
      if (meeting == Meeting::kNone) continue;
      if (other->ring != side.ring) {
        if (meeting == Meeting::kTouch) continue;
        return "two rings cross " + place_text(side.a);
      }
      const std::size_t count = counts[side.ring];
      const bool next = (side.index + 1) % count == other->index;
      const bool before = (other->index + 1) % count == side.index;
      if ((next || before) && meeting == Meeting::kTouch && count > 2) continue;
      return "Self-intersection " + place_text(side.a);
    }
    active.push_back(&side);
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> why_not_simple(const Rings& rings) {
  std::int64_t work = 0;
  if (auto reason = crossing(rings, work)) return reason;
  for (std::size_t r = 1; r < rings.size(); ++r) {
    work += static_cast<std::int64_t>(rings[0].size());
    if (work > kMaxWork) return "too tangled to be checked";
    if (position(rings[0], rings[r]) < 0) {
      return "a hole lies outside of its outline " + place_text(rings[r][0]);
    }
    for (std::size_t other = 1; other < rings.size(); ++other) {
      if (other == r) continue;
      work += static_cast<std::int64_t>(rings[other].size());
      if (work > kMaxWork) return "too tangled to be checked";
      if (position(rings[other], rings[r]) > 0) {
        return "holes are nested " + place_text(rings[r][0]);
      }
    }
  }
  return std::nullopt;
}

double twice_area(const std::vector<RoiPoint>& ring) {
  double sum = 0;
  for (std::size_t i = 0; i < ring.size(); ++i) {
    // From the first vertex, so that far from the origin no digits are lost.
    const RoiPoint a = ring[i], b = ring[(i + 1) % ring.size()], o = ring[0];
    sum += (a.x0_px - o.x0_px) * (b.y0_px - o.y0_px) -
           (b.x0_px - o.x0_px) * (a.y0_px - o.y0_px);
  }
  return std::fabs(sum);
}

std::vector<RoiPoint> clip_to(const std::vector<RoiPoint>& ring, double width,
                              double height) {
  std::vector<RoiPoint> points = ring;
  // Distance into the slide from each of its four borders.
  const auto depth = [&](RoiPoint p, int border) {
    switch (border) {
      case 0:
        return p.x0_px;
      case 1:
        return width - p.x0_px;
      case 2:
        return p.y0_px;
      default:
        return height - p.y0_px;
    }
  };
  for (int border = 0; border < 4; ++border) {
    std::vector<RoiPoint> kept;
    for (std::size_t i = 0; i < points.size(); ++i) {
      const RoiPoint a = points[i], b = points[(i + 1) % points.size()];
      const double da = depth(a, border), db = depth(b, border);
      if (da >= 0) kept.push_back(a);
      if ((da >= 0) != (db >= 0)) {
        const double t = da / (da - db);
        kept.push_back(
            {a.x0_px + t * (b.x0_px - a.x0_px), a.y0_px + t * (b.y0_px - a.y0_px)});
      }
    }
    points = std::move(kept);
    if (points.empty()) break;
  }
  return points;
}

}  // namespace her2fast
