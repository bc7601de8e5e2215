// SPDX-License-Identifier: Apache-2.0
// What loads, what is refused and in which words, and what a session is made from. Model
// files are hashed and never parsed, so any bytes serve.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/sha256.h"
#include "her2fast/method_package.h"

namespace her2fast {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr char kModelBytes[] = "not a program";

std::string hash_of(const std::string& text) {
  Sha256 hash;
  hash.update(text.data(), text.size());
  return hash.hex();
}

Json model_config(const std::string& task) {
  const bool segments = task == "segment";
  return {{"num_classes", segments ? 1 : 4},
          {"class_names",
           segments ? Json::array({"tumor"}) : Json::array({"0", "1+", "2+", "3+"})},
          {"patch_size_pixels", segments ? 320 : 64},
          {"spacing_um_px", 1.0},
          {"transform", {{{"name", "ToTensor"}}}},
          {"her2fast", {{"task", task}, {"sha256", hash_of(kModelBytes)}}}};
}

Json method_config() {
  return {{"name", "test-method"},
          {"models", {{"segment", "segment"}, {"classify", "classify"}}},
          {"guideline", "asco-cap-2018"},
          {"stain", "h-dab"}};
}

class MethodPackageFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::path(::testing::TempDir()) / (std::string("h2m_") + test->name());
    fs::remove_all(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  static void write(const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
  }
  void write_package(const Json& method, const Json& classify, const Json& segment) {
    write(folder_ / "method.json", method.dump());
    write_model(folder_ / "classify", classify);
    write_model(folder_ / "segment", segment);
  }
  static void write_model(const fs::path& folder, const Json& config) {
    write(folder / "config.json", config.dump());
    write(folder / kModelFileName, kModelBytes);
  }
  void write_good() {
    write_package(method_config(), model_config("classify"), model_config("segment"));
  }
  MethodPackage load(const std::set<std::string>& known = {}) const {
    return load_method_package(folder_.string(), known);
  }
  /// The words with which loading is refused.
  std::string refusal() const {
    try {
      load();
    } catch (const PackageError& error) {
      return error.what();
    }
    ADD_FAILURE() << "the package was not refused";
    return "";
  }

  fs::path folder_;
};

TEST_F(MethodPackageFiles, AGoodPackage) {
  write_good();
  const MethodPackage package = load();
  EXPECT_EQ(package.name, "test-method");
  EXPECT_EQ(package.method, "constrained");
  EXPECT_EQ(package.tile_px, 256);
  EXPECT_EQ(package.halo_px, 32);
  EXPECT_EQ(package.guideline, "asco-cap-2018");
  EXPECT_FALSE(package.synthetic);
  ASSERT_EQ(package.models().size(), 2U);
  EXPECT_EQ(package.models()[0]->name, "segment");
  EXPECT_EQ(package.models()[1]->name, "classify");
  EXPECT_EQ(package.models()[0]->config.batch, 8);
  EXPECT_EQ(package.models()[1]->config.batch, 32);
  EXPECT_EQ(package.classify.sha256, hash_of(kModelBytes));

  const PatchMethodSpec spec =
      patch_method_spec(package, {1000, 900, Spacing{250'000}, Spacing{250'000}});
  const auto slots = make_patch_method(spec)->models();
  ASSERT_EQ(slots.size(), 2U);
  EXPECT_EQ(slots[0].width_px, 320);
  EXPECT_EQ(slots[0].outputs, 320 * 320);
  EXPECT_EQ(slots[1].outputs, 4);
  const DecideOptions options = default_decide_options(package);
  EXPECT_EQ(options.rule_set, "asco-cap-2018");
  EXPECT_TRUE(options.check_stain);
  EXPECT_FALSE(options.domain);
}

TEST_F(MethodPackageFiles, CalibrationAndDomainInFixedPoint) {
  Json method = method_config();
  // 0.5 of a step: ties go to the even neighbor, as Python's round does.
  method["calibration"] = {{"scale", {1.0, 0.5, 2, 0.5 / 65536}},
                           {"bias", {0, -0.25, 0, 1.5 / 65536}}};
  method["domain"] = {{"cuts", {{"feature", 1.5}, {"color", 0.25}}},
                      {"max_share", 0.2},
                      {"statistics", {{"patches", 3}}}};
  Json classify = model_config("classify");
  classify["her2fast"]["distance_names"] = {"feature", "color"};
  write_package(method, classify, model_config("segment"));
  const DecideOptions options = default_decide_options(load());
  EXPECT_EQ(options.calibration.scale_q16,
            (std::vector<std::int32_t>{65536, 32768, 131072, 0}));
  EXPECT_EQ(options.calibration.bias_q16, (std::vector<std::int32_t>{0, -16384, 0, 2}));
  ASSERT_TRUE(options.domain);
  EXPECT_EQ(options.domain->cut_q16, (std::vector<std::int32_t>{98304, 16384}));
  EXPECT_EQ(options.domain->max_share_permille, 200);
}

TEST_F(MethodPackageFiles, ABareWsinferPackage) {
  Json config = model_config("classify");
  config.erase("her2fast");
  config["patch_size_pixels"] = 100;
  config["description"] = "keys that we do not know stay";
  config["transform"] = {
      {{"name", "Resize"}, {"arguments", {{"size", 100}}}},
      {{"name", "ToTensor"}},
      {{"name", "Normalize"},
       {"arguments", {{"mean", {0.1, 0.2, 0.3}}, {"std", {0.4, 0.5, 0.6}}}}}};
  write_model(folder_, config);
  const MethodPackage package = load_method_package(folder_.string() + "/", {});
  EXPECT_EQ(package.method, "patches");
  EXPECT_EQ(package.name, folder_.filename().string());
  EXPECT_FALSE(package.segment);
  EXPECT_FALSE(package.guideline);
  EXPECT_EQ(package.tile_px, 200);
  EXPECT_EQ(package.classify.config.mean, (std::array<double, 3>{0.1, 0.2, 0.3}));
  EXPECT_EQ(package.classify.config.std, (std::array<double, 3>{0.4, 0.5, 0.6}));
  EXPECT_FALSE(default_decide_options(package).check_stain);
}

TEST_F(MethodPackageFiles, OnlyKnownFilesAreKnown) {
  write_good();
  EXPECT_THROW(require_known(load()), Error);
  const MethodPackage package = load({hash_of(kModelBytes)});
  EXPECT_NO_THROW(require_known(package));
  EXPECT_EQ(read_model_file(package.classify).size(), sizeof kModelBytes - 1);
  write(folder_ / "classify" / kModelFileName, "another program");
  try {
    read_model_file(package.classify);
    FAIL() << "need MODEL_HASH";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kModelHash);
  }
  try {
    load({hash_of("another program")});  // trusted, and still not what is stated
    FAIL() << "need MODEL_HASH";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kModelHash);
  }
}

