// SPDX-License-Identifier: Apache-2.0
#include "her2fast/tile_reader.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>

#include "her2fast/error.h"
#include "io/tile_reader_impl.h"

namespace her2fast {
namespace {

using Wide = __int128;

constexpr std::uint8_t kWhite = 255;
// A request is worked off in blocks whose source pixels stay under 6 MB a thread.
constexpr std::int64_t kBlockSourcePx = std::int64_t{1} << 21;
// One grid pixel may cover this many source pixels a side; more means an overview of a
// slide without a pyramid, which would decode gigabytes for a handful of pixels.
constexpr std::int64_t kMaxSourcePxPerGridPx = 8192;
// All threads together hold at most this part of the cache for averages in place.
constexpr std::int64_t kHeldShare = 4;
constexpr std::int64_t kMaxCoordinatePx = std::int64_t{1} << 40;
constexpr std::int64_t kMaxSidePx = std::int64_t{1} << 20;

bool passes(const Level& level, const SlideFrame& frame, int denominator,
            Spacing target) {
  return fine_enough(target, frame.spacing_x, level.down_x_num, level.down_x_den,
                     denominator) &&
         fine_enough(target, frame.spacing_y, level.down_y_num, level.down_y_den,
                     denominator);
}

bool coarser(const Level& a, const Level& b) {
  return static_cast<Wide>(a.down_x_num) * b.down_x_den >
         static_cast<Wide>(b.down_x_num) * a.down_x_den;
}

void fill_white(ImageView<std::uint8_t> out) {
  for (std::int64_t y = 0; y < out.height; ++y) {
    std::memset(out.row(y), kWhite, static_cast<std::size_t>(out.width) * 3);
  }
}

ImageView<std::uint8_t> crop(ImageView<std::uint8_t> image, std::int64_t x,
                             std::int64_t y, std::int64_t width, std::int64_t height) {
  return {image.row(y) + 3 * x, height, width, 3, image.stride};
}

}  // namespace

ReadPlan plan_read(const Slide& slide, const SlideFrame& frame, Spacing target,
                   ReadingMode mode) {
  const std::vector<Level>& levels = slide.info().levels;
  ReadPlan plan{-1, 1};
  for (std::size_t i = 0; i < levels.size(); ++i) {
    if (!passes(levels[i], frame, 1, target)) continue;
    if (mode == ReadingMode::kLevel0 && plan.level >= 0) break;
    if (plan.level < 0 ||
        coarser(levels[i], levels[static_cast<std::size_t>(plan.level)])) {
      plan.level = static_cast<int>(i);
    }
  }
  if (plan.level < 0) {
    throw Error(Code::kNoLevel, "need a spacing of at least that of level 0 (" +
                                    std::to_string(frame.spacing_x.um()) + " x " +
                                    std::to_string(frame.spacing_y.um()) +
                                    " um/px), got " + std::to_string(target.um()) +
                                    " um/px; this slide was scanned too coarsely for it");
  }
  if (mode != ReadingMode::kExact) {
    const Level& level = levels[static_cast<std::size_t>(plan.level)];
    plan.denominator = coarsest_denominator([&](int n) {
      return slide.can_scale(plan.level, n) && passes(level, frame, n, target);
    });
  }
  return plan;
}

TileReader::Impl::Impl(std::shared_ptr<const Slide> slide_, SlideFrame frame_,
                       ReaderOptions options_)
    : slide(std::move(slide_)),
      frame(frame_),
      options(options_),
      cache(options_.cache_bytes) {
  if (slide == nullptr) throw std::invalid_argument("need a slide, got none");
  frame.check();
  const Level& base = slide->info().levels.at(0);
  if (frame.width_px != base.width_px || frame.height_px != base.height_px) {
    throw std::invalid_argument(
        "need the frame of this slide, " + std::to_string(base.width_px) + " x " +
        std::to_string(base.height_px) + " px, got " + std::to_string(frame.width_px) +
        " x " + std::to_string(frame.height_px));
  }
  if (options.workers < 1 || options.workers > 256) {
    throw std::invalid_argument("need 1 <= workers <= 256, got workers=" +
                                std::to_string(options.workers));
  }
  if (options.max_ahead < 1 || options.max_ahead > 65536) {
    throw std::invalid_argument("need 1 <= max_ahead <= 65536, got max_ahead=" +
                                std::to_string(options.max_ahead));
  }
}

TileStatus TileReader::Impl::read(const ReadRequest& request, ImageView<std::uint8_t> out,
                                  ReadScratch& scratch) {
  if (request.width_px < 1 || request.height_px < 1 || request.width_px > kMaxSidePx ||
      request.height_px > kMaxSidePx || std::abs(request.x_px) > kMaxCoordinatePx ||
      std::abs(request.y_px) > kMaxCoordinatePx || request.spacing.pm < 1) {
    throw std::invalid_argument(
        "need a request of 1 to 2^20 px a side within 2^40 px of the origin, at a "
        "spacing above "
        "0, got " +
        std::to_string(request.width_px) + " x " + std::to_string(request.height_px) +
        " px at (" + std::to_string(request.x_px) + ", " + std::to_string(request.y_px) +
        "), " + std::to_string(request.spacing.um()) + " um/px");
  }
  if (out.width != request.width_px || out.height != request.height_px ||
      out.channels != 3) {
    throw std::invalid_argument(
        "need an out of " + std::to_string(request.height_px) + " x " +
        std::to_string(request.width_px) + " x 3, got " + std::to_string(out.height) +
        " x " + std::to_string(out.width) + " x " + std::to_string(out.channels));
  }
  const ReadPlan plan = plan_read(*slide, frame, request.spacing, options.mode);
  const Level& level = slide->info().levels[static_cast<std::size_t>(plan.level)];
  const AxisStep step_x = source_step(request.spacing, frame.spacing_x, level.down_x_num,
                                      level.down_x_den, plan.denominator);
  const AxisStep step_y = source_step(request.spacing, frame.spacing_y, level.down_y_num,
                                      level.down_y_den, plan.denominator);
  for (const AxisStep step : {step_x, step_y}) {
    if (step.num / step.den >= kMaxSourcePxPerGridPx) {
      throw Error(Code::kLimitExceeded,
                  "need a spacing at which a pixel covers fewer than " +
                      std::to_string(kMaxSourcePxPerGridPx) + " source px a side, got " +
                      std::to_string(request.spacing.um()) +
                      " um/px; this slide has no level " + "coarse enough");
    }
  }
  return read_block(plan, step_x, step_y, request, out, scratch);
}

TileStatus TileReader::Impl::read_block(const ReadPlan& plan, AxisStep step_x,
                                        AxisStep step_y, const ReadRequest& block,
                                        ImageView<std::uint8_t> out,
                                        ReadScratch& scratch) {
  const SourceSpan x = source_span(step_x, block.x_px, block.width_px);
  const SourceSpan y = source_span(step_y, block.y_px, block.height_px);
  const std::int64_t width = x.end - x.first;
  const std::int64_t height = y.end - y.first;
  // Grid pixels are independent, so blocks give the bits of the whole.
  if (static_cast<Wide>(width) * height > kBlockSourcePx &&
      (out.width > 1 || out.height > 1)) {
    const bool by_rows = out.width == 1 || (out.height > 1 && height >= width);
    ReadRequest a = block;
    ReadRequest b = block;
    if (by_rows) {
      a.height_px = block.height_px / 2;
      b.y_px += a.height_px;
      b.height_px -= a.height_px;
    } else {
      a.width_px = block.width_px / 2;
      b.x_px += a.width_px;
      b.width_px -= a.width_px;
    }
    const TileStatus first = read_block(
        plan, step_x, step_y, a, crop(out, 0, 0, a.width_px, a.height_px), scratch);
    const TileStatus second = read_block(
        plan, step_x, step_y, b,
        crop(out, b.x_px - block.x_px, b.y_px - block.y_px, b.width_px, b.height_px),
        scratch);
    return std::max(first, second);
  }

  const Level& level = slide->info().levels[static_cast<std::size_t>(plan.level)];
  // A decoded pixel that straddles the level's edge mixes undefined ones in: it counts as
  // outside.
  const std::int64_t x0 = std::max<std::int64_t>(x.first, 0);
  const std::int64_t y0 = std::max<std::int64_t>(y.first, 0);
  const std::int64_t x1 = std::min(x.end, level.width_px / plan.denominator);
  const std::int64_t y1 = std::min(y.end, level.height_px / plan.denominator);
  if (x0 >= x1 || y0 >= y1) {
    fill_white(out);
    return TileStatus::kOk;
  }
  const std::int32_t tile_width = level.tile_width_px / plan.denominator;
  const std::int32_t tile_height = level.tile_height_px / plan.denominator;
  const auto tile_at = [&](std::int64_t column, std::int64_t row) {
    const auto decode = [&](ImageView<std::uint8_t> rgb) {
      return slide->read_tile(plan.level, column, row, plan.denominator, rgb,
                              *scratch.decode);
    };
    // std::cref: a std::function that holds a reference does not allocate.
    return cache.get({plan.level, plan.denominator, column, row}, tile_width, tile_height,
                     std::cref(decode));
  };
  scratch.x.plan(step_x, block.x_px, block.width_px);
  scratch.y.plan(step_y, block.y_px, block.height_px);

  const bool inside = x0 == x.first && y0 == y.first && x1 == x.end && y1 == y.end;
  const std::int64_t column0 = x0 / tile_width;
  const std::int64_t column1 = (x1 - 1) / tile_width;
  const std::int64_t row0 = y0 / tile_height;
  const std::int64_t row1 = (y1 - 1) / tile_height;
  const bool identity = scratch.x.box() == 1 && scratch.y.box() == 1;
  // A request of whole tiles, as a grid without overlap asks: no neighbor will need
  // them, so they are decoded where they are wanted and leave the cache to others.
  const bool whole = inside && x0 % tile_width == 0 && x1 % tile_width == 0 &&
                     y0 % tile_height == 0 && y1 % tile_height == 0;
  if (inside && !whole && column0 == column1 && row0 == row1) {
    const TileCache::Held tile = tile_at(column0, row0);
    const ImageView<const std::uint8_t> rgb = tile.rgb();
    const std::uint8_t* corner =
        rgb.row(y0 - row0 * tile_height) + 3 * (x0 - column0 * tile_width);
    resample({corner, height, width, 3, rgb.stride}, scratch.x, scratch.y, out,
             scratch.resample);
    return tile.status();
  }

  ImageView<std::uint8_t> window = out;
  // Averages are taken from the tiles where they lie, but for whole numbers of pixels:
  // that way is quicker over one picture. The tiles are held together, so they must be
  // few beside the cache, which the threads share.
  const Wide held_bytes =
      Wide{3} * tile_width * tile_height * (column1 - column0 + 1) * (row1 - row0 + 1);
  const bool in_place =
      inside && !is_box(scratch.x, scratch.y) &&
      kHeldShare * held_bytes * options.workers <= static_cast<Wide>(options.cache_bytes);
  const struct Letting {
    std::vector<TileCache::Held>& held;
    ~Letting() { held.clear(); }  // also where a tile cannot be read
  } letting{scratch.held};
  if (in_place) {
    const auto edges = [](std::int64_t first, std::int64_t begin, std::int64_t end,
                          std::int64_t side, std::vector<std::int64_t>& out_edges) {
      out_edges.assign(1, 0);
      for (std::int64_t tile = begin; tile < end; ++tile)
        out_edges.push_back((tile + 1) * side - first);
    };
    edges(x0, column0, column1, tile_width, scratch.tiles.x);
    edges(y0, row0, row1, tile_height, scratch.tiles.y);
    scratch.tiles.x.push_back(width);
    scratch.tiles.y.push_back(height);
    scratch.tiles.tiles.resize(
        static_cast<std::size_t>((column1 - column0 + 1) * (row1 - row0 + 1)));
  } else if (!identity) {
    scratch.window.resize(static_cast<std::size_t>(width) *
                          static_cast<std::size_t>(height) * 3);
    window = {scratch.window.data(), height, width, 3};
  }
  if (!inside) fill_white(window);
  TileStatus worst = TileStatus::kOk;
  const auto fill_from = [&](std::int64_t column, std::int64_t row) {
    const std::int64_t top = std::max(y0, row * tile_height);
    const std::int64_t bottom = std::min(y1, (row + 1) * tile_height);
    const std::int64_t left = std::max(x0, column * tile_width);
    const std::int64_t right = std::min(x1, (column + 1) * tile_width);
    if (whole && !in_place && !cache.has({plan.level, plan.denominator, column, row})) {
      return slide->read_tile(
          plan.level, column, row, plan.denominator,
          crop(window, left - x.first, top - y.first, tile_width, tile_height),
          *scratch.decode);
    }
    TileCache::Held tile = tile_at(column, row);
    const ImageView<const std::uint8_t> rgb = tile.rgb();
    const std::uint8_t* corner =
        rgb.row(top - row * tile_height) + 3 * (left - column * tile_width);
    const TileStatus status = tile.status();
    if (in_place) {
      const std::int64_t number =
          (row - row0) * (column1 - column0 + 1) + column - column0;
      scratch.tiles.tiles[static_cast<std::size_t>(number)] = {
          corner, bottom - top, right - left, 3, rgb.stride};
      scratch.held.push_back(std::move(tile));
      return status;
    }
    for (std::int64_t v = top; v < bottom; ++v) {
      std::memcpy(window.row(v - y.first) + 3 * (left - x.first),
                  corner + (v - top) * rgb.stride,
                  static_cast<std::size_t>(right - left) * 3);
    }
    return status;
  };
  for (std::int64_t row = row0; row <= row1 && slide->decodes_together(); ++row) {
    for (std::int64_t column = column0; column <= column1; ++column) {
      if (cache.has({plan.level, plan.denominator, column, row})) continue;
      slide->will_read(plan.level, column, row);
    }
  }
  // Threads take neighboring requests, which share tiles: what another one decodes just
  // now is left for the end, or all would wait for one.
  scratch.later.clear();
  for (std::int64_t row = row0; row <= row1; ++row) {
    for (std::int64_t column = column0; column <= column1; ++column) {
      if (cache.busy({plan.level, plan.denominator, column, row})) {
        scratch.later.emplace_back(column, row);
      } else {
        worst = std::max(worst, fill_from(column, row));
      }
    }
  }
  for (const auto& [column, row] : scratch.later) {
    worst = std::max(worst, fill_from(column, row));
  }
  if (in_place) {
    resample(scratch.tiles, scratch.x, scratch.y, out, scratch.resample);
  } else if (!identity) {
    resample(window, scratch.x, scratch.y, out, scratch.resample);
  }
  return worst;
}

void TileReader::Impl::expect(const ReadRequest& request, const ReadRequest& before) try {
  if (request.width_px < 1 || request.height_px < 1 || request.width_px > kMaxSidePx ||
      request.height_px > kMaxSidePx || std::abs(request.x_px) > kMaxCoordinatePx ||
      std::abs(request.y_px) > kMaxCoordinatePx || !(request.spacing == before.spacing)) {
    return;  // whatever is wrong with it is said when it is read
  }
  const ReadPlan plan = plan_read(*slide, frame, request.spacing, options.mode);
  const Level& level = slide->info().levels[static_cast<std::size_t>(plan.level)];
  struct Tiles {
    std::int64_t first, last;
    bool has(std::int64_t i) const { return i >= first && i <= last; }
  };
  const auto tiles = [&](Spacing level0, std::int64_t num, std::int64_t den,
                         std::int64_t index, std::int64_t count, std::int64_t tile_px,
                         std::int64_t level_px) {
    const SourceSpan span =
        source_span(source_step(request.spacing, level0, num, den, 1), index, count);
    return Tiles{std::max<std::int64_t>(span.first, 0) / tile_px,
                 (std::min(span.end, level_px) - 1) / tile_px};
  };
  const auto along_x = [&](const ReadRequest& r) {
    return tiles(frame.spacing_x, level.down_x_num, level.down_x_den, r.x_px, r.width_px,
                 level.tile_width_px, level.width_px);
  };
  const auto along_y = [&](const ReadRequest& r) {
    return tiles(frame.spacing_y, level.down_y_num, level.down_y_den, r.y_px, r.height_px,
                 level.tile_height_px, level.height_px);
  };
  const Tiles columns = along_x(request), rows = along_y(request);
  const Tiles columns_before = along_x(before), rows_before = along_y(before);
  constexpr std::int64_t kMaxTilesAhead = 16;
  if ((columns.last - columns.first + 1) * (rows.last - rows.first + 1) > kMaxTilesAhead)
    return;
  for (std::int64_t row = rows.first; row <= rows.last; ++row) {
    for (std::int64_t column = columns.first; column <= columns.last; ++column) {
      if (columns_before.has(column) && rows_before.has(row)) continue;
      slide->expect_tile(plan.level, column, row);
    }
  }
} catch (const Error&) {
  return;  // a spacing that cannot be read: said when it is
}

std::unique_ptr<ReadScratch> TileReader::Impl::take_scratch() {
  {
    const std::lock_guard lock(scratch_mutex);
    if (!idle_scratch.empty()) {
      auto scratch = std::move(idle_scratch.back());
      idle_scratch.pop_back();
      return scratch;
    }
  }
  return std::make_unique<ReadScratch>();
}

void TileReader::Impl::give_scratch(std::unique_ptr<ReadScratch> scratch) {
  const std::lock_guard lock(scratch_mutex);
  idle_scratch.push_back(std::move(scratch));
}

ReadPlan TileReader::plan(Spacing target) const {
  return plan_read(*impl_->slide, impl_->frame, target, impl_->options.mode);
}

TileStatus TileReader::read(const ReadRequest& request,
                            ImageView<std::uint8_t> out) const {
  Impl::ScratchLoan scratch(*impl_);
  return impl_->read(request, out, *scratch);
}

}  // namespace her2fast
