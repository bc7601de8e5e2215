// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "kernels/check.h"
#include "kernels/membrane_tile.h"

namespace her2fast {
namespace {

constexpr std::int64_t kMaxTilePx = 8192;
/// Correction of a band's two ends (decisions.md K10).
constexpr double kBandEnd = 1.732;

using Word = std::uint64_t;

/// Rows of bits with one spare word each, so that a shift may look one word ahead.
struct BitRows {
  std::int64_t words;
  std::vector<Word> bits;

  const Word* row(std::int64_t y) const { return bits.data() + y * (words + 1); }
  Word* row(std::int64_t y) { return bits.data() + y * (words + 1); }
};

/// 64 bytes to 64 bits: bit i is set where byte i is not 0. No branch: whether a byte is
/// set is chance.
#if defined(__SSE2__)
Word pack_word(const std::uint8_t* bytes) {
  const __m128i zero = _mm_setzero_si128();
  Word gaps = 0;
  for (int k = 0; k < 4; ++k) {
    const auto* at = reinterpret_cast<const __m128i*>(bytes + 16 * k);
    const int mask = _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128(at), zero));
    gaps |= static_cast<Word>(static_cast<std::uint32_t>(mask)) << (16 * k);
  }
  return ~gaps;
}
#else
Word pack_word(const std::uint8_t* bytes) {
  Word word = 0;
  for (int k = 0; k < 64; ++k) word |= Word{bytes[k] != 0} << k;
  return word;
}
#endif

BitRows pack(const ImageView<const std::uint8_t>& mask) {
  BitRows out{(mask.width + 63) / 64, {}};
  out.bits.resize(static_cast<std::size_t>(mask.height * (out.words + 1)));
  for (std::int64_t y = 0; y < mask.height; ++y) {
    const std::uint8_t* in = mask.row(y);
    Word* row = out.row(y);
    std::int64_t x = 0;
    for (; x + 64 <= mask.width; x += 64) row[x / 64] = pack_word(in + x);
    for (; x < mask.width; ++x) row[x / 64] |= Word{in[x] != 0} << (x % 64);
  }
  return out;
}

/// Runs of one kind, row by row; `label` is the number of the run's component.
struct Runs {
  std::vector<std::int32_t> start, end, label, row;
  std::vector<std::int32_t> row_first;  ///< height + 1
  std::int32_t components = 0;

  void add(std::int32_t from, std::int32_t to, std::int32_t y) {
    start.push_back(from);
    end.push_back(to);
    row.push_back(y);
  }
  std::size_t count() const { return start.size(); }
};

void split_rows(const BitRows& bits, std::int32_t height, std::int32_t width, Runs& mask,
                Runs& gaps) {
  for (std::int32_t y = 0; y < height; ++y) {
    mask.row_first.push_back(static_cast<std::int32_t>(mask.count()));
    gaps.row_first.push_back(static_cast<std::int32_t>(gaps.count()));
    const Word* row = bits.row(y);
    Word carry = 0;
    std::int32_t from = 0;  // of the run that is open
    bool inside = false;
    for (std::int64_t w = 0; w < bits.words; ++w) {
      Word turns = row[w] ^ ((row[w] << 1) | carry);
      carry = row[w] >> 63;
      while (turns != 0) {
        const auto at = static_cast<std::int32_t>(64 * w + std::countr_zero(turns));
        turns &= turns - 1;
        if (at >= width) break;  // the end of a run that ends with the row
        if (at > from) (inside ? mask : gaps).add(from, at, y);
        inside = !inside;
        from = at;
      }
    }
    (inside ? mask : gaps).add(from, width, y);
  }
  mask.row_first.push_back(static_cast<std::int32_t>(mask.count()));
  gaps.row_first.push_back(static_cast<std::int32_t>(gaps.count()));
}

std::int32_t find(std::vector<std::int32_t>& parent, std::int32_t i) {
  while (parent[i] != i) {
    parent[i] = parent[parent[i]];
    i = parent[i];
  }
  return i;
}

