// SPDX-License-Identifier: Apache-2.0
#include <string_view>

#include "capi/guard.h"
#include "capi/handles.h"
#include "capi/package_key.h"
#include "capi/record.h"
#include "her2fast/roi_geojson.h"

using namespace her2fast;
using namespace her2fast::capi;

namespace {

const std::shared_ptr<const Measured>& measured_of(const her2_measurement* measurement) {
  return needed(measurement, "a measurement").measured;
}

DecideOptions decide_options(const Measured& measured, const her2_decide_options* given) {
  DecideOptions options = default_decide_options(*measured.package);
  if (given == nullptr) return options;
  const auto o =
      read_struct(given, offsetof(her2_decide_options, guideline), "decide options");
  if (o.roi_geojson != nullptr) {
    const std::size_t bytes = o.roi_bytes == 0 ? std::strlen(o.roi_geojson)
                                               : static_cast<std::size_t>(o.roi_bytes);
    options.roi = parse_roi(std::string_view(o.roi_geojson, bytes));
    check_roi_inside(options.roi, measured.measurement.frame);
  }
  if (o.guideline != nullptr) {
    const std::string name = o.guideline;
    if (name == "none") {
      options.rule_set = std::nullopt;
    } else if (!measured.package->guideline) {
      throw Error(Code::kModelClasses,
                  "guideline \"" + name + "\": the package \"" + measured.package->name +
                      "\" names no guideline, so its classes give areas only");
    } else {
      options.rule_set = name;
    }
  }
  switch (o.ish) {
    case HER2_ISH_UNKNOWN:
      break;
    case HER2_ISH_POSITIVE:
      options.ish = Ish::kPositive;
      break;
    case HER2_ISH_NEGATIVE:
      options.ish = Ish::kNegative;
      break;
    default:
      throw std::invalid_argument("need ish of HER2_ISH_*, got " + std::to_string(o.ish));
  }
  return options;
}

std::string open_tiles_text(const Measured& measured) {
  return std::to_string(*measured.tiles_open) + " of " +
         std::to_string(measured.measurement.tiles.size()) + " tiles";
}

/// What is not measured yet could still change everything: no score.
void withhold_score(const Measured& measured, Decision& d) {
  if (!measured.tiles_open || d.status != Status::kScored) return;
  d.status = code_status(Code::kMissingTiles);
  d.code = Code::kMissingTiles;
  d.message = "provisional: " + open_tiles_text(measured) + " are not measured yet";
  d.guideline.reset();
  d.flip.reset();
  d.islands.reset();
  d.review_flags.clear();
  d.review_required = false;
}

}  // namespace

void her2_measurement_close(her2_measurement* measurement) { delete measurement; }

std::int32_t her2_measurement_save(const her2_measurement* measurement,
                                   her2_buffer** out) {
  return guarded([&] {
    needed(out, "an out") = nullptr;
    const Measured& measured = *measured_of(measurement);
    if (measured.tiles_open) {  // stored, nobody would know any more
      throw Error(Code::kMissingTiles,
                  "need a finished measurement to save, got a provisional one: " +
                      open_tiles_text(measured) + " are not measured yet");
    }
    *out = new her2_buffer{measured.measurement.to_bytes()};
    return HER2_OK;
  });
}

std::int32_t her2_measurement_load(const her2_package* package, const void* data,
                                   std::uint64_t size, her2_measurement** out) {
  return guarded([&] {
    needed(out, "an out") = nullptr;
    auto measured = std::make_shared<Measured>();
    measured->package = needed(package, "a package").package;
    const auto* bytes = static_cast<const std::uint8_t*>(data);
    measured->measurement =
        Measurement::from_bytes(&needed(bytes, "bytes"), static_cast<std::size_t>(size));
    const ModelConfig& classify = measured->package->classify.config;
    const Measurement& m = measured->measurement;
    if (m.class_names != classify.class_names ||
        m.distance_names != classify.distance_names || m.patch_px != classify.patch_px ||
        m.tile_px != measured->package->tile_px ||
        m.spacing != Spacing::from_um(classify.spacing_um)) {
      throw Error(Code::kModelClasses,
                  "this measurement was made with another package than " +
                      measured->package->name);
    }
    if (!has_package_key(m)) {
      measured->source.warnings.push_back(
          "the measurement was not saved by libher2fast: that it was made with this "
          "package's models is not checked");
    } else if (m.key != package_key(*measured->package)) {
      throw Error(Code::kModelHash,
                  "this measurement was made with other models, or another "
                  "configuration of them, than those of " +
                      measured->package->name);
    }
    *out = new her2_measurement{std::move(measured)};
    return HER2_OK;
  });
}

std::int32_t her2_measurement_decide(const her2_measurement* measurement,
                                     const her2_decide_options* given,
                                     her2_decision** out) {
  return guarded([&] {
    needed(out, "an out") = nullptr;
    const std::shared_ptr<const Measured>& measured = measured_of(measurement);
    const DecideOptions options = decide_options(*measured, given);
    auto handle = std::make_unique<her2_decision>();
    handle->measured = measured;
    handle->decision = decide(measured->measurement, options);
    withhold_score(*measured, handle->decision);
    handle->json = record_json(*measured, handle->decision, options);
    *out = handle.release();
    return HER2_OK;
  });
}

void her2_decision_close(her2_decision* decision) { delete decision; }

static_assert(HER2_SCORED == static_cast<int>(Status::kScored) &&
              HER2_INDETERMINATE == static_cast<int>(Status::kIndeterminate) &&
              HER2_FAILED == static_cast<int>(Status::kFailed) &&
              HER2_REFUSED == static_cast<int>(Status::kRefused));

std::int32_t her2_decision_get_info(const her2_decision* decision,
                                    her2_decision_info* info) {
  return guarded([&] {
    const her2_decision& handle = needed(decision, "a decision");
    const Decision& d = handle.decision;
    her2_decision_info value{};
    value.status = static_cast<std::int32_t>(d.status);
    value.code = d.code ? engine_status(*d.code) : 0;
    value.message = d.message.c_str();
    const bool has_score = d.guideline && d.guideline->score;
    value.score = has_score ? *d.guideline->score : -1;
    value.review_required = d.review_required;
    value.provisional = handle.measured->tiles_open.has_value();
    value.class_count = static_cast<std::int32_t>(d.class_px.size());
    value.class_px = d.class_px.data();
    value.class_patches = d.class_patches.data();
    value.kept_tumor_px = d.kept_tumor_px;
    value.dropped_tumor_px = d.dropped_tumor_px;
    value.tissue_px = d.tissue_px;
    value.roi_px = d.roi_px;
    value.tiles_total = d.tiles_total;
    value.tiles_read = d.tiles_read;
    value.tiles_missing = d.tiles_missing;
    value.tiles_corrupt = d.tiles_corrupt;
    value.tiles_warned = d.tiles_warned;
    value.pixel_mm2 = handle.measured->measurement.pixel_mm2();
    write_struct(value, info, "decision info");
    return HER2_OK;
  });
}

const char* her2_decision_json(const her2_decision* decision) {
  return decision == nullptr ? nullptr : decision->json.c_str();
}
