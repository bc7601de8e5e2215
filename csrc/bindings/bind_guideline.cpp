// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>

#include "bindings.h"
#include "her2fast/guideline.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace her2fast::bindings {
namespace {

/// Python integers have no end: what does not fit is a wrong value, not a wrong type.
std::int64_t to_int64(const py::int_& value, const char* name) {
  int overflow = 0;
  const long long number = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
  if (overflow != 0) {
    throw std::invalid_argument("need " + std::string(name) +
                                " of 63 bits at most, got " +
                                std::string(py::str(value)));
  }
  if (number == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return number;
}

std::array<std::int64_t, 4> to_counts(const std::array<py::int_, 4>& values,
                                      const char* name) {
  std::array<std::int64_t, 4> counts{};
  for (std::size_t c = 0; c < counts.size(); ++c) counts[c] = to_int64(values[c], name);
  return counts;
}

}  // namespace

std::optional<Ish> parse_ish(const std::optional<std::string>& name) {
  if (!name) return std::nullopt;
  if (*name == "positive") return Ish::kPositive;
  if (*name == "negative") return Ish::kNegative;
  throw std::invalid_argument("need ish None, \"positive\" or \"negative\", got \"" +
                              *name + "\"");
}

py::dict guideline_to_dict(const GuidelineDecision& decision) {
  py::list margins;
  for (const Margin& margin : decision.margins) {
    margins.append(py::dict("cut"_a = margin.cut, "area"_a = margin.area,
                            "margin"_a = margin.margin, "passed"_a = margin.passed));
  }
  std::optional<std::string> score;
  if (decision.score) score = score_name(*decision.score);
  return py::dict("rule_set"_a = decision.rule_set, "score"_a = score,
                  "score_index"_a = decision.score, "flags"_a = decision.flags,
                  "review_required"_a = decision.review_required,
                  "alternative"_a = decision.alternative, "binary"_a = decision.binary,
                  "three_way"_a = decision.three_way, "her2_view"_a = decision.her2_view,
                  "ihc0_membrane_staining"_a = decision.ihc0_membrane_staining,
                  "margins"_a = margins);
}

void bind_guideline(py::module_& m) {
  m.def(
      "decide_guideline",
      [](const std::array<py::int_, 4>& areas, const std::string& rule_set,
         const py::int_& floor_percent,
         const std::optional<std::array<py::int_, 4>>& patches,
         const std::optional<std::string>& ish, const std::optional<py::int_>& unusual) {
        GuidelineOptions options;
        const std::int64_t floor = to_int64(floor_percent, "floor_percent");
        // Out of the range of int is out of the range of percents; the core says so.
        options.floor_percent =
            static_cast<int>(std::clamp<std::int64_t>(floor, INT32_MIN, INT32_MAX));
        if (patches) options.patches = to_counts(*patches, "patches");
        options.ish = parse_ish(ish);
        if (unusual) options.unusual = to_int64(*unusual, "unusual");
        return guideline_to_dict(
            decide_guideline(to_counts(areas, "areas"), rule_set, options));
      },
      "areas"_a, "rule_set"_a = "asco-cap-2018", "floor_percent"_a = py::int_(1),
      "patches"_a = py::none(), "ish"_a = py::none(), "unusual"_a = py::none());
  m.def("rule_sets", [] {
    py::list infos;
    for (const RuleSetInfo& info : rule_sets()) {
      infos.append(py::dict("name"_a = info.name, "title"_a = info.title,
                            "source"_a = info.source));
    }
    return infos;
  });
}

}  // namespace her2fast::bindings