/// Number the components, in the order of their first runs.
/// @param reach  0: runs join where columns overlap; 1: diagonally too.
void connect(Runs& runs, std::int32_t reach) {
  std::vector<std::int32_t> parent;
  runs.label.resize(runs.count());
  for (std::size_t y = 0; y + 1 < runs.row_first.size(); ++y) {
    std::int32_t above = y == 0 ? 0 : runs.row_first[y - 1];
    const std::int32_t above_end = y == 0 ? 0 : runs.row_first[y];
    for (std::int32_t j = runs.row_first[y]; j < runs.row_first[y + 1]; ++j) {
      const std::int32_t from = runs.start[j] - reach, to = runs.end[j] + reach;
      while (above < above_end && runs.end[above] <= from) ++above;
      std::int32_t label = -1;
      for (std::int32_t i = above; i < above_end && runs.start[i] < to; ++i) {
        const std::int32_t other = find(parent, runs.label[i]);
        if (label < 0) {
          label = other;
        } else if (label != other) {  // the older one stays
          const auto [old, young] = std::minmax(label, other);
          parent[young] = old;
          label = old;
        }
      }
      if (label < 0) {
        label = static_cast<std::int32_t>(parent.size());
        parent.push_back(label);
      }
      runs.label[j] = label;
    }
  }
  std::vector<std::int32_t> number(parent.size());
  for (std::size_t i = 0; i < parent.size(); ++i) {
    const std::int32_t up = parent[i];
    number[i] = up == static_cast<std::int32_t>(i) ? runs.components++ : number[up];
  }
  for (std::int32_t& label : runs.label) label = number[label];
}

/// Windows of two rows by kind: bit x stands for columns x and x + 1.
struct WindowWord {
  Word one, three, straight, across, upper;

  WindowWord(Word a, Word b, Word c, Word d) {
    const Word odd = a ^ b ^ c ^ d;
    const Word pair = (a & b) | (c & d) | ((a | b) & (c | d));
    across = (a & d & ~b & ~c) | (b & c & ~a & ~d);
    one = odd & ~pair;
    three = odd & pair;
    straight = ~odd & pair & ~across & ~(a & b & c & d);
    upper = a | b;
  }
};

/// The processor's own bit count where it has one: without it this is a third of all.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
#define HER2FAST_COUNTS_BITS __attribute__((target_clones("popcnt", "default")))
#else
#define HER2FAST_COUNTS_BITS
#endif

/// Add the windows of columns [from, to] to a membrane.
/// @param lower  only those without a pixel in the upper row, which owns the others.
HER2FAST_COUNTS_BITS void add_windows(const WindowWord* row, std::int32_t from,
                                      std::int32_t to, bool lower, WindowCounts& sum) {
  for (std::int32_t w = from / 64; w <= to / 64; ++w) {
    const WindowWord& word = row[w];
    Word chosen = ~Word{0};
    if (w == from / 64) chosen <<= from % 64;
    if (w == to / 64) chosen &= ~Word{0} >> (63 - to % 64);
    if (lower) chosen &= ~word.upper;
    const std::int64_t one = std::popcount(word.one & chosen);
    const std::int64_t other =
        std::popcount(word.three & chosen) + 2 * std::popcount(word.across & chosen);
    sum.straight += std::popcount(word.straight & chosen);
    sum.diagonal += one + other;
    sum.euler4 += one - other;
  }
}

/// Windows that lie within the tile; the seams' come with the neighbors.
void count_windows(const BitRows& bits, const Runs& runs, std::int32_t width,
                   std::vector<MembraneSums>& sums) {
  std::vector<WindowWord> windows;
  const auto count_row = [&](std::size_t y, bool lower) {
    for (std::int32_t j = runs.row_first[y]; j < runs.row_first[y + 1]; ++j) {
      const std::int32_t from = std::max(runs.start[j] - 1, 0);
      const std::int32_t to = std::min(runs.end[j] - 1, width - 2);
      if (from > to) continue;
      add_windows(windows.data(), from, to, lower, sums[runs.label[j]].windows);
    }
  };
  for (std::size_t y = 0; y + 2 < runs.row_first.size(); ++y) {
    if (runs.row_first[y] == runs.row_first[y + 2]) continue;
    const Word* top = bits.row(static_cast<std::int64_t>(y));
    const Word* bottom = bits.row(static_cast<std::int64_t>(y) + 1);
    windows.clear();
    for (std::int64_t w = 0; w < bits.words; ++w) {
      windows.emplace_back(top[w], (top[w] >> 1) | (top[w + 1] << 63), bottom[w],
                           (bottom[w] >> 1) | (bottom[w + 1] << 63));
    }
    count_row(y, false);
    count_row(y + 1, true);
  }
}

