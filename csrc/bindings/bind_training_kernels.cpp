// SPDX-License-Identifier: Apache-2.0
/// Kernels that only training needs.
#include <vector>

#include "bindings.h"
#include "her2fast/constraint_select.h"
#include "her2fast/logit_calibrate.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace her2fast::bindings {
namespace {

template <typename T>
std::span<const T> flat(const Array<T>& array) {
  return {array.data(), static_cast<std::size_t>(array.size())};
}

template <typename T>
std::span<T> flat(Array<T>& array) {
  return {array.mutable_data(), static_cast<std::size_t>(array.size())};
}

SlideTable make_table(const Array<float>& logits, const Array<std::uint32_t>& tumor_px,
                      const Array<std::int64_t>& offsets,
                      const Array<std::int64_t>& labels) {
  if (logits.ndim() != 2 || logits.shape(1) != kScores) {
    throw std::invalid_argument("need logits of shape (patches, 4)");
  }
  if (tumor_px.ndim() != 1 || offsets.ndim() != 1 || labels.ndim() != 1) {
    throw std::invalid_argument(
        "need tumor_px, offsets and labels of one dimension, got " +
        std::to_string(tumor_px.ndim()) + ", " + std::to_string(offsets.ndim()) + ", " +
        std::to_string(labels.ndim()));
  }
  return {flat(logits), flat(tumor_px), flat(offsets), flat(labels)};
}

template <typename Get>
auto column(const std::vector<SlideConstraints>& slides, Get get) {
  using Value = std::decay_t<decltype(get(slides[0]))>;
  const auto count = static_cast<py::ssize_t>(slides.size());
  if constexpr (std::is_integral_v<Value>) {
    Array<Value> out(count);
    for (std::size_t s = 0; s < slides.size(); ++s)
      out.mutable_data()[s] = get(slides[s]);
    return out;
  } else {
    Array<std::int64_t> out({count, py::ssize_t{kScores}});
    for (std::size_t s = 0; s < slides.size(); ++s) {
      const auto& row = get(slides[s]);
      std::copy(row.begin(), row.end(), out.mutable_data() + kScores * s);
    }
    return out;
  }
}

py::dict constraint_select_arrays(const Array<float>& logits,
                                  const Array<std::uint32_t>& tumor_px,
                                  const Array<std::int64_t>& offsets,
                                  const Array<std::int64_t>& labels,
                                  const FractionLimits& limits,
                                  const std::string& neighbors, int workers,
                                  const std::string& device) {
  const SlideTable table = make_table(logits, tumor_px, offsets, labels);
  const Admissible classes = parse_admissible(neighbors);
  const Device where = parse_device(device);
  Array<std::uint8_t> action(tumor_px.size()), admissible(tumor_px.size());
  Array<std::int8_t> class_id(tumor_px.size());
  std::vector<SlideConstraints> slides(static_cast<std::size_t>(labels.size()));
  const SelectionView out{flat(action), flat(class_id), flat(admissible), slides};
  {
    const py::gil_scoped_release unlocked;
    constraint_select(table, limits, classes, workers, out, where);
  }
  using S = SlideConstraints;
  return py::dict(
      "action"_a = action, "class_id"_a = class_id, "admissible"_a = admissible,
      "class_px"_a = column(slides, [](const S& s) { return s.class_px; }),
      "excess_px"_a = column(slides, [](const S& s) { return s.excess_px; }),
      "missing_px"_a = column(slides, [](const S& s) { return s.missing_px; }),
      "pushed_px"_a = column(slides, [](const S& s) { return s.pushed_px; }),
      "pulled_px"_a = column(slides, [](const S& s) { return s.pulled_px; }),
      "reach"_a = column(slides, [](const S& s) { return s.reach; }));
}

CalibrateOptions make_options(const std::string& mode, int margin_permille, int workers) {
  CalibrateOptions options;
  options.mode = parse_calibration_mode(mode);
  options.margin_permille = margin_permille;
  options.workers = workers;
  return options;
}

py::tuple calibration_loss_value(const Array<float>& logits,
                                 const Array<std::uint32_t>& tumor_px,
                                 const Array<std::int64_t>& offsets,
                                 const Array<std::int64_t>& labels,
                                 const ClassValues& values, const FractionLimits& limits,
                                 const std::string& mode, int margin_permille,
                                 int workers) {
  const SlideTable table = make_table(logits, tumor_px, offsets, labels);
  const CalibrateOptions options = make_options(mode, margin_permille, workers);
  CalibrationLoss loss;
  {
    const py::gil_scoped_release unlocked;
    loss = calibration_loss(table, limits, values, options);
  }
  return py::make_tuple(loss.loss, loss.broken);
}

py::dict logit_calibrate_arrays(
    const Array<float>& logits, const Array<std::uint32_t>& tumor_px,
    const Array<std::int64_t>& offsets, const Array<std::int64_t>& labels,
    const std::vector<ClassValues>& given, const FractionLimits& limits,
    const std::string& mode, int margin_permille, int starts, std::uint64_t seed,
    std::int64_t search_patches, int workers, const std::string& device) {
  const SlideTable table = make_table(logits, tumor_px, offsets, labels);
  CalibrateOptions options = make_options(mode, margin_permille, workers);
  options.starts = starts;
  options.seed = seed;
  options.search_patches = search_patches;
  const Device where = parse_device(device);
  CalibrationResult result;
  {
    const py::gil_scoped_release unlocked;
    result = logit_calibrate(table, limits, given, options, where);
  }
  return py::dict("values"_a = py::tuple(py::cast(result.values)), "loss"_a = result.loss,
                  "identity_loss"_a = result.identity_loss,
                  "broken_slides"_a = result.broken, "sweeps"_a = result.sweeps);
}

}  // namespace

void bind_training_kernels(py::module_& m) {
  py::class_<FractionLimits>(m, "FractionLimits")
      .def(py::init(
               [](const std::array<std::int32_t, kScores>& lower,
                  const std::array<std::array<std::int32_t, kScores>, kScores>& upper) {
                 const FractionLimits limits{lower, upper};
                 check_limits(limits);
                 return limits;
               }),
           "lower_permille"_a, "upper_permille"_a)
      .def_static("pham", &FractionLimits::pham)
      .def_readonly("lower_permille", &FractionLimits::lower_permille)
      .def_readonly("upper_permille", &FractionLimits::upper_permille);
  m.def("constraint_select", &constraint_select_arrays, "logits"_a.noconvert(),
        "tumor_px"_a.noconvert(), "offsets"_a.noconvert(), "labels"_a.noconvert(),
        "limits"_a, "neighbors"_a, "workers"_a, "device"_a = "cpu");
  m.def("calibration_loss", &calibration_loss_value, "logits"_a.noconvert(),
        "tumor_px"_a.noconvert(), "offsets"_a.noconvert(), "labels"_a.noconvert(),
        "values"_a, "limits"_a, "mode"_a, "margin_permille"_a, "workers"_a);
  m.def("logit_calibrate", &logit_calibrate_arrays, "logits"_a.noconvert(),
        "tumor_px"_a.noconvert(), "offsets"_a.noconvert(), "labels"_a.noconvert(),
        "given"_a, "limits"_a, "mode"_a, "margin_permille"_a, "starts"_a, "seed"_a,
        "search_patches"_a, "workers"_a, "device"_a = "cpu");
}

}  // namespace her2fast::bindings
