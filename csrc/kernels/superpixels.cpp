// SPDX-License-Identifier: Apache-2.0
#include "her2fast/superpixels.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/hot.h"
#include "kernels/check.h"
#include "kernels/cielab.h"

namespace her2fast {
namespace {

/// Rows without gaps.
template <typename T>
struct Plane {
  std::int64_t width;
  std::vector<T> values;

  Plane(std::int64_t height, std::int64_t width_, T value = {})
      : width(width_), values(static_cast<std::size_t>(height * width_), value) {}
  T* row(std::int64_t y) { return values.data() + y * width; }
  const T* row(std::int64_t y) const { return values.data() + y * width; }
};

/// Of a superpixel; color in 1/64, place in px.
struct Center {
  float l, a, b, x, y;
};

/// What a center is the mean of. One row of sums holds no more than a flush allows.
struct alignas(16) Sums {
  std::int32_t l = 0, a = 0, b = 0, px = 0;
  std::int32_t x = 0, y = 0;
};

struct Totals {
  std::int64_t l = 0, a = 0, b = 0, px = 0, x = 0, y = 0;

  void add(const Sums& sums) {
    l += sums.l;
    a += sums.a;
    b += sums.b;
    px += sums.px;
    x += sums.x;
    y += sums.y;
  }
};

/// Of sRGB: L* 0 to 100, a* -86 to 98, b* -108 to 94, and what tables round.
constexpr std::int64_t kLabMost = 112;
/// 64 rows of 4096 px: sums of color below 112 * 64 * 2^18 < 2^31.
constexpr std::int64_t kRowsInSums = 64;
static_assert(kRowsInSums * kMaxSuperpixelSidePx * kLabMost * kLabOne <= INT32_MAX);

struct Pixel {
  std::int32_t l, a, b, one;
};

struct Picture {
  std::int64_t height, width;
  Plane<float> l, a, b;
  Plane<Pixel> pixels;

  explicit Picture(ImageView<const std::uint8_t> rgb)
      : height(rgb.height),
        width(rgb.width),
        l(height, width),
        a(height, width),
        b(height, width),
        pixels(height, width) {
    const LabTables& tables = lab_tables();
    for (std::int64_t y = 0; y < height; ++y) {
      const std::uint8_t* p = rgb.row(y);
      for (std::int64_t x = 0; x < width; ++x, p += 3) {
        const Lab lab = to_lab(tables, p);
        l.row(y)[x] = static_cast<float>(lab.l);
        a.row(y)[x] = static_cast<float>(lab.a);
        b.row(y)[x] = static_cast<float>(lab.b);
        pixels.row(y)[x] = {lab.l, lab.a, lab.b, 1};
      }
    }
  }
};

/// Pixels of a row against one center: the nearer wins, the earlier of equals stays.
HER2FAST_HOT void compare_row(const float* __restrict l, const float* __restrict a,
                              const float* __restrict b, const float* __restrict along,
                              float down, Center center, std::int32_t k,
                              std::int64_t count, float* __restrict nearest,
                              std::int32_t* __restrict label) {
  for (std::int64_t x = 0; x < count; ++x) {
    const float dl = l[x] - center.l, da = a[x] - center.a, db = b[x] - center.b;
    const float away = ((dl * dl + da * da) + db * db) + (along[x] + down);
    const float before = nearest[x];
    const std::int32_t nearer = -static_cast<std::int32_t>(away < before);  // 0 or ~0
    nearest[x] = away < before ? away : before;
    label[x] = (label[x] & ~nearer) | (k & nearer);  // a choice would be a branch
  }
}

void check_rule(const SuperpixelRule& rule) {
  if (rule.size_px < 2 || rule.size_px > kMaxSuperpixelPx) {
    throw std::invalid_argument(
        "need 2 <= size_px <= " + std::to_string(kMaxSuperpixelPx) +
        ", got size_px=" + std::to_string(rule.size_px));
  }
  if (!(rule.compactness >= 0.01 && rule.compactness <= 1000.0)) {
    throw std::invalid_argument("need 0.01 <= compactness <= 1000, got " +
                                std::to_string(rule.compactness));
  }
  if (rule.iterations < 1 || rule.iterations > 100) {
    throw std::invalid_argument("need 1 <= iterations <= 100, got " +
                                std::to_string(rule.iterations));
  }
}

/// Middles of the cells of a grid along one side.
std::vector<float> seeds(std::int64_t length_px, std::int32_t size_px) {
  const std::int64_t count =
      std::max<std::int64_t>(1, (length_px + size_px / 2) / size_px);
  std::vector<float> out;
  for (std::int64_t i = 0; i < count; ++i) {
    out.push_back(static_cast<float>((2 * i + 1) * length_px / (2 * count)));
  }
  return out;
}

class Clusters {
 public:
  Clusters(const Picture& picture, const SuperpixelRule& rule)
      : picture_(picture),
        size_px_(rule.size_px),
        labels_(picture.height, picture.width, 0),
        nearest_(static_cast<std::size_t>(picture.width)) {
    const double weight = rule.compactness * kLabOne / rule.size_px;
    weight_ = static_cast<float>(weight * weight);
    for (const float y : seeds(picture.height, rule.size_px)) {
      for (const float x : seeds(picture.width, rule.size_px)) {
        centers_.push_back({0, 0, 0, x, y});
      }
    }
    windows_.resize(centers_.size());
  }

