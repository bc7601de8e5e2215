// SPDX-License-Identifier: Apache-2.0
#include "capi/record.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "core/sha256.h"
#include "models/json_fields.h"

namespace her2fast::capi {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kRecordVersion = 1;
// Of areas in mm2 and of shares: finer than a pixel of any accepted spacing.
constexpr int kDecimals = 9;

/// Rounded as the record is: correctly, to nine decimals.
double rounded(double value) {
  char text[400];
  const auto end =
      std::to_chars(text, text + sizeof text, value, std::chars_format::fixed, kDecimals);
  double out = 0;
  std::from_chars(text, end.ptr, out);
  return out;
}

double share(std::int64_t part, std::int64_t whole) {
  return rounded(static_cast<double>(part) / static_cast<double>(whole));
}

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json areas_mm2(const auto& px, double pixel_mm2) {
  Json out = Json::array();
  for (const std::int64_t n : px) {
    out.push_back(rounded(static_cast<double>(n) * pixel_mm2));
  }
  return out;
}

Json slide_record(const Measured& m) {
  const SlideFrame& frame = m.measurement.frame;
  return {{"name", or_null(m.source.name)},
          {"size_px", {frame.width_px, frame.height_px}},
          {"fingerprint", or_null(m.source.fingerprint)},
          {"sha256", nullptr},
          {"spacing_um", {frame.spacing_x.um(), frame.spacing_y.um()}},
          {"spacing_source", or_null(m.source.spacing_source)},
          {"format", or_null(m.source.format)},
          {"reader", or_null(m.source.reader)}};
}

Json method_record(const MethodPackage& package, const DecideOptions& own) {
  Json domain = nullptr;
  if (own.domain) {
    domain = {{"names", package.classify.config.distance_names},
              {"cut_q16", own.domain->cut_q16},
              {"max_share_permille", own.domain->max_share_permille}};
  }
  return {{"name", package.name},
          {"kind", package.method},
          {"guideline", or_null(package.guideline)},
          {"floor_percent", package.floor_percent},
          {"stain", or_null(package.stain)},
          {"domain", domain},
          {"calibration",
           {{"scale_q16", own.calibration.scale_q16},
            {"bias_q16", own.calibration.bias_q16}}},
          {"tile_px", package.tile_px},
          {"patch_px", package.classify.config.patch_px},
          {"halo_px", package.halo_px},
          {"synthetic", package.synthetic}};
}

Json models_record(const MethodPackage& package) {
  Json out = Json::array();
  for (const ModelPackage* model : package.models()) {
    out.push_back({{"name", model->name},
                   {"sha256", model->sha256},
                   {"config_sha256", model->config_sha256},
                   {"known", model->known},
                   {"synthetic", model->config.synthetic}});
  }
  return out;
}

Json guideline_record(const Decision& d, const DecideOptions& options) {
  if (!d.guideline) return nullptr;
  const GuidelineDecision& g = *d.guideline;
  Json ish = nullptr;
  if (options.ish) ish = *options.ish == Ish::kPositive ? "positive" : "negative";
  Json margins = Json::array();
  for (const Margin& m : g.margins) {
    margins.push_back(
        {{"cut", m.cut}, {"area", m.area}, {"margin", m.margin}, {"passed", m.passed}});
  }
  return {{"rule_set", g.rule_set},
          {"floor_percent", options.floor_percent},
          {"ish", ish},
          {"unit", "tumor area, an area-based approximation of cell percentages"},
          {"flags", g.flags},
          {"alternative", or_null(g.alternative)},
          {"binary", or_null(g.binary)},
          {"three_way", or_null(g.three_way)},
          {"her2_view", or_null(g.her2_view)},
          {"ihc0_membrane_staining", g.ihc0_membrane_staining},
          {"margins", margins}};
}

Json roi_hash(const std::vector<RoiPolygon>& roi) {
  if (roi.empty()) return nullptr;
  nlohmann::json polygons = nlohmann::json::array();
  for (const RoiPolygon& polygon : roi) {
    nlohmann::json rings = nlohmann::json::array();
    for (const auto& ring : polygon.rings) {
      nlohmann::json points = nlohmann::json::array();
      for (const RoiPoint p : ring) points.push_back({p.x0_px, p.y0_px});
      rings.push_back(std::move(points));
    }
    polygons.push_back({polygon.exclude, std::move(rings)});
  }
  const std::string text = models::canonical_json(polygons);
  Sha256 hash;
  hash.update(text.data(), text.size());
  return hash.hex();
}

Json domain_record(const Measured& m, const Decision& d, const DecideOptions& options) {
  if (!d.domain || !options.domain) return nullptr;
  Json distances = Json::object();
  const auto& names = m.package->classify.config.distance_names;
  for (std::size_t k = 0; k < names.size(); ++k) {
    const double mean = static_cast<double>(d.domain->sum_q8_px[k]) /
                        (256.0 * static_cast<double>(d.kept_tumor_px));
    distances[names[k]] = {{"mean", rounded(mean)},
                           {"cut", rounded(options.domain->cut_q16[k] / 65536.0)}};
  }
  return {{"outside_share", share(d.domain->outside_px, d.kept_tumor_px)},
          {"max_share", options.domain->max_share_permille / 1000.0},
          {"distances", distances}};
}

void add_areas(Json& out, const Measured& m, const Decision& d,
               const DecideOptions& options) {
  const double mm2 = m.measurement.pixel_mm2();
  const auto area = [&](std::int64_t px) {
    return rounded(static_cast<double>(px) * mm2);
  };
  std::int64_t kept = 0;
  for (const std::int64_t n : d.class_px) kept += n;
  out["class_px"] = d.class_px;
  out["class_mm2"] = areas_mm2(d.class_px, mm2);
  out["class_patches"] = d.class_patches;
  out["fractions"] = nullptr;
  if (kept > 0) {
    Json fractions = Json::array();
    for (const std::int64_t n : d.class_px) fractions.push_back(share(n, kept));
    out["fractions"] = fractions;
  }
  out["tissue_mm2"] = area(d.tissue_px);
  out["tumor_mm2"] = area(kept);
  out["dropped_tumor_mm2"] = area(d.dropped_tumor_px);
  const std::int64_t tumor = d.dropped_tumor_px + kept;
  out["dropped_tumor_share"] =
      tumor > 0 ? Json(share(d.dropped_tumor_px, tumor)) : Json(nullptr);
  out["roi_mm2"] = area(d.roi_px);
  out["tiles"] = {{"total", d.tiles_total},
                  {"read", d.tiles_read},
                  {"missing", d.tiles_missing},
                  {"corrupt", d.tiles_corrupt},
                  {"warned", d.tiles_warned}};
  out["out_of_focus_share"] =
      d.focus_tissue_px > 0 ? Json(share(d.out_of_focus_tissue_px, d.focus_tissue_px))
                            : Json(nullptr);
  out["domain"] = domain_record(m, d, options);
}

void add_sureness(Json& out, const Measured& m, const Decision& d) {
  const double mm2 = m.measurement.pixel_mm2();
  out["intervals"] = nullptr;
  out["score_probability"] = nullptr;
  out["bootstrap"] = nullptr;
  if (d.bootstrap) {
    const Bootstrap& b = *d.bootstrap;
    Json intervals = Json::array();
    for (const auto& [low, high] : b.intervals) {
      intervals.push_back({rounded(low), rounded(high)});
    }
    out["intervals"] = intervals;
    if (d.guideline) {
      Json shares = Json::array();
      for (const std::int64_t n : b.score_counts)
        shares.push_back(share(n, b.replicates));
      out["score_probability"] = shares;
    }
    out["bootstrap"] = {{"replicates", b.replicates},
                        {"blocks", b.blocks},
                        {"block_px", d.bootstrap_block_px}};
  }
  out["flip"] = nullptr;
  if (d.flip) {
    const double flip_mm2 = rounded(static_cast<double>(d.flip->least_px) * mm2);
    out["flip"] = {{"least_px", d.flip->least_px},
                   {"least_mm2", flip_mm2},
                   {"to_score", score_name(d.flip->to_score)}};
  }
  out["islands"] = nullptr;
  if (d.islands) {
    out["islands"] = {{"count", d.islands->islands},
                      {"score_mm2", areas_mm2(d.islands->score_px, mm2)}};
  }
}

std::string purpose_of(const MethodPackage& package) {
  std::string purpose =
      package.intended_use.empty() ? "research use only" : package.intended_use;
  if (package.synthetic && purpose.find("synthetic") == std::string::npos) {
    purpose += "; trained on synthetic data";
  }
  return purpose;
}

}  // namespace

