// SPDX-License-Identifier: Apache-2.0
#include "her2fast/strip_assembler.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>

#include "core/number_text.h"
#include "her2fast/error.h"
#include "session/strip_block.h"

namespace her2fast {
namespace {

// A block is the widest of these with at most so many source pixels a side: small, so
// that a row of blocks that a strip has cut is thin; not smaller, so that a rectangle of
// a megapixel is some hundred blocks.
constexpr std::int64_t kMaxBlockPx = 64, kMinBlockPx = 8;
constexpr std::int64_t kBlockSourcePx = 160;
// Blocks of a slide of 2^26 px a side would not be counted in 32 bits.
constexpr std::int64_t kMaxBlocks = std::int64_t{1} << 28;
constexpr std::int64_t kMaxRequestSidePx = 65536;

std::int64_t block_side(AxisStep x, AxisStep y) {
  std::int64_t side = kMaxBlockPx;
  const auto wide = [&](AxisStep step) {
    return static_cast<__int128>(step.num) * side >
           static_cast<__int128>(step.den) * kBlockSourcePx;
  };
  while (side > kMinBlockPx && (wide(x) || wide(y))) side /= 2;
  return side;
}

/// Blocks [first, end) along one axis.
struct Range {
  std::int64_t first = 0, end = 0;
};

}  // namespace

std::int64_t bytes_per_pixel(PixelFormat format) {
  switch (format) {
    case PixelFormat::kRgb:
    case PixelFormat::kBgr:
      return 3;
    case PixelFormat::kRgba:
    case PixelFormat::kBgra:
      return 4;
    case PixelFormat::kBlank:
      return 0;
  }
  throw std::invalid_argument(
      "need a pixel format of RGB, BGR, RGBA, BGRA or blank, got " +
      std::to_string(static_cast<int>(format)));
}

std::int64_t PixelRect::row_step() const {
  return stride_bytes == 0 ? width_px * bytes_per_pixel(format) : stride_bytes;
}

void PixelRect::check(const SlideFrame& frame) const {
  const std::int64_t pixel = bytes_per_pixel(format);
  const auto inside = [](std::int64_t at, std::int64_t size, std::int64_t whole) {
    return at >= 0 && size >= 1 && size <= whole && at <= whole - size;
  };
  if (!inside(x0_px, width_px, frame.width_px) ||
      !inside(y0_px, height_px, frame.height_px)) {
    throw std::invalid_argument(
        "need a rectangle inside the slide of " + std::to_string(frame.width_px) + " x " +
        std::to_string(frame.height_px) + " px, got " + std::to_string(width_px) + " x " +
        std::to_string(height_px) + " px at (" + std::to_string(x0_px) + ", " +
        std::to_string(y0_px) + ")");
  }
  if (pixel == 0) return;
  if (data == nullptr) throw std::invalid_argument("need pixels, got none");
  if (stride_bytes != 0 &&
      (stride_bytes < width_px * pixel || stride_bytes > std::int64_t{1} << 40)) {
    throw std::invalid_argument(
        "need a stride of at least a row of " + std::to_string(width_px * pixel) +
        " bytes and at most 2^40, got " + std::to_string(stride_bytes));
  }
}

struct StripAssembler::Impl {
  struct Entry {
    std::mutex mutex;
    StripBlock block;
  };
  using EntryPtr = std::shared_ptr<Entry>;
  /// What a block takes beside its pixels: with the counters of its pointer, and a node
  /// and a bucket of the map.
  static constexpr std::size_t kEntryBytes = sizeof(Entry) + 96;

  SlideFrame frame;
  std::vector<ReadRequest> requests;
  Answer answer;
  std::size_t max_bytes = 0;
  Spacing spacing;
  AxisStep step_x, step_y;
  std::int64_t grid_width = 0, grid_height = 0, side = 0, columns = 0, rows = 0;

  // Requests that need a block: numbers[offsets[b], offsets[b + 1]).
  std::vector<std::uint32_t> offsets, numbers;

  mutable std::mutex mutex;                  // guards all below
  std::vector<std::uint32_t> blocks_left;    // per request, until it is full
  std::vector<std::uint16_t> requests_left;  // per block, until it is let go
  std::unordered_map<std::int64_t, EntryPtr> entries;
  std::vector<std::unique_ptr<StripScratch>> idle;
  Counts counts;
  std::optional<Error> error;