  std::int64_t count() const { return static_cast<std::int64_t>(centers_.size()); }
  const Plane<std::int32_t>& labels() const { return labels_; }

  /// In the first round all colors are equally far, the pixel's place decides, and no
  /// center but the nearest four can win.
  void run(std::int32_t iterations) {
    for (std::int32_t i = 0; i < iterations; ++i) {
      set_windows(i == 0 ? size_px_ : 2 * size_px_);
      assign();
      move_centers();
    }
  }

 private:
  /// Where a center is looked at, and the squares of distances along x, weighed.
  struct Window {
    std::int64_t left, right, top, bottom;
    std::vector<float> along;
  };

  void set_windows(std::int32_t reach_px) {
    const auto reach = static_cast<float>(reach_px);
    const auto from = [&](float at) {
      return static_cast<std::int64_t>(std::max(std::ceil(at - reach), 0.0F));
    };
    const auto to = [&](float at, std::int64_t end) {
      return std::min(static_cast<std::int64_t>(std::floor(at + reach)) + 1, end);
    };
    for (std::size_t k = 0; k < centers_.size(); ++k) {
      const Center& center = centers_[k];
      Window& window = windows_[k];
      window.left = from(center.x);
      window.right = to(center.x, picture_.width);
      window.top = from(center.y);
      window.bottom = to(center.y, picture_.height);
      window.along.clear();
      for (std::int64_t x = window.left; x < window.right; ++x) {
        window.along.push_back(squared(x, center.x));
      }
    }
  }

  float squared(std::int64_t at, float center) const {
    const float away = static_cast<float>(at) - center;
    return away * away * weight_;
  }

  void assign() {
    sums_.assign(centers_.size(), {});
    totals_.assign(centers_.size(), {});
    for (std::int64_t y = 0; y < picture_.height; ++y) {
      std::fill(nearest_.begin(), nearest_.end(), std::numeric_limits<float>::max());
      for (std::size_t k = 0; k < centers_.size(); ++k) {
        const Window& window = windows_[k];
        if (y < window.top || y >= window.bottom) continue;
        const std::int64_t x = window.left;
        compare_row(picture_.l.row(y) + x, picture_.a.row(y) + x, picture_.b.row(y) + x,
                    window.along.data(), squared(y, centers_[k].y), centers_[k],
                    static_cast<std::int32_t>(k), window.right - x, nearest_.data() + x,
                    labels_.row(y) + x);
      }
      add_row(y);
      if ((y + 1) % kRowsInSums == 0 || y + 1 == picture_.height) flush();
    }
  }

  void add_row(std::int64_t y) {
    const Pixel* const pixels = picture_.pixels.row(y);
    const std::int32_t* const label = labels_.row(y);
    Sums* const sums = sums_.data();
    const auto down = static_cast<std::int32_t>(y);
    for (std::int32_t x = 0; x < static_cast<std::int32_t>(picture_.width); ++x) {
      Sums& sum = sums[label[x]];
      const Pixel& pixel = pixels[x];
      sum.l += pixel.l;
      sum.a += pixel.a;
      sum.b += pixel.b;
      sum.px += pixel.one;
      sum.x += x;
      sum.y += down;
    }
  }

