// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "her2fast/method_package.h"

namespace her2fast::models {

/// Sides of the inner tile and of what a segmenter sees beyond it (docs/design), where a
/// package does not say.
inline constexpr std::int32_t kDefaultTilePx = 256;
inline constexpr std::int32_t kDefaultHaloPx = 32;

/// @param file  printable path, for messages. @throws PackageError
ModelConfig parse_model_config(const nlohmann::json& content, const std::string& file);

}  // namespace her2fast::models
