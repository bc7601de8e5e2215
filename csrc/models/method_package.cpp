// SPDX-License-Identifier: Apache-2.0
#include "her2fast/method_package.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/printable.h"
#include "core/sha256.h"
#include "models/files.h"
#include "models/json_fields.h"
#include "models/model_config.h"

namespace her2fast {
namespace {

using models::Fields;

constexpr double kFixedOne = 65536;
/// Factors and offsets beyond this mean a calibration that went astray.
constexpr double kMaxCalibration = 1000;
/// A distance is stored in 32 bits with 16 of fraction.
constexpr double kMaxCut = 32767;
constexpr std::size_t kMaxDistanceName = 32;
constexpr std::size_t kMaxMethodName = 64;
/// The classes a guideline speaks of.
constexpr std::int32_t kGuidelineClasses = 4;

/// `method.json` without its models.
struct MethodFile {
  std::string classify;
  std::optional<std::string> segment;
  std::optional<std::int32_t> tile_px;
  std::map<std::string, double> cuts;  // by distance; empty where there is no domain
};

std::string hash_of(const std::string& text) {
  Sha256 hash;
  hash.update(text.data(), text.size());
  return hash.hex();
}

/// Nearest, ties to even: what Python's round gives.
std::int32_t to_q16(double value) {
  return static_cast<std::int32_t>(std::llrint(value * kFixedOne));
}

bool is_method_name(const std::string& text) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
  };
  return !text.empty() && text.size() <= kMaxMethodName && plain(text[0]) &&
         std::all_of(text.begin(), text.end(), [&](char c) {
           return plain(c) || c == '.' || c == '_' || c == '-';
         });
}

/// A folder beside `method.json`, never one elsewhere.
bool is_folder_inside(const std::string& name) {
  constexpr std::string_view kPathCharacters("/\\\0", 3);
  return !name.empty() && name[0] != '.' &&
         name.find_first_of(kPathCharacters) == std::string::npos;
}

void read_models(Fields& fields, MethodFile& file) {
  Fields folders(fields.need("models"), fields.file(), fields.below("models"));
  file.classify = folders.needed_text("classify");
  file.segment = folders.optional_text("segment");
  folders.refuse_others();
  const auto check = [&](const std::string& key, const std::string& name) {
    if (is_folder_inside(name)) return;
    folders.refuse(key,
                   "need the name of a folder beside it, got " + models::shown(name));
  };
  check("classify", file.classify);
  if (file.segment) check("segment", *file.segment);
}

void read_calibration(Fields& fields, MethodPackage& package) {
  const nlohmann::json* given = fields.find("calibration");
  if (given == nullptr) return;
  Fields calibration(*given, fields.file(), fields.below("calibration"));
  const auto read = [&](const std::string& key) {
    std::vector<double> values = calibration.numbers(key);
    if (std::any_of(values.begin(), values.end(),
                    [](double v) { return !(std::abs(v) <= kMaxCalibration); })) {
      calibration.refuse(key, "need finite factors of at most 1000, got " +
                                  models::shown(nlohmann::json(values)));
    }
    return values;
  };
  package.scale = read("scale");
  package.bias = read("bias");
  calibration.refuse_others();
}

void read_domain(Fields& fields, MethodPackage& package, MethodFile& file) {
  const nlohmann::json* given = fields.find("domain", true);
  if (given == nullptr) return;
  Fields domain(*given, fields.file(), fields.below("domain"));
  const nlohmann::json& cuts = domain.need("cuts");
  Fields by_name(cuts, fields.file(), domain.below("cuts"));
  if (cuts.empty()) domain.refuse("cuts", "need a cut of at least one distance");
  for (auto item = cuts.begin(); item != cuts.end(); ++item) {
    const std::string& name = item.key();
    if (!models::is_identifier(name, kMaxDistanceName)) {
      domain.refuse("cuts", "need names of lower case letters, digits and _, got " +
                                models::shown(name));
    }
    file.cuts[name] =
        by_name.needed_number(name, std::numeric_limits<double>::denorm_min(), kMaxCut);
  }
  package.domain.emplace().max_share = domain.needed_number("max_share", 0, 1);
  // Shown by `models show` and in reports; decides nothing.
  if (const nlohmann::json* statistics = domain.find("statistics")) {
    const Fields shape(*statistics, fields.file(), domain.below("statistics"));
  }
  domain.refuse_others();
}

MethodFile read_method(const std::string& path, MethodPackage& package) {
  const nlohmann::json content = models::read_json(path);
  Fields fields(content, printable(path));
  MethodFile file;
  fields.choice("spec_version", {"1.0"}, "1.0");
  package.name = fields.needed_text("name");
  if (!is_method_name(package.name)) {
    fields.refuse("name",
                  "need up to 64 lower case letters, digits, '.', '_' and '-', beginning "
                  "with a letter or digit, got " +
                      models::shown(package.name));
  }
  package.method = fields.choice("method", {"constrained", "patches"}, "constrained");
  read_models(fields, file);
  file.tile_px = fields.integer("tile_px", 1, 4096, true);
  read_calibration(fields, package);
  package.guideline = fields.optional_text("guideline");
  package.floor_percent = fields.integer("floor_percent", 0, 100).value_or(1);
  package.stain = fields.optional_text("stain");
  if (package.stain && *package.stain != "h-dab") {
    fields.refuse("stain",
                  "need \"h-dab\" or null, got " + models::shown(*package.stain));
  }
  read_domain(fields, package, file);
  package.synthetic = fields.boolean("synthetic", false);
  package.intended_use = fields.text("intended_use", "");
  package.description = fields.text("description", "");
  fields.refuse_others();
  return file;
}