  Range blocks_of(std::int64_t first, std::int64_t count, std::int64_t grid) const {
    const std::int64_t begin = std::max<std::int64_t>(first, 0);
    const std::int64_t end = std::min(first + count, grid);
    return begin < end ? Range{begin / side, (end - 1) / side + 1} : Range{};
  }
  Range columns_of(const ReadRequest& r) const {
    return blocks_of(r.x_px, r.width_px, grid_width);
  }
  Range rows_of(const ReadRequest& r) const {
    return blocks_of(r.y_px, r.height_px, grid_height);
  }
  template <typename Visit>
  void for_blocks(const ReadRequest& request, const Visit& visit) const {
    const Range across = columns_of(request), down = rows_of(request);
    for (std::int64_t row = down.first; row < down.end; ++row) {
      for (std::int64_t column = across.first; column < across.end; ++column) {
        visit(row * columns + column);
      }
    }
  }

  BlockAxis axis_x(std::int64_t column) const {
    return {step_x, column * side, std::min(side, grid_width - column * side),
            frame.width_px};
  }
  BlockAxis axis_y(std::int64_t row) const {
    return {step_y, row * side, std::min(side, grid_height - row * side),
            frame.height_px};
  }

  /// Blocks with a source pixel in level-0 [at, at + size); one too many on either side
  /// is left to `axis` to see.
  Range touched(AxisStep step, std::int64_t at, std::int64_t size,
                std::int64_t count) const {
    const auto block = [&](std::int64_t px) {
      const auto grid_px =
          static_cast<std::int64_t>(static_cast<__int128>(px) * step.den / step.num);
      return grid_px / side;
    };
    return {std::max<std::int64_t>(block(at) - 1, 0),
            std::min(block(at + size) + 1, count)};
  }

  void setup();
  void index_requests();
  void charge(std::size_t bytes);
  void fail(Code code, const std::string& message);
  void add_to_block(std::int64_t number, const BlockAxis& x, const BlockAxis& y,
                    const PixelRect& rect, StripScratch& scratch,
                    std::vector<std::uint32_t>& full);
  void answer_request(std::uint32_t number, std::vector<std::uint8_t>& rgb);
};

void StripAssembler::Impl::setup() {
  frame.check();
  if (!answer) throw std::invalid_argument("need somebody who takes the answers");
  if (requests.empty()) throw std::invalid_argument("need at least one request");
  if (requests.size() > static_cast<std::size_t>(kMaxBlocks)) {
    throw std::invalid_argument("need at most 2^28 requests");
  }
  spacing = requests.front().spacing;
  for (const Spacing level0 : {frame.spacing_x, frame.spacing_y}) {
    if (!fine_enough(spacing, level0, 1, 1, 1)) {
      throw Error(Code::kNoLevel,
                  "need a spacing of at least that of the scan (" +
                      fixed_text(level0.um()) + " um/px), got " +
                      fixed_text(spacing.um()) +
                      " um/px; this slide is scanned too coarsely for it");
    }
  }
  step_x = source_step(spacing, frame.spacing_x, 1, 1, 1);
  step_y = source_step(spacing, frame.spacing_y, 1, 1, 1);
  grid_width = frame.grid_width_px(spacing);
  grid_height = frame.grid_height_px(spacing);
  side = block_side(step_x, step_y);
  columns = (grid_width + side - 1) / side;
  rows = (grid_height + side - 1) / side;
  if (columns > kMaxBlocks / rows) {
    throw Error(Code::kLimitExceeded, "a slide of " + std::to_string(frame.width_px) +
                                          " x " + std::to_string(frame.height_px) +
                                          " px is too large to be pushed");
  }
  index_requests();
}

void StripAssembler::Impl::index_requests() {
  const auto blocks = static_cast<std::size_t>(columns * rows);
  offsets.assign(blocks + 1, 0);
  blocks_left.assign(requests.size(), 0);
  requests_left.assign(blocks, 0);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const ReadRequest& r = requests[i];
    const bool small = r.width_px >= 1 && r.height_px >= 1 &&
                       r.width_px <= kMaxRequestSidePx &&
                       r.height_px <= kMaxRequestSidePx;
    if (!small || !(r.spacing == spacing) || columns_of(r).end == 0 ||
        rows_of(r).end == 0) {
      throw std::invalid_argument(
          "need requests of 1 to 65536 px a side at one spacing that touch the slide, "
          "got " +
          std::to_string(r.width_px) + " x " + std::to_string(r.height_px) + " px at (" +
          std::to_string(r.x_px) + ", " + std::to_string(r.y_px) + "), " +
          fixed_text(r.spacing.um()) + " um/px");
    }
    for_blocks(r, [&](std::int64_t b) {
      std::uint16_t& users = requests_left[static_cast<std::size_t>(b)];
      if (users == 0xFFFF)
        throw std::invalid_argument("need fewer requests over one place");
      ++users;
      ++offsets[static_cast<std::size_t>(b) + 1];
      ++blocks_left[i];
    });
  }
  for (std::size_t b = 0; b < blocks; ++b) offsets[b + 1] += offsets[b];
  numbers.resize(offsets.back());
  std::vector<std::uint32_t> next(offsets.begin(), offsets.end() - 1);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    for_blocks(requests[i], [&](std::int64_t b) {
      numbers[next[static_cast<std::size_t>(b)]++] = static_cast<std::uint32_t>(i);
    });
  }
}

