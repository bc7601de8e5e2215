// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "bindings.h"
#include "her2fast/kernels.h"
#include "kernels/check.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace her2fast::bindings {
namespace {

using Triple = std::array<int, 3>;

Rgb parse_white(const Triple& white) {
  for (const int value : white) {
    if (value < 0 || value > 255) {
      throw std::invalid_argument(
          "need a white point of 0 to 255 in every channel, got " +
          std::to_string(value));
    }
  }
  return {static_cast<std::uint8_t>(white[0]), static_cast<std::uint8_t>(white[1]),
          static_cast<std::uint8_t>(white[2])};
}

Array<std::uint32_t> tumor_count_array(const Rows<std::uint8_t>& mask,
                                       std::int32_t patch_px, std::int32_t stride_px,
                                       const std::string& device) {
  const PatchGrid grid{patch_px, stride_px};
  const auto in = view(mask);
  Array<std::uint32_t> out({grid.count_along(in.height), grid.count_along(in.width)});
  const auto out_view = mutable_view(out);
  const Device where = parse_device(device);
  {
    const py::gil_scoped_release unlocked;
    tumor_count(in, grid, out_view, where);
  }
  return out;
}

Array<std::uint8_t> tissue_mask_array(const Rows<std::uint8_t>& rgb, const Triple& white,
                                      const std::string& device) {
  const auto in = view(rgb);
  Array<std::uint8_t> out({in.height, in.width});
  const auto out_view = mutable_view(out);
  const Device where = parse_device(device);
  const Rgb glass = parse_white(white);
  {
    const py::gil_scoped_release unlocked;
    tissue_mask(in, glass, out_view, where);
  }
  return out;
}

Array<std::uint32_t> focus_array(const Rows<std::uint8_t>& rgb,
                                 const Rows<std::uint8_t>& mask, std::int32_t patch_px,
                                 std::int32_t stride_px, const std::string& device) {
  const PatchGrid grid{patch_px, stride_px};
  const auto in = view(rgb);
  const auto tissue = view(mask);
  Array<std::uint32_t> out({grid.count_along(in.height), grid.count_along(in.width)});
  const auto out_view = mutable_view(out);
  const Device where = parse_device(device);
  {
    const py::gil_scoped_release unlocked;
    focus(in, tissue, grid, out_view, where);
  }
  return out;
}

Array<float> stain_unmix_array(const Rows<std::uint8_t>& rgb, const Triple& white,
                               const std::array<std::array<double, 3>, 3>& stains,
                               const std::string& device) {
  const auto in = view(rgb);
  Array<float> out({in.height, in.width, std::int64_t{3}});
  const auto out_view = mutable_view(out);
  const Device where = parse_device(device);
  const Rgb glass = parse_white(white);
  {
    const py::gil_scoped_release unlocked;
    stain_unmix(in, glass, StainMatrix{stains}, out_view, where);
  }
  return out;
}

/// (n, H, W, 3) -> (n, 3, H, W); T is float, or the bits of a float16 given as such.
template <typename T>
void normalize(const Array<std::uint8_t>& rgb, const std::array<float, 3>& mean,
               const std::array<float, 3>& std, py::array& out) {
  auto* const to = static_cast<T*>(out.mutable_data());
  const std::int64_t n = rgb.shape(0), height = rgb.shape(1), width = rgb.shape(2);
  const std::uint8_t* const from = rgb.data();
  const py::gil_scoped_release unlocked;
  normalize_batch(from, n, height, width, mean, std, to);
}

py::array normalize_batch_array(const Array<std::uint8_t>& rgb,
                                const std::array<float, 3>& mean,
                                const std::array<float, 3>& std, bool half,
                                const std::string& device) {
  check_device(parse_device(device), "normalize_batch");
  if (rgb.ndim() != 4 || rgb.shape(3) != 3) {
    throw std::invalid_argument("need pixels of shape (n, H, W, 3)");
  }
  py::array out(py::dtype(half ? "float16" : "float32"),
                {rgb.shape(0), py::ssize_t{3}, rgb.shape(1), rgb.shape(2)});
  half ? normalize<std::uint16_t>(rgb, mean, std, out)
       : normalize<float>(rgb, mean, std, out);
  return out;
}

StainCensus stain_census_array(const Rows<std::uint8_t>& rgb,
                               const Rows<std::uint8_t>& mask, const Triple& white,
                               const std::string& device) {
  const auto in = view(rgb);
  const auto tissue = view(mask);
  const Device where = parse_device(device);
  const Rgb glass = parse_white(white);
  const py::gil_scoped_release unlocked;
  return stain_census(in, tissue, glass, where);
}

}  // namespace

