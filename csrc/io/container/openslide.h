// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace her2fast::io {

/// Where to find OpenSlide's library, for slides opened from now on; empty means the
/// system's. Thread-safe. Nothing is loaded before a slide needs it.
void set_openslide_library(const std::string& path);

}  // namespace her2fast::io
