// SPDX-License-Identifier: Apache-2.0
#include "session/strip_block.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace her2fast {
namespace {

constexpr std::uint8_t kWhite = 255;

std::int64_t words_for(std::int64_t pixels) { return (pixels + 63) / 64; }

/// `count` pixels of a row of `rect` as RGB; a row of kBlank is white.
void copy_rgb(const PixelRect& rect, const std::uint8_t* from, std::int64_t count,
              std::uint8_t* to) {
  const auto pick = [&](int step, int red, int blue) {
    for (std::int64_t i = 0; i < count; ++i) {
      to[3 * i] = from[step * i + red];
      to[3 * i + 1] = from[step * i + 1];
      to[3 * i + 2] = from[step * i + blue];
    }
  };
  switch (rect.format) {
    case PixelFormat::kRgb:
      std::memcpy(to, from, static_cast<std::size_t>(count) * 3);
      break;
    case PixelFormat::kBgr:
      pick(3, 2, 0);
      break;
    case PixelFormat::kRgba:
      pick(4, 0, 2);
      break;
    case PixelFormat::kBgra:
      pick(4, 2, 0);
      break;
    case PixelFormat::kBlank:
      std::memset(to, kWhite, static_cast<std::size_t>(count) * 3);
      break;
  }
}

/// The pixel of `rect` at level-0 (x, y); null of kBlank.
const std::uint8_t* pixel_at(const PixelRect& rect, std::int64_t x, std::int64_t y) {
  if (rect.format == PixelFormat::kBlank) return nullptr;
  return rect.data + (y - rect.y0_px) * rect.row_step() +
         (x - rect.x0_px) * bytes_per_pixel(rect.format);
}

void swap_red_and_blue(std::vector<std::uint8_t>& rgb) {
  for (std::size_t i = 0; i + 2 < rgb.size(); i += 3) std::swap(rgb[i], rgb[i + 2]);
}

/// Bits [begin, end) of a row; visits the words with the mask of what lies in them.
template <typename Visit>
void for_words(std::int64_t begin, std::int64_t end, const Visit& visit) {
  for (std::int64_t word = begin / 64; word * 64 < end; ++word) {
    const std::int64_t low = std::max(begin - word * 64, std::int64_t{0});
    const std::int64_t high = std::min(end - word * 64, std::int64_t{64});
    const std::uint64_t upto =
        high == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << high) - 1;
    visit(static_cast<std::size_t>(word), upto & (~std::uint64_t{0} << low));
  }
}

}  // namespace

BlockAxis::BlockAxis(AxisStep step_, std::int64_t first_, std::int64_t count_,
                     std::int64_t level0_px)
    : step(step_), first(first_), count(count_), span(source_span(step, first, count)) {
  end0 = std::min(span.end, level0_px);
}

bool StripBlock::filled_by(const BlockAxis& x, const BlockAxis& y,
                           const PixelRect& rect) const {
  return !open() && rect.x0_px <= x.span.first && rect.x0_px + rect.width_px >= x.end0 &&
         rect.y0_px <= y.span.first && rect.y0_px + rect.height_px >= y.end0;
}

std::size_t StripBlock::source_bytes(const BlockAxis& x, const BlockAxis& y) {
  return static_cast<std::size_t>(x.span_px() * y.span_px() * 3 +
                                  words_for(x.inside_px()) * y.inside_px() * 8);
}

std::size_t StripBlock::grid_bytes(const BlockAxis& x, const BlockAxis& y) {
  return static_cast<std::size_t>(x.count * y.count * 3);
}

void StripBlock::reserve(const BlockAxis& x, const BlockAxis& y) {
  // White first: what lies beyond the slide stays so.
  source_.assign(static_cast<std::size_t>(x.span_px() * y.span_px() * 3), kWhite);
  have_.assign(static_cast<std::size_t>(words_for(x.inside_px()) * y.inside_px()), 0);
}

