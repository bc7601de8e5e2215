// SPDX-License-Identifier: Apache-2.0
#include "kernels/membrane_sweep.h"

#include <algorithm>
#include <bit>
#include <memory>
#include <utility>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define HER2FAST_PACKS_WIDE 1
#endif

namespace her2fast {
namespace {

using Word = std::uint64_t;

/// Grows without clearing what is about to be written.
template <typename T>
class Buffer {
 public:
  explicit Buffer(std::size_t room) : capacity_(room), data_(allocate(room)) {}
  T* data() { return data_.get(); }
  void reserve(std::size_t used, std::size_t more) {
    if (used + more <= capacity_) return;
    capacity_ = std::max(2 * capacity_, used + more);
    auto next = allocate(capacity_);
    std::copy_n(data_.get(), used, next.get());
    data_ = std::move(next);
  }
  std::vector<T> take(std::size_t used) const {
    return {data_.get(), data_.get() + used};
  }

 private:
  static std::unique_ptr<T[]> allocate(std::size_t n) {
    return std::make_unique_for_overwrite<T[]>(n);
  }
  std::size_t capacity_;
  std::unique_ptr<T[]> data_;
};

// --- rows to turns

/// Up to 64 bytes to bits: bit i is set where byte i is not 0.
Word pack_some(const std::uint8_t* bytes, std::int32_t count) {
  Word word = 0;
  for (std::int32_t k = 0; k < count; ++k) word |= Word{bytes[k] != 0} << k;
  return word;
}

struct PackPlain {
  static Word pack(const std::uint8_t* bytes) { return pack_some(bytes, 64); }
};

/// Columns where mask begins and ends, in turn. Returns the end of what was written: an
/// even number, at most width + 1.
template <typename Pack>
inline std::int32_t* write_turns(const std::uint8_t* row, std::int32_t width,
                                 std::int32_t* out) {
  Word carry = 0;
  for (std::int32_t x = 0; x < width; x += 64) {
    const std::int32_t left = width - x;
    const Word word = left >= 64 ? Pack::pack(row + x) : pack_some(row + x, left);
    Word turns = word ^ ((word << 1) | carry);
    carry = word >> 63;
    while (turns != 0) {
      *out++ = x + std::countr_zero(turns);
      turns &= turns - 1;
    }
  }
  // A run that ends with the row ends in its last word, or in none.
  if (carry != 0) *out++ = width;
  return out;
}

using WriteTurns = std::int32_t* (*)(const std::uint8_t*, std::int32_t, std::int32_t*);

#if HER2FAST_PACKS_WIDE
struct PackSse2 {
  static Word pack(const std::uint8_t* bytes) {
    const __m128i zero = _mm_setzero_si128();
    Word gaps = 0;
    for (int k = 0; k < 4; ++k) {
      const auto* at = reinterpret_cast<const __m128i*>(bytes + 16 * k);
      const int mask = _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128(at), zero));
      gaps |= static_cast<Word>(static_cast<std::uint32_t>(mask)) << (16 * k);
    }
    return ~gaps;
  }
};
struct PackAvx2 {
  __attribute__((target("avx2"))) static std::uint32_t gaps(const std::uint8_t* bytes) {
    const __m256i px = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
    const __m256i none = _mm256_cmpeq_epi8(px, _mm256_setzero_si256());
    return static_cast<std::uint32_t>(_mm256_movemask_epi8(none));
  }
  __attribute__((target("avx2"))) static Word pack(const std::uint8_t* bytes) {
    return ~((static_cast<Word>(gaps(bytes + 32)) << 32) | gaps(bytes));
  }
};

__attribute__((target("avx2,bmi"), flatten)) std::int32_t* write_turns_avx2(
    const std::uint8_t* row, std::int32_t width, std::int32_t* out) {
  return write_turns<PackAvx2>(row, width, out);
}

WriteTurns choose_writer() {
  static const bool wide =
      __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("bmi") != 0;
  return wide ? write_turns_avx2 : write_turns<PackSse2>;
}
#else
WriteTurns choose_writer() { return write_turns<PackPlain>; }
#endif

// --- turns to components

