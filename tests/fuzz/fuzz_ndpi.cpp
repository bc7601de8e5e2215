// SPDX-License-Identifier: Apache-2.0
// Any bytes as a Hamamatsu NDPI, with its index or with markers found by scanning: an
// Error, or levels whose tiles have a status. What is no TIFF is taken for a JPEG: its
// header, its markers, and an interval put behind a header of its own.
#include <algorithm>
#include <span>
#include <vector>

#include "fuzz.h"
#include "io/codec/jpeg_restart.h"
#include "io/container/formats.h"
#include "io/container/tiff_directory.h"

namespace {

using namespace her2fast;

void read_file(const std::shared_ptr<const ByteSource>& source) {
  static const DecodeScratchPtr scratch = make_decode_scratch();
  static std::vector<std::uint8_t> rgb;
  io::OpenContext context;
  context.source = source;
  context.tiff = std::make_unique<io::TiffFile>(source);
  const io::OpenAnswer answer = io::open_hamamatsu(context);
  if (answer.slide == nullptr) return;
  const std::vector<Level>& levels = answer.slide->info().levels;
  int left = 3;  // tiles
  for (std::size_t i = 0; i < levels.size() && left > 0; ++i) {
    const Level& level = levels[i];
    // Large tiles cost time and show nothing that small ones do not.
    if (std::int64_t{level.tile_width_px} * level.tile_height_px > 1 << 14) continue;
    const std::int64_t columns =
        (level.width_px + level.tile_width_px - 1) / level.tile_width_px;
    const std::int64_t rows =
        (level.height_px + level.tile_height_px - 1) / level.tile_height_px;
    // The first, one in the middle and the last.
    for (const std::int64_t n :
         {std::int64_t{0}, columns * rows / 2, columns * rows - 1}) {
      if (left-- == 0) break;
      rgb.resize(static_cast<std::size_t>(level.tile_width_px) *
                 static_cast<std::size_t>(level.tile_height_px) * 3);
      answer.slide->read_tile(static_cast<int>(i), n % columns, n / columns, 1,
                              {rgb.data(), level.tile_height_px, level.tile_width_px, 3},
                              *scratch);
    }
  }
}

void read_stream(const std::shared_ptr<const ByteSource>& source,
                 std::span<const std::byte> bytes) {
  static std::vector<std::byte> stream;
  static std::vector<std::uint64_t> starts;
  const io::JpegFrameAnswer answer = io::parse_jpeg_frame(bytes);
  if (answer.kind != io::JpegFrameAnswer::Kind::kGood) return;
  const std::uint64_t begin = answer.frame.entropy_at;
  if (begin >= bytes.size()) return;
  const std::int64_t intervals = 1 + (answer.frame.restart_mcus & 15);
  io::RestartScan scan(source, begin, bytes.size(), intervals);
  for (std::int64_t first = 0; first < intervals; first += 3) {
    const std::int64_t count = std::min<std::int64_t>(2, intervals - first);
    if (!scan.find(first, count, starts)) return;
    io::begin_jpeg(answer.frame, 64, 64, true, stream);
    for (std::int64_t k = 0; k < count; ++k) {
      const auto n = static_cast<std::size_t>(k);
      io::append_interval(
          bytes.subspan(static_cast<std::size_t>(starts[n]),
                        static_cast<std::size_t>(starts[n + 1] - starts[n])),
          first + k, first + k + 1 == intervals, k, stream);
    }
    io::end_jpeg(stream);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto source = fuzz::source_of(data, size);
  try {
    if (io::TiffFile::has_magic(*source)) {
      read_file(source);
    } else {
      read_stream(source, {reinterpret_cast<const std::byte*>(data), size});
    }
  } catch (const Error&) {
  }
  return 0;
}