/// The cuts in the order of the classifier's outputs.
void settle_domain(const std::string& place, const MethodFile& file,
                   MethodPackage& package) {
  if (!package.domain) return;
  std::vector<std::string> names = package.classify.config.distance_names;
  for (const std::string& name : names) {
    const auto cut = file.cuts.find(name);
    if (cut != file.cuts.end()) package.domain->cuts.push_back(cut->second);
  }
  if (package.domain->cuts.size() == names.size() && file.cuts.size() == names.size()) {
    return;
  }
  std::vector<std::string> stated;
  for (const auto& [name, cut] : file.cuts) stated.push_back(name);
  std::sort(names.begin(), names.end());
  throw PackageError(place + ": need domain.cuts of the classifier's distance_names " +
                     models::shown(names) + ", got " + models::shown(stated));
}

std::int32_t default_tile_px(std::int32_t patch_px) {
  return patch_px * std::max(1, models::kDefaultTilePx / patch_px);
}

void check_segmenter(const MethodPackage& package, const std::string& place) {
  const ModelConfig& config = package.segment->config;
  const std::int32_t side = package.tile_px + 2 * package.halo_px;
  if (config.task != ModelTask::kSegment) {
    throw PackageError(place + ": the segmenter's task is not segment");
  }
  if (config.patch_px != side) {
    throw PackageError(printable(models::join(package.segment->folder, "config.json")) +
                       ": need patch_size_pixels=" + std::to_string(side) +
                       " (tile_px=" + std::to_string(package.tile_px) +
                       " and halo_px=" + std::to_string(package.halo_px) +
                       " on both sides), got " + std::to_string(config.patch_px));
  }
  if (config.spacing_um != package.classify.config.spacing_um) {
    throw PackageError(place + ": need one spacing for both models, got " +
                       models::shown(nlohmann::json(config.spacing_um)) + " and " +
                       models::shown(nlohmann::json(package.classify.config.spacing_um)) +
                       " um/px");
  }
}

/// What only all parts together can show.
void check_method(const MethodPackage& package, const std::string& place) {
  const ModelConfig& classify = package.classify.config;
  const std::int32_t classes = classify.classes();
  if (classify.task != ModelTask::kClassify) {
    throw PackageError(place + ": the classifier's task is not classify");
  }
  if (package.tile_px % classify.patch_px != 0) {
    throw PackageError(place + ": need tile_px as a multiple of the patch of " +
                       std::to_string(classify.patch_px) + " px, got " +
                       std::to_string(package.tile_px));
  }
  for (const auto& [key, values] :
       {std::pair("scale", &package.scale), std::pair("bias", &package.bias)}) {
    if (!values->empty() && values->size() != static_cast<std::size_t>(classes)) {
      throw PackageError(place + ": need " + std::to_string(classes) +
                         " values of calibration." + key + ", got " +
                         std::to_string(values->size()));
    }
  }
  if (package.guideline && classes != kGuidelineClasses) {
    throw Error(Code::kModelClasses, place + ": guideline " +
                                         models::shown(*package.guideline) +
                                         " needs the classes 0, 1+, 2+ and 3+, got " +
                                         models::shown(classify.class_names));
  }
  if (package.segment) check_segmenter(package, place);
}

MethodPackage load_method(const std::string& folder, const std::set<std::string>& known) {
  MethodPackage package;
  package.folder = folder;
  const std::string path = models::join(folder, "method.json");
  const std::string place = printable(path);
  const MethodFile file = read_method(path, package);
  package.classify = load_model_package(models::join(folder, file.classify), known);
  if (file.segment) {
    package.segment = load_model_package(models::join(folder, *file.segment), known);
  }
  if ((package.method == "constrained") != package.segment.has_value()) {
    throw PackageError(place + ": method \"" + package.method + "\" needs " +
                       (package.segment ? "no segmenter" : "a segmenter"));
  }
  package.tile_px =
      file.tile_px.value_or(default_tile_px(package.classify.config.patch_px));
  package.halo_px =
      package.segment ? package.segment->config.halo_px : models::kDefaultHaloPx;
  for (const ModelPackage* model : package.models()) {
    package.synthetic = package.synthetic || model->config.synthetic;
  }
  settle_domain(place, file, package);
  check_method(package, place);
  return package;
}

