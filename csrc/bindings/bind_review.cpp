// SPDX-License-Identifier: Apache-2.0
#include <optional>
#include <string>
#include <vector>

#include "bindings.h"
#include "her2fast/decide.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace her2fast::bindings {

py::dict flip_to_dict(const FlipCertificate& flip) {
  return py::dict("least_px"_a = flip.least_px,
                  "to_score"_a = std::string(score_name(flip.to_score)),
                  "change_px"_a = flip.change_px);
}

py::dict bootstrap_to_dict(const Bootstrap& bootstrap) {
  std::array<double, 4> probability{};
  for (std::size_t c = 0; c < 4; ++c) {
    probability[c] =
        static_cast<double>(bootstrap.score_counts[c]) / bootstrap.replicates;
  }
  return py::dict("replicates"_a = bootstrap.replicates, "blocks"_a = bootstrap.blocks,
                  "intervals"_a = bootstrap.intervals,
                  "score_counts"_a = bootstrap.score_counts,
                  "score_probability"_a = probability);
}

py::dict islands_to_dict(const IslandFinding& finding) {
  return py::dict("suspected"_a = finding.suspected, "count"_a = finding.islands,
                  "score_px"_a = finding.score_px);
}

namespace {

/// (n, 2 * columns) int64: pixels per class, then patches per class.
const std::int64_t* counts_of(const Array<std::int64_t>& counts, const char* name) {
  if (counts.ndim() != 2 || counts.shape(1) < 2 || counts.shape(1) % 2 != 0) {
    throw std::invalid_argument(
        std::string("need ") + name +
        " of shape (n, 2 * classes): pixels per class, then patches");
  }
  return counts.data();
}

std::vector<Island> islands_of(const Array<std::int64_t>& counts) {
  if (counts.ndim() != 2 || counts.shape(1) != 9) {
    throw std::invalid_argument("need islands of four classes, and their tissue");
  }
  const std::int64_t* at = counts.data();
  std::vector<Island> islands(static_cast<std::size_t>(counts.shape(0)));
  for (Island& island : islands) {
    for (std::size_t c = 0; c < 4; ++c) {
      island.px[c] = at[c];
      island.patches[c] = at[4 + c];
      if (at[c] < 0 || at[c] >= std::int64_t{1} << 40 || at[4 + c] < 0) {
        throw std::invalid_argument("need island areas in [0, 2^40), patches >= 0");
      }
    }
    island.tissue = at[8];
    if (at[8] < 0 || at[8] >= std::int64_t{1} << 40) {
      throw std::invalid_argument("need island tissue in [0, 2^40) patches");
    }
    at += 9;
  }
  return islands;
}

}  // namespace

void bind_review(py::module_& m) {
  m.def(
      "flip_certificate",
      [](const std::array<std::int64_t, 4>& areas, const std::string& rule_set,
         int floor_percent,
         const std::optional<std::array<std::int64_t, 4>>& two_largest_px) {
        const auto flip =
            flip_certificate(areas, rule_set, {floor_percent, two_largest_px});
        return flip ? py::object(flip_to_dict(*flip)) : py::none();
      },
      "areas"_a, "rule_set"_a = "asco-cap-2018", "floor_percent"_a = 1,
      "two_largest_px"_a = py::none());
  m.def(
      "bootstrap",
      [](const Array<std::int64_t>& blocks, const std::optional<std::string>& rule_set,
         int floor_percent, int replicates) {
        const std::int64_t* sums = counts_of(blocks, "blocks");
        TumorBlocks made;
        made.classes = static_cast<std::size_t>(blocks.shape(1)) / 2;
        made.sums.assign(sums, sums + blocks.size());
        std::optional<Bootstrap> result;
        {
          py::gil_scoped_release unlocked;
          result = bootstrap(made, rule_set, floor_percent, replicates);
        }
        return result ? py::object(bootstrap_to_dict(*result)) : py::none();
      },
      "blocks"_a.noconvert(), py::kw_only(), "rule_set"_a = "asco-cap-2018",
      "floor_percent"_a = 1, "replicates"_a = kBootstrapReplicates);
  m.def(
      "label_islands",
      [](const Array<std::uint8_t>& tissue, std::int32_t radius) {
        const auto in = view(tissue);
        Array<std::int32_t> out({in.height, in.width});
        const std::int32_t count = label_islands(in, radius, mutable_view(out));
        return py::make_tuple(out, count);
      },
      "tissue"_a.noconvert(), "radius"_a);
  m.def(
      "compare_islands",
      [](const Array<std::int64_t>& islands, const std::string& rule_set,
         int floor_percent, std::int64_t min_px) {
        const IslandLimits limits{min_px,
                                  kLimits.island_min_percent,
                                  kLimits.island_scores_apart,
                                  kLimits.island_mix_apart_percent,
                                  kLimits.island_quiet_percent,
                                  kLimits.island_means_apart_halves};
        return islands_to_dict(
            compare_islands(islands_of(islands), rule_set, floor_percent, limits));
      },
      "islands"_a.noconvert(), py::kw_only(), "rule_set"_a = "asco-cap-2018",
      "floor_percent"_a = 1, "min_px"_a);
}

}  // namespace her2fast::bindings
