// SPDX-License-Identifier: Apache-2.0
#include "capi/guard.h"
#include "capi/handles.h"

using namespace her2fast;
using namespace her2fast::capi;

namespace {

const ModelPackage& model_at(const her2_package* package, std::int32_t index) {
  const std::vector<const ModelPackage*> models =
      needed(package, "a package").package->models();
  if (index < 0 || static_cast<std::size_t>(index) >= models.size()) {
    throw std::invalid_argument("need 0 <= index < " + std::to_string(models.size()) +
                                ", got index=" + std::to_string(index));
  }
  return *models[static_cast<std::size_t>(index)];
}

/// The slot as a session has it: there batch and shape are defined.
ModelSlot slot_of(const MethodPackage& package, std::int32_t index) {
  // Any frame will do; slots do not depend on it.
  const SlideFrame frame{1, 1, Spacing{250'000}, Spacing{250'000}};
  return make_patch_method(patch_method_spec(package, frame))
      ->models()
      .at(static_cast<std::size_t>(index));
}

}  // namespace

std::int32_t her2_package_open(const her2_package_options* options, her2_package** out) {
  return guarded([&] {
    needed(out, "an out") = nullptr;
    const auto given = read_struct(options, offsetof(her2_package_options, known_models),
                                   "package options");
    std::set<std::string> known;
    if (given.known_models != nullptr) {
      for (const auto& [hash, name] : read_known_models(given.known_models)) {
        known.insert(hash);
      }
    }
    auto package = std::make_shared<MethodPackage>(
        load_method_package(&needed(given.folder, "a folder"), known));
    if (given.allow_unknown == 0) require_known(*package);
    *out = new her2_package{std::move(package)};
    return HER2_OK;
  });
}

void her2_package_close(her2_package* package) { delete package; }

std::int32_t her2_package_get_info(const her2_package* package, her2_package_info* info) {
  return guarded([&] {
    const MethodPackage& p = *needed(package, "a package").package;
    her2_package_info value{};
    value.name = p.name.c_str();
    value.method = p.method.c_str();
    value.guideline = p.guideline ? p.guideline->c_str() : nullptr;
    value.intended_use = p.intended_use.c_str();
    value.spacing_um = p.classify.config.spacing_um;
    value.patch_px = p.classify.config.patch_px;
    value.tile_px = p.tile_px;
    value.halo_px = p.halo_px;
    value.class_count = p.classify.config.classes();
    value.model_count = p.segment ? 2 : 1;
    value.synthetic = p.synthetic;
    write_struct(value, info, "package info");
    return HER2_OK;
  });
}

const char* her2_package_class_name(const her2_package* package, std::int32_t index) {
  if (package == nullptr) return nullptr;
  const auto& names = package->package->classify.config.class_names;
  if (index < 0 || static_cast<std::size_t>(index) >= names.size()) return nullptr;
  return names[static_cast<std::size_t>(index)].c_str();
}

std::int32_t her2_package_get_model(const her2_package* package, std::int32_t index,
                                    her2_model_info* info) {
  return guarded([&] {
    const ModelPackage& model = model_at(package, index);
    const ModelConfig& config = model.config;
    const ModelSlot slot = slot_of(*package->package, index);
    her2_model_info value{};
    const bool segments = config.task == ModelTask::kSegment;
    value.name = segments ? "segment" : "classify";
    value.file = model.file.c_str();
    value.sha256 = model.sha256.c_str();
    value.task = segments ? HER2_TASK_SEGMENT : HER2_TASK_CLASSIFY;
    value.activation = static_cast<std::int32_t>(config.activation);
    value.batch = slot.batch;
    value.height_px = slot.height_px;
    value.width_px = slot.width_px;
    value.channels = config.classes();
    value.outputs = slot.outputs;
    for (std::size_t c = 0; c < 3; ++c) {
      value.mean[c] = config.mean[c];
      value.std[c] = config.std[c];
    }
    value.known = model.known;
    write_struct(value, info, "model info");
    return HER2_OK;
  });
}

static_assert(HER2_ACTIVATION_SOFTMAX == static_cast<int>(Activation::kSoftmax) &&
              HER2_ACTIVATION_SIGMOID == static_cast<int>(Activation::kSigmoid) &&
              HER2_ACTIVATION_NONE == static_cast<int>(Activation::kNone));

std::int32_t her2_package_read_model(const her2_package* package, std::int32_t index,
                                     her2_buffer** out) {
  return guarded([&] {
    needed(out, "an out") = nullptr;
    const std::vector<char> bytes = read_model_file(model_at(package, index));
    auto buffer = std::make_unique<her2_buffer>();
    buffer->bytes.assign(bytes.begin(), bytes.end());
    *out = buffer.release();
    return HER2_OK;
  });
}

// The table goes to the C++ side as it is.
static_assert(sizeof(her2_engine_table) == sizeof(EngineTable) &&
              offsetof(her2_engine_table, run) == offsetof(EngineTable, run) &&
              offsetof(her2_engine_table, close) == offsetof(EngineTable, close) &&
              offsetof(her2_engine_table, message) == offsetof(EngineTable, message));

std::int32_t her2_engine_open(const her2_package* package, const her2_engine_table* table,
                              her2_engine** out) {
  return guarded([&] {
    needed(out, "an out") = nullptr;
    const auto& shared = needed(package, "a package").package;
    const auto given =
        read_struct(table, offsetof(her2_engine_table, close), "an engine table");
    if (given.run == nullptr) throw std::invalid_argument("need an engine with `run`");
    EngineTable engine;
    engine.context = given.context;
    engine.run = given.run;
    engine.message = given.message;
    auto made = std::make_shared<Engine>(shared, engine);
    auto handle = std::make_unique<her2_engine>(her2_engine{made});
    made->table.close = given.close;  // from here on nothing fails
    *out = handle.release();
    return HER2_OK;
  });
}

void her2_engine_close(her2_engine* engine) { delete engine; }
