// SPDX-License-Identifier: Apache-2.0
#include <optional>
#include <utility>

#include "bindings.h"
#include "her2fast/decide.h"
#include "her2fast/session.h"
#include "her2fast/tile_reader.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace her2fast::bindings {
namespace {

/// (exclude, [(n, 2) level-0 px]) for every polygon.
using RoiArgument = std::vector<std::pair<bool, std::vector<Array<double>>>>;

std::vector<RoiPolygon> roi_polygons(const RoiArgument& roi) {
  std::vector<RoiPolygon> polygons;
  for (const auto& [exclude, rings] : roi) {
    RoiPolygon polygon;
    polygon.exclude = exclude;
    for (const Array<double>& ring : rings) {
      if (ring.ndim() != 2 || ring.shape(1) != 2) {
        throw std::invalid_argument("need ROI rings of shape (points, 2)");
      }
      auto& points = polygon.rings.emplace_back();
      points.reserve(static_cast<std::size_t>(ring.shape(0)));
      const double* p = ring.data();
      for (py::ssize_t i = 0; i < ring.shape(0); ++i)
        points.push_back({p[2 * i], p[2 * i + 1]});
    }
    polygons.push_back(std::move(polygon));
  }
  return polygons;
}

/// (cut of each distance, largest share outside in thousandths).
using DomainArgument = std::pair<std::vector<std::int32_t>, int>;

DecideOptions decide_options(const std::optional<std::string>& rule_set,
                             int floor_percent, const std::optional<std::string>& ish,
                             std::vector<std::int32_t> scale_q16,
                             std::vector<std::int32_t> bias_q16, const RoiArgument& roi,
                             bool check_stain, int bootstrap_replicates,
                             std::optional<DomainArgument> domain) {
  DecideOptions options;
  options.bootstrap_replicates = bootstrap_replicates;
  options.rule_set = rule_set;
  options.floor_percent = floor_percent;
  options.ish = parse_ish(ish);
  options.calibration = {std::move(scale_q16), std::move(bias_q16)};
  options.roi = roi_polygons(roi);
  options.check_stain = check_stain;
  if (domain) options.domain = {std::move(domain->first), domain->second};
  return options;
}

py::dict census_dict(const StainCensus& c) {
  return py::dict("pixels"_a = c.pixels, "dark"_a = c.dark, "tissue"_a = c.tissue,
                  "stained"_a = c.stained, "eosin"_a = c.eosin, "h_dab"_a = c.h_dab);
}

py::dict decision_dict(const Decision& d, double pixel_mm2) {
  py::dict out;
  out["status"] = std::string(status_name(d.status));
  out["code"] = d.code ? py::cast(std::string(code_name(*d.code))) : py::none();
  out["message"] = d.message;
  out["class_px"] = d.class_px;
  out["class_patches"] = d.class_patches;
  out["kept_tumor_px"] = d.kept_tumor_px;
  out["dropped_tumor_px"] = d.dropped_tumor_px;
  out["tissue_px"] = d.tissue_px;
  out["roi_px"] = d.roi_px;
  out["out_of_focus_tissue_px"] = d.out_of_focus_tissue_px;
  out["focus_tissue_px"] = d.focus_tissue_px;
  out["tiles"] = py::dict("total"_a = d.tiles_total, "read"_a = d.tiles_read,
                          "missing"_a = d.tiles_missing, "corrupt"_a = d.tiles_corrupt,
                          "warned"_a = d.tiles_warned);
  out["census"] = census_dict(d.census);
  out["review_flags"] = d.review_flags;
  out["review_required"] = d.review_required;
  out["pixel_mm2"] = pixel_mm2;
  out["flip"] = d.flip ? py::object(flip_to_dict(*d.flip)) : py::none();
  out["bootstrap"] = py::none();
  if (d.bootstrap) {
    py::dict bootstrap = bootstrap_to_dict(*d.bootstrap);
    bootstrap["block_px"] = d.bootstrap_block_px;
    out["bootstrap"] = bootstrap;
  }
  out["islands"] = d.islands ? py::object(islands_to_dict(*d.islands)) : py::none();
  out["domain"] = py::none();
  if (d.domain) {
    std::vector<double> means;
    for (const std::int64_t sum : d.domain->sum_q8_px) {
      means.push_back(static_cast<double>(sum) /
                      (256.0 * static_cast<double>(d.kept_tumor_px)));
    }
    out["domain"] = py::dict("outside_px"_a = d.domain->outside_px, "means"_a = means,
                             "is_outside"_a = d.domain->is_outside);
  }
  out["guideline"] =
      d.guideline ? py::object(guideline_to_dict(*d.guideline)) : py::none();
  return out;
}

py::dict outcomes_dict(const std::vector<PatchOutcome>& outcomes, std::size_t classes) {
  const auto n = static_cast<py::ssize_t>(outcomes.size());
  Array<std::int64_t> column(n), row(n);
  Array<std::uint32_t> tumor(n);
  Array<bool> kept(n);
  Array<std::int32_t> predicted(n);
  Array<double> logits({n, static_cast<py::ssize_t>(classes)});
  for (py::ssize_t i = 0; i < n; ++i) {
    const PatchOutcome& o = outcomes[static_cast<std::size_t>(i)];
    column.mutable_at(i) = o.column;
    row.mutable_at(i) = o.row;
    tumor.mutable_at(i) = o.tumor_px;
    kept.mutable_at(i) = o.kept;
    predicted.mutable_at(i) = o.predicted;
    double* out = logits.mutable_data(i, 0);
    for (std::size_t c = 0; c < classes; ++c) {
      out[c] = o.logits.empty() ? std::numeric_limits<double>::quiet_NaN() : o.logits[c];
    }
  }
  return py::dict("column"_a = column, "row"_a = row, "tumor_px"_a = tumor,
                  "kept"_a = kept, "predicted"_a = predicted, "logits"_a = logits);
}

py::array batch_rgb(const std::shared_ptr<Session>& session, const Batch& batch) {
  const ModelSlot& slot = session->models()[static_cast<std::size_t>(batch.model)];
  // The array keeps the session alive; the pixels live until `put`.
  const py::capsule owner(new std::shared_ptr<Session>(session), [](void* p) {
    delete static_cast<std::shared_ptr<Session>*>(p);
  });
  py::array array(py::dtype::of<std::uint8_t>(),
                  {py::ssize_t{slot.batch}, py::ssize_t{slot.height_px},
                   py::ssize_t{slot.width_px}, py::ssize_t{3}},
                  batch.rgb, owner);
  // A segmenter's pixels are cut into the classifier's: who wrote here would move a
  // score.
  py::detail::array_proxy(array.ptr())->flags &=
      ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  return array;
}

/// NumPy exports read-only pixels only to consumers that pass `max_version`. Older ones
/// (torch) do not, and the capsule that they know cannot say so.
py::object batch_dlpack(const py::array& rgb, const py::kwargs& options) {
  for (const auto& option : options) {
    if (!option.second.is_none()) return rgb.attr("__dlpack__")(**options);
  }
  const std::vector<std::int64_t> shape(rgb.shape(), rgb.shape() + rgb.ndim());
  std::vector<std::int64_t> strides(rgb.strides(), rgb.strides() + rgb.ndim());
  for (std::int64_t& step : strides) step /= rgb.itemsize();
  constexpr std::pair<int, int> kHost{1, 0};
  return make_dlpack(reinterpret_cast<std::uintptr_t>(rgb.data()), shape, strides, "|u1",
                     kHost, rgb, false);
}

struct PyBatch {
  Batch batch;
  py::array rgb;
};

void bind_measurement(py::module_& m) {
  py::class_<Measurement, std::shared_ptr<Measurement>>(m, "Measurement")
      .def_static("from_bytes",
                  [](const py::bytes& data) {
                    const std::string_view view = data;
                    py::gil_scoped_release unlocked;
                    return std::make_shared<Measurement>(Measurement::from_bytes(
                        reinterpret_cast<const std::uint8_t*>(view.data()), view.size()));
                  })
      .def("to_bytes",
           [](const Measurement& self) {
             std::vector<std::uint8_t> bytes;
             {
               py::gil_scoped_release unlocked;
               bytes = self.to_bytes();
             }
             return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
           })
      .def_readwrite("key", &Measurement::key)
      .def_readonly("class_names", &Measurement::class_names)
      .def_readonly("distance_names", &Measurement::distance_names)
      .def_property_readonly("spacing_um",
                             [](const Measurement& self) { return self.spacing.um(); })
      .def_property_readonly("slide_size_px",
                             [](const Measurement& self) {
                               return std::pair(self.frame.width_px,
                                                self.frame.height_px);
                             })
      .def_property_readonly("slide_spacing_um",
                             [](const Measurement& self) {
                               return std::pair(self.frame.spacing_x.um(),
                                                self.frame.spacing_y.um());
                             })
      .def_readonly("tile_px", &Measurement::tile_px)
      .def_readonly("patch_px", &Measurement::patch_px)
      .def_readonly("tiles_x", &Measurement::tiles_x)
      .def_readonly("tiles_y", &Measurement::tiles_y)
      .def(
          "tumor_mask",
          [](const Measurement& self, std::int64_t x_px, std::int64_t y_px,
             std::int64_t width_px, std::int64_t height_px) {
            if (width_px < 0 || height_px < 0 || width_px > 65536 || height_px > 65536) {
              throw std::invalid_argument("need a window of 0 to 65536 px a side");
            }
            Array<std::uint8_t> out({height_px, width_px});
            const auto view = mutable_view(out);
            py::gil_scoped_release unlocked;
            self.tumor_mask(x_px, y_px, view);
            return out;
          },
          "x_px"_a, "y_px"_a, "width_px"_a, "height_px"_a);
}

void bind_decide(py::module_& m) {
  m.def(
      "decide",
      [](const Measurement& measurement, const std::optional<std::string>& rule_set,
         int floor_percent, const std::optional<std::string>& ish,
         std::vector<std::int32_t> scale_q16, std::vector<std::int32_t> bias_q16,
         const RoiArgument& roi, bool check_stain, int bootstrap_replicates,
         std::optional<DomainArgument> domain) {
        const DecideOptions options = decide_options(
            rule_set, floor_percent, ish, std::move(scale_q16), std::move(bias_q16), roi,
            check_stain, bootstrap_replicates, std::move(domain));
        Decision decision;
        {
          py::gil_scoped_release unlocked;
          decision = decide(measurement, options);
        }
        return decision_dict(decision, measurement.pixel_mm2());
      },
      "measurement"_a, py::kw_only(), "rule_set"_a = "asco-cap-2018",
      "floor_percent"_a = 1, "ish"_a = py::none(),
      "scale_q16"_a = std::vector<std::int32_t>{},
      "bias_q16"_a = std::vector<std::int32_t>{}, "roi"_a = RoiArgument{},
      "check_stain"_a = true, "bootstrap_replicates"_a = kBootstrapReplicates,
      "domain"_a = py::none());
  m.def(
      "patch_outcomes",
      [](const Measurement& measurement, const std::optional<std::string>& rule_set,
         int floor_percent, const std::optional<std::string>& ish,
         std::vector<std::int32_t> scale_q16, std::vector<std::int32_t> bias_q16,
         const RoiArgument& roi, bool check_stain, std::optional<DomainArgument> domain) {
        const DecideOptions options =
            decide_options(rule_set, floor_percent, ish, std::move(scale_q16),
                           std::move(bias_q16), roi, check_stain, 0, std::move(domain));
        std::vector<PatchOutcome> outcomes;
        {
          py::gil_scoped_release unlocked;
          outcomes = patch_outcomes(measurement, options);
        }
        return outcomes_dict(outcomes, measurement.class_names.size());
      },
      "measurement"_a, py::kw_only(), "rule_set"_a = "asco-cap-2018",
      "floor_percent"_a = 1, "ish"_a = py::none(),
      "scale_q16"_a = std::vector<std::int32_t>{},
      "bias_q16"_a = std::vector<std::int32_t>{}, "roi"_a = RoiArgument{},
      "check_stain"_a = true, "domain"_a = py::none());
  m.attr("LIMITS") = py::dict(
      "tumor_probability"_a = kLimits.tumor_probability,
      "keep_patch_percent"_a = kLimits.keep_patch_percent,
      "min_tumor_mm2"_a = kLimits.min_tumor_mm2,
      "min_tissue_mm2"_a = kLimits.min_tissue_mm2,
      "max_bad_tiles_percent"_a = kLimits.max_bad_tiles_percent,
      "out_of_focus_percent"_a = kLimits.out_of_focus_percent,
      "borderline_probability_percent"_a = kLimits.borderline_probability_percent,
      "island_gap_um"_a = kLimits.island_gap_um,
      "island_min_mm2"_a = kLimits.island_min_mm2,
      "island_min_percent"_a = kLimits.island_min_percent,
      "island_scores_apart"_a = kLimits.island_scores_apart,
      "island_mix_apart_percent"_a = kLimits.island_mix_apart_percent,
      "bootstrap_block_um"_a = kBootstrapBlockUm,
      "bootstrap_min_blocks"_a = kBootstrapMinBlocks,
      "bootstrap_replicates"_a = kBootstrapReplicates);
}

std::unique_ptr<PatchSession> make_session(
    std::pair<std::int64_t, std::int64_t> size_px,
    std::pair<double, double> slide_spacing_um, double spacing_um, std::int32_t patch_px,
    std::int32_t tile_px, std::int32_t halo_px, std::vector<std::string> class_names,
    std::int32_t classify_batch, bool has_segmenter, std::int32_t segment_batch,
    std::int32_t segment_channels, std::array<std::uint8_t, 3> white_rgb,
    std::size_t max_open_bytes, std::vector<std::string> distance_names,
    std::shared_ptr<BatchMemory> memory) {
  PatchMethodSpec spec;
  spec.frame = {size_px.first, size_px.second, Spacing::from_um(slide_spacing_um.first),
                Spacing::from_um(slide_spacing_um.second)};
  spec.spacing = Spacing::from_um(spacing_um);
  spec.patch_px = patch_px;
  spec.tile_px = tile_px;
  spec.halo_px = halo_px;
  spec.class_names = std::move(class_names);
  spec.distance_names = std::move(distance_names);
  spec.classify_batch = classify_batch;
  spec.has_segmenter = has_segmenter;
  spec.segment_batch = segment_batch;
  spec.segment_channels = segment_channels;
  spec.white = {white_rgb[0], white_rgb[1], white_rgb[2]};
  auto made = std::make_unique<PatchSession>();
  made->session = std::make_shared<Session>(
      make_patch_method(spec), SessionOptions{max_open_bytes, std::move(memory)});
  return made;
}

void bind_patch_session(py::module_& m) {
  py::class_<ReadRequest>(m, "ReadRequest")
      .def_readonly("id", &ReadRequest::id)
      .def_readonly("x_px", &ReadRequest::x_px)
      .def_readonly("y_px", &ReadRequest::y_px)
      .def_readonly("width_px", &ReadRequest::width_px)
      .def_readonly("height_px", &ReadRequest::height_px)
      .def_property_readonly("spacing_um",
                             [](const ReadRequest& self) { return self.spacing.um(); });
  py::class_<PyBatch>(m, "Batch")
      .def_property_readonly("id", [](const PyBatch& self) { return self.batch.id; })
      .def_property_readonly("model",
                             [](const PyBatch& self) { return self.batch.model; })
      .def_property_readonly("valid",
                             [](const PyBatch& self) { return self.batch.valid; })
      .def_readonly("rgb", &PyBatch::rgb)
      .def("__dlpack__",
           [](const PyBatch& self, const py::kwargs& options) -> py::object {
             return batch_dlpack(self.rgb, options);
           })
      .def("__dlpack_device__", [](const PyBatch& self) -> py::object {
        return self.rgb.attr("__dlpack_device__")();
      });
  py::class_<PatchSession>(m, "PatchSession")
      .def(py::init(&make_session), "size_px"_a, "slide_spacing_um"_a, py::kw_only(),
           "spacing_um"_a, "patch_px"_a, "tile_px"_a, "halo_px"_a, "class_names"_a,
           "classify_batch"_a, "has_segmenter"_a, "segment_batch"_a, "segment_channels"_a,
           "white_rgb"_a = std::array<std::uint8_t, 3>{255, 255, 255},
           "max_open_bytes"_a = SessionOptions{}.max_open_bytes,
           "distance_names"_a = std::vector<std::string>{}, "memory"_a = nullptr)
      .def_property_readonly(
          "models",
          [](const PatchSession& self) {
            py::list out;
            for (const ModelSlot& slot : self.session->models()) {
              out.append(py::make_tuple(slot.name, slot.batch, slot.height_px,
                                        slot.width_px, slot.outputs));
            }
            return out;
          })
      .def(
          "wanted",
          [](PatchSession& self, std::size_t max, bool wait) {
            py::gil_scoped_release unlocked;
            return self.session->wanted(max, wait);
          },
          "max"_a, "wait"_a = false)
      .def(
          "push",
          [](PatchSession& self, std::int64_t id,
             const std::optional<Rows<std::uint8_t>>& rgb, const std::string& status) {
            const ImageView<const std::uint8_t> pixels =
                rgb ? view(*rgb) : ImageView<const std::uint8_t>{};
            const TileStatus parsed = parse_tile_status(status);
            py::gil_scoped_release unlocked;
            self.session->push(id, pixels, parsed);
          },
          "id"_a, "rgb"_a.noconvert(), "status"_a)
      .def(
          "read_from",
          [](PatchSession& self, const TileReader& reader, std::size_t chunk) {
            const std::shared_ptr<Session> session = self.session;
            py::gil_scoped_release unlocked;
            reader.run([&] { return session->wanted(chunk, true); },
                       [&](TileAnswer&& answer) {
                         const ReadRequest& r = answer.request;
                         session->push(r.id,
                                       {answer.rgb.data(), r.height_px, r.width_px, 3},
                                       answer.status);
                       });
          },
          "reader"_a, "chunk"_a = 8)
      .def(
          "next_batch",
          [](PatchSession& self, bool wait) -> std::optional<PyBatch> {
            std::optional<Batch> batch;
            {
              py::gil_scoped_release unlocked;
              batch = self.session->next_batch(wait);
            }
            if (!batch) return std::nullopt;
            return PyBatch{*batch, batch_rgb(self.session, *batch)};
          },
          "wait"_a = false)
      .def(
          "put",
          [](PatchSession& self, std::int64_t id, const Array<float>& output) {
            const float* data = output.data();
            const auto count = static_cast<std::size_t>(output.size());
            std::optional<std::size_t> rows;  // a flat output has none
            if (output.ndim() > 1) rows = static_cast<std::size_t>(output.shape(0));
            py::gil_scoped_release unlocked;
            self.session->put(id, data, count, rows);
          },
          "id"_a, "output"_a.noconvert())
      .def("progress",
           [](const PatchSession& self) {
             const Session::Progress p = self.session->progress();
             return py::make_tuple(p.planned, p.answered, p.items_planned, p.items_done);
           })
      .def("cancel", [](PatchSession& self) { self.session->cancel(); })
      .def(
          "fail",
          [](PatchSession& self, const std::string& message, const std::string& code) {
            self.session->fail(parse_code(code), message);
          },
          "message"_a, "code"_a)
      .def("finish", [](PatchSession& self) {
        py::gil_scoped_release unlocked;
        return std::make_shared<Measurement>(self.session->finish());
      });
}

}  // namespace

void bind_session(py::module_& m) {
  bind_measurement(m);
  bind_decide(m);
  bind_patch_session(m);
}

}  // namespace her2fast::bindings
