// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "kernels/check.h"
#include "kernels/membrane_sweep.h"
#include "kernels/membrane_tile.h"

namespace her2fast {
namespace {

constexpr std::int64_t kMaxTilePx = 8192;
/// Correction of a band's two ends (decisions.md K10).
constexpr double kBandEnd = 1.732;

/// Which of a row's places, runs and gaps in turn, holds column x: odd is a run.
std::int32_t place_of(const SweptTile& tile, std::int32_t y, std::int32_t x) {
  const Column* turns = tile.turns_of(y);
  const Column* end = turns + 2 * tile.runs_in(y);
  return static_cast<std::int32_t>(std::upper_bound(turns, end, x) - turns);
}

/// Count each nucleus in the gap that holds it.
void count_nuclei(SweptTile& tile, const std::vector<PixelPoint>& nuclei) {
  for (const PixelPoint& nucleus : nuclei) {
    const auto [x, y] = nucleus;
    if (x < 0 || y < 0 || x >= tile.width || y >= tile.height) {
      throw std::invalid_argument("need nuclei within " + std::to_string(tile.width) +
                                  " x " + std::to_string(tile.height) +
                                  " pixels, got one at (" + std::to_string(x) + ", " +
                                  std::to_string(y) + ")");
    }
    const std::int32_t place = place_of(tile, y, x);
    if (place % 2 == 1) continue;  // on membrane
    ++tile.gaps[tile.gap(y, place / 2)].sums.nuclei;
  }
}

/// Densities of one component after the other.
class DensityReader {
 public:
  DensityReader(const SweptTile& tile, const ImageView<const std::uint8_t>& density)
      : tile_(tile), density_(density) {
    offset_.resize(tile.membranes.size() + 1);
    for_each_run([&](std::int32_t membrane, Run) { ++offset_[membrane + 1]; });
    for (std::size_t c = 1; c < offset_.size(); ++c) offset_[c] += offset_[c - 1];
    std::vector<std::int32_t> next(offset_.begin(), offset_.end() - 1);
    runs_.resize(static_cast<std::size_t>(offset_.back()));
    for_each_run([&](std::int32_t membrane, Run run) { runs_[next[membrane]++] = run; });
  }

  void read(std::size_t component, DensityHistogram& out) const {
    out.fill(0);
    for (std::int32_t i = offset_[component]; i < offset_[component + 1]; ++i) {
      const auto [y, from, to] = runs_[i];
      const std::uint8_t* line = density_.row(y);
      for (int x = from; x < to; ++x) ++out[line[x]];
    }
  }

 private:
  struct Run {
    Column y, from, to;
  };
  template <typename Use>
  void for_each_run(Use use) const {
    for (std::int32_t y = 0; y < tile_.height; ++y) {
      const Column* turns = tile_.turns_of(y);
      for (std::int32_t k = 0; k < tile_.runs_in(y); ++k) {
        use(tile_.membrane(y, k),
            Run{static_cast<Column>(y), turns[2 * k], turns[2 * k + 1]});
      }
    }
  }
  const SweptTile& tile_;
  const ImageView<const std::uint8_t>& density_;
  std::vector<std::int32_t> offset_;
  std::vector<Run> runs_;  ///< by component
};

/// Labels along a side: i for open membrane i, ~i for gap i of the border.
struct SideWriter {
  const SweptTile& tile;
  const std::vector<std::int32_t>& mask_index;
  const std::vector<std::int32_t>& gap_index;

  std::vector<SidePart> row(std::int32_t y) const {
    std::vector<SidePart> out;
    const std::int32_t runs = tile.runs_in(y);
    for (std::int32_t k = 0; k <= runs; ++k) {
      const Column* run = tile.turns_of(y) + 2 * k;
      const std::int32_t gap = tile.gap(y, k);
      if (gap != kNoGap) out.push_back({k < runs ? run[0] : tile.width, ~gap_index[gap]});
      if (k < runs) out.push_back({run[1], mask_index[tile.membrane(y, k)]});
    }
    return out;
  }
  std::vector<SidePart> column(bool last) const {
    std::vector<SidePart> out;
    for (std::int32_t y = 0; y < tile.height; ++y) {
      const std::int32_t at = last ? tile.runs_in(y) : 0;
      const std::int32_t gap = tile.gap(y, at);
      const std::int32_t label =
          gap != kNoGap ? ~gap_index[gap] : mask_index[tile.membrane(y, at - last)];
      if (out.empty() || out.back().label != label) out.push_back({0, label});
      out.back().end = y + 1;
    }
    return out;
  }
};

/// Number those on the border, in order; -1 for the rest.
template <typename Swept>
std::vector<std::int32_t> number_open(const std::vector<Swept>& all) {
  std::vector<std::int32_t> out(all.size(), -1);
  std::int32_t next = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].on_border) out[i] = next++;
  }
  return out;
}

struct Enclosed {
  std::int64_t compartments = 0, px = 0;
};

