// SPDX-License-Identifier: Apache-2.0
/// A slide made of arrays: levels cut into tiles, scaled decoding, faults, and a count of
/// decodes.
#pragma once

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "her2fast/error.h"
#include "her2fast/slide.h"

namespace her2fast {

class FakeSlide : public Slide {
 public:
  using Place = std::tuple<int, std::int64_t, std::int64_t>;  // level, column, row

  /// Level k is `width / downs[k]` x `height / downs[k]` of noise, in tiles of `tile_px`.
  FakeSlide(std::int64_t width, std::int64_t height, std::vector<int> downs, int tile_px,
            bool scales)
      : scales_(scales) {
    info_.format = "fake";
    info_.reader = "fake";
    std::mt19937 random(7);
    for (const int down : downs) {
      Level level;
      level.width_px = width / down;
      level.height_px = height / down;
      level.tile_width_px = level.tile_height_px = tile_px;
      level.down_x_num = level.down_y_num = down;
      info_.levels.push_back(level);
      std::vector<std::uint8_t> rgb(
          static_cast<std::size_t>(level.width_px * level.height_px * 3));
      for (auto& v : rgb) v = static_cast<std::uint8_t>(random());
      pixels_.push_back(std::move(rgb));
    }
  }

  SlideFrame frame(std::int64_t spacing_x_pm, std::int64_t spacing_y_pm) const {
    const Level& base = info_.levels[0];
    return {base.width_px, base.height_px, {spacing_x_pm}, {spacing_y_pm}};
  }

  const SlideInfo& info() const override { return info_; }
  bool can_scale(int, int denominator) const override {
    return scales_ && (denominator == 2 || denominator == 4 || denominator == 8);
  }
  std::string fingerprint() const override { return "fake"; }

  void expect_tile(int level, std::int64_t column, std::int64_t row) const override {
    const std::lock_guard lock(mutex_);
    ++hints_[{level, column, row}];
  }
  std::map<Place, int> hints() const {
    const std::lock_guard lock(mutex_);
    return hints_;
  }

  TileStatus read_tile(int level, std::int64_t column, std::int64_t row, int denominator,
                       ImageView<std::uint8_t> out, DecodeScratch&) const override {
    {
      const std::lock_guard lock(mutex_);
      ++decodes_[{level, column, row}];
    }
    if (throws_at == Place{level, column, row}) throw Error(Code::kIo, "fake disk error");
    const auto fault = faults.find({level, column, row});
    const TileStatus status = fault == faults.end() ? TileStatus::kOk : fault->second;
    const bool white = status == TileStatus::kCorrupt || status == TileStatus::kMissing;
    for (std::int64_t y = 0; y < out.height; ++y) {
      for (std::int64_t x = 0; x < out.width; ++x) {
        for (int c = 0; c < 3; ++c) {
          out.row(y)[3 * x + c] = white ? 255
                                        : decoded(level, column * out.width + x,
                                                  row * out.height + y, denominator, c);
        }
      }
    }
    return status;
  }

  /// A decoded pixel: the truncated mean of denominator x denominator level pixels;
  /// beyond the level garbage, so that a reader that uses it is found out.
  std::uint8_t decoded(int level, std::int64_t x, std::int64_t y, int denominator,
                       int c) const {
    const Level& l = info_.levels[static_cast<std::size_t>(level)];
    int total = 0;
    for (std::int64_t v = y * denominator; v < (y + 1) * denominator; ++v) {
      for (std::int64_t u = x * denominator; u < (x + 1) * denominator; ++u) {
        total += u < l.width_px && v < l.height_px
                     ? pixels_[static_cast<std::size_t>(level)]
                              [static_cast<std::size_t>((v * l.width_px + u) * 3 + c)]
                     : 17;
      }
    }
    return static_cast<std::uint8_t>(total / (denominator * denominator));
  }

  int decodes(int level, std::int64_t column, std::int64_t row) const {
    const std::lock_guard lock(mutex_);
    const auto found = decodes_.find({level, column, row});
    return found == decodes_.end() ? 0 : found->second;
  }
  int decodes() const {
    const std::lock_guard lock(mutex_);
    int total = 0;
    for (const auto& [place, count] : decodes_) total += count;
    return total;
  }

  std::map<Place, TileStatus> faults;
  Place throws_at{-1, 0, 0};

 private:
  SlideInfo info_;
  std::vector<std::vector<std::uint8_t>> pixels_;
  bool scales_;
  mutable std::mutex mutex_;
  mutable std::map<Place, int> decodes_;
  mutable std::map<Place, int> hints_;
};

}  // namespace her2fast