/// Sums of every component, and whether it reaches the tile's border.
template <typename Sums>
std::vector<Sums> sum_runs(const Runs& runs, std::int32_t width,
                           std::vector<bool>& on_border) {
  std::vector<Sums> sums(static_cast<std::size_t>(runs.components));
  on_border.assign(sums.size(), false);
  const auto height = static_cast<std::int32_t>(runs.row_first.size()) - 1;
  for (std::int32_t y = 0; y < height; ++y) {
    for (std::int32_t j = runs.row_first[y]; j < runs.row_first[y + 1]; ++j) {
      const std::int32_t from = runs.start[j], to = runs.end[j];
      Sums& sum = sums[runs.label[j]];
      const PixelBox box{from, y, to, y + 1};
      if (sum.px == 0) {
        sum.first = pixel_key(y, from);
        sum.box = box;
      } else {
        sum.box = unite(sum.box, box);
      }
      sum.px += to - from;
      if (y == 0 || y == height - 1 || from == 0 || to == width) {
        on_border[runs.label[j]] = true;
      }
    }
  }
  return sums;
}

/// Runs of each component together: offsets into `order`, which holds runs.
void group_runs(const Runs& runs, std::vector<std::int32_t>& offset,
                std::vector<std::int32_t>& order) {
  offset.assign(static_cast<std::size_t>(runs.components) + 1, 0);
  for (const std::int32_t label : runs.label) ++offset[label + 1];
  for (std::size_t c = 1; c < offset.size(); ++c) offset[c] += offset[c - 1];
  std::vector<std::int32_t> next(offset.begin(), offset.end() - 1);
  order.resize(runs.count());
  for (std::size_t j = 0; j < runs.count(); ++j) {
    order[next[runs.label[j]]++] = static_cast<std::int32_t>(j);
  }
}

std::int32_t label_at(const Runs& runs, std::int32_t y, std::int32_t x) {
  const auto begin = runs.start.begin() + runs.row_first[y];
  const auto end = runs.start.begin() + runs.row_first[y + 1];
  const auto run = std::upper_bound(begin, end, x) - 1;
  return runs.label[run - runs.start.begin()];
}

/// Count each nucleus in the gap that holds it.
void count_nuclei(const Runs& gap_runs, const std::vector<PixelPoint>& nuclei,
                  std::int32_t height, std::int32_t width, std::vector<GapSums>& gaps) {
  for (const PixelPoint& nucleus : nuclei) {
    const auto [x, y] = nucleus;
    if (x < 0 || y < 0 || x >= width || y >= height) {
      throw std::invalid_argument("need nuclei within " + std::to_string(width) + " x " +
                                  std::to_string(height) + " pixels, got one at (" +
                                  std::to_string(x) + ", " + std::to_string(y) + ")");
    }
    const auto begin = gap_runs.start.begin() + gap_runs.row_first[y];
    const auto end = gap_runs.start.begin() + gap_runs.row_first[y + 1];
    const auto after = std::upper_bound(begin, end, x);
    if (after == begin) continue;  // on membrane, as below
    const auto run = after - 1 - gap_runs.start.begin();
    if (x < gap_runs.end[run]) ++gaps[gap_runs.label[run]].nuclei;
  }
}

/// Labels along a side: i for open membrane i, ~i for gap i of the border.
struct SideWriter {
  const std::vector<std::int32_t>& mask_index;
  const std::vector<std::int32_t>& gap_index;