  void flush() {
    for (std::size_t k = 0; k < sums_.size(); ++k) {
      totals_[k].add(sums_[k]);
      sums_[k] = {};
    }
  }

  void move_centers() {
    for (std::size_t k = 0; k < centers_.size(); ++k) {
      const Totals& total = totals_[k];
      if (total.px == 0) continue;  // a center without pixels stays where it was
      const auto mean = [&](std::int64_t sum) {
        return static_cast<float>(static_cast<double>(sum) /
                                  static_cast<double>(total.px));
      };
      centers_[k] = {mean(total.l), mean(total.a), mean(total.b), mean(total.x),
                     mean(total.y)};
    }
  }

  const Picture& picture_;
  std::int32_t size_px_;
  float weight_ = 0;
  Plane<std::int32_t> labels_;
  std::vector<float> nearest_;
  std::vector<Center> centers_;
  std::vector<Window> windows_;
  std::vector<Sums> sums_;
  std::vector<Totals> totals_;
};

/// Gives each 4-connected piece a number in reading order; a piece smaller than `least`
/// takes that of a neighbor that has one already.
std::int32_t number_pieces(const Plane<std::int32_t>& in, std::int64_t least,
                           ImageView<std::int32_t> out) {
  constexpr std::int32_t kNone = -1;
  const std::int64_t height = out.height, width = out.width;
  for (std::int64_t y = 0; y < height; ++y) std::fill_n(out.row(y), width, kNone);
  std::int32_t count = 0;
  std::vector<std::pair<std::int32_t, std::int32_t>> piece;  // x, y
  for (std::int64_t y0 = 0; y0 < height; ++y0) {
    for (std::int64_t x0 = 0; x0 < width; ++x0) {
      if (out.row(y0)[x0] != kNone) continue;
      const std::int32_t label = in.row(y0)[x0];
      std::int32_t beside = kNone;
      piece.assign(1, {static_cast<std::int32_t>(x0), static_cast<std::int32_t>(y0)});
      out.row(y0)[x0] = count;
      const auto visit = [&](std::int32_t x, std::int32_t y) {
        std::int32_t& own = out.row(y)[x];
        if (own == kNone) {
          if (in.row(y)[x] != label) return;
          own = count;
          piece.emplace_back(x, y);
        } else if (own != count) {
          beside = own;
        }
      };
      for (std::size_t i = 0; i < piece.size(); ++i) {
        const auto [x, y] = piece[i];
        if (x + 1 < width) visit(x + 1, y);
        if (x > 0) visit(x - 1, y);
        if (y + 1 < height) visit(x, y + 1);
        if (y > 0) visit(x, y - 1);
      }
      if (static_cast<std::int64_t>(piece.size()) < least && beside != kNone) {
        for (const auto& [x, y] : piece) out.row(y)[x] = beside;
      } else {
        ++count;
      }
    }
  }
  return count;
}

}  // namespace

std::int32_t superpixels(ImageView<const std::uint8_t> rgb, const SuperpixelRule& rule,
                         ImageView<std::int32_t> labels, Device device) {
  check_device(device, "superpixels");
  check_channels(rgb, 3, "an RGB image");
  check_channels(labels, 1, "labels");
  check_same_size(rgb, labels, "labels");
  check_rule(rule);
  if (rgb.height < 1 || rgb.width < 1 || rgb.height > kMaxSuperpixelSidePx ||
      rgb.width > kMaxSuperpixelSidePx) {
    throw std::invalid_argument(
        "need sides of 1 to " + std::to_string(kMaxSuperpixelSidePx) + " px, got " +
        std::to_string(rgb.height) + " x " + std::to_string(rgb.width));
  }
  const Picture picture(rgb);
  Clusters clusters(picture, rule);
  clusters.run(rule.iterations);
  const std::int64_t least = rgb.height * rgb.width / (2 * clusters.count());
  return number_pieces(clusters.labels(), least, labels);
}

}  // namespace her2fast
