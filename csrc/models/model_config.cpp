// SPDX-License-Identifier: Apache-2.0
#include "models/model_config.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "models/json_fields.h"

namespace her2fast::models {
namespace {

constexpr std::int32_t kMaxClasses = 1000;
constexpr std::size_t kMaxNameLength = 200;
constexpr std::int32_t kMaxSidePx = 4096;
constexpr double kMaxWorkingSpacingUm = 100;
constexpr std::int32_t kMaxBatch = 4096;
constexpr std::size_t kMaxDistanceName = 32;
/// Items a batch where a package does not say: one fixed shape on every machine.
constexpr std::int32_t kClassifyBatch = 32;
constexpr std::int32_t kSegmentBatch = 8;
constexpr std::int32_t kMembraneBatch = 4;

/// Characters of valid UTF-8: bytes that begin one.
std::size_t characters(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

bool distinct(const std::vector<std::string>& values) {
  return std::set<std::string>(values.begin(), values.end()).size() == values.size();
}

std::array<double, 3> three(Fields& arguments, const std::string& key) {
  const std::vector<double> values = arguments.numbers(key);
  if (values.size() != 3) {
    arguments.refuse(key, "need Normalize " + key + " of 3 numbers, got " +
                              std::to_string(values.size()));
  }
  return {values[0], values[1], values[2]};
}

/// Resizing would change the spacing that the package states.
void check_resize(Fields& arguments, std::int32_t patch_px) {
  const nlohmann::json& size = arguments.need("size");
  const nlohmann::json sides = size.is_array() ? size : nlohmann::json::array({size});
  const bool same =
      !sides.empty() && std::all_of(sides.begin(), sides.end(), [&](const auto& side) {
        return side.is_number() && side.template get<double>() == patch_px;
      });
  if (same) return;
  arguments.refuse("size", "need patches that are not resized, got Resize to " +
                               shown(size) + " of " + std::to_string(patch_px) +
                               " px patches: state patch_size_pixels=" + shown(size) +
                               " and the spacing_um_px that covers the same tissue");
}

/// Mean and deviation of a WSInfer `transform`.
void read_transform(Fields& fields, ModelConfig& config) {
  const nlohmann::json* steps = fields.find("transform");
  if (steps == nullptr) return;
  if (!steps->is_array()) fields.refuse("transform", "need a list of steps");
  bool to_tensor = false, normalized = false;
  for (std::size_t i = 0; i < steps->size(); ++i) {
    const std::string place = "transform." + std::to_string(i);
    Fields step((*steps)[i], fields.file(), place + ".");
    const std::string name = step.needed_text("name");
    const nlohmann::json* given = step.find("arguments", true);
    const nlohmann::json nothing = nlohmann::json::object();
    Fields arguments(given != nullptr ? *given : nothing, fields.file(),
                     step.below("arguments"));
    if (name == "ToTensor") {
      to_tensor = true;
    } else if (name == "Normalize") {
      if (!to_tensor || normalized) {
        fields.refuse(place, "need one Normalize after ToTensor");
      }
      config.mean = three(arguments, "mean");
      config.std = three(arguments, "std");
      if (*std::min_element(config.std.begin(), config.std.end()) <= 0) {
        arguments.refuse("std", "need std > 0, got " + shown(*arguments.find("std")));
      }
      normalized = true;
    } else if (name == "Resize") {
      check_resize(arguments, config.patch_px);
    } else {
      step.refuse("name",
                  "need transforms of ToTensor, Normalize, Resize, got " + shown(name));
    }
  }
}

void read_our_keys(Fields& fields, ModelConfig& config) {
  const nlohmann::json nothing = nlohmann::json::object();
  const nlohmann::json* given = fields.find("her2fast");
  Fields ours(given != nullptr ? *given : nothing, fields.file(),
              fields.below("her2fast"));
  const std::string task =
      ours.choice("task", {"classify", "segment", "membrane"}, "classify");
  config.task = task == "segment"    ? ModelTask::kSegment
                : task == "membrane" ? ModelTask::kMembrane
                                     : ModelTask::kClassify;
  const std::string activation =
      ours.choice("activation", {"softmax", "sigmoid", "none"}, "softmax");
  config.activation = activation == "softmax"   ? Activation::kSoftmax
                      : activation == "sigmoid" ? Activation::kSigmoid
                                                : Activation::kNone;
  ours.choice("input_layout", {"NCHW"}, "NCHW");
  ours.choice("dtype", {"float32"}, "float32");
  config.halo_px = ours.integer("halo_px", 0, 1024).value_or(kDefaultHaloPx);
  const std::int32_t usual_batch = task == "segment"    ? kSegmentBatch
                                   : task == "membrane" ? kMembraneBatch
                                                        : kClassifyBatch;
  config.batch = ours.integer("batch_size", 1, kMaxBatch, true).value_or(usual_batch);
  config.distance_names = ours.texts("distance_names");
  if (config.distance_names.size() > kMaxDistances) {
    ours.refuse("distance_names", "need at most " + std::to_string(kMaxDistances) +
                                      " distances, got " +
                                      std::to_string(config.distance_names.size()));
  }
  for (const std::string& name : config.distance_names) {
    if (!is_identifier(name, kMaxDistanceName)) {
      ours.refuse("distance_names",
                  "need names of lower case letters, digits and _, got " + shown(name));
    }
  }
  config.sha256 = ours.optional_text("sha256");
  if (config.sha256 && !is_sha256(*config.sha256)) {
    ours.refuse("sha256", "need 64 lower case hex digits, got " + shown(*config.sha256));
  }
  config.licence = ours.text("licence", "");
  config.training_data = ours.text("training_data", "");
  config.intended_use = ours.text("intended_use", "");
  config.synthetic = ours.boolean("synthetic", false);
  ours.refuse_others();
}

void check_parts(const Fields& fields, const ModelConfig& config, std::int32_t classes) {
  const std::vector<std::string>& names = config.class_names;
  for (const std::string& name : names) {
    if (name.empty() || characters(name) > kMaxNameLength) {
      fields.refuse("class_names", "need names of 1 to " +
                                       std::to_string(kMaxNameLength) +
                                       " characters, got " + shown(name));
    }
  }
  if (names.size() != static_cast<std::size_t>(classes)) {
    fields.refuse("class_names", "need num_classes=" + std::to_string(classes) +
                                     " class_names, got " + std::to_string(names.size()));
  }
  if (!distinct(names)) {
    fields.refuse("class_names", "need distinct class_names, got " + shown(names));
  }
  if (config.task == ModelTask::kSegment && classes > 2) {
    fields.refuse("num_classes",
                  "need 1 or 2 output channels of a segmenter (tumor; background and "
                  "tumor), got num_classes=" +
                      std::to_string(classes));
  }
  const bool is_membrane = names == std::vector<std::string>{"membrane"} ||
                           names == std::vector<std::string>{"membrane", "edge"};
  if (config.task == ModelTask::kMembrane && !is_membrane) {
    fields.refuse("class_names",
                  "need class_names [\"membrane\"] or [\"membrane\", \"edge\"] of a "
                  "membrane network, got " +
                      shown(names));
  }
  if (config.task == ModelTask::kMembrane && config.patch_px <= 2 * config.halo_px) {
    fields.refuse("patch_size_pixels",
                  "need patch_size_pixels larger than twice halo_px=" +
                      std::to_string(config.halo_px) + ", got " +
                      std::to_string(config.patch_px));
  }
  const std::vector<std::string>& distances = config.distance_names;
  if (config.task != ModelTask::kClassify && !distances.empty()) {
    fields.refuse("her2fast.distance_names",
                  "need no distance_names of a segmenter, got " + shown(distances));
  }
  if (!distinct(distances)) {
    fields.refuse("her2fast.distance_names",
                  "need distinct distance_names, got " + shown(distances));
  }
}

}  // namespace

ModelConfig parse_model_config(const nlohmann::json& content, const std::string& file) {
  ModelConfig config;
  Fields fields(content, file);
  config.spec_version = fields.text("spec_version", "1.0");
  config.architecture = fields.text("architecture", "");
  fields.need("num_classes");
  const std::int32_t classes = fields.integer("num_classes", 1, kMaxClasses).value();
  fields.need("class_names");
  config.class_names = fields.texts("class_names");
  fields.need("patch_size_pixels");
  config.patch_px = fields.integer("patch_size_pixels", 1, kMaxSidePx).value();
  config.spacing_um =
      fields.needed_number("spacing_um_px", kMinSpacingUm, kMaxWorkingSpacingUm);
  read_our_keys(fields, config);
  check_parts(fields, config, classes);
  read_transform(fields, config);
  config.canonical_json = canonical_json(content);
  return config;
}

}  // namespace her2fast::models