std::int32_t find(std::vector<std::int32_t>& parent, std::int32_t i) {
  while (parent[i] != i) {
    parent[i] = parent[parent[i]];
    i = parent[i];
  }
  return i;
}

/// What grows with every run. With R runs, P pairs of runs that touch from row to row, O
/// columns that those share and Q ends that lie in one column, the windows of a component
/// are 2 (px - R) - 2 (O - Q) straight, 4 R - 2 Q diagonal, and 4 times its Euler number
/// is 4 (R - P): a run alone has 2 (length - 1) windows along it and four at its ends;
/// two that touch turn those on which they agree into full ones or into one straight one.
struct RunSums {
  std::int32_t first_y, first_x;
  std::int32_t x0, x1, y1;
  std::int32_t px = 0, straight = 0, diagonal = 0, euler = 0;
  bool on_border = false;

  void operator+=(const RunSums& other) {
    x0 = std::min(x0, other.x0);
    x1 = std::max(x1, other.x1);
    y1 = std::max(y1, other.y1);
    px += other.px;
    straight += other.straight;
    diagonal += other.diagonal;
    euler += other.euler;
    on_border |= other.on_border;
  }
};

/// The components of one kind, while the sweep is under way.
struct Kind {
  std::vector<std::int32_t> parent;
  std::vector<RunSums> sums;
  std::vector<std::int32_t> above;  ///< of gaps

  std::int32_t make(std::int32_t y, std::int32_t x) {
    const auto label = static_cast<std::int32_t>(parent.size());
    parent.push_back(label);
    sums.push_back({y, x, x, x, y});
    return label;
  }
  /// The older one stays, so that a root has the first pixel.
  std::int32_t unite(std::int32_t root, std::int32_t with) {
    const std::int32_t other = find(parent, with);
    if (root == other) return root;
    const auto [old, young] = std::minmax(root, other);
    parent[young] = old;
    return old;
  }
  void add(std::int32_t label, std::int32_t y, std::int32_t from, std::int32_t to) {
    RunSums& sum = sums[label];
    sum.x0 = std::min(sum.x0, from);
    sum.x1 = std::max(sum.x1, to);
    sum.y1 = y + 1;
    sum.px += to - from;
  }
  /// Sums go to the roots; gives the number of each label's component.
  std::vector<std::int32_t> number(std::int32_t& count) {
    std::vector<std::int32_t> out(parent.size());
    count = 0;
    for (std::size_t i = 0; i < parent.size(); ++i) {
      const std::int32_t up = parent[i];
      if (up == static_cast<std::int32_t>(i)) {
        sums[count] = sums[i];
        out[i] = count++;
      } else {
        out[i] = out[up];
        sums[out[i]] += sums[i];
      }
    }
    return out;
  }
};

struct Row {
  const std::int32_t* turns;
  std::int32_t runs;
  std::int32_t *run_label, *gap_label;

  std::int32_t start(std::int32_t k) const { return turns[2 * k]; }
  std::int32_t end(std::int32_t k) const { return turns[2 * k + 1]; }
};

constexpr std::int32_t kNoGap = -1;

/// Joins a row with the one above.
///
/// Runs touch where they share a column or meet at a corner. A gap lies under another
/// unless a touch parts them: it goes on from the gap behind the last run that touched
/// the run before it, through all runs above that end before it does. If that last run
/// touches the next run as well, the gap begins here, under that run.
class RowJoin {
 public:
  RowJoin(Kind& membranes, Kind& gaps, std::int32_t width)
      : membranes_(membranes), gaps_(gaps), width_(width) {}

  void join(const Row& above, const Row& row, std::int32_t y) {
    std::int32_t i = 0;    // run above
    bool touched = false;  // run i touches the run before
    std::int32_t from = 0;
    for (std::int32_t j = 0; j < row.runs; ++j) {
      const std::int32_t start = row.start(j), end = row.end(j);
      row.gap_label[j] =
          start == 0 ? kNoGap : join_gap(above, i, touched, y, from, start);
      touched = i < above.runs && above.start(i) <= end;
      row.run_label[j] = touched ? join_run(above, i, y, start, end)
                                 : add_run(membranes_.make(y, start), y, start, end);
      from = end;
    }
    row.gap_label[row.runs] =
        from == width_ ? kNoGap : join_gap(above, i, touched, y, from, width_);
  }

