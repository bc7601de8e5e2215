// SPDX-License-Identifier: Apache-2.0
#include "her2fast/logit_calibrate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/parallel.h"
#include "kernels/calibration_table.h"
#include "kernels/check.h"
#include "kernels/line_sweep.h"

namespace her2fast {
namespace {

// Every way to split four classes in two.
constexpr std::array<unsigned, 7> kGroups{1, 2, 4, 8, 3, 5, 9};
// A descent seldom needs ten; the loss falls by less and less.
constexpr int kMaxRounds = 40;
constexpr std::int64_t kEveryGain = std::numeric_limits<std::int64_t>::max();
// After a sample: a round on all patches that gains less than a thousandth is the last.
constexpr std::int64_t kPolishGain = 1000;

struct Point {
  ClassValues values;
  std::int64_t fixed;
};

bool lower(const Point& a, const Point& b) { return a.fixed < b.fixed; }

ClassValues moved(ClassValues values, unsigned group, double t, CalibrationMode mode) {
  for (unsigned c = 0; c < kScores; ++c) {
    if ((group >> c & 1u) == 0) continue;
    if (mode == CalibrationMode::kScale) {
      values[c] *= t;
    } else {
      values[c] += t;
    }
  }
  return values;
}

bool usable(const ClassValues& values, CalibrationMode mode) {
  for (const double v : values) {
    if (!std::isfinite(v) || (mode == CalibrationMode::kScale && v <= 0)) return false;
  }
  return true;
}

/// Geometric mean 1, or mean 0.
ClassValues normalized(ClassValues values, CalibrationMode mode) {
  double sum = 0;
  if (mode == CalibrationMode::kScale) {
    for (const double v : values) sum += std::log(v);
    const double factor = std::exp(-sum / kScores);
    for (double& v : values) v *= factor;
  } else {
    for (const double v : values) sum += v;
    for (double& v : values) v -= sum / kScores;
  }
  return values;
}

/// Steps along the best lines until none is lower. All lines are swept from one point,
/// side by side; then their steps are tried in the order of what they promise, so the
/// result does not depend on the number of threads.
void descend(const CalibrationTable& table, Point& point, int workers, std::int64_t gain,
             std::vector<SweepScratch>& scratches, std::int64_t& sweeps) {
  for (int round = 0; round < kMaxRounds && point.fixed > 0; ++round) {
    std::array<Stretch, kGroups.size()> found;
    parallel_for(kGroups.size(), workers, [&](std::int64_t i, int worker) {
      const auto g = static_cast<std::size_t>(i);
      found[g] = sweep_line(table, point.values, kGroups[g],
                            scratches[static_cast<std::size_t>(worker)]);
    });
    sweeps += static_cast<std::int64_t>(kGroups.size());
    std::array<std::size_t, kGroups.size()> order;
    for (std::size_t g = 0; g < order.size(); ++g) order[g] = g;
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return found[a].fixed < found[b].fixed;
    });
    const std::int64_t before = point.fixed;
    for (const std::size_t g : order) {
      if (found[g].fixed >= before) break;
      for (const double t : {found[g].middle, found[g].inner}) {
        const ClassValues values =
            normalized(moved(point.values, kGroups[g], t, table.mode), table.mode);
        if (!usable(values, table.mode)) continue;
        const Point next{values, table.loss(values, workers).fixed};
        if (next.fixed >= point.fixed) continue;
        point = next;
        break;
      }
    }
    if (before - point.fixed <= before / gain) return;
  }
}

/// Uniform in [-1, 1): counter-based (Steele et al., SplitMix64), so start k is the same
/// however many there are.
double random_value(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return static_cast<double>((z ^ z >> 31) >> 11) * 0x1p-52 - 1.0;
}

/// Typical distance between logits, which offsets are measured in.
double logit_spread(const CalibrationTable& table) {
  double sum = 0;
  for (const auto& l : table.logits) {
    sum += static_cast<double>(*std::max_element(l.begin(), l.end())) -
           *std::min_element(l.begin(), l.end());
  }
  return table.logits.empty() ? 0 : sum / static_cast<double>(table.logits.size());
}

ClassValues random_start(const CalibrateOptions& options, double spread, int index) {
  ClassValues values;
  for (std::size_t c = 0; c < kScores; ++c) {
    const double u =
        random_value(options.seed, kScores * static_cast<std::uint64_t>(index) + c);
    values[c] = options.mode == CalibrationMode::kScale ? std::exp(1.5 * u) : spread * u;
  }
  return normalized(values, options.mode);
}

