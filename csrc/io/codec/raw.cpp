// SPDX-License-Identifier: Apache-2.0
#include "io/codec/raw.h"

#include <zlib.h>

#include <cstring>
#include <new>

namespace her2fast::io {
namespace {

/// Inflates into the rows of a view, which may be wider apart than they are long.
bool inflate_rows(z_stream& stream, ImageView<std::uint8_t> out, bool& ended) {
  for (std::int64_t y = 0; y < out.height; ++y) {
    stream.next_out = out.row(y);
    stream.avail_out = static_cast<uInt>(out.width * out.channels);
    while (stream.avail_out > 0) {
      if (ended) return false;
      const int result = inflate(&stream, Z_NO_FLUSH);
      if (result == Z_STREAM_END) {
        ended = true;
      } else if (result != Z_OK) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace

TileStatus decode_uncompressed(std::span<const std::byte> bytes,
                               ImageView<std::uint8_t> out) {
  const auto row_bytes = static_cast<std::size_t>(out.width * out.channels);
  if (bytes.size() < row_bytes * static_cast<std::size_t>(out.height)) {
    return TileStatus::kCorrupt;
  }
  for (std::int64_t y = 0; y < out.height; ++y) {
    std::memcpy(out.row(y), bytes.data() + static_cast<std::size_t>(y) * row_bytes,
                row_bytes);
  }
  return TileStatus::kOk;
}

struct InflateDecoder::State {
  z_stream stream{};
};

InflateDecoder::InflateDecoder() : state_(std::make_unique<State>()) {
  if (inflateInit(&state_->stream) != Z_OK) throw std::bad_alloc();
}

InflateDecoder::~InflateDecoder() { inflateEnd(&state_->stream); }

TileStatus InflateDecoder::decode(std::span<const std::byte> bytes,
                                  bool horizontal_difference,
                                  ImageView<std::uint8_t> out) {
  z_stream& stream = state_->stream;
  if (inflateReset(&stream) != Z_OK) return TileStatus::kCorrupt;
  // zlib takes a non-const pointer but never writes through it.
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  bool ended = false;
  bool good = inflate_rows(stream, out, ended);
  bool more_pixels = false;
  if (good && !ended) {
    // The checksum is verified only when the stream is read to its end.
    Bytef beyond = 0;
    stream.next_out = &beyond;
    stream.avail_out = 1;
    const int result = inflate(&stream, Z_FINISH);
    more_pixels = stream.avail_out == 0;
    good = more_pixels || result == Z_STREAM_END;
  }
  if (!good) return TileStatus::kCorrupt;
  if (horizontal_difference) {
    const std::int64_t row_bytes = out.width * out.channels;
    for (std::int64_t y = 0; y < out.height; ++y) {
      std::uint8_t* row = out.row(y);
      for (std::int64_t i = out.channels; i < row_bytes; ++i) {
        row[i] = static_cast<std::uint8_t>(row[i] + row[i - out.channels]);
      }
    }
  }
  return more_pixels ? TileStatus::kWarned : TileStatus::kOk;
}

}  // namespace her2fast::io
