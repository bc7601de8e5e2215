// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "bindings.h"
#include "her2fast/membrane.h"
#include "her2fast/membrane_prune.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace her2fast::bindings {
namespace {

/// One field of every row, as an array of its own.
template <typename Row, typename Get>
auto column(const std::vector<Row>& rows, Get get) {
  using Value = std::decay_t<decltype(get(rows[0]))>;
  Array<Value> out(static_cast<py::ssize_t>(rows.size()));
  for (std::size_t i = 0; i < rows.size(); ++i) out.mutable_data()[i] = get(rows[i]);
  return out;
}

template <typename Row>
Array<std::int32_t> boxes(const std::vector<Row>& rows) {
  Array<std::int32_t> out({static_cast<py::ssize_t>(rows.size()), py::ssize_t{4}});
  std::int32_t* next = out.mutable_data();
  for (const Row& row : rows) {
    for (const std::int32_t v : {row.box.x0, row.box.y0, row.box.x1, row.box.y1}) {
      *next++ = v;
    }
  }
  return out;
}

py::dict membranes_to_dict(const std::vector<Membrane>& rows) {
  using M = Membrane;
  const auto percentile = [&](std::size_t which) {
    return column(rows, [which](const M& m) { return m.density_percentile[which]; });
  };
  return py::dict(
      "x"_a = column(rows, [](const M& m) { return m.x; }),
      "y"_a = column(rows, [](const M& m) { return m.y; }), "box"_a = boxes(rows),
      "px"_a = column(rows, [](const M& m) { return m.px; }),
      "compartments"_a = column(rows, [](const M& m) { return m.compartments; }),
      "enclosed_px"_a = column(rows, [](const M& m) { return m.enclosed_px; }),
      "perimeter_px"_a = column(rows, [](const M& m) { return m.perimeter_px; }),
      "length_px"_a = column(rows, [](const M& m) { return m.length_px; }),
      "width_px"_a = column(rows, [](const M& m) { return m.width_px; }),
      "density_mean"_a = column(rows, [](const M& m) { return m.density_mean; }),
      "density_p10"_a = percentile(0), "density_p50"_a = percentile(1),
      "density_p90"_a = percentile(2),
      "closed"_a = column(rows, [](const M& m) { return m.closed; }),
      "cut"_a = column(rows, [](const M& m) { return m.cut; }),
      "incomplete"_a = column(rows, [](const M& m) { return m.incomplete; }));
}

py::dict compartments_to_dict(const std::vector<Compartment>& rows) {
  using C = Compartment;
  return py::dict("x"_a = column(rows, [](const C& c) { return c.x; }),
                  "y"_a = column(rows, [](const C& c) { return c.y; }),
                  "box"_a = boxes(rows),
                  "px"_a = column(rows, [](const C& c) { return c.px; }),
                  "membrane_x"_a = column(rows, [](const C& c) { return c.membrane_x; }),
                  "membrane_y"_a = column(rows, [](const C& c) { return c.membrane_y; }),
                  "nuclei"_a = column(rows, [](const C& c) { return c.nuclei; }));
}

py::tuple take(MembraneMerge& merge) {
  const MembraneTable table = merge.take();
  return py::make_tuple(membranes_to_dict(table.membranes),
                        compartments_to_dict(table.compartments));
}

ImageView<const std::uint8_t> view_plane(const Rows<std::uint8_t>& array) {
  if (array.ndim() != 2) {
    throw std::invalid_argument("need an array of 2 dimensions, got " +
                                std::to_string(array.ndim()));
  }
  return view(array);
}

std::vector<PixelPoint> to_points(const std::optional<Array<std::int32_t>>& array) {
  std::vector<PixelPoint> out;
  if (!array) return out;
  if (array->ndim() != 2 || array->shape(1) != 2) {
    throw std::invalid_argument("need nuclei of shape (n, 2): x and y");
  }
  for (py::ssize_t i = 0; i < array->shape(0); ++i) {
    out.push_back({array->at(i, 0), array->at(i, 1)});
  }
  return out;
}

MembraneTile label(const Rows<std::uint8_t>& mask,
                   const std::optional<Rows<std::uint8_t>>& density,
                   const std::optional<Array<std::int32_t>>& nuclei,
                   const std::string& device) {
  const Device where = parse_device(device);
  const auto mask_view = view_plane(mask);
  const auto density_view =
      density ? view_plane(*density) : ImageView<const std::uint8_t>{};
  const auto points = to_points(nuclei);
  const py::gil_scoped_release unlocked;
  return membrane_label(mask_view, density_view, points, where);
}

Array<std::uint8_t> prune(const Rows<std::uint8_t>& mask, std::int32_t length_px,
                          const std::string& device) {
  const Device where = parse_device(device);
  const auto in = view_plane(mask);
  Array<std::uint8_t> out({mask.shape(0), mask.shape(1)});
  const auto out_view = mutable_view(out);
  const py::gil_scoped_release unlocked;
  membrane_prune(in, length_px, out_view, where);
  return out;
}

}  // namespace

void bind_membrane(py::module_& m) {
  m.attr("PRUNE_HALF_WIDTH_PX") = kPruneHalfWidthPx;
  m.attr("PRUNE_MAX_LENGTH_PX") = kPruneMaxLengthPx;
  m.def("prune_reach_px", &prune_reach_px, "length_px"_a);
  m.def("membrane_prune", &prune, "mask"_a, "length_px"_a, py::kw_only(),
        "device"_a = "cpu");
  py::class_<MembraneTile>(m, "MembraneTile")
      .def_property_readonly("height", &MembraneTile::height)
      .def_property_readonly("width", &MembraneTile::width)
      .def_property_readonly("has_density", &MembraneTile::has_density);
  m.def("membrane_label", &label, "mask"_a.noconvert(),
        "density"_a.noconvert() = py::none(), "nuclei"_a.noconvert() = py::none(),
        py::kw_only(), "device"_a = "cpu");
  py::class_<MembraneMerge>(m, "MembraneMerge")
      .def(py::init<std::int64_t, std::int64_t, std::int32_t, std::int32_t>(), "width"_a,
           "height"_a, "tile_width"_a, "tile_height"_a)
      .def("add", &MembraneMerge::add, "column"_a, "row"_a, "tile"_a,
           py::call_guard<py::gil_scoped_release>())
      .def("finish", &MembraneMerge::finish, py::call_guard<py::gil_scoped_release>())
      .def("take", &take)
      .def_property_readonly("open_components", &MembraneMerge::open_components)
      .def_property_readonly("memory_bytes", &MembraneMerge::memory_bytes);
}

}  // namespace her2fast::bindings
