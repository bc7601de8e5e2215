// SPDX-License-Identifier: Apache-2.0
/// Blocks of coefficients to samples, samples to RGB, to the bits of libjpeg-turbo's
/// accurate integer transform (JDCT_ISLOW) and of its color conversion. x86-64 with AVX2;
/// other machines leave these pixels to libjpeg-turbo.
///
/// The transform is two passes of a matrix of 13-bit constants, columns first, with one
/// rounding a pass. Integers are exact, so the order of the sums does not matter; every
/// intermediate fits while a block's absolute coefficients sum to at most
/// `kMaxBlockSum`.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#define HER2FAST_JPEG_AVX2
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace her2fast::io::avx2 {

#define HER2FAST_TARGET __attribute__((target("avx2,bmi2")))

/// 11363 / 2^11 times this stays below 2^15.
constexpr int kMaxBlockSum = 5900;
constexpr int kFirstShift = 11, kSecondShift = 18;

/// Constants of a pass, as two coefficients that meet in one multiply-add. Rows of the
/// matrix for samples 0 to 3; 4 to 7 mirror them with the odd part's sign turned.
struct Pair {
  std::int16_t a, b;
};
constexpr Pair kEven04[2] = {{8192, 8192}, {8192, -8192}};    // of x0, x4
constexpr Pair kEven26[2] = {{10703, 4433}, {4433, -10704}};  // of x2, x6
constexpr Pair kOdd13[4] = {
    {11363, 9633}, {9633, -2259}, {6437, -11362}, {2260, -6436}};  // of x1, x3
constexpr Pair kOdd57[4] = {
    {6437, 2260}, {-11362, -6436}, {2261, 9633}, {9633, -11363}};  // of x5, x7

HER2FAST_TARGET inline __m256i constants(Pair pair) {
  return _mm256_set1_epi32(static_cast<int>(
      static_cast<std::uint16_t>(pair.a) |
      static_cast<std::uint32_t>(static_cast<std::uint16_t>(pair.b)) << 16));
}

/// (8) pairs of two rows of 8 values.
HER2FAST_TARGET inline __m256i interleave(__m128i a, __m128i b) {
  return _mm256_set_m128i(_mm_unpackhi_epi16(a, b), _mm_unpacklo_epi16(a, b));
}

/// One pass over 8 lines at once. @param p04..p57 inputs in pairs. @param out (8) samples
template <int kShift>
HER2FAST_TARGET inline void pass_all(__m256i p04, __m256i p26, __m256i p13, __m256i p57,
                                     __m256i* out) {
  const __m256i half = _mm256_set1_epi32(1 << (kShift - 1));
  __m256i even[4];
  for (int i = 0; i < 2; ++i) {
    const __m256i a =
        _mm256_add_epi32(_mm256_madd_epi16(p04, constants(kEven04[i])), half);
    const __m256i b = _mm256_madd_epi16(p26, constants(kEven26[i]));
    even[i] = _mm256_add_epi32(a, b);
    even[3 - i] = _mm256_sub_epi32(a, b);
  }
  for (int i = 0; i < 4; ++i) {
    const __m256i odd = _mm256_add_epi32(_mm256_madd_epi16(p13, constants(kOdd13[i])),
                                         _mm256_madd_epi16(p57, constants(kOdd57[i])));
    out[i] = _mm256_srai_epi32(_mm256_add_epi32(even[i], odd), kShift);
    out[7 - i] = _mm256_srai_epi32(_mm256_sub_epi32(even[i], odd), kShift);
  }
}

/// The same where inputs 4 to 7 are 0. @param p02, p13  inputs in pairs
template <int kShift>
HER2FAST_TARGET inline void pass_low(__m256i p02, __m256i p13, __m256i* out) {
  const __m256i half = _mm256_set1_epi32(1 << (kShift - 1));
  for (int i = 0; i < 4; ++i) {
    // Of x2: rows 2 and 3 are rows 1 and 0 with the sign turned.
    const auto two = static_cast<std::int16_t>(i < 2 ? kEven26[i].a : -kEven26[3 - i].a);
    const __m256i even =
        _mm256_add_epi32(_mm256_madd_epi16(p02, constants({8192, two})), half);
    const __m256i odd = _mm256_madd_epi16(p13, constants(kOdd13[i]));
    out[i] = _mm256_srai_epi32(_mm256_add_epi32(even, odd), kShift);
    out[7 - i] = _mm256_srai_epi32(_mm256_sub_epi32(even, odd), kShift);
  }
}

/// 8 lines of 8 values of 32 bits to 4 x 2 lines of 16 bits, transposed.
/// @param in  (8) values n of lines 0 to 7. @param out (4): lines i and i + 4
HER2FAST_TARGET inline void transpose(const __m256i* in, __m256i* out) {
  __m256i a[4], b[4];
  for (int i = 0; i < 4; ++i) {
    // Low lane: values i and i + 4 of lines 0 to 3; high lane: of lines 4 to 7.
    a[i] = _mm256_packs_epi32(in[i], in[i + 4]);
  }
  // Words of a lane: (lines 0..3 of value i, lines 0..3 of value i + 4).
  b[0] = _mm256_unpacklo_epi16(a[0], a[1]);                  // value 0, 1 of lines 0 to 3
  b[1] = _mm256_unpackhi_epi16(a[0], a[1]);                  // value 4, 5
  b[2] = _mm256_unpacklo_epi16(a[2], a[3]);                  // value 2, 3
  b[3] = _mm256_unpackhi_epi16(a[2], a[3]);                  // value 6, 7
  const __m256i low01 = _mm256_unpacklo_epi32(b[0], b[2]);   // values 0..3 of lines 0, 1
  const __m256i low23 = _mm256_unpackhi_epi32(b[0], b[2]);   // of lines 2, 3
  const __m256i high01 = _mm256_unpacklo_epi32(b[1], b[3]);  // values 4..7
  const __m256i high23 = _mm256_unpackhi_epi32(b[1], b[3]);
  out[0] = _mm256_unpacklo_epi64(low01, high01);
  out[1] = _mm256_unpackhi_epi64(low01, high01);
  out[2] = _mm256_unpacklo_epi64(low23, high23);
  out[3] = _mm256_unpackhi_epi64(low23, high23);
}

HER2FAST_TARGET inline void store_line(std::int64_t line, std::uint8_t* out) {
  std::memcpy(out, &line, sizeof(line));
}

/// Rounded samples around 0 to bytes. @param in  (8) samples n of lines 0 to 7
HER2FAST_TARGET inline void store(const __m256i* in, std::uint8_t* out,
                                  std::int64_t stride) {
  __m256i lines[4];
  transpose(in, lines);
  const __m256i middle = _mm256_set1_epi8(-128);
  for (int i = 0; i < 4; i += 2) {
    const __m256i bytes =
        _mm256_xor_si256(_mm256_packs_epi16(lines[i], lines[i + 1]), middle);
    const __m128i low = _mm256_castsi256_si128(bytes),
                  high = _mm256_extracti128_si256(bytes, 1);
    store_line(_mm_cvtsi128_si64(low), out + i * stride);
    store_line(_mm_extract_epi64(low, 1), out + (i + 1) * stride);
    store_line(_mm_cvtsi128_si64(high), out + (i + 4) * stride);
    store_line(_mm_extract_epi64(high, 1), out + (i + 5) * stride);
  }
}

/// A block whose coefficients are 0 but for the first.
HER2FAST_TARGET inline void inverse_flat(int first, std::uint8_t* out,
                                         std::int64_t stride) {
  const int sample = std::min(255, std::max(0, ((first * 4 + 16) >> 5) + 128));
  const std::uint64_t line = 0x0101010101010101U * static_cast<std::uint64_t>(sample);
  for (int y = 0; y < 8; ++y) std::memcpy(out + y * stride, &line, sizeof(line));
}

HER2FAST_TARGET inline __m128i load(const std::int16_t* row) {
  return _mm_load_si128(reinterpret_cast<const __m128i*>(row));
}

/// @param block (8, 8) coefficients times quantizers, 16-byte aligned
HER2FAST_TARGET inline void inverse_all(const std::int16_t* block, std::uint8_t* out,
                                        std::int64_t stride) {
  __m256i values[8], columns[4];
  pass_all<kFirstShift>(interleave(load(block), load(block + 32)),
                        interleave(load(block + 16), load(block + 48)),
                        interleave(load(block + 8), load(block + 24)),
                        interleave(load(block + 40), load(block + 56)), values);
  // Lines of the first pass are columns; of the second, rows.
  transpose(values, columns);
  __m128i x[8];
  for (int i = 0; i < 4; ++i) {
    x[i] = _mm256_castsi256_si128(columns[i]);
    x[i + 4] = _mm256_extracti128_si256(columns[i], 1);
  }
  pass_all<kSecondShift>(interleave(x[0], x[4]), interleave(x[2], x[6]),
                         interleave(x[1], x[3]), interleave(x[5], x[7]), values);
  store(values, out, stride);
}

/// A block whose coefficients are 0 but for the first, its neighbor in the row and its
/// neighbor in the column: most blocks of color.
HER2FAST_TARGET inline void inverse_three(int first, int across, int down,
                                          std::uint8_t* out, std::int64_t stride) {
  const __m256i slope =
      _mm256_setr_epi32(kOdd13[0].a, kOdd13[1].a, kOdd13[2].a, kOdd13[3].a, -kOdd13[3].a,
                        -kOdd13[2].a, -kOdd13[1].a, -kOdd13[0].a);
  // The first column after the first pass; the second is 4 times `across` in every row.
  const __m256i column = _mm256_srai_epi32(
      _mm256_add_epi32(_mm256_mullo_epi32(slope, _mm256_set1_epi32(down)),
                       _mm256_set1_epi32(8192 * first + (1 << (kFirstShift - 1)))),
      kFirstShift);
  const __m256i even = _mm256_add_epi32(_mm256_slli_epi32(column, 13),
                                        _mm256_set1_epi32(1 << (kSecondShift - 1)));
  __m256i values[8];
  for (int i = 0; i < 4; ++i) {
    const __m256i odd = _mm256_set1_epi32(4 * across * kOdd13[i].a);
    values[i] = _mm256_srai_epi32(_mm256_add_epi32(even, odd), kSecondShift);
    values[7 - i] = _mm256_srai_epi32(_mm256_sub_epi32(even, odd), kSecondShift);
  }
  store(values, out, stride);
}

/// A block whose coefficients are 0 but for the upper left 4 x 4.
HER2FAST_TARGET inline void inverse_low(const std::int16_t* block, std::uint8_t* out,
                                        std::int64_t stride) {
  __m256i values[8];
  // Columns 4 to 7 are 0, and so are their pairs.
  const __m128i p02 = _mm_unpacklo_epi16(load(block), load(block + 16));
  const __m128i p13 = _mm_unpacklo_epi16(load(block + 8), load(block + 24));
  pass_low<kFirstShift>(_mm256_zextsi128_si256(p02), _mm256_zextsi128_si256(p13), values);
  // values[n]: sample n of columns 0 to 3. Wanted: pairs (column 0, 2) and (1, 3) by row.
  __m128i rows[4];  // two rows each: n, n + 4
  for (int n = 0; n < 4; ++n) {
    const __m128i both = _mm_packs_epi32(_mm256_castsi256_si128(values[n]),
                                         _mm256_castsi256_si128(values[n + 4]));
    // (c0, c1, c2, c3) -> (c0, c2, c1, c3)
    rows[n] = _mm_shufflehi_epi16(_mm_shufflelo_epi16(both, 0xd8), 0xd8);
  }
  // 32-bit items of rows[n]: (02 of n, 13 of n, 02 of n + 4, 13 of n + 4).
  const __m128i low01 = _mm_unpacklo_epi32(rows[0], rows[1]);
  const __m128i low23 = _mm_unpacklo_epi32(rows[2], rows[3]);
  const __m128i high01 = _mm_unpackhi_epi32(rows[0], rows[1]);
  const __m128i high23 = _mm_unpackhi_epi32(rows[2], rows[3]);
  pass_low<kSecondShift>(_mm256_set_m128i(_mm_unpacklo_epi64(high01, high23),
                                          _mm_unpacklo_epi64(low01, low23)),
                         _mm256_set_m128i(_mm_unpackhi_epi64(high01, high23),
                                          _mm_unpackhi_epi64(low01, low23)),
                         values);
  store(values, out, stride);
}

HER2FAST_TARGET inline __m256i to_words(const std::uint8_t* at) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

/// 16 words to bytes, limited to 0 and 255; packing works by lanes of 8.
HER2FAST_TARGET inline __m128i to_bytes(__m256i words) {
  return _mm256_castsi256_si128(
      _mm256_permute4x64_epi64(_mm256_packus_epi16(words, words), 0xd8));
}

/// (a * pair.a + b * pair.b) / 2^16, rounded, of the 16 pairs (a, b) in `low` and `high`.
HER2FAST_TARGET inline __m256i sixteenths(__m256i low, __m256i high, Pair pair) {
  const __m256i half = _mm256_set1_epi32(1 << 15), c = constants(pair);
  return _mm256_packs_epi32(
      _mm256_srai_epi32(_mm256_add_epi32(_mm256_madd_epi16(low, c), half), 16),
      _mm256_srai_epi32(_mm256_add_epi32(_mm256_madd_epi16(high, c), half), 16));
}

/// For each of 16 output bytes, which pixel of a channel it is; -1: another channel's.
struct Places {
  alignas(16) std::int8_t at[16];
};
constexpr Places places(int part, int channel) {
  Places out{};
  for (int i = 0; i < 16; ++i) {
    const int byte = 16 * part + i;
    out.at[i] = static_cast<std::int8_t>(byte % 3 == channel ? byte / 3 : -1);
  }
  return out;
}
constexpr Places kPlaces[3][3] = {{places(0, 0), places(0, 1), places(0, 2)},
                                  {places(1, 0), places(1, 1), places(1, 2)},
                                  {places(2, 0), places(2, 1), places(2, 2)}};

/// 16 pixels. 1.402 = 1 + 26345/2^16, 1.772 = 2 - 14942/2^16, 0.71414 = 1 - 18734/2^16,
/// 0.34414 = 22554/2^16: what is left fits in 16 bits, and the rounding is that of the
/// whole.
/// @param out (16, 3)
HER2FAST_TARGET inline void to_rgb(const std::uint8_t* y, const std::uint8_t* cb,
                                   const std::uint8_t* cr, std::uint8_t* out) {
  const __m256i middle = _mm256_set1_epi16(128);
  const __m256i luma = to_words(y);
  const __m256i blue = _mm256_sub_epi16(to_words(cb), middle);
  const __m256i red = _mm256_sub_epi16(to_words(cr), middle);
  const __m256i low = _mm256_unpacklo_epi16(blue, red);
  const __m256i high = _mm256_unpackhi_epi16(blue, red);
  const __m256i r =
      _mm256_add_epi16(_mm256_add_epi16(luma, red), sixteenths(low, high, {0, 26345}));
  const __m256i g = _mm256_add_epi16(_mm256_sub_epi16(luma, red),
                                     sixteenths(low, high, {-22554, 18734}));
  const __m256i b = _mm256_add_epi16(_mm256_add_epi16(luma, _mm256_add_epi16(blue, blue)),
                                     sixteenths(low, high, {-14942, 0}));
  const __m128i channels[3] = {to_bytes(r), to_bytes(g), to_bytes(b)};
  for (int part = 0; part < 3; ++part) {
    __m128i bytes = _mm_setzero_si128();
    for (int c = 0; c < 3; ++c) {
      const __m128i at =
          _mm_load_si128(reinterpret_cast<const __m128i*>(kPlaces[part][c].at));
      bytes = _mm_or_si128(bytes, _mm_shuffle_epi8(channels[c], at));
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * part), bytes);
  }
}

}  // namespace her2fast::io::avx2
#endif
