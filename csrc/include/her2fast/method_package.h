// SPDX-License-Identifier: Apache-2.0
/// Method packages: a folder with `method.json` and the model packages it names, or one
/// bare model package (docs/guide/models.md). The one definition of what a package may
/// say; Python and the C interface read it from here.
///
/// Everything is checked while loading, so nothing downstream checks again. Model files
/// are hashed, never parsed: whoever opens one takes its bytes from `read_model_file`,
/// which hashes them again. Thread-safety: functions and values; nothing is shared.
/// Cost: every model file is read once (about 1 GB/s).
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "her2fast/decide.h"
#include "her2fast/error.h"
#include "her2fast/geometry.h"
#include "her2fast/session.h"
#include "her2fast/tissue_mask.h"

namespace her2fast {

/// Layout version of a package; part of every measurement's key.
inline constexpr int kPackageLayoutVersion = 1;
/// The TorchScript file of a model package.
inline constexpr char kModelFileName[] = "torchscript_model.pt";

/// A package is malformed; the message names file, key and what was wanted.
class PackageError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

/// kMembrane: a segmenter of stained membrane, which is no segmenter of tumor.
enum class ModelTask { kClassify, kSegment, kMembrane };
/// What turns outputs into probabilities. kSoftmax, kSigmoid: the outputs are logits.
/// kNone: they are probabilities already.
enum class Activation { kSoftmax, kSigmoid, kNone };

/// `config.json`: the WSInfer model configuration, and ours under `her2fast`.
struct ModelConfig {
  std::string spec_version, architecture;
  std::vector<std::string> class_names;
  std::int32_t patch_px = 0;  ///< side of the input; of a segmenter with its halo
  double spacing_um = 0;
  /// Per channel, after division by 255; 0 and 1 where the transform has no Normalize.
  std::array<double, 3> mean{0, 0, 0}, std{1, 1, 1};
  ModelTask task = ModelTask::kClassify;
  Activation activation = Activation::kSoftmax;
  std::int32_t halo_px = 32;
  std::int32_t batch = 0;  ///< items of every batch: stated, or by task 32, 8, 4
  std::vector<std::string> distance_names;  ///< outputs after the classes
  std::optional<std::string> sha256;        ///< of the model file, where it is stated
  std::string licence, training_data, intended_use;
  bool synthetic = false;
  /// All of the file as canonical JSON: keys sorted, no spaces, ASCII.
  std::string canonical_json;

  std::int32_t classes() const { return static_cast<std::int32_t>(class_names.size()); }
  /// Values a classifier gives per patch: classes, then distances.
  std::int64_t outputs() const {
    return static_cast<std::int64_t>(class_names.size() + distance_names.size());
  }
};

struct ModelPackage {
  std::string name;    ///< of the folder, printable
  std::string folder;  ///< as a path
  std::string file;    ///< the model file's path
  ModelConfig config;
  std::string sha256;         ///< of the model file
  std::string config_sha256;  ///< of ModelConfig::canonical_json
  bool known = false;         ///< the file is in the list the caller gave
};

/// Limits of a package's domain, as `method.json` states them.
struct PackageDomain {
  std::vector<double> cuts;  ///< one per distance, in the classifier's order
  double max_share = 0;      ///< dimensionless, in [0, 1]
};

struct MethodPackage {
  std::string name;
  std::string method;  ///< "constrained" or "patches"
  std::string folder;
  std::optional<ModelPackage> segment;
  ModelPackage classify;
  std::int32_t tile_px = 0, halo_px = 0;
  std::vector<double> scale, bias;  ///< calibration of the logits; empty: identity
  std::optional<std::string> guideline;
  std::int32_t floor_percent = 1;
  std::optional<std::string> stain;
  std::optional<PackageDomain> domain;
  bool synthetic = false;
  std::string intended_use, description;

  /// In the order of the session's slots: segmenter (where there is one), classifier.
  std::vector<const ModelPackage*> models() const;
};

/// Hashes every model file; parses none. Unknown files are marked (`known`), not refused.
/// @param folder  UTF-8; holds `method.json`, or `config.json` of a bare model package
/// @param known   SHA-256 (64 lower case hex digits) of the model files that may run
/// @throws PackageError; Error kModelHash (a file is not what its package states),
///         kModelClasses (a guideline without the classes 0, 1+, 2+, 3+)
MethodPackage load_method_package(const std::string& folder,
                                  const std::set<std::string>& known);

/// One model package; a method package's segmenter can be used alone this way.
/// @throws PackageError; Error kModelHash
ModelPackage load_model_package(const std::string& folder,
                                const std::set<std::string>& known);

/// A TorchScript file is a program: ask before one runs.
/// @throws Error kModelHash where a model file is in no list
void require_known(const MethodPackage& package);

/// The bytes of a model file whose hash was taken.
/// @throws PackageError (unreadable); Error kModelHash (changed since)
std::vector<char> read_model_file(const ModelPackage& model);

/// SHA-256 -> name of a list of known models (`known.json`, a trust file).
/// @throws PackageError
std::map<std::string, std::string> read_known_models(const std::string& path);

/// What a session measures with this package.
PatchMethodSpec patch_method_spec(const MethodPackage& package, const SlideFrame& frame,
                                  Rgb white = {});

/// The package's defaults of a decision: guideline, floor, calibration, stain, domain.
DecideOptions default_decide_options(const MethodPackage& package);

}  // namespace her2fast
