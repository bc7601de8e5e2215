// SPDX-License-Identifier: Apache-2.0
#include "io/codec/jpeg_full_color.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "io/codec/jpeg_block_avx2.h"

namespace her2fast::io {
#ifdef HER2FAST_JPEG_AVX2
namespace {

constexpr int kBlockPx = 8, kBlockSamples = 64;
constexpr int kMaxCodeBits = 16;

unsigned byte_at(std::span<const std::byte> bytes, std::size_t i) {
  return std::to_integer<unsigned>(bytes[i]);
}

/// The code of a DHT table; nothing where it is no prefix code or names what cannot be.
std::optional<HuffmanTable> make_table(std::span<const std::byte> counts,
                                       std::span<const std::byte> symbols, bool dc) {
  HuffmanTable table;
  std::uint32_t code = 0;  // of the current length
  std::size_t place = 0;
  for (int bits = 1; bits <= kMaxCodeBits; ++bits) {
    code <<= 1;
    const auto n = static_cast<std::size_t>(bits);
    table.place[n] = static_cast<std::int32_t>(place) - static_cast<std::int32_t>(code);
    const std::size_t last = place + byte_at(counts, n - 1);
    for (; place < last; ++code, ++place) {
      if (code >= (1U << bits)) return std::nullopt;
      const unsigned symbol = byte_at(symbols, place);
      const unsigned size = symbol & 15, run = symbol >> 4;
      if (dc ? symbol > 11 : size > 10 || (size == 0 && run != 0 && run != 15)) {
        return std::nullopt;
      }
      table.symbols[place] = static_cast<std::uint8_t>(symbol);
      if (symbol == 0) {
        table.block_end = code;
        table.block_end_bits = bits;
      }
    }
    table.end[n] = code << (kMaxCodeBits - bits);
  }
  table.end[kMaxCodeBits + 1] = 1U << kMaxCodeBits;  // no code: found here
  return table;
}

/// `size` bits that stand for a value: the lower half for negative ones.
int extend(unsigned value, int size) {
  if (size == 0 || value >> (size - 1) != 0) return static_cast<int>(value);
  return static_cast<int>(value) - (1 << size) + 1;
}

/// @param ac  the code of the coefficients: where it equals `table`, symbols have runs
void look_ahead(const HuffmanTable& table, const HuffmanTable& ac, LookAhead& out) {
  constexpr int kBits = LookAhead::kBits;
  for (unsigned i = 0; i < out.entries.size(); ++i) {
    LookAhead::Entry& entry = out.entries[i];
    entry = {};
    const std::uint32_t next = i << (kMaxCodeBits - kBits);
    int length = 1;
    while (next >= table.end[static_cast<std::size_t>(length)]) ++length;
    if (length > kBits) continue;
    const auto code = static_cast<std::int32_t>(i >> (kBits - length));
    const unsigned symbol = table.symbols[static_cast<std::size_t>(
        code + table.place[static_cast<std::size_t>(length)])];
    const int size = static_cast<int>(symbol & 15), bits = length + size;
    if (bits > kBits) continue;
    const int left = kBits - bits;
    entry.bits = static_cast<std::uint8_t>(bits);
    if (&table == &ac && symbol == 0) {
      entry.skip = LookAhead::kEnd;
      continue;
    }
    entry.skip = static_cast<std::uint8_t>(symbol >> 4);
    entry.value = static_cast<std::int16_t>(extend(i >> left & ((1U << size) - 1), size));
    const int after = left - ac.block_end_bits;
    if (ac.block_end_bits > 0 && after >= 0 &&
        (i >> after & ((1U << ac.block_end_bits) - 1)) == ac.block_end) {
      entry.bits =
          static_cast<std::uint8_t>((bits + ac.block_end_bits) | LookAhead::kEnd);
    }
  }
}

/// What the segments of a header define, by slot.
struct Definitions {
  std::array<std::optional<HuffmanTable>, 4> dc, ac;
  std::array<std::optional<std::array<std::uint8_t, kBlockSamples>>, 4> quantizers;
};

bool read_huffman(std::span<const std::byte> body, Definitions& out) {
  while (!body.empty()) {
    if (body.size() < 17) return false;
    const unsigned kind = byte_at(body, 0) >> 4, slot = byte_at(body, 0) & 15;
    std::size_t count = 0;
    for (std::size_t i = 1; i <= 16; ++i) count += byte_at(body, i);
    if (kind > 1 || slot > 3 || count > 256 || body.size() < 17 + count) return false;
    auto table = make_table(body.subspan(1, 16), body.subspan(17, count), kind == 0);
    if (!table) return false;
    (kind == 0 ? out.dc : out.ac)[slot] = *table;
    body = body.subspan(17 + count);
  }
  return true;
}

bool read_quantizers(std::span<const std::byte> body, Definitions& out) {
  while (!body.empty()) {
    const unsigned precision = byte_at(body, 0) >> 4, slot = byte_at(body, 0) & 15;
    if (precision != 0 || slot > 3 || body.size() < 1 + kBlockSamples) return false;
    auto& steps = out.quantizers[slot].emplace();
    for (std::size_t i = 0; i < kBlockSamples; ++i) {
      steps[i] = static_cast<std::uint8_t>(byte_at(body, 1 + i));
      if (steps[i] == 0) return false;
    }
    body = body.subspan(1 + kBlockSamples);
  }
  return true;
}

/// From a coefficient's place in the stream to its place in the block.
constexpr std::array<std::uint8_t, kBlockSamples> make_zigzag() {
  std::array<std::uint8_t, kBlockSamples> out{};
  int x = 0, y = 0;
  for (std::size_t k = 0; k < kBlockSamples; ++k) {
    out[k] = static_cast<std::uint8_t>(8 * y + x);
    const bool up = (x + y) % 2 == 0;
    if (up ? x == 7 : y == 7) {
      ++(up ? y : x);
    } else if (up ? y == 0 : x == 0) {
      ++(up ? x : y);
    } else {
      x += up ? 1 : -1;
      y += up ? -1 : 1;
    }
  }
  return out;
}
constexpr auto kZigzag = make_zigzag();
// The first three places are those of x + y < 2, the first ten those of x + y < 4.
constexpr int kThreeEnd = 3, kLowEnd = 10;

/// Bits of a stream, most significant first. Reads up to 8 bytes behind `next`.
struct Bits {
  const std::uint8_t* next;
  std::uint64_t window = 0;  // the next bits, at its upper end
  int count = 0;             // of valid bits in it

