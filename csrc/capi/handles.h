// SPDX-License-Identifier: Apache-2.0
/// What stands behind the handles: shared values, so that handles close in any order.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "her2fast/decide.h"
#include "her2fast/engine.h"
#include "her2fast/her2fast.h"
#include "her2fast/measurement.h"
#include "her2fast/method_package.h"
#include "her2fast/slide.h"
#include "her2fast/tile_reader.h"
#include "session/stored_tiles.h"

namespace her2fast::capi {

/// A host's table; its context is freed with the last user.
struct Engine {
  std::shared_ptr<const MethodPackage> package;
  EngineTable table;

  Engine(std::shared_ptr<const MethodPackage> package_, const EngineTable& table_)
      : package(std::move(package_)), table(table_) {}
  ~Engine() {
    if (table.close != nullptr) table.close(table.context);
  }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
};

/// Where a measurement came from, for its record.
struct Source {
  std::optional<std::string> name, fingerprint, format, reader;
  std::optional<std::string> spacing_source;
  std::optional<std::string> reading_mode;
  std::optional<StoredCoding> stored_as;
  std::vector<std::string> warnings;
};

struct Measured {
  std::shared_ptr<const MethodPackage> package;
  Measurement measurement;
  Source source;
  /// Tiles that were not settled when a snapshot was taken; absent of a finished one.
  std::optional<std::int64_t> tiles_open;
};

}  // namespace her2fast::capi

struct her2_buffer {
  std::vector<std::uint8_t> bytes;
};
struct her2_package {
  std::shared_ptr<const her2fast::MethodPackage> package;
};
struct her2_engine {
  std::shared_ptr<const her2fast::capi::Engine> engine;
};
struct her2_slide {
  std::shared_ptr<const her2fast::Slide> slide;
  std::unique_ptr<her2fast::TileReader> pixels;  // of level 0, with a cache of its own
};
struct her2_measurement {
  std::shared_ptr<const her2fast::capi::Measured> measured;
};
struct her2_decision {
  std::shared_ptr<const her2fast::capi::Measured> measured;
  her2fast::Decision decision;
  std::string json;
};
