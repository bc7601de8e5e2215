// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "bindings.h"
#include "her2fast/cell_class.h"
#include "her2fast/cells.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace her2fast::bindings {
namespace {

using Bytes = Array<std::uint8_t>;
using Shorts = Array<std::uint16_t>;

template <typename Row, typename Get>
auto column(const std::vector<Row>& rows, Get get) {
  using Value = std::decay_t<decltype(get(rows[0]))>;
  Array<Value> out(static_cast<py::ssize_t>(rows.size()));
  for (std::size_t i = 0; i < rows.size(); ++i) out.mutable_data()[i] = get(rows[i]);
  return out;
}

py::tuple find_stains(const Rows<std::uint8_t>& rgb,
                      const std::array<std::uint8_t, 3>& white, std::int32_t step,
                      const std::string& device) {
  const Device where = parse_device(device);
  const auto in = view(rgb);
  const std::int64_t side = std::max(step, 1);
  Shorts hematoxylin({in.height / side, in.width / side});
  Bytes dab({in.height, in.width});
  const auto first = mutable_view(hematoxylin);
  const auto second = mutable_view(dab);
  {
    const py::gil_scoped_release unlocked;
    cell_stains(in, {white[0], white[1], white[2]}, step, first, second, where);
  }
  return py::make_tuple(hematoxylin, dab);
}

py::dict find_nuclei(const Rows<std::uint16_t>& hematoxylin,
                     const Rows<std::uint8_t>& mask, std::int32_t step,
                     std::int32_t halo_px, const std::string& device) {
  const Device where = parse_device(device);
  const auto planes = view(hematoxylin);
  const auto membrane = view(mask);
  Bytes dark({planes.height, planes.width});
  const auto dark_view = mutable_view(dark);
  std::vector<Nucleus> found;
  {
    const py::gil_scoped_release unlocked;
    found = nuclei(planes, membrane, step, halo_px, dark_view, where);
  }
  return py::dict("x"_a = column(found, [](const Nucleus& n) { return n.x; }),
                  "y"_a = column(found, [](const Nucleus& n) { return n.y; }),
                  "dark"_a = dark);
}

py::dict find_cells(const Rows<std::uint16_t>& hematoxylin, const Rows<std::uint8_t>& dab,
                    const Rows<std::uint8_t>& mask, std::int32_t step,
                    std::int32_t halo_px, std::int32_t glass_dab,
                    const std::string& device) {
  const Device where = parse_device(device);
  const auto planes = view(hematoxylin);
  const auto brown = view(dab);
  const auto membrane = view(mask);
  std::vector<Cell> found;
  {
    const py::gil_scoped_release unlocked;
    found = cells(planes, brown, membrane, step, halo_px, glass_dab, where);
  }
  Bytes rays({static_cast<py::ssize_t>(found.size()), py::ssize_t{kCellRays}});
  std::uint8_t* next = rays.mutable_data();
  for (const Cell& cell : found) next = std::copy_n(cell.ray_px.data(), kCellRays, next);
  return py::dict(
      "x"_a = column(found, [](const Cell& c) { return c.x; }),
      "y"_a = column(found, [](const Cell& c) { return c.y; }),
      "px"_a = column(found, [](const Cell& c) { return c.px; }),
      "nucleus_px"_a = column(found, [](const Cell& c) { return c.nucleus_px; }),
      "ray_px"_a = rays,
      "stained"_a = column(found, [](const Cell& c) { return c.stained; }),
      "dab_sum"_a = column(found, [](const Cell& c) { return c.dab_sum; }),
      "dab_px"_a = column(found, [](const Cell& c) { return c.dab_px; }));
}

py::dict classify(const Array<std::uint32_t>& stained,
                  const Array<std::uint32_t>& dab_sum, double grid_um,
                  std::int32_t step) {
  if (stained.ndim() != 1 || dab_sum.ndim() != 1 || stained.size() != dab_sum.size()) {
    throw std::invalid_argument("need one dab_sum for each of stained");
  }
  if (step < 1 || step > kMaxCellStep) {
    throw std::invalid_argument("need step 1 or 2, got " + std::to_string(step));
  }
  const Spacing grid = Spacing::from_um(grid_um);
  Array<std::int8_t> her2(stained.size());
  Array<bool> complete(stained.size()), unusual(stained.size());
  for (py::ssize_t i = 0; i < stained.size(); ++i) {
    const CellClass found =
        classify_cell(stained.data()[i], dab_sum.data()[i], grid, step);
    her2.mutable_data()[i] = found.her2;
    complete.mutable_data()[i] = found.complete;
    unusual.mutable_data()[i] = found.unusual;
  }
  return py::dict("her2"_a = her2, "complete"_a = complete, "unusual"_a = unusual);
}

}  // namespace

void bind_cells(py::module_& m) {
  m.attr("NUCLEI_REACH_PX") = kNucleiReachPx;
  m.attr("CELLS_REACH_PX") = kCellsReachPx;
  m.attr("CELL_RAYS") = kCellRays;
  m.attr("CELL_CUTS") = py::dict("faintest_dab_hundredths"_a = kFaintestDab,
                                 "least_rays"_a = kCellCuts.least_rays,
                                 "complete_rays"_a = kCellCuts.complete_rays,
                                 "moderate_milli"_a = kCellCuts.moderate_milli,
                                 "intense_milli"_a = kCellCuts.intense_milli);
  m.def("classify_cells", &classify, "stained"_a.noconvert(), "dab_sum"_a.noconvert(),
        "grid_um"_a, "step"_a);
  m.def("cell_stains", &find_stains, "rgb"_a.noconvert(), "white"_a, "step"_a,
        "device"_a = "cpu");
  m.def("nuclei", &find_nuclei, "hematoxylin"_a.noconvert(), "mask"_a.noconvert(),
        "step"_a, "halo_px"_a, "device"_a = "cpu");
  m.def("cells", &find_cells, "hematoxylin"_a.noconvert(), "dab"_a.noconvert(),
        "mask"_a.noconvert(), "step"_a, "halo_px"_a, "glass_dab"_a = 0,
        "device"_a = "cpu");
}

}  // namespace her2fast::bindings
