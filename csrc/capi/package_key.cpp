// SPDX-License-Identifier: Apache-2.0
#include "capi/package_key.h"

#include <string_view>

#include "core/sha256.h"

namespace her2fast::capi {
namespace {

constexpr std::string_view kPrefix = "package:";

}  // namespace

std::string package_key(const MethodPackage& package) {
  std::string text = package.method + " " + std::to_string(package.tile_px) + " " +
                     std::to_string(package.halo_px);
  for (const ModelPackage* model : package.models()) {
    text += " " + model->sha256 + " " + model->config_sha256;
  }
  Sha256 hash;
  hash.update(text.data(), text.size());
  return std::string(kPrefix) + hash.hex();
}

bool has_package_key(const Measurement& measurement) {
  return std::string_view(measurement.key).substr(0, kPrefix.size()) == kPrefix;
}

}  // namespace her2fast::capi
