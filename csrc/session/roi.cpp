// SPDX-License-Identifier: Apache-2.0
#include "her2fast/roi.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "her2fast/error.h"

namespace her2fast {
namespace {

// Edges are indexed by bands of rows, so that a row looks at few of them.
constexpr std::int64_t kBandRows = 64;

// Sorts and joins touching spans.
void merge(std::vector<RoiSpan>& spans) {
  std::sort(spans.begin(), spans.end(),
            [](const RoiSpan& a, const RoiSpan& b) { return a.begin_px < b.begin_px; });
  std::size_t kept = 0;
  for (const RoiSpan& span : spans) {
    if (kept > 0 && span.begin_px <= spans[kept - 1].end_px) {
      spans[kept - 1].end_px = std::max(spans[kept - 1].end_px, span.end_px);
    } else {
      spans[kept++] = span;
    }
  }
  spans.resize(kept);
}

// Both sorted and disjoint.
std::vector<RoiSpan> subtract(const std::vector<RoiSpan>& from,
                              const std::vector<RoiSpan>& cut) {
  std::vector<RoiSpan> rest;
  std::size_t k = 0;
  for (RoiSpan span : from) {
    while (k < cut.size() && cut[k].end_px <= span.begin_px) ++k;
    for (std::size_t j = k; j < cut.size() && cut[j].begin_px < span.end_px; ++j) {
      if (cut[j].begin_px > span.begin_px)
        rest.push_back({span.begin_px, cut[j].begin_px});
      span.begin_px = std::max(span.begin_px, cut[j].end_px);
    }
    if (span.begin_px < span.end_px) rest.push_back(span);
  }
  return rest;
}

}  // namespace

Roi::Roi(std::vector<RoiPolygon> polygons, const SlideFrame& frame, Spacing working) {
  const double scale_x =
      static_cast<double>(frame.spacing_x.pm) / static_cast<double>(working.pm);
  const double scale_y =
      static_cast<double>(frame.spacing_y.pm) / static_cast<double>(working.pm);
  // Rows beyond the slide are never asked for: bands are kept for the slide alone.
  const std::int64_t last_row = frame.grid_height_px(working) - 1;
  for (std::size_t p = 0; p < polygons.size(); ++p) {
    Shape shape;
    shape.exclude = polygons[p].exclude;
    has_included_ |= !shape.exclude;
    for (const auto& ring : polygons[p].rings) {
      if (ring.size() < 3) {
        throw Error(Code::kRoiInvalid, "polygon " + std::to_string(p) +
                                           ": need rings of at least 3 points, got " +
                                           std::to_string(ring.size()));
      }
      for (std::size_t i = 0; i < ring.size(); ++i) {
        RoiPoint a = ring[i];
        RoiPoint b = ring[(i + 1) % ring.size()];
        if (!std::isfinite(a.x0_px) || !std::isfinite(a.y0_px)) {
          throw Error(Code::kRoiInvalid, "polygon " + std::to_string(p) + ", point " +
                                             std::to_string(i) +
                                             ": not a finite coordinate");
        }
        if (a.y0_px > b.y0_px) std::swap(a, b);
        const double y_top = a.y0_px * scale_y, y_bottom = b.y0_px * scale_y;
        if (y_top == y_bottom) continue;  // no pixel center lies between
        const double x_top = a.x0_px * scale_x, x_bottom = b.x0_px * scale_x;
        shape.edges.push_back(
            {x_top, y_top, y_bottom, (x_bottom - x_top) / (y_bottom - y_top)});
      }
    }
    const auto row_of = [last_row](double y) {
      return static_cast<std::int64_t>(
          std::clamp(std::floor(y), 0.0, static_cast<double>(last_row)));
    };
    std::int64_t first = last_row / kBandRows, last = 0;
    for (const Edge& edge : shape.edges) {
      first = std::min(first, row_of(edge.y_top) / kBandRows);
      last = std::max(last, row_of(edge.y_bottom) / kBandRows);
    }
    shape.first_band = first;
    shape.bands.resize(
        static_cast<std::size_t>(std::max<std::int64_t>(0, last - first + 1)));
    for (std::size_t e = 0; e < shape.edges.size(); ++e) {
      const std::int64_t begin = row_of(shape.edges[e].y_top) / kBandRows;
      const std::int64_t end = row_of(shape.edges[e].y_bottom) / kBandRows;
      for (std::int64_t band = begin; band <= end; ++band) {
        shape.bands[static_cast<std::size_t>(band - first)].push_back(
            static_cast<std::uint32_t>(e));
      }
    }
    shapes_.push_back(std::move(shape));
  }
}

void Roi::row_spans(std::int64_t y_px, std::int64_t width_px,
                    std::vector<RoiSpan>& spans) const {
  spans.clear();
  if (!has_included_) spans.push_back({0, width_px});
  std::vector<RoiSpan> excluded;
  std::vector<double> crossings;
  const double y = static_cast<double>(y_px) + 0.5;
  for (const Shape& shape : shapes_) {
    const std::int64_t band = y_px / kBandRows - shape.first_band;
    if (band < 0 || band >= static_cast<std::int64_t>(shape.bands.size())) continue;
    crossings.clear();
    for (const std::uint32_t e : shape.bands[static_cast<std::size_t>(band)]) {
      const Edge& edge = shape.edges[e];
      if (edge.y_top <= y && y < edge.y_bottom) {
        crossings.push_back(edge.x_top + (y - edge.y_top) * edge.slope);
      }
    }
    std::sort(crossings.begin(), crossings.end());
    const auto first_column = [width_px](double x) {  // smallest i with i + 0.5 >= x
      return static_cast<std::int64_t>(
          std::clamp(std::ceil(x - 0.5), 0.0, static_cast<double>(width_px)));
    };
    for (std::size_t k = 0; k + 1 < crossings.size(); k += 2) {
      const RoiSpan span{first_column(crossings[k]), first_column(crossings[k + 1])};
      if (span.begin_px < span.end_px) (shape.exclude ? excluded : spans).push_back(span);
    }
  }
  merge(spans);
  if (!excluded.empty()) {
    merge(excluded);
    spans = subtract(spans, excluded);
  }
}

}  // namespace her2fast
