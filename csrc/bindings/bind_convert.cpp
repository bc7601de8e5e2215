// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "bindings.h"
#include "her2fast/slide_convert.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace her2fast::bindings {
namespace {

py::dict to_dict(const ConvertReport& report) {
  return py::dict("copied"_a = report.copied, "big_tiff"_a = report.big_tiff,
                  "levels"_a = report.levels, "tiles"_a = report.tiles,
                  "missing"_a = report.missing, "damaged"_a = report.damaged);
}

}  // namespace

void bind_convert(py::module_& m) {
  m.def(
      "convert_slide",
      [](const std::shared_ptr<Slide>& slide, const py::object& path,
         std::pair<double, double> spacing_um, std::array<std::int64_t, 4> box_px,
         int jpeg_quality, bool aperio, bool copy_tiles, bool big_tiff, int workers,
         std::uint64_t classic_bytes, const py::object& progress) {
        const std::string place =
            py::module_::import("os").attr("fsencode")(path).cast<py::bytes>();
        ConvertOptions options;
        options.pyramid.spacing_um = spacing_um.first;
        options.pyramid.spacing_y_um = spacing_um.second;
        options.pyramid.jpeg_quality = jpeg_quality;
        options.pyramid.aperio = aperio;
        options.pyramid.big_tiff = big_tiff;
        options.pyramid.workers = workers;
        if (classic_bytes > 0) options.pyramid.classic_bytes = classic_bytes;
        options.x0_px = box_px[0];
        options.y0_px = box_px[1];
        options.width_px = box_px[2];
        options.height_px = box_px[3];
        options.copy_tiles = copy_tiles;
        ConvertReport report;
        {
          py::gil_scoped_release unlocked;
          report = convert_slide(slide, place, options, [&](std::int64_t rows_done_px) {
            py::gil_scoped_acquire locked;
            if (PyErr_CheckSignals() != 0) throw py::error_already_set();
            if (!progress.is_none()) progress(rows_done_px);
            return true;
          });
        }
        return to_dict(report);
      },
      "slide"_a, "path"_a, py::kw_only(), "spacing_um"_a, "box_px"_a, "jpeg_quality"_a,
      "aperio"_a, "copy_tiles"_a = true, "big_tiff"_a = false, "workers"_a = 2,
      "classic_bytes"_a = 0, "progress"_a = py::none());
}

}  // namespace her2fast::bindings
