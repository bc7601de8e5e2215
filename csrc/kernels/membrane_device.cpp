// SPDX-License-Identifier: Apache-2.0
#include "kernels/membrane_device.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "core/cuda_library.h"
#include "kernels/membrane_tile.h"

namespace her2fast {
namespace {

/// A batch's results in host memory.
struct HostResults {
  std::vector<std::int32_t> first_component, sides;
  std::vector<Her2Component> components;
  std::vector<std::uint8_t> densities;
};

template <typename T>
void fetch(const Her2CudaTable& cuda, const T* from, std::int64_t count,
           std::vector<T>& to, void* stream) {
  to.resize(static_cast<std::size_t>(count));
  call_cuda("membrane_label", cuda.copy, static_cast<void*>(to.data()),
            static_cast<const void*>(from), std::uint64_t{to.size() * sizeof(T)},
            std::int32_t{HER2_CUDA_TO_HOST}, stream);
}

PixelBox box_of(const Her2Component& c, std::int32_t width) {
  return {c.x0, c.first / width, c.x1, c.y1};
}
PixelKey first_of(const Her2Component& c, std::int32_t width) {
  return pixel_key(c.first / width, c.first % width);
}

/// One tile from its components, which are numbered from `base`.
class TileMaker {
 public:
  TileMaker(const HostResults& all, std::int32_t base, std::int32_t end,
            std::int32_t height, std::int32_t width, bool has_density)
      : all_(all), base_(base), end_(end), out_(std::make_shared<TileLabels>()) {
    out_->height = height;
    out_->width = width;
    out_->has_density = has_density;
  }

  MembraneTile make(const std::int32_t* sides) {
    number_open();
    add_gaps();
    add_membranes();
    for (const int side : {kTop, kRight, kBottom, kLeft}) {
      const bool along = side == kTop || side == kBottom;
      auto& parts = out_->sides[static_cast<std::size_t>(side)];
      const std::int32_t length = along ? out_->width : out_->height;
      // Neighbors of one kind are connected, so the kinds of parts take turns.
      for (std::int32_t i = 0; i < length; ++i) {
        const std::int32_t c = *sides++;
        const std::int32_t label = at(c).is_membrane != 0 ? index_of(c) : ~index_of(c);
        if (parts.empty() || parts.back().label != label) parts.push_back({i, label});
        parts.back().end = i + 1;
      }
    }
    return MembraneTile(std::move(out_));
  }

 private:
  struct Enclosed {
    std::int64_t compartments = 0, px = 0;
  };

  const Her2Component& at(std::int32_t c) const {
    return all_.components[static_cast<std::size_t>(c)];
  }
  std::int32_t& index_of(std::int32_t c) {
    return index_[static_cast<std::size_t>(c - base_)];
  }

  /// Membranes and gaps on the border, each in order.
  void number_open() {
    index_.assign(static_cast<std::size_t>(end_ - base_), -1);
    std::int32_t membranes = 0, gaps = 0;
    for (std::int32_t c = base_; c < end_; ++c) {
      if (at(c).on_border == 0) continue;
      index_of(c) = at(c).is_membrane != 0 ? membranes++ : gaps++;
    }
    enclosed_.resize(index_.size());
  }

  void add_gaps() {
    for (std::int32_t c = base_; c < end_; ++c) {
      const Her2Component& gap = at(c);
      if (gap.is_membrane != 0) continue;
      const PixelKey first = first_of(gap, out_->width);
      const GapSums sums{first, box_of(gap, out_->width), gap.px, gap.nuclei};
      const std::int32_t above = gap.above;
      if (gap.on_border != 0) {
        out_->gaps.push_back(sums);
        out_->gap_above.push_back(above < 0 ? -1 : index_of(above));
      } else if (at(above).on_border != 0) {
        out_->enclosed.push_back(sums);
        out_->enclosed_by.push_back(index_of(above));
      } else {
        Enclosed& enclosed = enclosed_[static_cast<std::size_t>(above - base_)];
        ++enclosed.compartments;
        enclosed.px += gap.px;
        const PixelKey owner = first_of(at(above), out_->width);
        out_->inner_compartments.push_back({key_x(first), key_y(first), sums.box, sums.px,
                                            key_x(owner), key_y(owner), gap.nuclei});
      }
    }
  }

  void add_membranes() {
    DensityHistogram histogram{};
    for (std::int32_t c = base_; c < end_; ++c) {
      const Her2Component& from = at(c);
      if (from.is_membrane == 0) continue;
      MembraneSums sums{first_of(from, out_->width),
                        box_of(from, out_->width),
                        from.px,
                        {from.straight, from.diagonal, from.euler4},
                        0};
      if (out_->has_density) {
        histogram.fill(0);
        const std::uint8_t* next = all_.densities.data() + from.densities_at;
        for (std::int32_t i = 0; i < from.densities; ++i) ++histogram[next[i]];
      }
      if (from.on_border != 0) {
        out_->open.push_back(sums);
        if (out_->has_density) out_->histograms.push_back(histogram);
      } else {
        const Enclosed& enclosed = enclosed_[static_cast<std::size_t>(c - base_)];
        out_->inner.push_back(describe_membrane(sums,
                                                out_->has_density ? &histogram : nullptr,
                                                enclosed.compartments, enclosed.px));
      }
    }
  }

  const HostResults& all_;
  std::int32_t base_, end_;
  std::shared_ptr<TileLabels> out_;
  std::vector<std::int32_t> index_;
  std::vector<Enclosed> enclosed_;
};

}  // namespace

std::vector<MembraneTile> membrane_tiles(const Her2CudaTable& cuda,
                                         const Her2MembraneResults& results,
                                         std::int64_t n, std::int64_t height,
                                         std::int64_t width, bool has_density,
                                         std::int32_t device, void* stream) {
  HostResults host;
  std::vector<std::int32_t> counts;
  const std::int64_t around = 2 * (height + width);
  fetch(cuda, results.first_component, n + 1, host.first_component, stream);
  fetch(cuda, results.sides, n * around, host.sides, stream);
  fetch(cuda, results.counts, 2, counts, stream);
  call_cuda("membrane_label", cuda.synchronize, device, stream);
  if (counts[1] != 0) {
    throw std::invalid_argument("need nuclei within tiles of " + std::to_string(width) +
                                " x " + std::to_string(height) + " pixels, got " +
                                std::to_string(counts[1]) + " outside");
  }
  fetch(cuda, results.components, host.first_component.back(), host.components, stream);
  if (has_density) fetch(cuda, results.densities, counts[0], host.densities, stream);
  call_cuda("membrane_label", cuda.synchronize, device, stream);
  std::vector<MembraneTile> out;
  for (std::int64_t t = 0; t < n; ++t) {
    const auto tile = static_cast<std::size_t>(t);
    TileMaker maker(host, host.first_component[tile], host.first_component[tile + 1],
                    static_cast<std::int32_t>(height), static_cast<std::int32_t>(width),
                    has_density);
    out.push_back(maker.make(host.sides.data() + t * around));
  }
  return out;
}

}  // namespace her2fast