  void start(const Row& row, std::int32_t y) {
    std::int32_t from = 0;
    for (std::int32_t j = 0; j <= row.runs; ++j) {
      const std::int32_t to = j == row.runs ? width_ : row.start(j);
      row.gap_label[j] = from == to ? kNoGap : new_gap(y, from, -1);
      if (from < to) gaps_.add(row.gap_label[j], y, from, to);
      if (j == row.runs) break;
      from = row.end(j);
      row.run_label[j] = add_run(membranes_.make(y, to), y, to, from);
    }
  }

 private:
  std::int32_t new_gap(std::int32_t y, std::int32_t x, std::int32_t above) {
    gaps_.above.push_back(above);
    return gaps_.make(y, x);
  }

  std::int32_t join_gap(const Row& above, std::int32_t& i, bool touched, std::int32_t y,
                        std::int32_t from, std::int32_t to) {
    std::int32_t label = kNoGap;
    if (!touched || above.end(i) < to) {
      i += touched;
      label = above.gap_label[i];
      if (label != kNoGap) label = find(gaps_.parent, label);
      for (; i < above.runs && above.end(i) < to; ++i) {
        const std::int32_t next = above.gap_label[i + 1];
        label = label == kNoGap ? find(gaps_.parent, next) : gaps_.unite(label, next);
      }
    }
    if (label == kNoGap) label = new_gap(y, from, above.run_label[i]);
    gaps_.add(label, y, from, to);
    return label;
  }

  std::int32_t join_run(const Row& above, std::int32_t& i, std::int32_t y,
                        std::int32_t start, std::int32_t end) {
    std::int32_t label = find(membranes_.parent, above.run_label[i]);
    std::int32_t pairs = 0, shared = 0, agree = 0;
    while (true) {
      const std::int32_t other_start = above.start(i), other_end = above.end(i);
      ++pairs;
      shared += std::min(end, other_end) - std::max(start, other_start);
      agree += (start == other_start) + (end == other_end);
      if (i + 1 == above.runs || above.start(i + 1) > end) break;
      label = membranes_.unite(label, above.run_label[++i]);
    }
    add_run(label, y, start, end);
    RunSums& sum = membranes_.sums[label];
    sum.straight -= shared - agree;
    sum.diagonal -= agree;
    sum.euler -= pairs;
    return label;
  }

  std::int32_t add_run(std::int32_t label, std::int32_t y, std::int32_t start,
                       std::int32_t end) {
    membranes_.add(label, y, start, end);
    RunSums& sum = membranes_.sums[label];
    sum.straight += end - start - 1;
    sum.diagonal += 2;
    sum.euler += 1;
    return label;
  }

  Kind &membranes_, &gaps_;
  std::int32_t width_;
};

PixelBox box_of(const RunSums& sum) { return {sum.x0, sum.first_y, sum.x1, sum.y1}; }

/// Take away the windows that lie across the tile's border: the sweep saw nothing beyond.
void drop_border_windows(SweptTile& tile) {
  const auto windows = [&](std::int32_t label) -> WindowCounts& {
    return tile.membranes[label].sums.windows;
  };
  for (const std::int32_t y : {0, tile.height - 1}) {
    for (std::int32_t k = 0; k < tile.runs_in(y); ++k) {
      WindowCounts& sum = windows(tile.run_labels(y)[k]);
      sum.straight -= tile.turns_of(y)[2 * k + 1] - tile.turns_of(y)[2 * k] - 1;
      sum.diagonal -= 2;
      sum.euler4 -= 2;
    }
  }
  for (const bool last : {false, true}) {
    std::int32_t before = -1;
    for (std::int32_t y = 0; y < tile.height; ++y) {
      const std::int32_t runs = tile.runs_in(y);
      const std::int32_t* turns = tile.turns_of(y);
      const bool set =
          runs > 0 && (last ? turns[2 * runs - 1] == tile.width : turns[0] == 0);
      const std::int32_t label = set ? tile.run_labels(y)[last ? runs - 1 : 0] : -1;
      if (y > 0 && label >= 0 && before >= 0) {
        windows(label).straight -= 1;
      } else if (y > 0 && std::max(label, before) >= 0) {
        WindowCounts& sum = windows(std::max(label, before));
        sum.diagonal -= 1;
        sum.euler4 -= 1;
      }
      before = label;
    }
  }
}