TEST_F(MethodPackageFiles, AGuidelineNeedsFourClasses) {
  Json classify = model_config("classify");
  classify["num_classes"] = 2;
  classify["class_names"] = {"a", "b"};
  write_package(method_config(), classify, model_config("segment"));
  try {
    load();
    FAIL() << "need MODEL_CLASSES";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kModelClasses);
  }
}

/// A change of one key by JSON pointer, and the words of the refusal.
struct Broken {
  const char* pointer;
  Json value;
  const char* words;
};

TEST_F(MethodPackageFiles, BrokenMethods) {
  const Broken table[] = {
      {"/name", "Upper", "method.json: name"},
      {"/name", "", "name"},
      {"/name", 7, "need text"},
      {"/spec_version", "2.0", "spec_version"},
      {"/method", "votes", "constrained"},
      {"/method", "patches", "needs no segmenter"},
      {"/models", Json::array(), "models: need an object"},
      {"/models/classify", "../x", "beside"},
      {"/models/classify", std::string("a\0b", 3), "beside"},
      {"/models/classify", "gone", "gone"},
      {"/models/segment", nullptr, "needs a segmenter"},
      {"/models/more", "x", "models.more"},
      {"/tile_px", 100, "multiple"},
      {"/tile_px", 512, "patch_size_pixels=576"},
      {"/tile_px", 64.5, "whole number"},
      {"/calibration", {{"scale", {1, 1}}}, "4 values"},
      {"/calibration", {{"scale", {1, 1, 1, 1e9}}}, "finite"},
      {"/calibration", {{"scale", {1, 1, 1, "x"}}}, "numbers"},
      {"/floor_percent", 101, "floor_percent"},
      {"/floor_percent", true, "floor_percent"},
      {"/stain", "h-e", "stain"},
      {"/synthetic", "yes", "true or false"},
      {"/grade", 1, "grade"},
      {"/domain", {{"cuts", Json::object()}, {"max_share", 0.1}}, "cuts"},
      {"/domain", {{"cuts", {{"a", 1}}}, {"max_share", 0.1}}, "distance_names"},
      {"/domain", {{"cuts", {{"a", 0}}}, {"max_share", 0.1}}, "cuts.a"},
      {"/domain", {{"cuts", {{"A", 1}}}, {"max_share", 0.1}}, "lower case"},
      {"/domain", {{"cuts", {{"a", 1}}}, {"max_share", 1.1}}, "max_share"},
      {"/domain", {{"cuts", {{"a", 1}}}}, "domain.max_share: is missing"},
  };
  for (const Broken& broken : table) {
    Json method = method_config();
    method[Json::json_pointer(broken.pointer)] = broken.value;
    write_package(method, model_config("classify"), model_config("segment"));
    const std::string words = refusal();
    EXPECT_NE(words.find(broken.words), std::string::npos)
        << broken.pointer << " = " << broken.value << ": " << words;
    EXPECT_NE(words.find(folder_.string()), std::string::npos) << words;
  }
}

