// SPDX-License-Identifier: Apache-2.0
#include "io/container/openslide_library.h"

#include <array>
#include <mutex>

#include "core/shared_library.h"
#include "io/container/openslide.h"

namespace her2fast::io {
namespace {

std::mutex library_mutex;
std::string library_path;
std::size_t cache_bytes = kOpenSlideCacheBytes;

template <typename Function>
bool bind(void* handle, const char* name, Function& function) {
  function = reinterpret_cast<Function>(find_symbol(handle, name));
  return function != nullptr;
}

bool bind_all(void* handle, OpenSlideLibrary& library) {
  const bool good =
      bind(handle, "openslide_get_version", library.get_version) &&
      bind(handle, "openslide_detect_vendor", library.detect_vendor) &&
      bind(handle, "openslide_open", library.open) &&
      bind(handle, "openslide_close", library.close) &&
      bind(handle, "openslide_get_error", library.get_error) &&
      bind(handle, "openslide_get_level_count", library.get_level_count) &&
      bind(handle, "openslide_get_level_dimensions", library.get_level_dimensions) &&
      bind(handle, "openslide_get_level_downsample", library.get_level_downsample) &&
      bind(handle, "openslide_get_property_value", library.get_property_value) &&
      bind(handle, "openslide_read_region", library.read_region);
  if (!good) return false;
  if (!(bind(handle, "openslide_cache_create", library.cache_create) &&
        bind(handle, "openslide_set_cache", library.set_cache) &&
        bind(handle, "openslide_cache_release", library.cache_release))) {
    library.cache_create = nullptr;
  }
  if (!(bind(handle, "openslide_get_icc_profile_size", library.get_icc_profile_size) &&
        bind(handle, "openslide_read_icc_profile", library.read_icc_profile))) {
    library.get_icc_profile_size = nullptr;
  }
  return true;
}

std::size_t wanted_cache_bytes() {
  const std::lock_guard lock(library_mutex);
  return cache_bytes;
}

}  // namespace

void set_openslide_library(const std::string& path) {
  const std::lock_guard lock(library_mutex);
  library_path = path;
}

void set_openslide_cache_bytes(std::size_t bytes) {
  const std::lock_guard lock(library_mutex);
  cache_bytes = bytes;
}

const OpenSlideLibrary* load_openslide() {
  static OpenSlideLibrary library{};
  static bool loaded = false;
  const std::lock_guard lock(library_mutex);
  if (loaded) return &library;
  const std::array<std::string, 3> candidates{library_path,
                                              shared_library_name("openslide", 1),
                                              shared_library_name("openslide", 0)};
  for (const std::string& candidate : candidates) {
    if (candidate.empty()) continue;
    void* handle = open_shared_library(candidate);
    if (handle == nullptr) continue;
    loaded = bind_all(handle, library);
    if (loaded) return &library;
    close_shared_library(handle);
  }
  return nullptr;
}

OpenSlideHandle::OpenSlideHandle(const OpenSlideLibrary& library, const std::string& path)
    : library_(library), slide_(library.open(path.c_str())) {
  if (slide_ == nullptr || library.cache_create == nullptr) return;
  OpenSlideCache* cache = library.cache_create(wanted_cache_bytes());
  library.set_cache(slide_, cache);
  library.cache_release(cache);  // the handle keeps it
}

OpenSlideHandle::~OpenSlideHandle() {
  if (slide_ != nullptr) library_.close(slide_);
}

std::string OpenSlideHandle::error() const {
  if (slide_ == nullptr) return "unsupported or missing file";
  const char* text = library_.get_error(slide_);
  return text == nullptr ? std::string() : std::string(text);
}

std::string OpenSlideHandle::property(const char* name) const {
  const char* text = library_.get_property_value(slide_, name);
  return text == nullptr ? std::string() : std::string(text);
}

std::vector<std::byte> OpenSlideHandle::icc_profile(std::size_t max_bytes) const {
  if (slide_ == nullptr || library_.get_icc_profile_size == nullptr) return {};
  const std::int64_t size = library_.get_icc_profile_size(slide_);
  if (size <= 0 || static_cast<std::uint64_t>(size) > max_bytes) return {};
  std::vector<std::byte> profile(static_cast<std::size_t>(size));
  library_.read_icc_profile(slide_, profile.data());
  if (!error().empty()) return {};
  return profile;
}

}  // namespace her2fast::io