StripBlock::Found StripBlock::add(const BlockAxis& x, const BlockAxis& y,
                                  const PixelRect& rect, StripScratch& scratch) {
  Found found;
  if (filled_by(x, y, rect)) {
    fill(x, y, rect, scratch);
    return found;
  }
  const std::int64_t left = std::max(rect.x0_px, x.span.first);
  const std::int64_t right = std::min(rect.x0_px + rect.width_px, x.end0);
  const std::int64_t top = std::max(rect.y0_px, y.span.first);
  const std::int64_t bottom = std::min(rect.y0_px + rect.height_px, y.end0);
  const std::int64_t words = words_for(x.inside_px());
  scratch.window.resize(static_cast<std::size_t>((right - left) * 3));
  for (std::int64_t v = top; v < bottom; ++v) {
    std::uint64_t* have = have_.data() + (v - y.span.first) * words;
    std::uint8_t* row = source_.data() + (v - y.span.first) * x.span_px() * 3;
    const std::uint8_t* from = pixel_at(rect, left, v);
    const std::int64_t begin = left - x.span.first, end = right - x.span.first;
    bool fresh = true;
    for_words(begin, end, [&](std::size_t word, std::uint64_t mask) {
      fresh = fresh && (have[word] & mask) == 0;
    });
    if (fresh) {
      copy_rgb(rect, from, right - left, row + 3 * begin);
      have_px_ += right - left;
    } else {
      copy_rgb(rect, from, right - left, scratch.window.data());
      for (std::int64_t u = begin; u < end; ++u) {
        const std::uint8_t* rgb = scratch.window.data() + 3 * (u - begin);
        if ((have[u / 64] >> (u % 64) & 1) == 0) {
          std::memcpy(row + 3 * u, rgb, 3);
          ++have_px_;
        } else {
          ++found.repeated_px;
          found.differing_px += std::memcmp(row + 3 * u, rgb, 3) != 0;
        }
      }
    }
    for_words(begin, end,
              [&](std::size_t word, std::uint64_t mask) { have[word] |= mask; });
  }
  if (have_px_ == x.inside_px() * y.inside_px()) {
    finish(x, y, {source_.data(), y.span_px(), x.span_px(), 3}, scratch);
    source_ = {};
    have_ = {};
  }
  return found;
}

void StripBlock::fill(const BlockAxis& x, const BlockAxis& y, const PixelRect& rect,
                      StripScratch& scratch) {
  const bool inside = x.end0 == x.span.end && y.end0 == y.span.end;
  if (inside && bytes_per_pixel(rect.format) == 3) {
    // Channels do not mix, so their order can wait until there are fewer pixels.
    finish(x, y,
           {pixel_at(rect, x.span.first, y.span.first), y.span_px(), x.span_px(), 3,
            rect.row_step()},
           scratch);
    if (rect.format == PixelFormat::kBgr) swap_red_and_blue(grid_);
    return;
  }
  const std::int64_t row_bytes = x.span_px() * 3;
  scratch.window.assign(static_cast<std::size_t>(row_bytes * y.span_px()), kWhite);
  for (std::int64_t v = y.span.first; v < y.end0; ++v) {
    copy_rgb(rect, pixel_at(rect, x.span.first, v), x.inside_px(),
             scratch.window.data() + (v - y.span.first) * row_bytes);
  }
  finish(x, y, {scratch.window.data(), y.span_px(), x.span_px(), 3}, scratch);
}

void StripBlock::finish(const BlockAxis& x, const BlockAxis& y,
                        ImageView<const std::uint8_t> source, StripScratch& scratch) {
  scratch.x.plan(x.step, x.first, x.count);
  scratch.y.plan(y.step, y.first, y.count);
  std::vector<std::uint8_t> grid(grid_bytes(x, y));
  resample(source, scratch.x, scratch.y, {grid.data(), y.count, x.count, 3},
           scratch.resample);
  grid_ = std::move(grid);
}

}  // namespace her2fast
