// SPDX-License-Identifier: Apache-2.0
#include "io/codec/jpeg_restart.h"

#include <algorithm>
#include <cstring>

namespace her2fast::io {
namespace {

constexpr std::byte kFf{0xff};
constexpr unsigned kSof0 = 0xc0, kSof1 = 0xc1, kDht = 0xc4, kSofLast = 0xcf, kJpg = 0xc8,
                   kDac = 0xcc, kRst0 = 0xd0, kSoi = 0xd8, kEoi = 0xd9, kSos = 0xda,
                   kDri = 0xdd, kApp0 = 0xe0, kApp15 = 0xef, kCom = 0xfe;
constexpr std::size_t kChunkBytes = std::size_t{1} << 20;

unsigned byte_at(std::span<const std::byte> bytes, std::size_t i) {
  return std::to_integer<unsigned>(bytes[i]);
}

unsigned word_at(std::span<const std::byte> bytes, std::size_t i) {
  return byte_at(bytes, i) << 8 | byte_at(bytes, i + 1);
}

bool is_frame_marker(unsigned marker) {
  return marker >= kSof0 && marker <= kSofLast && marker != kDht && marker != kJpg &&
         marker != kDac;
}

using Kind = JpegFrameAnswer::Kind;

/// @param body  of a start-of-frame segment
Kind read_size(std::span<const std::byte> body, JpegFrame& frame) {
  if (body.size() < 6 || body.size() != 6 + 3 * std::size_t{byte_at(body, 5)}) {
    return Kind::kDamaged;
  }
  if (byte_at(body, 0) != 8 || byte_at(body, 5) != 3) return Kind::kDamaged;
  frame.height_px = word_at(body, 1);
  frame.width_px = word_at(body, 3);
  unsigned most_x = 0, most_y = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    const unsigned x = byte_at(body, 7 + 3 * i) >> 4, y = byte_at(body, 7 + 3 * i) & 15;
    if (x < 1 || x > 4 || y < 1 || y > 4) return Kind::kDamaged;
    most_x = std::max(most_x, x);
    most_y = std::max(most_y, y);
  }
  frame.mcu_width_px = static_cast<int>(8 * most_x);
  frame.mcu_height_px = static_cast<int>(8 * most_y);
  frame.full_color = most_x == 1 && most_y == 1;
  return Kind::kGood;
}

}  // namespace

JpegFrameAnswer parse_jpeg_frame(std::span<const std::byte> stream) {
  JpegFrameAnswer answer;
  JpegFrame& frame = answer.frame;
  const auto end_as = [&](Kind kind) {
    answer.kind = kind;
    return answer;
  };
  if (stream.size() < 2) return end_as(Kind::kIncomplete);
  if (word_at(stream, 0) != (0xff00 | kSoi)) return end_as(Kind::kDamaged);
  frame.header.assign(stream.begin(), stream.begin() + 2);
  std::size_t at = 2;
  while (true) {
    // Any number of 0xff may stand before a marker.
    std::size_t code = at;
    while (code < stream.size() && stream[code] == kFf) ++code;
    if (code + 3 > stream.size()) return end_as(Kind::kIncomplete);
    if (code == at) return end_as(Kind::kDamaged);
    const unsigned marker = byte_at(stream, code), size = word_at(stream, code + 1);
    if (marker < kSof0 || (marker >= kRst0 && marker <= kEoi) || size < 2) {
      return end_as(Kind::kDamaged);
    }
    const std::size_t next = code + 1 + size;
    if (next > stream.size()) return end_as(Kind::kIncomplete);
    const auto body = stream.subspan(code + 3, size - 2);
    if (is_frame_marker(marker)) {
      if (frame.size_at != 0) return end_as(Kind::kDamaged);  // a second frame
      if (marker != kSof0 && marker != kSof1) return end_as(Kind::kOther);
      if (const Kind kind = read_size(body, frame); kind != Kind::kGood) {
        return end_as(kind);
      }
      frame.size_at = frame.header.size() + 5;
    } else if (marker == kDri) {
      if (body.size() != 2) return end_as(Kind::kDamaged);
      frame.restart_mcus = word_at(body, 0);
      frame.restart_at = frame.header.size() + 4;
    }
    const bool text = (marker >= kApp0 && marker <= kApp15) || marker == kCom;
    if (!text) {
      frame.header.push_back(kFf);
      frame.header.insert(frame.header.end(),
                          stream.begin() + static_cast<std::ptrdiff_t>(code),
                          stream.begin() + static_cast<std::ptrdiff_t>(next));
    }
    at = next;
    if (marker == kSos) {
      if (frame.size_at == 0 || body.empty()) return end_as(Kind::kDamaged);
      frame.entropy_at = at;
      return end_as(byte_at(body, 0) == 3 ? Kind::kGood : Kind::kOther);
    }
  }
}