TEST_F(MethodPackageFiles, BrokenModels) {
  const Json normalize = {{"name", "Normalize"},
                          {"arguments", {{"mean", {0, 0, 0}}, {"std", {1, 1, 1}}}}};
  Json flat = normalize;
  flat["arguments"]["std"] = {1, 0, 1};
  Json two = normalize;
  two["arguments"]["mean"] = {0, 0};
  const Json to_tensor = {{"name", "ToTensor"}};
  const Broken table[] = {
      {"/num_classes", 3, "num_classes=3 class_names"},
      {"/num_classes", 0, "num_classes"},
      {"/num_classes", nullptr, "num_classes"},
      {"/class_names", {"a", "a", "b", "c"}, "distinct"},
      {"/class_names", {"a", "", "b", "c"}, "1 to 200"},
      {"/class_names", {"a", 1, "b", "c"}, "texts"},
      {"/patch_size_pixels", 4097, "patch_size_pixels"},
      {"/patch_size_pixels", 1e300, "patch_size_pixels"},
      {"/spacing_um_px", 0.079, "spacing_um_px: need a number of 0.08 to 100"},
      {"/spacing_um_px", "fine", "spacing_um_px"},
      {"/transform", {{{"name", "Resize"}, {"arguments", {{"size", 224}}}}}, "resized"},
      {"/transform", {{{"name", "Resize"}, {"arguments", nullptr}}}, "size"},
      {"/transform", {{{"name", "CenterCrop"}}}, "CenterCrop"},
      {"/transform", Json::array({normalize}), "after ToTensor"},
      {"/transform", {to_tensor, normalize, normalize}, "one Normalize"},
      {"/transform", {to_tensor, flat}, "std > 0"},
      {"/transform", {to_tensor, two}, "3 numbers"},
      {"/transform", 3, "transform"},
      {"/her2fast/task", "detect", "task"},
      {"/her2fast/task", "segment", "segmenter"},
      {"/her2fast/task", "membrane", "membrane network"},
      {"/her2fast/activation", "relu", "activation"},
      {"/her2fast/dtype", "float16", "dtype"},
      {"/her2fast/halo_px", -1, "halo_px"},
      {"/her2fast/batch_size", 0, "batch_size"},
      {"/her2fast/sha256", "abc", "sha256"},
      {"/her2fast/unheard_of", 1, "unheard_of"},
      {"/her2fast/distance_names", Json::array({"a", "a"}), "distinct"},
      {"/her2fast/distance_names", Json::array({"Bad"}), "lower case"},
      {"/her2fast/distance_names", Json(std::vector<std::string>(17, "a")), "at most 16"},
      {"/her2fast", nullptr, "her2fast: need an object"},
  };
  for (const Broken& broken : table) {
    Json classify = model_config("classify");
    classify[Json::json_pointer(broken.pointer)] = broken.value;
    write_package(method_config(), classify, model_config("segment"));
    const std::string words = refusal();
    EXPECT_NE(words.find(broken.words), std::string::npos)
        << broken.pointer << " = " << broken.value << ": " << words;
    EXPECT_NE(words.find("config.json"), std::string::npos) << words;
  }
}

TEST_F(MethodPackageFiles, SegmentersThatDoNotFit) {
  const Broken table[] = {
      {"/patch_size_pixels", 256, "patch_size_pixels=320"},
      {"/spacing_um_px", 0.5, "one spacing"},
      {"/her2fast/halo_px", 16, "patch_size_pixels=288"},
      {"/her2fast/task", "classify", "task is not segment"},
      {"/her2fast/distance_names", Json::array({"a"}), "no distance_names"},
  };
  for (const Broken& broken : table) {
    Json segment = model_config("segment");
    segment[Json::json_pointer(broken.pointer)] = broken.value;
    write_package(method_config(), model_config("classify"), segment);
    const std::string words = refusal();
    EXPECT_NE(words.find(broken.words), std::string::npos)
        << broken.pointer << ": " << words;
  }
}