void check(const ImageView<const std::uint8_t>& mask,
           const ImageView<const std::uint8_t>& density) {
  check_sides(mask, kMaxTilePx, "a tile");
  check_channels(mask, 1, "a mask");
  if (density.data != nullptr) {
    check_same_size(mask, density, "a density");
    check_channels(density, 1, "a density");
  }
}

}  // namespace

Membrane describe_membrane(const MembraneSums& sums, const DensityHistogram* histogram,
                           std::int64_t compartments, std::int64_t enclosed_px) {
  Membrane out{};
  out.x = key_x(sums.first);
  out.y = key_y(sums.first);
  out.box = sums.box;
  out.px = sums.px;
  out.compartments = static_cast<std::int32_t>(compartments);
  out.enclosed_px = enclosed_px;
  out.closed = compartments > 0;
  const auto area = static_cast<double>(sums.px);
  const double euler = static_cast<double>(sums.windows.euler4) / 4.0;
  out.perimeter_px = static_cast<double>(sums.windows.straight) +
                     static_cast<double>(sums.windows.diagonal) * std::sqrt(0.5);
  // L = P / 2 - 1.732 * euler * (A / L), solved for L; a blob has no such length.
  const double half = out.perimeter_px / 2.0;
  const double discriminant = half * half - 4.0 * kBandEnd * euler * area;
  out.length_px = discriminant < 0.0 ? half / 2.0 : (half + std::sqrt(discriminant)) / 2;
  out.width_px = area / out.length_px;
  const double nothing = std::numeric_limits<double>::quiet_NaN();
  out.density_mean = nothing;
  out.density_percentile = {nothing, nothing, nothing};
  if (histogram == nullptr) return out;
  constexpr std::array<std::int64_t, 3> kPercent{10, 50, 90};
  std::int64_t sum = 0, seen = 0;
  std::size_t next = 0;
  for (std::int64_t bin = 0; bin < kDensityBins; ++bin) {
    const std::int64_t here = (*histogram)[static_cast<std::size_t>(bin)];
    sum += bin * here;
    seen += here;
    while (next < 3 && 100 * seen >= kPercent[next] * sums.px && here > 0) {
      out.density_percentile[next++] = static_cast<double>(bin) * kDensityPerBin;
    }
  }
  out.density_mean = static_cast<double>(sum) / area * kDensityPerBin;
  return out;
}

MembraneTile::MembraneTile(std::shared_ptr<const TileLabels> labels)
    : labels_(std::move(labels)) {}
std::int64_t MembraneTile::height() const { return labels_->height; }
std::int64_t MembraneTile::width() const { return labels_->width; }
bool MembraneTile::has_density() const { return labels_->has_density; }

MembraneTile membrane_label(ImageView<const std::uint8_t> mask,
                            ImageView<const std::uint8_t> density,
                            const std::vector<PixelPoint>& nuclei, Device device) {
  check_device(device, "membrane_label");
  check(mask, density);
  auto out = std::make_shared<TileLabels>();
  out->height = static_cast<std::int32_t>(mask.height);
  out->width = static_cast<std::int32_t>(mask.width);
  out->has_density = density.data != nullptr;

  SweptTile tile = sweep_tile(mask);
  count_nuclei(tile, nuclei);
  const auto open_index = number_open(tile.membranes), gap_index = number_open(tile.gaps);

  std::vector<Enclosed> enclosed(tile.membranes.size());
  for (const auto& [sums, on_border, above] : tile.gaps) {
    if (on_border) {
      out->gaps.push_back(sums);
      out->gap_above.push_back(above < 0 ? -1 : open_index[above]);
    } else if (open_index[above] >= 0) {
      out->enclosed.push_back(sums);
      out->enclosed_by.push_back(open_index[above]);
    } else {
      ++enclosed[above].compartments;
      enclosed[above].px += sums.px;
      const PixelKey owner = tile.membranes[above].sums.first;
      out->inner_compartments.push_back({key_x(sums.first), key_y(sums.first), sums.box,
                                         sums.px, key_x(owner), key_y(owner),
                                         sums.nuclei});
    }
  }

  std::optional<DensityReader> densities;
  if (out->has_density) densities.emplace(tile, density);
  DensityHistogram histogram;
  for (std::size_t c = 0; c < tile.membranes.size(); ++c) {
    const auto& [sums, on_border] = tile.membranes[c];
    if (densities) densities->read(c, histogram);
    if (on_border) {
      out->open.push_back(sums);
      if (densities) out->histograms.push_back(histogram);
    } else {
      out->inner.push_back(describe_membrane(sums, densities ? &histogram : nullptr,
                                             enclosed[c].compartments, enclosed[c].px));
    }
  }

  const SideWriter writer{tile, open_index, gap_index};
  out->sides = {writer.row(0), writer.column(true), writer.row(out->height - 1),
                writer.column(false)};
  return MembraneTile(std::move(out));
}

}  // namespace her2fast