void begin_jpeg(const JpegFrame& frame, std::int64_t width_px, std::int64_t height_px,
                bool restarts, std::vector<std::byte>& out) {
  out.assign(frame.header.begin(), frame.header.end());
  const std::int64_t sides[] = {height_px, width_px};
  for (std::size_t i = 0; i < 2; ++i) {
    out[frame.size_at + 2 * i] = static_cast<std::byte>(sides[i] >> 8);
    out[frame.size_at + 2 * i + 1] = static_cast<std::byte>(sides[i]);
  }
  if (!restarts && frame.restart_at != 0) {
    out[frame.restart_at] = out[frame.restart_at + 1] = std::byte{0};
  }
}

TileStatus append_interval(std::span<const std::byte> bytes, std::int64_t number,
                           bool last_of_strip, std::int64_t to,
                           std::vector<std::byte>& out) {
  std::size_t at = 0;
  bool ended = false;
  while (at < bytes.size()) {
    const void* found = std::memchr(bytes.data() + at, 0xff, bytes.size() - at);
    if (found == nullptr) break;
    const auto place =
        static_cast<std::size_t>(static_cast<const std::byte*>(found) - bytes.data());
    std::size_t code = place + 1;
    while (code < bytes.size() && bytes[code] == kFf) ++code;  // fill bytes
    if (code == bytes.size()) break;
    if (bytes[code] == std::byte{0}) {  // a coded 0xff
      if (code != place + 1) return TileStatus::kCorrupt;
      at = code + 1;
      continue;
    }
    const unsigned marker = byte_at(bytes, code);
    const unsigned expected =
        last_of_strip ? kEoi : kRst0 + static_cast<unsigned>(number & 7);
    // Behind the image's end may stand anything; behind a restart marker begins the next.
    if (marker != expected || (!last_of_strip && code + 1 != bytes.size())) {
      return TileStatus::kCorrupt;
    }
    bytes = bytes.first(place);
    ended = true;
    break;
  }
  if (!ended && !last_of_strip) return TileStatus::kCorrupt;
  out.insert(out.end(), bytes.begin(), bytes.end());
  out.push_back(kFf);
  out.push_back(static_cast<std::byte>(kRst0 + static_cast<unsigned>(to & 7)));
  return ended ? TileStatus::kOk : TileStatus::kWarned;
}

void end_jpeg(std::vector<std::byte>& out) { out.back() = static_cast<std::byte>(kEoi); }

RestartScan::RestartScan(std::shared_ptr<const ByteSource> source, std::uint64_t begin,
                         std::uint64_t end, std::int64_t intervals)
    : source_(std::move(source)),
      end_(end),
      intervals_(intervals),
      position_(begin),
      starts_{begin} {}

bool RestartScan::find(std::int64_t first, std::int64_t count,
                       std::vector<std::uint64_t>& starts) {
  const std::lock_guard lock(mutex_);
  const auto needed = static_cast<std::size_t>(first + count);
  const bool to_end = first + count == intervals_;
  // To the end means to the very end: a marker too many is damage as well.
  while (!stopped_ && (starts_.size() <= needed || to_end) && position_ < end_)
    read_chunk();
  if (position_ == end_ && !stopped_) {
    stopped_ = true;
    if (starts_.size() == static_cast<std::size_t>(intervals_)) starts_.push_back(end_);
    chunk_ = {};
  }
  if (starts_.size() <= needed) return false;
  starts.assign(starts_.begin() + static_cast<std::ptrdiff_t>(first),
                starts_.begin() + static_cast<std::ptrdiff_t>(needed) + 1);
  return true;
}

void RestartScan::read_chunk() {
  const auto size =
      static_cast<std::size_t>(std::min<std::uint64_t>(kChunkBytes, end_ - position_));
  chunk_.resize(size);
  source_->read(position_, size, chunk_.data());
  std::size_t at = 0;
  while (at < size && !stopped_) {
    if (!after_ff_) {
      const void* found = std::memchr(chunk_.data() + at, 0xff, size - at);
      if (found == nullptr) break;
      at =
          static_cast<std::size_t>(static_cast<const std::byte*>(found) - chunk_.data()) +
          1;
      after_ff_ = true;
      continue;
    }
    const unsigned code = byte_at(chunk_, at++);
    after_ff_ = code == 0xff;
    if (code == 0 || code == 0xff) continue;
    const unsigned expected = kRst0 + static_cast<unsigned>((starts_.size() - 1) & 7);
    const bool full = starts_.size() == static_cast<std::size_t>(intervals_);
    if (full && code == kEoi) {
      starts_.push_back(end_);
      stopped_ = true;
    } else if (!full && code == expected) {
      starts_.push_back(position_ + at);
    } else {
      // A marker was lost, doubled or made up: nothing behind it can be numbered, and the
      // interval before it is longer than it should be or broken.
      stopped_ = true;
    }
  }
  position_ += size;
}

}  // namespace her2fast::io
