// SPDX-License-Identifier: Apache-2.0
#include "io/resample.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "core/hot.h"
#include "her2fast/error.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define HER2FAST_AVX2
#include <immintrin.h>
#endif

namespace her2fast {
namespace {

using Wide = __int128;

constexpr std::int64_t kOne = 65536;

Wide gcd(Wide a, Wide b) {
  while (b != 0) {
    const Wide rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

std::int64_t floor_div(Wide a, std::int64_t b) {
  const Wide quotient = a / b;
  return static_cast<std::int64_t>(a % b < 0 ? quotient - 1 : quotient);
}

/// Products are integers below 2^24 (65536 * 255), so float holds every partial sum
/// exactly.
HER2FAST_HOT void first_rows(const std::uint8_t* a, float wa, std::int64_t length,
                             float* sum) {
  for (std::int64_t x = 0; x < length; ++x) sum[x] = wa * static_cast<float>(a[x]);
}

HER2FAST_HOT void first_two_rows(const std::uint8_t* a, float wa, const std::uint8_t* b,
                                 float wb, std::int64_t length, float* sum) {
  for (std::int64_t x = 0; x < length; ++x) {
    sum[x] = wa * static_cast<float>(a[x]) + wb * static_cast<float>(b[x]);
  }
}

HER2FAST_HOT void add_row(const std::uint8_t* a, float wa, std::int64_t length,
                          float* sum) {
  for (std::int64_t x = 0; x < length; ++x) sum[x] += wa * static_cast<float>(a[x]);
}

/// Totals are integers below 2^41, exact in double whatever the order of the additions.
void across_plain(const float* row, const AxisWeights& x, std::uint8_t* out) {
  const std::int32_t taps = x.max_taps();
  for (std::int64_t i = 0; i < x.count(); ++i) {
    const float* from = row + 3 * static_cast<std::int64_t>(x.start(i));
    const double* w = x.weights(i);
    double total[3] = {0x1p31, 0x1p31, 0x1p31};
    for (std::int32_t t = 0; t < taps; ++t) {
      for (int c = 0; c < 3; ++c) total[c] += w[t] * static_cast<double>(from[3 * t + c]);
    }
    for (int c = 0; c < 3; ++c)
      out[3 * i + c] = static_cast<std::uint8_t>(total[c] * 0x1p-32);
  }
}

#ifdef HER2FAST_AVX2
/// The same sums, one lane a channel; the fourth lane carries the next pixel's red.
__attribute__((target("avx2"), always_inline)) inline int pixel_exact(const float* from,
                                                                      const double* w,
                                                                      std::int32_t taps) {
  __m256d total = _mm256_set1_pd(0x1p31);
  for (std::int32_t t = 0; t < taps; ++t) {
    const __m256d value = _mm256_cvtps_pd(_mm_loadu_ps(from + 3 * t));
    total = _mm256_add_pd(total, _mm256_mul_pd(value, _mm256_broadcast_sd(w + t)));
  }
  const __m128i rounded =
      _mm256_cvttpd_epi32(_mm256_mul_pd(total, _mm256_set1_pd(0x1p-32)));
  return _mm_cvtsi128_si32(_mm_shuffle_epi8(rounded, _mm_set1_epi32(0x0C080400)));
}

/// Two pixels at once in floats, which are right but for a known error; where a value
/// lies that near to the next integer, the two are done again exactly. Inlined with a
/// constant `taps`, so that the inner loop unrolls.
///
/// A value is at most 255.5, its products are rounded by 2^-24 of themselves and each of
/// the `taps` sums by 2^-24 of at most 256: together (taps + 1) 2^-16 at most.
__attribute__((target("avx2"), always_inline)) inline void across_pairs(
    const float* row, const AxisWeights& x, std::int32_t taps, std::uint8_t* out) {
  const __m256 half = _mm256_set1_ps(0.5F);
  const __m256 sure = _mm256_set1_ps(0.5F - static_cast<float>(taps + 1) * 0x1p-16F);
  const __m256 sign = _mm256_set1_ps(-0.0F);
  const __m256i low_bytes = _mm256_set1_epi32(0x0C080400);
  const std::int32_t* starts = x.starts();
  const float* w = x.pair_weights();
  const double* exact = x.weights(0);
  const std::int64_t count = x.count();
  std::int64_t i = 0;
  // Four bytes are written for a pixel, so the last ones of a row are not among these.
  for (; i + 2 < count; i += 2, w += 8 * taps, exact += 2 * taps, out += 6) {
    const float* first = row + 3 * static_cast<std::int64_t>(starts[i]);
    const float* second = row + 3 * static_cast<std::int64_t>(starts[i + 1]);
    __m256 value = half;
    for (std::int32_t t = 0; t < taps; ++t) {
      const __m256 both =
          _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(first + 3 * t)),
                               _mm_loadu_ps(second + 3 * t), 1);
      value = _mm256_add_ps(value, _mm256_mul_ps(both, _mm256_loadu_ps(w + 8 * t)));
    }
    const __m256i whole = _mm256_cvttps_epi32(value);
    const __m256 middle =
        _mm256_sub_ps(_mm256_sub_ps(value, _mm256_cvtepi32_ps(whole)), half);
    const __m256 unsure = _mm256_cmp_ps(_mm256_andnot_ps(sign, middle), sure, _CMP_GE_OQ);
    const __m256i bytes = _mm256_shuffle_epi8(whole, low_bytes);
    int a = _mm_cvtsi128_si32(_mm256_castsi256_si128(bytes));
    int b = _mm_cvtsi128_si32(_mm256_extracti128_si256(bytes, 1));
    if (__builtin_expect((_mm256_movemask_ps(unsure) & 0x77) != 0, 0)) {
      a = pixel_exact(first, exact, taps);
      b = pixel_exact(second, exact + taps, taps);
    }
    std::memcpy(out, &a, 4);
    std::memcpy(out + 3, &b, 4);
  }
  for (; i < count; ++i, exact += taps, out += 3) {
    const int bytes =
        pixel_exact(row + 3 * static_cast<std::int64_t>(starts[i]), exact, taps);
    std::memcpy(out, &bytes, 3);
  }
}

__attribute__((target("avx2"))) void across_avx2(const float* row, const AxisWeights& x,
                                                 std::uint8_t* out) {
  switch (x.max_taps()) {
    case 2:
      return across_pairs(row, x, 2, out);
    case 3:
      return across_pairs(row, x, 3, out);
    case 4:
      return across_pairs(row, x, 4, out);
    case 5:
      return across_pairs(row, x, 5, out);
    default:
      return across_pairs(row, x, x.max_taps(), out);
  }
}
#endif

void across(const float* row, const AxisWeights& x, std::uint8_t* out) {
#ifdef HER2FAST_AVX2
  static const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
  if (has_avx2) return across_avx2(row, x, out);
#endif
  across_plain(row, x, out);
}

HER2FAST_HOT void sum_rows(const std::uint8_t* first, std::int64_t stride, int rows,
                           std::int64_t length, std::uint16_t* sums) {
  for (std::int64_t x = 0; x < length; ++x) {
    sums[x] = static_cast<std::uint16_t>(first[x] + first[x + stride]);
  }
  for (int y = 2; y < rows; ++y) {
    const std::uint8_t* row = first + y * stride;
    for (std::int64_t x = 0; x < length; ++x)
      sums[x] = static_cast<std::uint16_t>(sums[x] + row[x]);
  }
}

/// n x n weights of (65536 / n)^2: the definition is then the mean rounded half up.
template <int n>
void box(ImageView<const std::uint8_t> source, ImageView<std::uint8_t> out,
         std::vector<std::uint16_t>& sums) {
  constexpr std::uint32_t half = n * n / 2;
  sums.resize(static_cast<std::size_t>(source.width) * 3);
  for (std::int64_t j = 0; j < out.height; ++j) {
    sum_rows(source.row(j * n), source.stride, n, source.width * 3, sums.data());
    const std::uint16_t* from = sums.data();
    std::uint8_t* to = out.row(j);
    for (std::int64_t i = 0; i < out.width; ++i, from += 3 * n, to += 3) {
      for (int c = 0; c < 3; ++c) {
        std::uint32_t total = half;
        for (int k = 0; k < n; ++k) total += from[3 * k + c];
        to[c] = static_cast<std::uint8_t>(total / (n * n));
      }
    }
  }
}

}  // namespace

AxisStep source_step(Spacing target, Spacing level0, std::int64_t down_num,
                     std::int64_t down_den, int denominator) {
  Wide num = static_cast<Wide>(target.pm) * down_den;
  Wide den = static_cast<Wide>(level0.pm) * down_num * denominator;
  const Wide common = gcd(num, den);
  num /= common;
  den /= common;
  constexpr Wide limit = Wide{1} << 62;
  if (num >= limit || den >= limit) {
    throw Error(Code::kLimitExceeded, "the spacing " + std::to_string(target.um()) +
                                          " um/px is no usable multiple of this slide's");
  }
  return {static_cast<std::int64_t>(num), static_cast<std::int64_t>(den)};
}

SourceSpan source_span(AxisStep step, std::int64_t index, std::int64_t count) {
  return {floor_div(static_cast<Wide>(index) * step.num, step.den),
          -floor_div(-static_cast<Wide>(index + count) * step.num, step.den)};
}

void AxisWeights::plan(AxisStep step, std::int64_t index, std::int64_t count) {
  const Wide begin = static_cast<Wide>(index) * step.num;
  const std::int64_t first = floor_div(begin, step.den);
  const auto phase =
      static_cast<std::int64_t>(begin - static_cast<Wide>(first) * step.den);
  if (step == step_ && phase == phase_ && count == count_) return;

  const std::int64_t whole = step.num / step.den;
  const std::int64_t part = step.num % step.den;
  // 2^17 * num must fit; a 128-bit division per weight costs as much as the decoding.
  const bool narrow = step.num < (std::int64_t{1} << 44);
  phase_ = -1;  // no half-made plan is reused if an allocation throws
  max_taps_ = static_cast<std::int32_t>(whole + 2);
  starts_.resize(static_cast<std::size_t>(count));
  counts_.resize(static_cast<std::size_t>(count));
  weights_.assign(static_cast<std::size_t>(count) * static_cast<std::size_t>(max_taps_),
                  0.0);

  // The left edge is at `at + rest / den` source pixels from `first`.
  std::int64_t at = 0;
  std::int64_t rest = phase;
  std::int32_t widest = 1;
  for (std::int64_t i = 0; i < count; ++i) {
    double* w = weights_.data() + i * max_taps_;
    starts_[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(at);
    std::int64_t share_before = 0;
    std::int32_t taps = 0;
    // Edge of source pixel at + taps, measured from the left edge, in 1/den source
    // pixels.
    for (std::int64_t edge = step.den - rest;;
         edge += step.den) {  // < 2^63: both below 2^62
      const bool last = edge >= step.num;
      std::int64_t share = kOne;
      if (!last && narrow) share = (2 * kOne * edge + step.num) / (2 * step.num);
      if (!last && !narrow) {
        share =
            static_cast<std::int64_t>((2 * kOne * static_cast<Wide>(edge) + step.num) /
                                      (2 * static_cast<Wide>(step.num)));
      }
      w[taps++] = static_cast<double>(share - share_before);
      share_before = share;
      if (last) break;
    }
    counts_[static_cast<std::size_t>(i)] = taps;
    widest = std::max(widest, taps);
    at += whole;
    rest += part;
    if (rest >= step.den) {
      rest -= step.den;
      ++at;
    }
  }
  source_px_ = at + (rest > 0 ? 1 : 0);
  if (widest < max_taps_) {  // close the rows up: fewer products for every pixel
    for (std::int64_t i = 0; i < count; ++i) {
      std::copy_n(weights_.data() + i * max_taps_, widest, weights_.data() + i * widest);
    }
    max_taps_ = widest;
  }
  pair_weights_.resize(static_cast<std::size_t>(count / 2 * max_taps_ * 8));
  float* pair = pair_weights_.data();
  for (std::int64_t i = 0; i + 1 < count; i += 2) {
    for (std::int32_t t = 0; t < max_taps_; ++t, pair += 8) {
      std::fill_n(pair, 4, static_cast<float>(weights(i)[t] * 0x1p-32));
      std::fill_n(pair + 4, 4, static_cast<float>(weights(i + 1)[t] * 0x1p-32));
    }
  }
  box_ =
      part == 0 && (whole == 1 || whole == 2 || whole == 4 || whole == 8 || whole == 16)
          ? static_cast<int>(whole)
          : 0;
  step_ = step;
  count_ = count;
  phase_ = phase;
}

std::vector<std::int32_t> AxisWeights::integer_rows() const {
  std::vector<std::int32_t> rows;
  rows.reserve(static_cast<std::size_t>(count_) *
               (2 + static_cast<std::size_t>(max_taps_)));
  for (std::int64_t i = 0; i < count_; ++i) {
    rows.push_back(start(i));
    rows.push_back(taps(i));
    const double* w = weights(i);
    for (std::int32_t t = 0; t < max_taps_; ++t) {
      rows.push_back(static_cast<std::int32_t>(w[t]));
    }
  }
  return rows;
}

namespace {

/// One row of means along y, over the source's whole width.
void down_row(const SourceTiles& source, std::int64_t top, const double* w,
              std::int32_t taps, float* row) {
  const std::size_t columns = source.x.size() - 1;
  for (std::size_t column = 0; column < columns; ++column) {
    const std::int64_t length = 3 * (source.x[column + 1] - source.x[column]);
    float* to = row + 3 * source.x[column];
    std::size_t tile_row = 0;
    const auto at = [&](std::int64_t y) {
      while (y >= source.y[tile_row + 1]) ++tile_row;
      return source.tiles[tile_row * columns + column].row(y - source.y[tile_row]);
    };
    const std::uint8_t* first = at(top);
    std::int32_t done = 1;
    if (taps == 1) {
      first_rows(first, static_cast<float>(w[0]), length, to);
    } else {
      first_two_rows(first, static_cast<float>(w[0]), at(top + 1),
                     static_cast<float>(w[1]), length, to);
      done = 2;
    }
    for (; done < taps; ++done) {
      add_row(at(top + done), static_cast<float>(w[done]), length, to);
    }
  }
}

void check_sizes(std::int64_t width, std::int64_t height, bool rgb, const AxisWeights& x,
                 const AxisWeights& y, ImageView<std::uint8_t> out) {
  if (!rgb || out.channels != 3 || width != x.source_px() || height != y.source_px() ||
      out.width != x.count() || out.height != y.count()) {
    throw std::invalid_argument("need a source of " + std::to_string(y.source_px()) +
                                " x " + std::to_string(x.source_px()) +
                                " x 3 and an out of " + std::to_string(y.count()) +
                                " x " + std::to_string(x.count()) + " x 3");
  }
}

}  // namespace

void resample(const SourceTiles& source, const AxisWeights& x, const AxisWeights& y,
              ImageView<std::uint8_t> out, ResampleScratch& scratch) {
  bool rgb = source.x.size() > 1 && source.y.size() > 1 &&
             source.tiles.size() == (source.x.size() - 1) * (source.y.size() - 1);
  for (std::size_t i = 0; rgb && i < source.tiles.size(); ++i) {
    const std::size_t column = i % (source.x.size() - 1), row = i / (source.x.size() - 1);
    rgb = source.tiles[i].channels == 3 &&
          source.tiles[i].width == source.x[column + 1] - source.x[column] &&
          source.tiles[i].height == source.y[row + 1] - source.y[row];
  }
  check_sizes(rgb ? source.x.back() : 0, rgb ? source.y.back() : 0, rgb, x, y, out);
  // Padding taps and the fourth lane read up to max_taps pixels and one value past the
  // row.
  scratch.row.assign(static_cast<std::size_t>(source.x.back() * 3 + 3 * x.max_taps() + 1),
                     0.0F);
  for (std::int64_t j = 0; j < out.height; ++j) {
    down_row(source, y.start(j), y.weights(j), y.taps(j), scratch.row.data());
    across(scratch.row.data(), x, out.row(j));
  }
}

void resample(ImageView<const std::uint8_t> source, const AxisWeights& x,
              const AxisWeights& y, ImageView<std::uint8_t> out,
              ResampleScratch& scratch) {
  check_sizes(source.width, source.height, source.channels == 3, x, y, out);
  if (is_box(x, y)) {
    switch (x.box()) {
      case 1:
        for (std::int64_t j = 0; j < out.height; ++j) {
          std::memcpy(out.row(j), source.row(j), static_cast<std::size_t>(out.width) * 3);
        }
        return;
      case 2:
        return box<2>(source, out, scratch.sums);
      case 4:
        return box<4>(source, out, scratch.sums);
      case 8:
        return box<8>(source, out, scratch.sums);
      default:
        return box<16>(source, out, scratch.sums);
    }
  }
  SourceTiles& one = scratch.one;
  one.x.assign({0, source.width});
  one.y.assign({0, source.height});
  one.tiles.assign({source});
  resample(one, x, y, out, scratch);
}

}  // namespace her2fast
