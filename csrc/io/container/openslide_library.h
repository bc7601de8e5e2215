// SPDX-License-Identifier: Apache-2.0
/// OpenSlide's C API, opened at run time, so that nothing links to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace her2fast::io {

struct OpenSlideObject;  ///< OpenSlide's opaque handle
struct OpenSlideCache;   ///< its cache of decoded source tiles

/// The functions used, by the names and types of OpenSlide's public C API. Those of the
/// second group came with OpenSlide 4 and may be null.
struct OpenSlideLibrary {
  const char* (*get_version)();
  const char* (*detect_vendor)(const char*);
  OpenSlideObject* (*open)(const char*);
  void (*close)(OpenSlideObject*);
  const char* (*get_error)(OpenSlideObject*);
  std::int32_t (*get_level_count)(OpenSlideObject*);
  void (*get_level_dimensions)(OpenSlideObject*, std::int32_t, std::int64_t*,
                               std::int64_t*);
  double (*get_level_downsample)(OpenSlideObject*, std::int32_t);
  const char* (*get_property_value)(OpenSlideObject*, const char*);
  void (*read_region)(OpenSlideObject*, std::uint32_t*, std::int64_t, std::int64_t,
                      std::int32_t, std::int64_t, std::int64_t);

  OpenSlideCache* (*cache_create)(std::size_t);
  void (*set_cache)(OpenSlideObject*, OpenSlideCache*);
  void (*cache_release)(OpenSlideCache*);
  std::int64_t (*get_icc_profile_size)(OpenSlideObject*);
  void (*read_icc_profile)(OpenSlideObject*, void*);
};

/// nullptr where no OpenSlide is found. Never unloaded: glib, below it, cannot be.
const OpenSlideLibrary* load_openslide();

/// One open handle, with a cache of its own. Threads may share it.
class OpenSlideHandle {
 public:
  OpenSlideHandle(const OpenSlideLibrary& library, const std::string& path);
  ~OpenSlideHandle();
  OpenSlideHandle(const OpenSlideHandle&) = delete;
  OpenSlideHandle& operator=(const OpenSlideHandle&) = delete;

  OpenSlideObject* get() const { return slide_; }
  /// Empty where all is well. OpenSlide latches the first error of a handle.
  std::string error() const;
  /// Empty where it is absent.
  std::string property(const char* name) const;
  /// Empty where there is none, or where it is larger than `max_bytes`.
  std::vector<std::byte> icc_profile(std::size_t max_bytes) const;

 private:
  const OpenSlideLibrary& library_;
  OpenSlideObject* slide_;
};

}  // namespace her2fast::io
