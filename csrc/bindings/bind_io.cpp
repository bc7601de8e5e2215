// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "bindings.h"
#include "her2fast/slide.h"
#include "her2fast/tiff_writer.h"
#include "io/container/openslide.h"
#include "io/resample.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace her2fast::bindings {
namespace {

/// The path's bytes as the system knows them: names need not be UTF-8.
std::string path_bytes(const py::object& path) {
  return py::module_::import("os").attr("fsencode")(path).cast<py::bytes>();
}

const char* status_text(TileStatus status) {
  switch (status) {
    case TileStatus::kOk:
      return "ok";
    case TileStatus::kWarned:
      return "warned";
    case TileStatus::kCorrupt:
      return "corrupt";
    case TileStatus::kMissing:
      return "missing";
  }
  return "corrupt";
}

py::object spacing_pair(const SlideInfo& info) {
  if (!info.spacing_x || !info.spacing_y) return py::none();
  return py::make_tuple(info.spacing_x->um(), info.spacing_y->um());
}

PyramidOptions options_of(double spacing_um, std::int32_t tile_px, int jpeg_quality,
                          std::vector<int> downsamples, bool aperio, bool big_tiff,
                          int workers, std::string title) {
  PyramidOptions options;
  options.spacing_um = spacing_um;
  options.tile_px = tile_px;
  options.jpeg_quality = jpeg_quality;
  options.downsamples = std::move(downsamples);
  options.aperio = aperio;
  options.big_tiff = big_tiff;
  options.workers = workers;
  options.title = std::move(title);
  return options;
}

void bind_slide(py::module_& m) {
  py::class_<Slide, std::shared_ptr<Slide>>(m, "Slide")
      .def_static(
          "open",
          [](const py::object& path) {
            const std::string bytes = path_bytes(path);
            py::gil_scoped_release unlocked;
            return std::const_pointer_cast<Slide>(open_slide(bytes));
          },
          "path"_a)
      .def_property_readonly("format", [](const Slide& s) { return s.info().format; })
      .def_property_readonly("reader", [](const Slide& s) { return s.info().reader; })
      .def_property_readonly("levels",
                             [](const Slide& s) {
                               py::list levels;
                               for (const Level& level : s.info().levels) {
                                 levels.append(py::make_tuple(
                                     level.width_px, level.height_px, level.tile_width_px,
                                     level.tile_height_px, level.downsample()));
                               }
                               return levels;
                             })
      .def_property_readonly("spacing_um",
                             [](const Slide& s) { return spacing_pair(s.info()); })
      .def_property_readonly(
          "spacing_source",
          [](const Slide& s) {
            return std::string(spacing_source_name(s.info().spacing_source));
          })
      .def_property_readonly("properties",
                             [](const Slide& s) { return s.info().properties; })
      .def("fingerprint", &Slide::fingerprint, py::call_guard<py::gil_scoped_release>())
      .def(
          "can_scale",
          [](const Slide& s, int level, int denominator) {
            if (level < 0 || static_cast<std::size_t>(level) >= s.info().levels.size()) {
              throw py::index_error("the slide has no such level");
            }
            return s.can_scale(level, denominator);
          },
          "level"_a, "denominator"_a)
      .def(
          "read_tile",
          [](const Slide& s, int level, std::int64_t column, std::int64_t row,
             int denominator) {
            if (level < 0 || static_cast<std::size_t>(level) >= s.info().levels.size()) {
              throw py::index_error("the slide has no such level");
            }
            if (!is_denominator(denominator)) {
              throw std::invalid_argument("need denominator 1, 2, 4 or 8, got " +
                                          std::to_string(denominator));
            }
            const Level& shape = s.info().levels[static_cast<std::size_t>(level)];
            Array<std::uint8_t> out({shape.tile_height_px / denominator,
                                     shape.tile_width_px / denominator, 3});
            const auto view = mutable_view(out);
            TileStatus status;
            {
              py::gil_scoped_release unlocked;
              const DecodeScratchPtr scratch = make_decode_scratch();
              status = s.read_tile(level, column, row, denominator, view, *scratch);
            }
            return py::make_tuple(out, status_text(status));
          },
          "level"_a, "column"_a, "row"_a, "denominator"_a = 1);
}

void bind_writer(py::module_& m) {
  m.def(
      "write_pyramid",
      [](const py::object& path, const Array<std::uint8_t>& rgb, double spacing_um,
         std::int32_t tile_px, int jpeg_quality, std::vector<int> downsamples,
         bool aperio, bool big_tiff, int workers, std::string title,
         std::string_view icc_profile) {
        const auto in = view(rgb);
        if (in.channels != 3) throw std::invalid_argument("need rgb of shape (H, W, 3)");
        const std::string bytes = path_bytes(path);
        auto options =
            options_of(spacing_um, tile_px, jpeg_quality, std::move(downsamples), aperio,
                       big_tiff, workers, std::move(title));
        const auto* profile = reinterpret_cast<const std::byte*>(icc_profile.data());
        options.icc_profile.assign(profile, profile + icc_profile.size());
        py::gil_scoped_release unlocked;
        write_pyramid(
            bytes, in.width, in.height,
            [&](std::int64_t y_px, ImageView<std::uint8_t> rows) {
              std::memcpy(rows.data, in.row(y_px),
                          static_cast<std::size_t>(rows.height * rows.width * 3));
            },
            options);
      },
      "path"_a, "rgb"_a.noconvert(), py::kw_only(), "spacing_um"_a, "tile_px"_a = 256,
      "jpeg_quality"_a = 90, "downsamples"_a = std::vector<int>{1, 4, 16},
      "aperio"_a = false, "big_tiff"_a = false, "workers"_a = 2, "title"_a = "",
      "icc_profile"_a = py::bytes());
  m.def(
      "write_pyramid_rows",
      [](const py::object& path, std::int64_t width_px, std::int64_t height_px,
         const py::function& rows, double spacing_um, std::int32_t tile_px,
         int jpeg_quality, std::vector<int> downsamples, bool aperio, bool big_tiff,
         int workers, std::string title) {
        const std::string bytes = path_bytes(path);
        const auto options =
            options_of(spacing_um, tile_px, jpeg_quality, std::move(downsamples), aperio,
                       big_tiff, workers, std::move(title));
        py::gil_scoped_release unlocked;
        write_pyramid(
            bytes, width_px, height_px,
            [&](std::int64_t y_px, ImageView<std::uint8_t> out) {
              py::gil_scoped_acquire locked;
              const auto band = py::cast<Array<std::uint8_t>>(rows(y_px, out.height));
              const auto in = view(band);
              if (in.height != out.height || in.width != out.width || in.channels != 3) {
                throw std::invalid_argument("need rows of shape (" +
                                            std::to_string(out.height) + ", " +
                                            std::to_string(out.width) + ", 3)");
              }
              std::memcpy(out.data, in.data,
                          static_cast<std::size_t>(out.height * out.width * 3));
            },
            options);
      },
      "path"_a, "width_px"_a, "height_px"_a, "rows"_a, py::kw_only(), "spacing_um"_a,
      "tile_px"_a = 256, "jpeg_quality"_a = 90,
      "downsamples"_a = std::vector<int>{1, 4, 16}, "aperio"_a = false,
      "big_tiff"_a = false, "workers"_a = 2, "title"_a = "");
}

}  // namespace

void bind_io(py::module_& m) {
  m.attr("SPACING_LIMITS_UM") = py::make_tuple(kMinSpacingUm, kMaxSpacingUm);
  bind_slide(m);
  bind_writer(m);
  bind_convert(m);
  m.def(
      "set_openslide_library",
      [](const py::object& path) { io::set_openslide_library(path_bytes(path)); },
      "path"_a);
  m.def("set_openslide_cache_bytes", &io::set_openslide_cache_bytes, "bytes"_a);
  m.def(
      "resolve_frame",
      [](const Slide& slide, std::optional<double> mpp) {
        const ResolvedFrame resolved = resolve_frame(slide.info(), mpp);
        return py::make_tuple(
            py::make_tuple(resolved.frame.spacing_x.um(), resolved.frame.spacing_y.um()),
            std::string(spacing_source_name(resolved.source)), resolved.warning);
      },
      "slide"_a, "mpp"_a = std::nullopt);
  bind_reader(m);
}

}  // namespace her2fast::bindings