std::string record_json(const Measured& m, const Decision& d,
                        const DecideOptions& options) {
  const MethodPackage& package = *m.package;
  Json out;
  out["record_version"] = kRecordVersion;
  out["slide"] = slide_record(m);
  out["working_spacing_um"] = package.classify.config.spacing_um;
  out["reading_mode"] = or_null(m.source.reading_mode);
  if (const auto& coding = m.source.stored_as) {
    const auto& tables = coding->tables;
    const Json sha256 = tables ? Json(io::jpeg_quantization_sha256(*tables)) : Json();
    out["stored_as"] = {{"jpeg_quality", tables ? Json() : Json(coding->jpeg_quality)},
                        {"tables_sha256", sha256},
                        {"chroma", io::jpeg_chroma_name(coding->chroma)},
                        {"tile_px", coding->tile_px},
                        {"downsample", coding->downsample},
                        {"denominator", coding->denominator}};
  }
  out["measurement_key"] = nullptr;  // what computed the models is the host's to know
  out["decision_key"] = nullptr;
  out["method"] = method_record(package, default_decide_options(package));
  out["models"] = models_record(package);
  out["device"] = nullptr;
  out["status"] = status_name(d.status);
  out["code"] = d.code ? Json(code_name(*d.code)) : Json(nullptr);
  out["message"] = d.message;
  const bool has_score = d.guideline && d.guideline->score;
  out["score"] = has_score ? Json(score_name(*d.guideline->score)) : Json(nullptr);
  out["guideline"] = guideline_record(d, options);
  out["roi_sha256"] = roi_hash(options.roi);
  out["class_names"] = package.classify.config.class_names;
  add_areas(out, m, d, options);
  add_sureness(out, m, d);
  out["review_required"] = d.review_required;
  out["review_flags"] = d.review_flags;
  out["warnings"] = m.source.warnings;
  out["versions"] = {{"her2fast", HER2FAST_VERSION},
                     {"package_layout", kPackageLayoutVersion}};
  out["intended_use"] = purpose_of(package);
  return out.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace her2fast::capi
