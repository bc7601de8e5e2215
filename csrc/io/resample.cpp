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
/// The same sums, one lane a channel; the fourth lane carries the next pixel's red and is
/// overwritten or left out. Inlined with a constant `taps`, so that the inner loop
/// unrolls.
__attribute__((target("avx2"), always_inline)) inline void across_taps(
    const float* row, const AxisWeights& x, std::int32_t taps, std::uint8_t* out) {
  const __m256d half = _mm256_set1_pd(0x1p31);
  const __m256d scale = _mm256_set1_pd(0x1p-32);
  const __m128i low_bytes = _mm_set1_epi32(0x0C080400);
  const std::int32_t* starts = x.starts();
  const double* w = x.weights(0);
  const std::int64_t count = x.count();
  for (std::int64_t i = 0; i < count; ++i, w += taps, out += 3) {
    const float* from = row + 3 * static_cast<std::int64_t>(starts[i]);
    __m256d total = half;
    for (std::int32_t t = 0; t < taps; ++t) {
      const __m256d value = _mm256_cvtps_pd(_mm_loadu_ps(from + 3 * t));
      total = _mm256_add_pd(total, _mm256_mul_pd(value, _mm256_broadcast_sd(w + t)));
    }
    const __m128i rounded = _mm256_cvttpd_epi32(_mm256_mul_pd(total, scale));
    const int bytes = _mm_cvtsi128_si32(_mm_shuffle_epi8(rounded, low_bytes));
    std::memcpy(out, &bytes, i + 1 < count ? 4 : 3);
  }
}

__attribute__((target("avx2"))) void across_avx2(const float* row, const AxisWeights& x,
                                                 std::uint8_t* out) {
  switch (x.max_taps()) {
    case 2:
      return across_taps(row, x, 2, out);
    case 3:
      return across_taps(row, x, 3, out);
    case 4:
      return across_taps(row, x, 4, out);
    case 5:
      return across_taps(row, x, 5, out);
    case 6:
      return across_taps(row, x, 6, out);
    default:
      return across_taps(row, x, x.max_taps(), out);
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
  box_ =
      part == 0 && (whole == 1 || whole == 2 || whole == 4 || whole == 8 || whole == 16)
          ? static_cast<int>(whole)
          : 0;
  step_ = step;
  count_ = count;
  phase_ = phase;
}

void resample(ImageView<const std::uint8_t> source, const AxisWeights& x,
              const AxisWeights& y, ImageView<std::uint8_t> out,
              ResampleScratch& scratch) {
  if (source.channels != 3 || out.channels != 3 || source.width != x.source_px() ||
      source.height != y.source_px() || out.width != x.count() ||
      out.height != y.count()) {
    throw std::invalid_argument("need a source of " + std::to_string(y.source_px()) +
                                " x " + std::to_string(x.source_px()) +
                                " x 3 and an out of " + std::to_string(y.count()) +
                                " x " + std::to_string(x.count()) + " x 3");
  }
  if (x.box() == 1 && y.box() == 1) {
    for (std::int64_t j = 0; j < out.height; ++j) {
      std::memcpy(out.row(j), source.row(j), static_cast<std::size_t>(out.width) * 3);
    }
    return;
  }
  if (x.box() == y.box()) {
    switch (x.box()) {
      case 2:
        return box<2>(source, out, scratch.sums);
      case 4:
        return box<4>(source, out, scratch.sums);
      case 8:
        return box<8>(source, out, scratch.sums);
      case 16:
        return box<16>(source, out, scratch.sums);
      default:
        break;
    }
  }
  const std::int64_t length = source.width * 3;
  // Padding taps and the fourth lane read up to max_taps pixels and one value past the
  // row.
  scratch.row.assign(static_cast<std::size_t>(length + 3 * x.max_taps() + 1), 0.0F);
  for (std::int64_t j = 0; j < out.height; ++j) {
    const double* w = y.weights(j);
    const std::int32_t taps = y.taps(j);
    const std::int64_t top = y.start(j);
    float* row = scratch.row.data();
    std::int32_t done = 1;
    if (taps == 1) {
      first_rows(source.row(top), static_cast<float>(w[0]), length, row);
    } else {
      first_two_rows(source.row(top), static_cast<float>(w[0]), source.row(top + 1),
                     static_cast<float>(w[1]), length, row);
      done = 2;
    }
    for (; done < taps; ++done) {
      add_row(source.row(top + done), static_cast<float>(w[done]), length, row);
    }
    across(row, x, out.row(j));
  }
}

}  // namespace her2fast