void check(const SlideTable& table, const FractionLimits& limits,
           std::span<const ClassValues> starts, const CalibrateOptions& options) {
  check_table(table);
  check_limits(limits);
  check_workers(options.workers);
  const auto need = [](bool holds, const std::string& what, auto got) {
    if (!holds) throw std::invalid_argument("need " + what + std::to_string(got));
  };
  need(options.margin_permille >= 0 && options.margin_permille < 100,
       "0 <= margin_permille <= 99, got ", options.margin_permille);
  need(options.starts >= 1 && options.starts <= 10000, "1 <= starts <= 10000, got ",
       options.starts);
  need(options.search_patches >= 1, "search_patches >= 1, got ", options.search_patches);
  need(table.slides() < std::int64_t{1} << 28, "fewer than 2^28 slides, got ",
       table.slides());
  for (const ClassValues& values : starts) {
    for (const double v : values) {
      const bool scale = options.mode == CalibrationMode::kScale;
      need(std::isfinite(v) && (!scale || v > 0),
           scale ? "finite factors > 0, got " : "finite offsets, got ", v);
    }
  }
}

}  // namespace

CalibrationMode parse_calibration_mode(std::string_view name) {
  if (name == "scale") return CalibrationMode::kScale;
  if (name == "bias") return CalibrationMode::kBias;
  throw std::invalid_argument("need mode \"scale\" or \"bias\", got \"" +
                              std::string(name) + "\"");
}

CalibrationLoss calibration_loss(const SlideTable& table, const FractionLimits& limits,
                                 const ClassValues& values,
                                 const CalibrateOptions& options) {
  check(table, limits, {&values, 1}, options);
  const Loss loss =
      CalibrationTable(table, limits, options).loss(values, options.workers);
  return {loss_value(loss.fixed), loss.broken};
}

CalibrationResult logit_calibrate(const SlideTable& table, const FractionLimits& limits,
                                  std::span<const ClassValues> starts,
                                  const CalibrateOptions& options, Device device) {
  check_device(device, "logit_calibrate");
  check(table, limits, starts, options);
  const CalibrationTable full(table, limits, options);
  const int workers = options.workers;

  // What the result must not be above: as given, to the last bit.
  ClassValues none;
  none.fill(options.mode == CalibrationMode::kScale ? 1.0 : 0.0);
  std::vector<Point> points{{none, full.loss(none, workers).fixed}};
  const std::int64_t identity = points[0].fixed;
  for (const ClassValues& values : starts) {
    points.push_back({values, full.loss(values, workers).fixed});
  }

  std::vector<Point> searched = points;
  const double spread = logit_spread(full);
  for (int i = 0; static_cast<int>(searched.size()) < options.starts; ++i) {
    searched.push_back({random_start(options, spread, i), 0});
  }
  std::optional<CalibrationTable> sample;
  if (full.patches() > options.search_patches) {
    sample = full.sample(options.search_patches, options.seed);
  }
  const CalibrationTable& search = sample ? *sample : full;
  std::vector<std::vector<SweepScratch>> scratches(static_cast<std::size_t>(workers));
  std::vector<std::int64_t> sweeps(searched.size());
  parallel_for(static_cast<std::int64_t>(searched.size()), workers,
               [&](std::int64_t i, int worker) {
                 const auto k = static_cast<std::size_t>(i);
                 auto& scratch = scratches[static_cast<std::size_t>(worker)];
                 scratch.resize(1);
                 Point& point = searched[k];
                 point.fixed = search.loss(point.values, 1).fixed;
                 descend(search, point, 1, kEveryGain, scratch, sweeps[k]);
               });
  CalibrationResult result{};
  for (const std::int64_t count : sweeps) result.sweeps += count;

  // The sample only proposes: the full table decides, and the best goes on there.
  std::stable_sort(searched.begin(), searched.end(), lower);
  if (sample) {
    for (Point& point : searched) point.fixed = full.loss(point.values, workers).fixed;
    std::stable_sort(searched.begin(), searched.end(), lower);
    std::stable_sort(points.begin(), points.end(), lower);
    searched.resize(1);
    if (points[0].fixed < searched[0].fixed) searched[0] = points[0];
    scratches[0].resize(static_cast<std::size_t>(workers));
    descend(full, searched[0], workers, kPolishGain, scratches[0], result.sweeps);
  }
  searched.insert(searched.end(), points.begin(), points.end());
  Point best = *std::min_element(searched.begin(), searched.end(), lower);
  const ClassValues tidy = normalized(best.values, options.mode);
  if (usable(tidy, options.mode) && full.loss(tidy, workers).fixed <= best.fixed) {
    best.values = tidy;
  }
  const Loss loss = full.loss(best.values, workers);
  result.values = best.values;
  result.loss = loss_value(loss.fixed);
  result.identity_loss = loss_value(identity);
  result.broken = loss.broken;
  return result;
}

}  // namespace her2fast