/// With the lock held.
void StripAssembler::Impl::charge(std::size_t bytes) {
  if (counts.bytes + bytes > max_bytes) {
    error.emplace(
        Code::kLimitExceeded,
        "this order of pixels needs more than the limit of " + std::to_string(max_bytes) +
            " bytes; deliver rows, columns or bands, or raise max_memory_bytes");
    throw *error;
  }
  counts.bytes += bytes;
  counts.peak_bytes = std::max(counts.peak_bytes, counts.bytes);
}

void StripAssembler::Impl::add_to_block(std::int64_t number, const BlockAxis& x,
                                        const BlockAxis& y, const PixelRect& rect,
                                        StripScratch& scratch,
                                        std::vector<std::uint32_t>& full) {
  const std::int64_t area = (std::min(rect.x0_px + rect.width_px, x.end0) -
                             std::max(rect.x0_px, x.span.first)) *
                            (std::min(rect.y0_px + rect.height_px, y.end0) -
                             std::max(rect.y0_px, y.span.first));
  const auto b = static_cast<std::size_t>(number);
  EntryPtr entry;
  {
    const std::lock_guard lock(mutex);
    if (offsets[b] == offsets[b + 1]) return;  // no request needs it
    if (requests_left[b] == 0) {
      counts.repeated_px += area;
      counts.uncompared_px += area;
      return;
    }
    const auto found = entries.find(number);
    if (found != entries.end()) {
      entry = found->second;
    } else {
      if (error) throw *error;
      charge(kEntryBytes);
      entry = entries.emplace(number, std::make_shared<Entry>()).first->second;
    }
  }
  StripBlock::Found found;
  std::int64_t uncompared_px = 0;
  bool completed = false;
  {
    const std::lock_guard block_lock(entry->mutex);
    StripBlock& block = entry->block;
    if (block.complete()) {
      found.repeated_px = area;
      uncompared_px = area;
    } else {
      const bool alone = block.filled_by(x, y, rect);
      const bool opens = !alone && !block.open();
      {
        const std::lock_guard lock(mutex);
        if (error) throw *error;
        if (opens) charge(StripBlock::source_bytes(x, y));
        if (alone) charge(StripBlock::grid_bytes(x, y));
      }
      if (opens) block.reserve(x, y);
      found = block.add(x, y, rect, scratch);
      completed = block.complete();
      if (completed && !alone) {
        const std::lock_guard lock(mutex);
        counts.bytes -= StripBlock::source_bytes(x, y);
        charge(StripBlock::grid_bytes(x, y));
      }
    }
  }
  const std::lock_guard lock(mutex);
  counts.repeated_px += found.repeated_px;
  counts.differing_px += found.differing_px;
  counts.uncompared_px += uncompared_px;
  if (!completed) return;
  for (std::uint32_t i = offsets[b]; i < offsets[b + 1]; ++i) {
    if (--blocks_left[numbers[i]] == 0) full.push_back(numbers[i]);
  }
}

