// SPDX-License-Identifier: Apache-2.0
/// Parts of one large baseline JPEG, by its restart intervals. Knows no slide.
///
/// A restart marker resets the decoder, so any run of intervals behind a header with the
/// run's own size is a JPEG of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "her2fast/slide.h"

namespace her2fast::io {

/// What stands before the entropy-coded bytes.
struct JpegFrame {
  std::vector<std::byte> header;  ///< SOI to SOS, without APPn and comments
  std::size_t size_at = 0;        ///< of the height, then the width, 2 bytes each
  std::uint64_t entropy_at = 0;   ///< bytes of the stream before the first interval
  std::int64_t width_px = 0;      ///< 0 where the side is too long for JPEG's 16 bits
  std::int64_t height_px = 0;     ///< the same
  int mcu_width_px = 0, mcu_height_px = 0;
  std::int64_t restart_mcus = 0;  ///< 0: no restart markers
  std::size_t restart_at = 0;     ///< of that number in the header; 0: it has none
  bool full_color = false;        ///< no component is subsampled
};

struct JpegFrameAnswer {
  enum class Kind {
    kGood,        ///< `frame` holds it
    kDamaged,     ///< no JPEG header of 3 components of 8 bits, or a broken one
    kIncomplete,  ///< goes on behind the bytes given
    kOther,       ///< sound, but not baseline with interleaved components
  } kind = Kind::kDamaged;
  JpegFrame frame;
};

JpegFrameAnswer parse_jpeg_frame(std::span<const std::byte> stream);

/// Puts the frame's header with a size of its own into `out`, replacing what is there.
/// @param width_px, height_px  1 to 65500
/// @param restarts  false: the stream will hold one interval, and no marker is announced
void begin_jpeg(const JpegFrame& frame, std::int64_t width_px, std::int64_t height_px,
                bool restarts, std::vector<std::byte>& out);

/// Appends an interval of a strip as number `to` of a new stream.
/// @param bytes  from behind the marker before it to before the first byte of the next;
///               for the strip's last to the strip's end
/// @param number  of the interval in the strip: its marker must say so
/// @returns kOk; kCorrupt where other markers stand inside or the wrong one ends it;
///          kWarned where the last interval lacks its end-of-image
TileStatus append_interval(std::span<const std::byte> bytes, std::int64_t number,
                           bool last_of_strip, std::int64_t to,
                           std::vector<std::byte>& out);

/// Turns the marker behind the last appended interval into an end-of-image.
void end_jpeg(std::vector<std::byte>& out);

/// Finds restart markers by reading a strip, as far as needed and only once. Thread-safe.
class RestartScan {
 public:
  /// @param begin, end  of the strip's intervals in the source, end - begin >= 1
  /// @param intervals  how many there should be, at least 1
  RestartScan(std::shared_ptr<const ByteSource> source, std::uint64_t begin,
              std::uint64_t end, std::int64_t intervals);

  /// Offsets of intervals [first, first + count] in the source, the last being the end.
  /// @returns false where the markers' numbers break off before: what follows is unknown
  /// @throws Error kIo, kTruncated
  bool find(std::int64_t first, std::int64_t count, std::vector<std::uint64_t>& starts);

 private:
  void read_chunk();

  const std::shared_ptr<const ByteSource> source_;
  const std::uint64_t end_;
  const std::int64_t intervals_;
  std::mutex mutex_;
  std::uint64_t position_;  // read so far
  bool after_ff_ = false;   // the last byte read was 0xff
  bool stopped_ = false;
  std::vector<std::uint64_t> starts_;
  std::vector<std::byte> chunk_;
};

}  // namespace her2fast::io
