// SPDX-License-Identifier: Apache-2.0
/// What a JPEG rounds its frequencies to. Encoders differ in these tables more than in
/// anything else.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace her2fast::io {

/// Pixels that share one value of color: 2 x 2, 2 x 1 (across), 1.
enum class JpegChroma : std::uint8_t { k420, k422, k444 };
/// "4:2:0", "4:2:2", "4:4:4"
const char* jpeg_chroma_name(JpegChroma chroma);

/// Steps of the frequencies, row by row (not in zigzag order), 1 to 255.
struct JpegQuantization {
  std::array<std::uint16_t, 64> luma{}, chroma{};
  bool operator==(const JpegQuantization&) const = default;
};

/// libjpeg's tables of a quality of 1 to 100.
/// @throws std::runtime_error  libjpeg fails (memory)
JpegQuantization jpeg_quantization(int quality);

/// The tables in a YCbCr JPEG, or in a stream of tables alone (TIFF's JPEGTables), where
/// the first is of luma and the second of chroma. RGB-coded ones are refused where they
/// say so; TIFF's do not.
/// @param chroma  that of a JPEG; nothing where there are tables alone
/// @returns empty, or what is wrong, "need ..., got ..."; then the others are undefined
std::string read_jpeg_quantization(std::span<const std::byte> stream,
                                   JpegQuantization& out,
                                   std::optional<JpegChroma>& chroma);

/// 64 hex digits: SHA-256 of the 128 steps, luma first, each as two bytes, low one first.
std::string jpeg_quantization_sha256(const JpegQuantization& tables);

}  // namespace her2fast::io