void StripAssembler::Impl::answer_request(std::uint32_t number,
                                          std::vector<std::uint8_t>& rgb) {
  const ReadRequest& request = requests[number];
  rgb.assign(static_cast<std::size_t>(request.width_px * request.height_px * 3), 255);
  const ImageView<std::uint8_t> out(rgb.data(), request.height_px, request.width_px, 3);
  // All of them are complete, and nobody lets one go that this request still needs.
  std::vector<std::pair<std::int64_t, EntryPtr>> held;
  {
    const std::lock_guard lock(mutex);
    for_blocks(request, [&](std::int64_t b) { held.emplace_back(b, entries.at(b)); });
  }
  for (const auto& [b, entry] : held) {
    const BlockAxis x = axis_x(b % columns), y = axis_y(b / columns);
    const std::int64_t left = std::max(x.first, request.x_px);
    const std::int64_t right =
        std::min(x.first + x.count, request.x_px + request.width_px);
    const std::int64_t top = std::max(y.first, request.y_px);
    const std::int64_t bottom =
        std::min(y.first + y.count, request.y_px + request.height_px);
    const std::uint8_t* grid = entry->block.grid().data();
    for (std::int64_t v = top; v < bottom; ++v) {
      std::memcpy(out.row(v - request.y_px) + 3 * (left - request.x_px),
                  grid + 3 * ((v - y.first) * x.count + left - x.first),
                  static_cast<std::size_t>(right - left) * 3);
    }
  }
  {
    const std::lock_guard lock(mutex);
    for (const auto& [b, entry] : held) {
      if (--requests_left[static_cast<std::size_t>(b)] > 0) continue;
      counts.bytes -=
          kEntryBytes + StripBlock::grid_bytes(axis_x(b % columns), axis_y(b / columns));
      entries.erase(b);
    }
    ++counts.answered;
  }
  held.clear();
  answer(request, out);
}

StripAssembler::StripAssembler(const SlideFrame& frame, std::vector<ReadRequest> requests,
                               Answer answer, std::size_t max_bytes)
    : impl_(std::make_unique<Impl>()) {
  impl_->frame = frame;
  impl_->requests = std::move(requests);
  impl_->answer = std::move(answer);
  impl_->max_bytes = max_bytes;
  impl_->setup();
}

StripAssembler::~StripAssembler() = default;

void StripAssembler::add(const PixelRect& rect) {
  Impl& a = *impl_;
  rect.check(a.frame);
  std::unique_ptr<StripScratch> scratch;
  {
    const std::lock_guard lock(a.mutex);
    if (a.error) throw *a.error;
    a.counts.delivered_px += rect.width_px * rect.height_px;
    if (!a.idle.empty()) {
      scratch = std::move(a.idle.back());
      a.idle.pop_back();
    }
  }
  if (!scratch) scratch = std::make_unique<StripScratch>();
  const Range across = a.touched(a.step_x, rect.x0_px, rect.width_px, a.columns);
  const Range down = a.touched(a.step_y, rect.y0_px, rect.height_px, a.rows);
  std::vector<std::uint32_t> full;
  std::vector<std::uint8_t> rgb;
  for (std::int64_t row = down.first; row < down.end; ++row) {
    const BlockAxis y = a.axis_y(row);
    if (y.end0 <= rect.y0_px || y.span.first >= rect.y0_px + rect.height_px) continue;
    for (std::int64_t column = across.first; column < across.end; ++column) {
      const BlockAxis x = a.axis_x(column);
      if (x.end0 <= rect.x0_px || x.span.first >= rect.x0_px + rect.width_px) continue;
      a.add_to_block(row * a.columns + column, x, y, rect, *scratch, full);
      // At once, so that what they hold is let go before the next block needs room.
      for (const std::uint32_t number : full) a.answer_request(number, rgb);
      full.clear();
    }
  }
  const std::lock_guard lock(a.mutex);
  a.idle.push_back(std::move(scratch));
}

StripAssembler::Counts StripAssembler::counts() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->counts;
}

}  // namespace her2fast