  HER2FAST_TARGET inline void refill() {
    std::uint64_t more;
    std::memcpy(&more, next, sizeof(more));
    window |= __builtin_bswap64(more) >> count;
    next += (63 - count) >> 3;
    count |= 56;
  }
  HER2FAST_TARGET inline void skip(int bits) {
    window <<= bits;
    count -= bits;
  }
  /// Undoes the last `bits` that were skipped.
  HER2FAST_TARGET inline void give_back(int bits) {
    const int before = count + bits;  // bits from here to `next`
    const int bytes = (before + 7) / 8;
    next -= bytes;
    count = 0;
    window = 0;
    refill();
    skip(8 * bytes - before);
  }
};

/// A code with its value where the look-ahead does not hold both. At most 27 bits.
struct LongCode {
  Bits bits;  // behind it
  int symbol = -1, value = 0;
};
HER2FAST_TARGET __attribute__((noinline)) LongCode take_long(Bits bits,
                                                             const HuffmanTable& table) {
  const auto next = static_cast<std::uint32_t>(bits.window >> (64 - kMaxCodeBits));
  std::size_t length = 1;
  while (next >= table.end[length]) ++length;
  if (length > kMaxCodeBits) return {bits};
  const auto code = static_cast<std::int32_t>(next >> (kMaxCodeBits - length));
  const int symbol = table.symbols[static_cast<std::size_t>(code + table.place[length])];
  bits.skip(static_cast<int>(length));
  const int size = symbol & 15;
  if (size == 0) return {bits, symbol, 0};
  const int value = extend(static_cast<unsigned>(bits.window >> (64 - size)), size);
  bits.skip(size);
  return {bits, symbol, value};
}

/// @param stream  copied meanwhile: it would be written back with every code
/// @param dc  of the block before, and then of this one
/// @param block  zeros but for the first. @param end  behind the last place filled
HER2FAST_TARGET inline bool take_block(Bits& stream,
                                       const FullColorTables::Component& tables, int& dc,
                                       std::int16_t* block, int& end) {
  constexpr int kShift = 64 - LookAhead::kBits;
  const FullColorTables::Codes& codes = *tables.codes;
  Bits bits = stream;
  // Most blocks need no more than this; whether they do is guessed rightly then.
  bits.refill();
  LookAhead::Entry entry = codes.dc_ahead.entries[bits.window >> kShift];
  int value = entry.value;
  if (entry.bits != 0) [[likely]] {
    bits.skip(entry.bits & LookAhead::kBitsMask);
  } else {
    const LongCode code = take_long(bits, codes.dc);
    if (code.symbol < 0) return false;
    bits = code.bits;
    value = code.value;
  }
  dc += value;
  // Wherever it is too large, it leaves the range that all of a block may have.
  if (std::abs(dc) > avx2::kMaxBlockSum) return false;
  int coefficient = dc * tables.quantizers[0];
  block[0] = static_cast<std::int16_t>(coefficient);
  int sum = std::abs(coefficient);
  int k = 1;
  while ((entry.bits & LookAhead::kEnd) == 0 && k < kBlockSamples) {
    if (bits.count < 32) bits.refill();
    entry = codes.ac_ahead.entries[bits.window >> kShift];
    int skip = entry.skip;
    value = entry.value;
    if (entry.bits != 0) [[likely]] {
      bits.skip(entry.bits & LookAhead::kBitsMask);
    } else {
      const LongCode code = take_long(bits, codes.ac);
      if (code.symbol < 0) return false;
      bits = code.bits;
      value = code.value;
      skip = code.symbol == 0 ? LookAhead::kEnd : code.symbol >> 4;
    }
    if (skip == LookAhead::kEnd) break;
    k += skip;
    if (k >= kBlockSamples) return false;
    coefficient = value * tables.quantizers[static_cast<std::size_t>(k)];
    block[kZigzag[static_cast<std::size_t>(k)]] = static_cast<std::int16_t>(coefficient);
    sum += std::abs(coefficient);
    ++k;
  }
  if (k == kBlockSamples && (entry.bits & LookAhead::kEnd) != 0) {
    // Behind the last place stands no end: what looked like it begins the next block.
    bits.give_back(codes.ac.block_end_bits);
  }
  stream = bits;
  end = k;
  return sum <= avx2::kMaxBlockSum;
}

// MCUs decoded before their colors are converted: 3 x 4 KiB stay in the first cache.
constexpr std::int64_t kChunkPx = 64 * kBlockPx;
// A block takes at most 64 codes of 27 bits; where they lie is checked after each MCU.
// The window reaches 8 bytes beyond them before and after it, and is read by 8 bytes.
constexpr std::size_t kSlackBytes = 3 * kBlockSamples * 27 / 8 + 3 * 8;

HER2FAST_TARGET bool decode_all(const FullColorTables& tables, Bits& bits,
                                const std::uint8_t* end, ImageView<std::uint8_t> out) {
  alignas(32) std::int16_t block[kBlockSamples] = {};
  alignas(32) std::uint8_t planes[3][kBlockPx][kChunkPx];
  int dc[3] = {};
  for (std::int64_t y = 0; y < out.height; y += kBlockPx) {
    for (std::int64_t x = 0; x < out.width; x += kChunkPx) {
      const std::int64_t width = std::min(kChunkPx, out.width - x);
      for (std::int64_t left = 0; left < width; left += kBlockPx) {
        for (std::size_t c = 0; c < 3; ++c) {
          int filled = 0;
          if (!take_block(bits, tables.components[c], dc[c], block, filled)) return false;
          std::uint8_t* to = &planes[c][0][left];
          if (filled == 1) {
            avx2::inverse_flat(block[0], to, kChunkPx);
            continue;
          }
          if (filled <= kThreeEnd) {
            avx2::inverse_three(block[0], block[1], block[8], to, kChunkPx);
            block[1] = block[8] = 0;
            continue;
          }
          (filled <= kLowEnd ? avx2::inverse_low : avx2::inverse_all)(block, to,
                                                                      kChunkPx);
          std::memset(block, 0, sizeof(block));
        }
        if (bits.next > end + 8) return false;
      }
      const std::int64_t rows = std::min<std::int64_t>(kBlockPx, out.height - y);
      for (std::int64_t row = 0; row < rows; ++row) {
        std::uint8_t* to = out.row(y + row) + 3 * x;
        std::int64_t i = 0;
        for (; i + 16 <= width; i += 16) {
          avx2::to_rgb(&planes[0][row][i], &planes[1][row][i], &planes[2][row][i],
                       to + 3 * i);
        }
        if (i == width) continue;
        std::uint8_t last[48];
        avx2::to_rgb(&planes[0][row][i], &planes[1][row][i], &planes[2][row][i], last);
        std::memcpy(to + 3 * i, last, static_cast<std::size_t>(3 * (width - i)));
      }
    }
  }
  return true;
}

bool has_avx2() {
  return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("bmi2") != 0;
}

}  // namespace
#endif

std::shared_ptr<const FullColorTables> make_full_color_tables(const JpegFrame& frame) {
#ifdef HER2FAST_JPEG_AVX2
  if (!has_avx2() || !frame.full_color) return nullptr;
  constexpr unsigned kDht = 0xc4, kDqt = 0xdb, kSof0 = 0xc0, kSof1 = 0xc1, kDri = 0xdd,
                     kSos = 0xda;
  Definitions definitions;
  unsigned ids[3] = {}, quantizers[3] = {};
  const std::span<const std::byte> header(frame.header);
  // Each segment is whole: the header was put together from whole ones.
  for (std::size_t at = 2; at < header.size();) {
    const unsigned marker = byte_at(header, at + 1);
    const std::size_t size = byte_at(header, at + 2) << 8 | byte_at(header, at + 3);
    const auto body = header.subspan(at + 4, size - 2);
    at += 2 + size;
    if (marker == kDht) {
      if (!read_huffman(body, definitions)) return nullptr;
    } else if (marker == kDqt) {
      if (!read_quantizers(body, definitions)) return nullptr;
    } else if (marker == kSof0 || marker == kSof1) {
      for (std::size_t c = 0; c < 3; ++c) {
        ids[c] = byte_at(body, 6 + 3 * c);
        quantizers[c] = byte_at(body, 8 + 3 * c);
      }
    } else if (marker == kSos) {
      // Three components in the frame's order, all coefficients in one scan.
      if (at != header.size() || body.size() != 10 || byte_at(body, 7) != 0 ||
          byte_at(body, 8) != 63 || byte_at(body, 9) != 0 || ids[0] == ids[1] ||
          ids[0] == ids[2] || ids[1] == ids[2]) {
        return nullptr;
      }
      auto tables = std::make_shared<FullColorTables>();
      for (std::size_t c = 0; c < 3; ++c) {
        const unsigned slots = byte_at(body, 2 + 2 * c);
        const unsigned dc = slots >> 4, ac = slots & 15;
        if (byte_at(body, 1 + 2 * c) != ids[c] || dc > 3 || ac > 3 || quantizers[c] > 3 ||
            !definitions.dc[dc] || !definitions.ac[ac] ||
            !definitions.quantizers[quantizers[c]]) {
          return nullptr;
        }
        FullColorTables::Component& component = tables->components[c];
        component.quantizers = *definitions.quantizers[quantizers[c]];
        // Both chroma components mostly share one pair, and so a place in the cache.
        std::size_t same = 0;
        while (byte_at(body, 2 + 2 * same) != slots) ++same;
        FullColorTables::Codes& codes = tables->codes[same];
        component.codes = &codes;
        if (same != c) continue;
        codes.dc = *definitions.dc[dc];
        codes.ac = *definitions.ac[ac];
        look_ahead(codes.dc, codes.ac, codes.dc_ahead);
        look_ahead(codes.ac, codes.ac, codes.ac_ahead);
      }
      return tables;
    } else if (marker != kDri) {
      return nullptr;
    }
  }
#else
  (void)frame;
#endif
  return nullptr;
}

bool FullColorDecoder::decode(const FullColorTables& tables,
                              std::span<const std::byte> entropy,
                              ImageView<std::uint8_t> out) {
#ifdef HER2FAST_JPEG_AVX2
  if (bytes_.size() < entropy.size() + kSlackBytes) {
    bytes_.resize(entropy.size() + kSlackBytes);
  }
  const auto* from = reinterpret_cast<const std::uint8_t*>(entropy.data());
  const std::uint8_t* const stop = from + entropy.size();
  std::uint8_t* to = bytes_.data();
  while (from < stop) {
    const auto left = static_cast<std::size_t>(stop - from);
    const void* found = std::memchr(from, 0xff, left);
    const std::size_t plain =
        found == nullptr
            ? left
            : static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - from) +
                  1;
    std::memcpy(to, from, plain);
    to += plain;
    from += plain;
    if (found == nullptr) break;
    if (from == stop || *from != 0) return false;  // a marker
    ++from;
  }
  std::memset(to, 0, kSlackBytes);
  Bits bits{bytes_.data()};
  if (!decode_all(tables, bits, to, out)) return false;
  // Exactly these bytes: libjpeg-turbo warns of what is left, and of what is missing.
  const std::int64_t taken = 8 * (bits.next - bytes_.data()) - bits.count;
  const std::int64_t all = 8 * (to - bytes_.data());
  return taken <= all && all - taken < 8;
#else
  (void)tables, (void)entropy, (void)out;
  return false;
#endif
}

}  // namespace her2fast::io