void mark_border(SweptTile& tile) {
  const auto mark = [&](std::int32_t y, std::int32_t k, bool run) {
    if (run) tile.membranes[tile.run_labels(y)[k]].on_border = true;
    if (!run && tile.gap_labels(y)[k] >= 0) {
      tile.gaps[tile.gap_labels(y)[k]].on_border = true;
    }
  };
  for (std::int32_t y = 0; y < tile.height; ++y) {
    const std::int32_t runs = tile.runs_in(y);
    const bool all = y == 0 || y == tile.height - 1;
    for (std::int32_t k = 0; all && k <= runs; ++k) {
      mark(y, k, false);
      if (k < runs) mark(y, k, true);
    }
    mark(y, 0, false);
    mark(y, runs, false);
    if (runs == 0) continue;
    if (tile.turns_of(y)[0] == 0) mark(y, 0, true);
    if (tile.turns_of(y)[2 * runs - 1] == tile.width) mark(y, runs - 1, true);
  }
}

}  // namespace

SweptTile sweep_tile(const ImageView<const std::uint8_t>& mask) {
  SweptTile out;
  out.height = static_cast<std::int32_t>(mask.height);
  out.width = static_cast<std::int32_t>(mask.width);
  out.row.resize(static_cast<std::size_t>(out.height) + 1);
  const WriteTurns write = choose_writer();
  const auto room = static_cast<std::size_t>(out.width) + 1;
  Buffer<std::int32_t> turns(room + 16 * static_cast<std::size_t>(out.height));
  std::size_t used = 0;
  for (std::int32_t y = 0; y < out.height; ++y) {
    turns.reserve(used, room);
    const std::int32_t* end = write(mask.row(y), out.width, turns.data() + used);
    used = static_cast<std::size_t>(end - turns.data());
    out.row[y + 1] = static_cast<std::int32_t>(used);
  }
  out.turns = turns.take(used);
  out.run_label.resize(used / 2);
  out.gap_label.resize(used / 2 + static_cast<std::size_t>(out.height));

  Kind membranes, gaps;
  RowJoin joiner(membranes, gaps, out.width);
  Row above{};
  for (std::int32_t y = 0; y < out.height; ++y) {
    const std::int32_t at = out.row[y] / 2;
    const Row row{out.turns_of(y), out.runs_in(y), out.run_label.data() + at,
                  out.gap_label.data() + at + y};
    if (y == 0) {
      joiner.start(row, y);
    } else {
      joiner.join(above, row, y);
    }
    above = row;
  }

  std::int32_t count = 0;
  const auto membrane = membranes.number(count);
  out.membranes.resize(static_cast<std::size_t>(count));
  for (std::int32_t c = 0; c < count; ++c) {
    const RunSums& sum = membranes.sums[c];
    out.membranes[c] = {{pixel_key(sum.first_y, sum.first_x),
                         box_of(sum),
                         sum.px,
                         {2 * std::int64_t{sum.straight}, 2 * std::int64_t{sum.diagonal},
                          4 * std::int64_t{sum.euler}}},
                        false};
  }
  for (std::int32_t& label : out.run_label) label = membrane[label];
  const auto gap = gaps.number(count);
  out.gaps.resize(static_cast<std::size_t>(count));
  std::int32_t next = 0;
  for (std::size_t i = 0; i < gap.size(); ++i) {
    if (gap[i] != next) continue;  // a root is the first of its component
    const std::int32_t under = gaps.above[i];
    const RunSums& sum = gaps.sums[next];
    out.gaps[next++] = {{pixel_key(sum.first_y, sum.first_x), box_of(sum), sum.px, 0},
                        false,
                        under < 0 ? -1 : membrane[under]};
  }
  for (std::int32_t& label : out.gap_label) label = label < 0 ? label : gap[label];
  drop_border_windows(out);
  mark_border(out);
  return out;
}

}  // namespace her2fast
