// SPDX-License-Identifier: Apache-2.0
/// Restart intervals of full color resolution, faster than libjpeg-turbo and to its bits.
///
/// Only what is sound and plain: whatever is odd, in the tables or in a stream, is
/// refused, and libjpeg-turbo says what it is. So statuses are libjpeg-turbo's alone.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "her2fast/image.h"
#include "io/codec/jpeg_restart.h"

namespace her2fast::io {

/// A Huffman code.
struct HuffmanTable {
  /// Of codes of n bits: the first number behind them, at 16 bits, and what to add to a
  /// code's number for its place among the symbols.
  std::array<std::uint32_t, 18> end{};
  std::array<std::int32_t, 18> place{};
  std::array<std::uint8_t, 256> symbols{};
  std::uint32_t block_end = 0;  ///< the code that ends a block, of as many bits
  int block_end_bits = 0;       ///< 0: it has none
};

/// What the next bits mean: a code with its value, and with the block's end where that
/// follows.
struct LookAhead {
  static constexpr int kBits = 11;
  static constexpr std::uint8_t kEnd = 128, kBitsMask = 63;
  struct Entry {
    std::int16_t value = 0;
    std::uint8_t skip = 0;  ///< places before the coefficient; `kEnd`: there is none
    std::uint8_t bits = 0;  ///< with `kEnd`: the block ends behind it. 0: not known here
  };
  std::array<Entry, 1 << kBits> entries;
};

/// What a frame's header defines. Immutable, and stays where it is.
struct FullColorTables {
  struct Codes {
    LookAhead dc_ahead, ac_ahead;
    HuffmanTable dc, ac;
  };
  struct Component {
    const Codes* codes = nullptr;
    std::array<std::uint8_t, 64> quantizers{};  ///< in the order of the stream
  };
  std::array<Codes, 3> codes;
  std::array<Component, 3> components;

  FullColorTables() = default;
  FullColorTables(const FullColorTables&) = delete;
  FullColorTables& operator=(const FullColorTables&) = delete;
};

/// @returns null where the frame is not YCbCr of full resolution with one plain set of
/// tables, or where this machine has no AVX2
std::shared_ptr<const FullColorTables> make_full_color_tables(const JpegFrame& frame);

/// One thread's buffers.
class FullColorDecoder {
 public:
  /// @param entropy  of one interval, without the marker behind it
  /// @param out  (H, W, 3): W and H are the interval's, as the header would state them
  /// @returns false where anything is odd; `out` is then undefined
  bool decode(const FullColorTables& tables, std::span<const std::byte> entropy,
              ImageView<std::uint8_t> out);

 private:
  std::vector<std::uint8_t> bytes_;  // without the zeros that follow a coded 0xff
};

}  // namespace her2fast::io
