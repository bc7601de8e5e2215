// SPDX-License-Identifier: Apache-2.0
/// The reader's resampling for batches of images, on the CPU and on a GPU.
#include "bindings.h"
#include "core/cuda_library.h"
#include "io/resample.h"
#include "kernels/check.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace her2fast::bindings {
namespace {

/// Weights along an axis, as either device takes them.
class Axis {
 public:
  Axis(std::int64_t num, std::int64_t den, std::int64_t first, std::int64_t count) {
    constexpr std::int64_t kMostPx = std::int64_t{1} << 20;
    constexpr std::int64_t kTerm = std::int64_t{1} << 62, kFar = std::int64_t{1} << 40;
    if (num < 1 || den < 1 || num >= kTerm || den >= kTerm) {
      throw std::invalid_argument("need a step above 0, of terms below 2^62, got " +
                                  std::to_string(num) + "/" + std::to_string(den));
    }
    if (count < 1 || count > kMostPx ||
        static_cast<__int128>(count) * num > static_cast<__int128>(kMostPx) * den) {
      throw std::invalid_argument(
          "need 1 to 2^20 grid px over at most 2^20 source px along an axis, got " +
          std::to_string(count) + " of " + std::to_string(num) + "/" +
          std::to_string(den) + " source px");
    }
    if (first < -kFar || first > kFar) {
      throw std::invalid_argument("need a first grid px within 2^40 of 0, got " +
                                  std::to_string(first));
    }
    const AxisStep step{num, den};
    first_ = source_span(step, first, count).first;
    weights_.plan(step, first, count);
    rows_ = weights_.integer_rows();
  }

  const AxisWeights& weights() const { return weights_; }
  std::int64_t first() const { return first_; }
  Her2AxisWeights for_cuda() const {
    return {rows_.data(), weights_.count(), weights_.max_taps()};
  }

 private:
  AxisWeights weights_;
  std::vector<std::int32_t> rows_;
  std::int64_t first_;
};

void check_images(std::int64_t height, std::int64_t width, const Axis& x, const Axis& y) {
  const std::int64_t rows = y.weights().source_px(), columns = x.weights().source_px();
  if (height >= rows && width >= columns) return;
  throw std::invalid_argument("need images of at least " + std::to_string(rows) + " x " +
                              std::to_string(columns) + " px, got " +
                              std::to_string(height) + " x " + std::to_string(width));
}

Array<std::uint8_t> resample_array(const Array<std::uint8_t>& rgb, const Axis& x,
                                   const Axis& y, const std::string& device) {
  check_device(parse_device(device), "resample");
  if (rgb.ndim() != 4 || rgb.shape(3) != 3) {
    throw std::invalid_argument("need rgb of shape (n, H, W, 3)");
  }
  const AxisWeights &across = x.weights(), &down = y.weights();
  const std::int64_t n = rgb.shape(0), height = rgb.shape(1), width = rgb.shape(2);
  check_images(height, width, x, y);
  Array<std::uint8_t> out({n, down.count(), across.count(), std::int64_t{3}});
  std::uint8_t* const to = out.mutable_data();
  const std::uint8_t* const from = rgb.data();
  const py::gil_scoped_release unlocked;
  ResampleScratch scratch;
  for (std::int64_t i = 0; i < n; ++i) {
    resample(
        {from + 3 * i * height * width, down.source_px(), across.source_px(), 3,
         3 * width},
        across, down,
        {to + 3 * i * down.count() * across.count(), down.count(), across.count(), 3},
        scratch);
  }
  return out;
}

std::uint64_t scratch_bytes(const Axis& x, const Axis& y) {
  const Her2AxisWeights across = x.for_cuda(), down = y.for_cuda();
  std::uint64_t bytes = 0;
  call_cuda("resample", cuda_table().resample_scratch_bytes, &across, &down, &bytes);
  return bytes;
}

void on_cuda(std::uintptr_t rgb, std::int64_t n, std::int64_t height, std::int64_t width,
             const Axis& x, const Axis& y, std::uintptr_t out, std::uintptr_t scratch,
             std::uint64_t bytes, std::uintptr_t stream) {
  check_images(height, width, x, y);
  const Her2AxisWeights across = x.for_cuda(), down = y.for_cuda();
  call_cuda("resample", cuda_table().resample, reinterpret_cast<const std::uint8_t*>(rgb),
            n, height, width, &across, &down, reinterpret_cast<std::uint8_t*>(out),
            reinterpret_cast<void*>(scratch), bytes, reinterpret_cast<void*>(stream));
}

}  // namespace

void bind_resample(py::module_& m) {
  py::class_<Axis>(m, "AxisWeights")
      .def(py::init<std::int64_t, std::int64_t, std::int64_t, std::int64_t>(), "num"_a,
           "den"_a, "first"_a, "count"_a)
      .def_property_readonly("count", [](const Axis& a) { return a.weights().count(); })
      .def_property_readonly("source_first", &Axis::first)
      .def_property_readonly("source_px",
                             [](const Axis& a) { return a.weights().source_px(); });
  m.def("resample", &resample_array, "rgb"_a.noconvert(), "x"_a, "y"_a,
        "device"_a = "cpu");
  py::module_ cuda = m.def_submodule("cuda");
  const auto unlocked = py::call_guard<py::gil_scoped_release>();
  cuda.def("resample_scratch_bytes", &scratch_bytes, "x"_a, "y"_a);
  cuda.def("resample", &on_cuda, "rgb"_a, "n"_a, "height"_a, "width"_a, "x"_a, "y"_a,
           "out"_a, "scratch"_a, "scratch_bytes"_a, "stream"_a, unlocked);
}

}  // namespace her2fast::bindings
