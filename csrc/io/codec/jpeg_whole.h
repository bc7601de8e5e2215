// SPDX-License-Identifier: Apache-2.0
/// A baseline JPEG in one plain form, for decoders that are not to guess.
///
/// What a TIFF holds apart (shared tables) or means otherwise than a decoder may think
/// (colors, by its photometric tag and not by the stream's Adobe marker or component
/// names) is put into one stream: JFIF, so YCbCr; the tables that are used, once each;
/// one frame, one scan. Whatever is missing, odd or damaged there is refused. What lies
/// within the entropy-coded bytes is not looked at, but for markers: damage there is the
/// decoder's to see.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace her2fast::io {

/// Longest side of a JPEG that libjpeg takes.
inline constexpr std::int64_t kMaxJpegSidePx = 65500;

/// Puts the plain form into `out`, replacing what is there.
/// @param tables  an abbreviated stream of tables (TIFF JPEGTables), or empty
/// @param stream  one image, whole or abbreviated; YCbCr, whatever it says itself
/// @param width_px, height_px  what it must hold, at least 1
/// @returns empty, or what is wrong, "need ..., got ..."; then `out` is undefined
/// Takes 8 bits, 3 components of 4:4:4, 4:2:2, 4:4:0 or 4:2:0, restart markers. Not
/// progressive, lossless, arithmetic or extended ones.
std::string whole_jpeg(std::span<const std::byte> tables,
                       std::span<const std::byte> stream, std::int64_t width_px,
                       std::int64_t height_px, std::vector<std::byte>& out);

}  // namespace her2fast::io
