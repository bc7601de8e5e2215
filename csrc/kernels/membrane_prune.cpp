// SPDX-License-Identifier: Apache-2.0
#include "her2fast/membrane_prune.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/check.h"

namespace her2fast {
namespace {

using Word = std::uint64_t;
constexpr std::int64_t kMaxSidePx = 16384;

/// Pixels as bits, with a row and a word of nothing on all sides.
class Bits {
 public:
  Bits(std::int64_t height, std::int64_t width)
      : height_(height),
        words_((width + 63) / 64),
        bits_(static_cast<std::size_t>((height + 2) * (words_ + 2))) {}
  std::int64_t height() const { return height_; }
  std::int64_t words() const { return words_; }
  Word* row(std::int64_t y) { return bits_.data() + (y + 1) * (words_ + 2) + 1; }
  const Word* row(std::int64_t y) const {
    return bits_.data() + (y + 1) * (words_ + 2) + 1;
  }

 private:
  std::int64_t height_, words_;
  std::vector<Word> bits_;
};

/// The eight neighbors of 64 pixels, clockwise from the one above (Guo and Hall's p2 to
/// p9).
using Around = std::array<Word, 8>;
enum : int { kN, kNE, kE, kSE, kS, kSW, kW, kNW };

Word left_of(const Word* at) { return (at[0] << 1) | (at[-1] >> 63); }
Word right_of(const Word* at) { return (at[0] >> 1) | (at[1] << 63); }

Around around(const Bits& in, std::int64_t y, std::int64_t w) {
  const Word *up = in.row(y - 1) + w, *mid = in.row(y) + w, *down = in.row(y + 1) + w;
  return {*up,   right_of(up),  right_of(mid), right_of(down),
          *down, left_of(down), left_of(mid),  left_of(up)};
}

Word any_of(const Around& p) {
  return p[0] | p[1] | p[2] | p[3] | p[4] | p[5] | p[6] | p[7];
}

/// out = rule(64 pixels of `in`, their neighbors), and 0 where none of the 64 is set.
template <typename Rule>
void select(const Bits& in, Bits& out, Rule rule) {
  for (std::int64_t y = 0; y < in.height(); ++y) {
    const Word* from = in.row(y);
    Word* to = out.row(y);
    for (std::int64_t w = 0; w < in.words(); ++w) {
      to[w] = from[w] == 0 ? 0 : from[w] & rule(around(in, y, w));
    }
  }
}

/// out = what touches `in` or lies in it.
void dilate(const Bits& in, Bits& out) {
  for (std::int64_t y = 0; y < in.height(); ++y) {
    for (std::int64_t w = 0; w < in.words(); ++w) {
      out.row(y)[w] = in.row(y)[w] | any_of(around(in, y, w));
    }
  }
}

template <typename Rule>
void combine(Bits& into, const Bits& with, Rule rule) {
  for (std::int64_t y = 0; y < into.height(); ++y) {
    for (std::int64_t w = 0; w < into.words(); ++w) {
      into.row(y)[w] = rule(into.row(y)[w], with.row(y)[w]);
    }
  }
}
constexpr auto kOr = [](Word a, Word b) { return a | b; };
constexpr auto kAnd = [](Word a, Word b) { return a & b; };
constexpr auto kWithout = [](Word a, Word b) { return a & ~b; };

Word two_of(Word a, Word b, Word c, Word d) {
  return (a & b) | (c & d) | ((a | b) & (c | d));
}

/// Thinning in two passes (Guo and Hall, Commun ACM 1989;32:359-373, algorithm A1): what
/// stays. Components and holes stay, free ends do too.
Word stays_in_pass(const Around& p, bool second) {
  const Word c1 = ~p[kN] & (p[kNE] | p[kE]), c2 = ~p[kE] & (p[kSE] | p[kS]);
  const Word c3 = ~p[kS] & (p[kSW] | p[kW]), c4 = ~p[kW] & (p[kNW] | p[kN]);
  const Word one_part = (c1 ^ c2 ^ c3 ^ c4) & ~two_of(c1, c2, c3, c4);
  const Word a1 = p[kNW] | p[kN], a2 = p[kNE] | p[kE];
  const Word a3 = p[kSE] | p[kS], a4 = p[kSW] | p[kW];
  const Word b1 = p[kN] | p[kNE], b2 = p[kE] | p[kSE];
  const Word b3 = p[kS] | p[kSW], b4 = p[kW] | p[kNW];
  const Word enough = two_of(a1, a2, a3, a4) & two_of(b1, b2, b3, b4);
  const Word inside = a1 & a2 & a3 & a4 & b1 & b2 & b3 & b4;
  const Word other_side =
      second ? (p[kN] | p[kNE] | ~p[kSE]) & p[kE] : (p[kS] | p[kSW] | ~p[kNW]) & p[kW];
  return ~(one_part & enough & ~inside & ~other_side);
}

/// Free ends: one neighbor, or two that touch each other along a side.
struct Ends {
  Word free, alone;