  void row(const Runs& mask, const Runs& gaps, std::int32_t y,
           std::vector<std::int32_t>& out) const {
    for (std::int32_t j = mask.row_first[y]; j < mask.row_first[y + 1]; ++j) {
      std::fill(out.begin() + mask.start[j], out.begin() + mask.end[j],
                mask_index[mask.label[j]]);
    }
    for (std::int32_t j = gaps.row_first[y]; j < gaps.row_first[y + 1]; ++j) {
      std::fill(out.begin() + gaps.start[j], out.begin() + gaps.end[j],
                ~gap_index[gaps.label[j]]);
    }
  }
  void column(const Runs& mask, const Runs& gaps, bool last, std::int32_t width,
              std::vector<std::int32_t>& out) const {
    for (std::size_t y = 0; y < out.size(); ++y) {
      const auto pick = [&](const Runs& runs) {
        const std::int32_t from = runs.row_first[y], to = runs.row_first[y + 1];
        if (from == to) return -1;
        if (last) return runs.end[to - 1] == width ? runs.label[to - 1] : -1;
        return runs.start[from] == 0 ? runs.label[from] : -1;
      };
      const std::int32_t label = pick(mask);
      out[y] = label >= 0 ? mask_index[label] : ~gap_index[pick(gaps)];
    }
  }
};

/// Number those that are chosen, in order; -1 for the rest.
std::vector<std::int32_t> number_chosen(const std::vector<bool>& chosen) {
  std::vector<std::int32_t> out(chosen.size(), -1);
  std::int32_t next = 0;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    if (chosen[i]) out[i] = next++;
  }
  return out;
}

struct Enclosed {
  std::int64_t compartments = 0, px = 0;
};

void check(const ImageView<const std::uint8_t>& mask,
           const ImageView<const std::uint8_t>& density) {
  if (mask.height < 1 || mask.width < 1 || mask.height > kMaxTilePx ||
      mask.width > kMaxTilePx) {
    throw std::invalid_argument("need a tile of 1 to " + std::to_string(kMaxTilePx) +
                                " pixels a side, got " + std::to_string(mask.height) +
                                " x " + std::to_string(mask.width));
  }
  check_channels(mask, 1, "a mask");
  if (density.data != nullptr) {
    check_same_size(mask, density, "a density");
    check_channels(density, 1, "a density");
  }
}

}  // namespace

Membrane describe_membrane(const MembraneSums& sums, const DensityHistogram* histogram,
                           std::int64_t compartments, std::int64_t enclosed_px) {
  Membrane out{};
  out.x = key_x(sums.first);
  out.y = key_y(sums.first);
  out.box = sums.box;
  out.px = sums.px;
  out.compartments = static_cast<std::int32_t>(compartments);
  out.enclosed_px = enclosed_px;
  out.closed = compartments > 0;
  const auto area = static_cast<double>(sums.px);
  const double euler = static_cast<double>(sums.windows.euler4) / 4.0;
  out.perimeter_px = static_cast<double>(sums.windows.straight) +
                     static_cast<double>(sums.windows.diagonal) * std::sqrt(0.5);
  // L = P / 2 - 1.732 * euler * (A / L), solved for L; a blob has no such length.
  const double half = out.perimeter_px / 2.0;
  const double discriminant = half * half - 4.0 * kBandEnd * euler * area;
  out.length_px = discriminant < 0.0 ? half / 2.0 : (half + std::sqrt(discriminant)) / 2;
  out.width_px = area / out.length_px;
  const double nothing = std::numeric_limits<double>::quiet_NaN();
  out.density_mean = nothing;
  out.density_percentile = {nothing, nothing, nothing};
  if (histogram == nullptr) return out;
  constexpr std::array<std::int64_t, 3> kPercent{10, 50, 90};
  std::int64_t sum = 0, seen = 0;
  std::size_t next = 0;
  for (std::int64_t bin = 0; bin < kDensityBins; ++bin) {
    const std::int64_t here = (*histogram)[static_cast<std::size_t>(bin)];
    sum += bin * here;
    seen += here;
    while (next < 3 && 100 * seen >= kPercent[next] * sums.px && here > 0) {
      out.density_percentile[next++] = static_cast<double>(bin) * kDensityPerBin;
    }
  }
  out.density_mean = static_cast<double>(sum) / area * kDensityPerBin;
  return out;
}