void bind_kernels(py::module_& m) {
  m.attr("TISSUE_REACH_PX") = kTissueReachPx;
  m.attr("FOCUS_LIMIT") = kFocusLimit;
  m.def("normalize_batch", &normalize_batch_array, "rgb"_a.noconvert(), "mean"_a, "std"_a,
        "half"_a, "device"_a = "cpu");
  m.attr("H_DAB") = py::cast(StainMatrix::h_dab().rows);
  // Outputs on a GPU are made by the caller's library, which has to know their shape.
  m.def(
      "grid_shape",
      [](std::int64_t height, std::int64_t width, std::int32_t patch_px,
         std::int32_t stride_px) {
        const PatchGrid grid{patch_px, stride_px};
        return py::make_tuple(grid.count_along(height), grid.count_along(width));
      },
      "height"_a, "width"_a, "patch_px"_a, "stride_px"_a);
  m.def("tumor_count", &tumor_count_array, "mask"_a.noconvert(), "patch_px"_a,
        "stride_px"_a, "device"_a = "cpu");
  m.def("tissue_mask", &tissue_mask_array, "rgb"_a.noconvert(), "white"_a,
        "device"_a = "cpu");
  m.def("focus", &focus_array, "rgb"_a.noconvert(), "mask"_a.noconvert(), "patch_px"_a,
        "stride_px"_a, "device"_a = "cpu");
  m.def("stain_unmix", &stain_unmix_array, "rgb"_a.noconvert(), "white"_a, "stains"_a,
        "device"_a = "cpu");
  py::class_<StainCensus>(m, "StainCensus")
      .def(py::init([](std::int64_t pixels, std::int64_t dark, std::int64_t tissue,
                       std::int64_t stained, std::int64_t eosin, std::int64_t h_dab) {
             return StainCensus{pixels, dark, tissue, stained, eosin, h_dab};
           }),
           py::kw_only(), "pixels"_a = 0, "dark"_a = 0, "tissue"_a = 0, "stained"_a = 0,
           "eosin"_a = 0, "h_dab"_a = 0)
      .def_readonly("pixels", &StainCensus::pixels)
      .def_readonly("dark", &StainCensus::dark)
      .def_readonly("tissue", &StainCensus::tissue)
      .def_readonly("stained", &StainCensus::stained)
      .def_readonly("eosin", &StainCensus::eosin)
      .def_readonly("h_dab", &StainCensus::h_dab)
      .def("__add__", [](StainCensus a, const StainCensus& b) { return a += b; })
      .def("__eq__", [](const StainCensus& a, const StainCensus& b) { return a == b; })
      .def("__repr__", [](const StainCensus& c) {
        return "StainCensus(pixels=" + std::to_string(c.pixels) +
               ", dark=" + std::to_string(c.dark) +
               ", tissue=" + std::to_string(c.tissue) +
               ", stained=" + std::to_string(c.stained) +
               ", eosin=" + std::to_string(c.eosin) +
               ", h_dab=" + std::to_string(c.h_dab) + ")";
      });
  m.def("stain_census", &stain_census_array, "rgb"_a.noconvert(), "mask"_a.noconvert(),
        "white"_a, "device"_a = "cpu");
  m.def("is_wrong_stain", &is_wrong_stain, "census"_a);
  bind_training_kernels(m);
}

}  // namespace her2fast::bindings
