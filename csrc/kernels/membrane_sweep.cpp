// SPDX-License-Identifier: Apache-2.0
#include "kernels/membrane_sweep.h"

#include <algorithm>
#include <bit>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace her2fast {
namespace {

using Word = std::uint64_t;

// --- rows to turns

/// Up to 64 bytes to bits: bit i is set where byte i is not 0.
Word pack_some(const std::uint8_t* bytes, std::int32_t count) {
  Word word = 0;
  for (std::int32_t k = 0; k < count; ++k) word |= Word{bytes[k] != 0} << k;
  return word;
}

/// 64 bytes likewise. No branch: whether a byte is set is chance. Wider registers gain
/// nothing.
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
void want_soon(const std::uint8_t* bytes) {
  _mm_prefetch(reinterpret_cast<const char*>(bytes), _MM_HINT_T0);
}
#else
Word pack_word(const std::uint8_t* bytes) { return pack_some(bytes, 64); }
void want_soon(const std::uint8_t*) {}
#endif

/// Columns where mask begins and ends, in turn, an even number of them; at most width + 1
/// are written. `later` is a row to be wanted soon: a processor's own prefetching ends
/// with a page, and often every row of a tile lies in another.
/// @return  the end of what was written.
Column* write_turns(const std::uint8_t* row, const std::uint8_t* later,
                    std::int32_t width, Column* out) {
  Word carry = 0;
  for (std::int32_t x = 0; x < width; x += 64) {
    const std::int32_t left = width - x;
    want_soon(later + x);
    const Word word = left >= 64 ? pack_word(row + x) : pack_some(row + x, left);
    Word turns = word ^ ((word << 1) | carry);
    carry = word >> 63;
    while (turns != 0) {
      *out++ = static_cast<Column>(x + std::countr_zero(turns));
      turns &= turns - 1;
    }
  }
  // A run that ends with the row ends in its last word, or in none.
  if (carry != 0) *out++ = static_cast<Column>(width);
  return out;
}

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

  void operator+=(const RunSums& other) {
    x0 = std::min(x0, other.x0);
    x1 = std::max(x1, other.x1);
    y1 = std::max(y1, other.y1);
    px += other.px;
    straight += other.straight;
    diagonal += other.diagonal;
    euler += other.euler;
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
  const Column* turns;
  std::int32_t runs;
  std::int32_t *run_label, *gap_label;

  std::int32_t start(std::int32_t k) const { return turns[2 * k]; }
  std::int32_t end(std::int32_t k) const { return turns[2 * k + 1]; }
};

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
  const auto windows = [&](std::int32_t membrane) -> WindowCounts& {
    return tile.membranes[membrane].sums.windows;
  };
  for (const std::int32_t y : {0, tile.height - 1}) {
    for (std::int32_t k = 0; k < tile.runs_in(y); ++k) {
      WindowCounts& sum = windows(tile.membrane(y, k));
      sum.straight -= tile.turns_of(y)[2 * k + 1] - tile.turns_of(y)[2 * k] - 1;
      sum.diagonal -= 2;
      sum.euler4 -= 2;
    }
  }
  for (const bool last : {false, true}) {
    std::int32_t before = -1;
    for (std::int32_t y = 0; y < tile.height; ++y) {
      const std::int32_t runs = tile.runs_in(y);
      const std::int32_t here = tile.gap(y, last ? runs : 0) == kNoGap
                                    ? tile.membrane(y, last ? runs - 1 : 0)
                                    : -1;
      if (y > 0 && here >= 0 && before >= 0) {
        windows(here).straight -= 1;
      } else if (y > 0 && std::max(here, before) >= 0) {
        WindowCounts& sum = windows(std::max(here, before));
        sum.diagonal -= 1;
        sum.euler4 -= 1;
      }
      before = here;
    }
  }
}

void mark_border(SweptTile& tile) {
  const auto mark_gap = [&](std::int32_t y, std::int32_t place) {
    const std::int32_t gap = tile.gap(y, place);
    if (gap != kNoGap) tile.gaps[gap].on_border = true;
    return gap != kNoGap;
  };
  const auto mark_run = [&](std::int32_t y, std::int32_t run) {
    tile.membranes[tile.membrane(y, run)].on_border = true;
  };
  for (std::int32_t y = 0; y < tile.height; ++y) {
    const std::int32_t runs = tile.runs_in(y);
    if (!mark_gap(y, 0)) mark_run(y, 0);
    if (!mark_gap(y, runs)) mark_run(y, runs - 1);
    if (y > 0 && y + 1 < tile.height) continue;
    for (std::int32_t k = 0; k < runs; ++k) {
      mark_run(y, k);
      mark_gap(y, k);
    }
  }
}

}  // namespace

SweptTile sweep_tile(const ImageView<const std::uint8_t>& mask) {
  SweptTile out;
  out.height = static_cast<std::int32_t>(mask.height);
  out.width = static_cast<std::int32_t>(mask.width);
  out.row.resize(static_cast<std::size_t>(out.height) + 1);
  const auto room = static_cast<std::size_t>(out.width) + 1;
  constexpr std::int32_t kAhead = 4;
  Kind membranes, gaps;
  RowJoin joiner(membranes, gaps, out.width);
  for (std::int32_t y = 0; y < out.height; ++y) {
    const auto used = static_cast<std::size_t>(out.row[y]), at = used / 2;
    out.turns.reserve(used, room);
    const std::uint8_t* later = mask.row(std::min(y + kAhead, out.height - 1));
    const Column* end =
        write_turns(mask.row(y), later, out.width, out.turns.data() + used);
    out.row[y + 1] = static_cast<std::int32_t>(end - out.turns.data());
    const auto runs = static_cast<std::size_t>(out.runs_in(y));
    out.run_label.reserve(at, runs);
    out.gap_label.reserve(at + y, runs + 1);
    const auto row_at = [&](std::int32_t i) {
      const std::int32_t from = out.row[i] / 2;
      return Row{out.turns_of(i), out.runs_in(i), out.run_label.data() + from,
                 out.gap_label.data() + from + i};
    };
    if (y == 0) {
      joiner.start(row_at(0), 0);
    } else {
      joiner.join(row_at(y - 1), row_at(y), y);
    }
  }

  std::int32_t count = 0;
  out.membrane_of = membranes.number(count);
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
  out.gap_of = gaps.number(count);
  out.gaps.resize(static_cast<std::size_t>(count));
  std::int32_t next = 0;
  for (std::size_t i = 0; i < out.gap_of.size(); ++i) {
    if (out.gap_of[i] != next) continue;  // a root is the first of its component
    const std::int32_t under = gaps.above[i];
    const RunSums& sum = gaps.sums[next];
    out.gaps[next++] = {{pixel_key(sum.first_y, sum.first_x), box_of(sum), sum.px, 0},
                        false,
                        under < 0 ? -1 : out.membrane_of[under]};
  }
  drop_border_windows(out);
  mark_border(out);
  return out;
}

}  // namespace her2fast
