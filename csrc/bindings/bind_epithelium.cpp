// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "bindings.h"
#include "her2fast/superpixel_features.h"
#include "her2fast/superpixels.h"
#include "her2fast/svm_decision.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace her2fast::bindings {
namespace {

using Bytes = Array<std::uint8_t>;
using Labels = Array<std::int32_t>;
using Counts = Array<std::uint32_t>;
using Features = Array<std::int16_t>;

py::tuple find_superpixels(const Bytes& rgb, std::int32_t size_px, double compactness,
                           std::int32_t iterations, const std::string& device) {
  const Device where = parse_device(device);
  const auto in = view(rgb);
  Labels labels({in.height, in.width});
  const auto out = mutable_view(labels);
  std::int32_t count = 0;
  {
    const py::gil_scoped_release unlocked;
    count = superpixels(in, {size_px, compactness, iterations}, out, where);
  }
  return py::make_tuple(labels, count);
}

Bytes find_patterns(const Bytes& gray, const std::string& device) {
  const Device where = parse_device(device);
  const auto in = view(gray);
  Bytes patterns({in.height, in.width});
  const auto out = mutable_view(patterns);
  const py::gil_scoped_release unlocked;
  local_patterns(in, out, where);
  return patterns;
}

Counts count_features(const Bytes& rgb, const Labels& labels, std::int32_t count,
                      const std::array<std::uint8_t, 3>& white,
                      const std::string& device) {
  const Device where = parse_device(device);
  if (count < 0) {
    throw std::invalid_argument("need count >= 0, got " + std::to_string(count));
  }
  const auto in = view(rgb);
  const auto of = view(labels);
  Counts counts({py::ssize_t{count}, py::ssize_t{kSuperpixelFeatures}});
  const auto out = mutable_view(counts);
  const py::gil_scoped_release unlocked;
  superpixel_features(in, of, {white[0], white[1], white[2]}, out, where);
  return counts;
}

Features root_shares(const Counts& counts, const std::string& device) {
  const Device where = parse_device(device);
  const auto in = view(counts);
  Features features({in.height, in.width});
  const auto out = mutable_view(features);
  const py::gil_scoped_release unlocked;
  superpixel_roots(in, out, where);
  return features;
}

Array<double> decide_svm(const Features& features, const Features& vectors,
                         const Array<double>& coefficients, double intercept,
                         double gamma, const std::string& device) {
  const Device where = parse_device(device);
  const auto rows = view(features);
  const auto support = view(vectors);
  Array<double> decisions(rows.height);
  const std::span<const double> weights(coefficients.data(),
                                        static_cast<std::size_t>(coefficients.size()));
  const std::span<double> out(decisions.mutable_data(),
                              static_cast<std::size_t>(rows.height));
  const py::gil_scoped_release unlocked;
  svm_decision(rows, support, weights, intercept, gamma, out, where);
  return decisions;
}

}  // namespace

void bind_epithelium(py::module_& m) {
  m.attr("COLOR_PLANES") = kColorPlanes;
  m.attr("COLOR_BINS") = kColorBins;
  m.attr("PATTERN_BINS") = kPatternBins;
  m.attr("SUPERPIXEL_FEATURES") = kSuperpixelFeatures;
  m.attr("FEATURE_ONE") = kFeatureOne;
  m.attr("SUPERPIXEL_RULE") = py::dict("size_px"_a = SuperpixelRule{}.size_px,
                                       "compactness"_a = SuperpixelRule{}.compactness,
                                       "iterations"_a = SuperpixelRule{}.iterations);
  m.def("superpixels", &find_superpixels, "rgb"_a.noconvert(), "size_px"_a,
        "compactness"_a, "iterations"_a, "device"_a = "cpu");
  m.def("local_patterns", &find_patterns, "gray"_a.noconvert(), "device"_a = "cpu");
  m.def("superpixel_features", &count_features, "rgb"_a.noconvert(),
        "labels"_a.noconvert(), "count"_a, "white"_a, "device"_a = "cpu");
  m.def("superpixel_roots", &root_shares, "counts"_a.noconvert(), "device"_a = "cpu");
  m.def("svm_decision", &decide_svm, "features"_a.noconvert(), "vectors"_a.noconvert(),
        "coefficients"_a.noconvert(), "intercept"_a, "gamma"_a, "device"_a = "cpu");
}

}  // namespace her2fast::bindings