  explicit Ends(const Around& p) {
    Word one = 0, two = 0, three = 0, beside = 0;
    for (int k = 0; k < 8; ++k) {
      three |= two & p[k];
      two |= one & p[k];
      one |= p[k];
      beside |= p[k] & p[(k + 1) % 8];
    }
    free = (one & ~two) | (two & ~three & beside);
    alone = ~one;
  }
};

Bits pack(const ImageView<const std::uint8_t>& mask) {
  Bits out(mask.height, mask.width);
  for (std::int64_t y = 0; y < mask.height; ++y) {
    const std::uint8_t* in = mask.row(y);
    for (std::int64_t x = 0; x < mask.width; ++x) {
      out.row(y)[x / 64] |= Word{in[x] != 0} << (x % 64);
    }
  }
  return out;
}

class Pruner {
 public:
  Pruner(Bits mask, std::int64_t width)
      : mask_(std::move(mask)), blank_(mask_.height(), width), scratch_(blank_) {}

  Bits prune(std::int32_t length_px) {
    const Bits line = thin();
    const Bits kept_line = kept(line, length_px);
    Bits lost_line = line;
    combine(lost_line, kept_line, kWithout);
    return without(lost_line, kept_line);
  }

 private:
  Bits thin() {
    Bits line = mask_;
    for (std::int32_t i = 0; i < kPruneHalfWidthPx; ++i) {
      for (const bool second : {false, true}) {
        select(line, scratch_, [&](const Around& p) { return stays_in_pass(p, second); });
        std::swap(line, scratch_);
      }
    }
    return line;
  }

  /// Peel free ends, then let what is left of a branch grow back to its end: into what
  /// was peeled alone, or an end near a spur would grow back into that as well.
  Bits kept(const Bits& line, std::int32_t length_px) {
    Bits left = line, ends = blank_;
    for (std::int32_t i = 0; i < length_px; ++i) {
      select(left, ends, [](const Around& p) { return Ends(p).free; });
      // The last two pixels of a line are both ends; they stay, for the line to grow
      // back from.
      select(ends, scratch_, [](const Around& p) { return ~any_of(p); });
      combine(left, scratch_, kWithout);
    }
    select(left, ends, [](const Around& p) {
      const Ends end(p);
      return end.free | end.alone;
    });
    Bits peeled = line;
    combine(peeled, left, kWithout);
    for (std::int32_t i = 0; i < length_px; ++i) {
      dilate(ends, scratch_);
      combine(scratch_, peeled, kAnd);
      combine(left, scratch_, kOr);
      std::swap(ends, scratch_);
    }
    return left;
  }

  /// The mask without what belongs to the lost lines: squares of their local width that
  /// no kept line's squares cover, and then whatever is nearer to those.
  Bits without(const Bits& lost_line, const Bits& kept_line) {
    Bits kept = squares(kept_line), lost = squares(lost_line);
    combine(lost, kept, kWithout);
    Bits more = blank_;
    for (std::int32_t i = 0; i < kPruneHalfWidthPx; ++i) {
      grow(kept, lost, more);
      grow(lost, kept, scratch_);
      combine(kept, more, kOr);
      combine(scratch_, more, kWithout);  // both come at once: it stays
      combine(lost, scratch_, kOr);
    }
    Bits out = mask_;
    combine(out, lost, kWithout);
    return out;
  }

  void grow(const Bits& from, const Bits& other, Bits& more) {
    dilate(from, more);
    combine(more, mask_, kAnd);
    combine(more, other, kWithout);
  }

  /// Of every pixel of a line the largest square round it that fits the mask.
  Bits squares(const Bits& line) {
    std::vector<Bits> fits{mask_};  // squares of 2 i + 1 px
    for (std::int32_t i = 0; i < kPruneHalfWidthPx; ++i) {
      fits.push_back(blank_);
      select(fits[i], fits[i + 1], [](const Around& p) {
        return p[0] & p[1] & p[2] & p[3] & p[4] & p[5] & p[6] & p[7];
      });
    }
    Bits out = blank_, own = blank_;
    for (std::int32_t i = kPruneHalfWidthPx; i >= 0; --i) {
      dilate(out, own);
      std::swap(out, own);
      own = line;
      combine(own, fits[i], kAnd);
      if (i < kPruneHalfWidthPx) combine(own, fits[i + 1], kWithout);
      combine(out, own, kOr);
    }
    return out;
  }

  Bits mask_, blank_, scratch_;
};

}  // namespace

void membrane_prune(ImageView<const std::uint8_t> mask, std::int32_t length_px,
                    ImageView<std::uint8_t> out, Device device) {
  check_device(device, "membrane_prune");
  check_sides(mask, kMaxSidePx, "a mask");
  check_channels(mask, 1, "a mask");
  check_same_size(mask, out, "the output");
  check_channels(out, 1, "the output");
  if (length_px < 0 || length_px > kPruneMaxLengthPx) {
    throw std::invalid_argument(
        "need 0 <= length_px <= " + std::to_string(kPruneMaxLengthPx) +
        ", got length_px=" + std::to_string(length_px));
  }
  Bits bits = pack(mask);
  if (length_px > 0) bits = Pruner(std::move(bits), mask.width).prune(length_px);
  for (std::int64_t y = 0; y < mask.height; ++y) {
    std::uint8_t* to = out.row(y);
    for (std::int64_t x = 0; x < mask.width; ++x) {
      to[x] = (bits.row(y)[x / 64] >> (x % 64)) & 1;
    }
  }
}

}  // namespace her2fast