MembraneTile::MembraneTile(std::shared_ptr<const TileLabels> labels)
    : labels_(std::move(labels)) {}
std::int64_t MembraneTile::height() const { return labels_->height; }
std::int64_t MembraneTile::width() const { return labels_->width; }
bool MembraneTile::has_density() const { return labels_->has_density; }

MembraneTile membrane_label(ImageView<const std::uint8_t> mask,
                            ImageView<const std::uint8_t> density,
                            const std::vector<PixelPoint>& nuclei, Device device) {
  check_device(device, "membrane_label");
  check(mask, density);
  const auto height = static_cast<std::int32_t>(mask.height);
  const auto width = static_cast<std::int32_t>(mask.width);
  auto out = std::make_shared<TileLabels>();
  out->height = height;
  out->width = width;
  out->has_density = density.data != nullptr;

  const BitRows bits = pack(mask);
  Runs runs, gap_runs;
  split_rows(bits, height, width, runs, gap_runs);
  connect(runs, 1);
  connect(gap_runs, 0);
  std::vector<bool> open, gap_open;
  auto sums = sum_runs<MembraneSums>(runs, width, open);
  auto gaps = sum_runs<GapSums>(gap_runs, width, gap_open);
  count_nuclei(gap_runs, nuclei, height, width, gaps);
  count_windows(bits, runs, width, sums);
  const auto open_index = number_chosen(open), gap_index = number_chosen(gap_open);

  std::vector<Enclosed> enclosed(sums.size());
  for (std::size_t g = 0; g < gaps.size(); ++g) {
    const std::int32_t y = key_y(gaps[g].first), x = key_x(gaps[g].first);
    // The pixel above a gap's first pixel lies on the membrane round the gap.
    const std::int32_t above = y == 0 ? -1 : label_at(runs, y - 1, x);
    if (gap_open[g]) {
      out->gaps.push_back(gaps[g]);
      out->gap_above.push_back(above < 0 ? -1 : open_index[above]);
    } else if (open[above]) {
      out->enclosed.push_back(gaps[g]);
      out->enclosed_by.push_back(open_index[above]);
    } else {
      ++enclosed[above].compartments;
      enclosed[above].px += gaps[g].px;
      out->inner_compartments.push_back({x, y, gaps[g].box, gaps[g].px,
                                         key_x(sums[above].first),
                                         key_y(sums[above].first), gaps[g].nuclei});
    }
  }

  std::vector<std::int32_t> offset, order;
  if (out->has_density) group_runs(runs, offset, order);
  DensityHistogram histogram{};
  for (std::size_t c = 0; c < sums.size(); ++c) {
    if (out->has_density) {
      histogram.fill(0);
      for (std::int32_t k = offset[c]; k < offset[c + 1]; ++k) {
        const std::int32_t j = order[k];
        const std::uint8_t* line = density.row(runs.row[j]);
        for (std::int32_t x = runs.start[j]; x < runs.end[j]; ++x) ++histogram[line[x]];
      }
    }
    if (open[c]) {
      out->open.push_back(sums[c]);
      if (out->has_density) out->histograms.push_back(histogram);
    } else {
      out->inner.push_back(describe_membrane(sums[c],
                                             out->has_density ? &histogram : nullptr,
                                             enclosed[c].compartments, enclosed[c].px));
    }
  }

  for (const int side : {kTop, kBottom}) out->sides[side].resize(mask.width);
  for (const int side : {kLeft, kRight}) out->sides[side].resize(mask.height);
  const SideWriter writer{open_index, gap_index};
  writer.row(runs, gap_runs, 0, out->sides[kTop]);
  writer.row(runs, gap_runs, height - 1, out->sides[kBottom]);
  writer.column(runs, gap_runs, false, width, out->sides[kLeft]);
  writer.column(runs, gap_runs, true, width, out->sides[kRight]);
  return MembraneTile(std::move(out));
}

}  // namespace her2fast
