// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace her2fast {

/// A path as valid UTF-8 for messages: control characters and stray bytes become \xNN.
std::string printable(const std::string& path);

}  // namespace her2fast