/// A WSInfer package: patches of tissue, no guideline, areas only.
MethodPackage load_bare(const std::string& folder, const std::set<std::string>& known) {
  MethodPackage package;
  package.folder = folder;
  package.method = "patches";
  package.classify = load_model_package(folder, known);
  const ModelConfig& config = package.classify.config;
  package.name = package.classify.name;
  package.tile_px = default_tile_px(config.patch_px);
  package.halo_px = models::kDefaultHaloPx;
  package.synthetic = config.synthetic;
  package.intended_use = config.intended_use;
  check_method(package, printable(models::join(folder, "config.json")));
  return package;
}

}  // namespace

std::vector<const ModelPackage*> MethodPackage::models() const {
  std::vector<const ModelPackage*> out;
  if (segment) out.push_back(&*segment);
  out.push_back(&classify);
  return out;
}

ModelPackage load_model_package(const std::string& folder,
                                const std::set<std::string>& known) {
  ModelPackage model;
  const std::string path = models::join(folder, "config.json");
  model.config = models::parse_model_config(models::read_json(path), printable(path));
  model.config_sha256 = hash_of(model.config.canonical_json);
  model.folder = folder;
  model.name = models::folder_name(folder);
  model.file = models::join(folder, kModelFileName);
  if (!models::is_file(model.file)) {
    throw PackageError(printable(model.file) + ": the model file is missing");
  }
  model.sha256 = models::sha256_of_file(model.file);
  if (model.config.sha256 && *model.config.sha256 != model.sha256) {
    throw Error(Code::kModelHash, printable(model.file) + ": need sha256 " +
                                      *model.config.sha256 + " as " + printable(path) +
                                      " states, got " + model.sha256 +
                                      ": the file was changed or is damaged");
  }
  model.known = known.contains(model.sha256);
  return model;
}

MethodPackage load_method_package(const std::string& folder,
                                  const std::set<std::string>& known) {
  if (!models::is_folder(folder)) {
    throw PackageError(printable(folder) + ": need the folder of a model package");
  }
  if (models::is_file(models::join(folder, "method.json"))) {
    return load_method(folder, known);
  }
  if (models::is_file(models::join(folder, "config.json"))) {
    return load_bare(folder, known);
  }
  throw PackageError(printable(folder) + ": has neither method.json nor config.json");
}

void require_known(const MethodPackage& package) {
  for (const ModelPackage* model : package.models()) {
    if (model->known) continue;
    throw Error(Code::kModelHash,
                printable(model->file) + ": sha256 " + model->sha256 +
                    " is in no list of known model files; a model file is a program: "
                    "add it only if you trust where it came from");
  }
}

std::vector<char> read_model_file(const ModelPackage& model) {
  std::vector<char> bytes =
      models::read_file(model.file, std::numeric_limits<std::uint64_t>::max());
  Sha256 hash;
  hash.update(bytes.data(), bytes.size());
  if (hash.hex() != model.sha256) {
    throw Error(Code::kModelHash,
                printable(model.file) + ": changed since its hash was taken");
  }
  return bytes;
}

std::map<std::string, std::string> read_known_models(const std::string& path) {
  const nlohmann::json content = models::read_json(path);
  std::map<std::string, std::string> known;
  if (!content.is_object()) {
    throw PackageError(printable(path) +
                       ": need an object of {\"<sha256>\": \"<name>\"}");
  }
  for (auto item = content.begin(); item != content.end(); ++item) {
    if (!models::is_sha256(item.key()) || !item.value().is_string()) {
      throw PackageError(printable(path) +
                         ": need an object of {\"<sha256>\": \"<name>\"}, got " +
                         models::shown(item.key()));
    }
    known.emplace(item.key(), item.value().get<std::string>());
  }
  return known;
}

PatchMethodSpec patch_method_spec(const MethodPackage& package, const SlideFrame& frame,
                                  Rgb white) {
  const ModelConfig& classify = package.classify.config;
  PatchMethodSpec spec;
  spec.frame = frame;
  spec.spacing = Spacing::from_um(classify.spacing_um);
  spec.patch_px = classify.patch_px;
  spec.tile_px = package.tile_px;
  spec.halo_px = package.halo_px;
  spec.class_names = classify.class_names;
  spec.distance_names = classify.distance_names;
  spec.classify_batch = classify.batch;
  spec.has_segmenter = package.segment.has_value();
  spec.segment_batch = package.segment ? package.segment->config.batch : 1;
  spec.segment_channels = package.segment ? package.segment->config.classes() : 1;
  spec.white = white;
  return spec;
}

DecideOptions default_decide_options(const MethodPackage& package) {
  DecideOptions options;
  options.rule_set = package.guideline;
  options.floor_percent = package.floor_percent;
  options.check_stain = package.stain == "h-dab";
  for (const double factor : package.scale) {
    options.calibration.scale_q16.push_back(to_q16(factor));
  }
  for (const double offset : package.bias) {
    options.calibration.bias_q16.push_back(to_q16(offset));
  }
  if (package.domain) {
    DomainLimits& limits = options.domain.emplace();
    for (const double cut : package.domain->cuts) limits.cut_q16.push_back(to_q16(cut));
    limits.max_share_permille =
        static_cast<int>(std::llrint(package.domain->max_share * 1000));
  }
  return options;
}

}  // namespace her2fast
