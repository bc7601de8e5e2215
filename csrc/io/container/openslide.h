// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

namespace her2fast::io {

/// Source tiles of neighboring requests overlap (MIRAX) or straddle them: what threads
/// decode at a time, some times over.
inline constexpr std::size_t kOpenSlideCacheBytes = std::size_t{64} << 20;

/// Where to find OpenSlide's library, for slides opened from now on; empty means the
/// system's. Thread-safe. Nothing is loaded before a slide needs it.
void set_openslide_library(const std::string& path);

/// Size of OpenSlide's own cache of each slide opened from now on. Thread-safe. Without
/// effect on OpenSlide before 4.0.
void set_openslide_cache_bytes(std::size_t bytes);

}  // namespace her2fast::io