TEST_F(MethodPackageFiles, MembraneNetworksHaveTheirHaloWithin) {
  Json config = model_config("segment");
  config["num_classes"] = 2;
  config["class_names"] = {"membrane", "edge"};
  config["patch_size_pixels"] = 576;
  config["her2fast"]["task"] = "membrane";
  for (const std::int32_t halo : {0, 32, 287}) {
    config["her2fast"]["halo_px"] = halo;
    write_model(folder_, config);
    const ModelPackage model = load_model_package(folder_.string(), {});
    EXPECT_EQ(model.config.halo_px, halo);
    EXPECT_EQ(model.config.patch_px, 576);
  }
  for (const auto& [halo, words] :
       {std::pair(288, "patch_size_pixels larger than twice halo_px=288, got 576"),
        std::pair(-1, "halo_px"), std::pair(1025, "halo_px")}) {
    config["her2fast"]["halo_px"] = halo;
    write_model(folder_, config);
    try {
      load_model_package(folder_.string(), {});
      FAIL() << "need a refusal of halo_px=" << halo;
    } catch (const PackageError& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  }
}

TEST_F(MethodPackageFiles, WhatIsNoPackage) {
  EXPECT_NE(refusal().find("need the folder"), std::string::npos);
  fs::create_directories(folder_);
  EXPECT_NE(refusal().find("neither method.json"), std::string::npos);
  const std::string deep = std::string(100, '[') + std::string(100, ']');
  const std::pair<std::string, const char*> files[] = {
      {"{", "is not JSON"},
      {"", "is not JSON"},
      {std::string(100'000, '['), "nested deeper"},
      {deep, "nested deeper"},
      {"{\"num_classes\": 1e999}", "is not JSON"},
      {"{\"name\": \"\xff\"}", "is not JSON"},
      {"[]", "need an object"},
      {"{}", "is missing"},
      {std::string((1 << 20) + 1, ' '), "at most 1048576 bytes"},
  };
  for (const auto& [text, words] : files) {
    write(folder_ / "config.json", text);
    EXPECT_NE(refusal().find(words), std::string::npos) << refusal();
  }
  write(folder_ / "config.json", model_config("classify").dump());
  EXPECT_NE(refusal().find("the model file is missing"), std::string::npos);
}

TEST_F(MethodPackageFiles, CanonicalConfiguration) {
  write(folder_ / kModelFileName, kModelBytes);
  write(folder_ / "config.json",
        "\xef\xbb\xbf{ \"spacing_um_px\": 1, \"num_classes\":1, \"class_names\":[\"\xc3"
        "\xa9\\n\"], \"patch_size_pixels\": 64.0, \"more\": [1e16, 0.0001, 1e-5, 123.25, "
        "-0.0, 1E2, true, null, 12345678901234567890, \"\\ud83d\\ude00\"]}");
  const ModelPackage model = load_model_package(folder_.string(), {});
  EXPECT_EQ(model.config.canonical_json,
            "{\"class_names\":[\"\\u00e9\\n\"],\"more\":[1e+16,0.0001,1e-05,123.25,-0.0,"
            "100.0,true,null,12345678901234567890,\"\\ud83d\\ude00\"],\"num_classes\":1,"
            "\"patch_size_pixels\":64.0,\"spacing_um_px\":1}");
  EXPECT_EQ(model.config_sha256, hash_of(model.config.canonical_json));
}

TEST_F(MethodPackageFiles, ListsOfKnownFiles) {
  const std::string hash = hash_of(kModelBytes);
  const fs::path path = folder_ / "known.json";
  write(path, "{\"" + hash + "\": \"mine\"}");
  const auto known = read_known_models(path.string());
  EXPECT_EQ(known, (std::map<std::string, std::string>{{hash, "mine"}}));
  for (const char* text : {"[]", "{", "{\"short\": \"x\"}", "{\"short\": 1}"}) {
    write(path, text);
    EXPECT_THROW(read_known_models(path.string()), PackageError) << text;
  }
  EXPECT_THROW(read_known_models((folder_ / "gone.json").string()), PackageError);
}

}  // namespace
}  // namespace her2fast
