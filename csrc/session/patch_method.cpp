// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <stdexcept>

#include "her2fast/decide.h"
#include "her2fast/kernels.h"
#include "her2fast/session.h"

namespace her2fast {
namespace {

// Pixels of a square whose every element is written next. Not kept from call to call:
// that would be an object of the thread with a destructor, which no thread of a host may
// get from this library (docs/design/embedding.md, Threads that end).
std::unique_ptr<std::uint8_t[]> scratch(std::int32_t side_px) {
  const auto side = static_cast<std::size_t>(side_px);
  return std::make_unique_for_overwrite<std::uint8_t[]>(side * side);
}

// One round of square tiles with halo. Per tile: tissue mask -> (segmenter -> tumor mask)
// -> tumor pixels per patch -> classifier. Every tile writes its own record, every patch
// its own logits, so no lock is needed and order cannot matter.
class PatchMethod final : public Method {
 public:
  explicit PatchMethod(const PatchMethodSpec& spec) : spec_(spec) {
    check();
    result_.frame = spec.frame;
    result_.spacing = spec.spacing;
    result_.tile_px = spec.tile_px;
    result_.patch_px = spec.patch_px;
    result_.class_names = spec.class_names;
    result_.distance_names = spec.distance_names;
    result_.tiles_x =
        (spec.frame.grid_width_px(spec.spacing) + spec.tile_px - 1) / spec.tile_px;
    result_.tiles_y =
        (spec.frame.grid_height_px(spec.spacing) + spec.tile_px - 1) / spec.tile_px;
    // Each alone first: the product of two absurd counts could wrap.
    if (result_.tiles_x > kMaxMeasurementTiles ||
        result_.tiles_y > kMaxMeasurementTiles ||
        result_.tiles_x * result_.tiles_y > kMaxMeasurementTiles) {
      throw Error(Code::kLimitExceeded,
                  "need at most " + std::to_string(kMaxMeasurementTiles) + " tiles of " +
                      std::to_string(spec.tile_px) + " px, got " +
                      std::to_string(result_.tiles_x) + " x " +
                      std::to_string(result_.tiles_y) +
                      "; check the slide's size and spacing");
    }
    result_.tiles.resize(static_cast<std::size_t>(result_.tiles_x * result_.tiles_y));
    items_out_ = std::vector<std::atomic<std::int32_t>>(result_.tiles.size());
    for (auto& items : items_out_) items.store(kNotBegun, std::memory_order_relaxed);
    per_side_ = spec.tile_px / spec.patch_px;
    request_px_ = spec.tile_px + 2 * spec.halo_px;
  }

  std::vector<ModelSlot> models() const override {
    std::vector<ModelSlot> slots;
    if (spec_.has_segmenter) {
      const auto threshold = static_cast<float>(
          std::log(kLimits.tumor_probability / (1.0 - kLimits.tumor_probability)));
      slots.push_back({"segment", spec_.segment_batch, request_px_, request_px_,
                       std::int64_t{spec_.segment_channels} * request_px_ * request_px_,
                       TumorRule{spec_.segment_channels, spec_.halo_px, spec_.tile_px,
                                 spec_.patch_px, threshold}});
    }
    slots.push_back({"classify", spec_.classify_batch, spec_.patch_px, spec_.patch_px,
                     static_cast<std::int64_t>(spec_.class_names.size() +
                                               spec_.distance_names.size())});
    return slots;
  }

  std::vector<ReadRequest> plan(int round) override {
    std::vector<ReadRequest> requests;
    if (round > 0) return requests;
    requests.reserve(result_.tiles.size());
    for (std::int64_t ty = 0; ty < result_.tiles_y; ++ty) {
      for (std::int64_t tx = 0; tx < result_.tiles_x; ++tx) {
        requests.push_back({ty * result_.tiles_x + tx, tx * spec_.tile_px - spec_.halo_px,
                            ty * spec_.tile_px - spec_.halo_px, request_px_, request_px_,
                            spec_.spacing});
      }
    }
    return requests;
  }

  void accept(const ReadRequest& request, TileStatus status,
              ImageView<const std::uint8_t> rgb, ItemSink& sink) override {
    TileRecord& tile = result_.tiles[static_cast<std::size_t>(request.id)];
    tile.status = status;
    if (rgb.data == nullptr) return settle(request.id);
    // The mask is computed with the halo, so that a pixel's answer does not depend on its
    // tile.
    const auto mask_px = scratch(request_px_);
    const ImageView<std::uint8_t> mask(mask_px.get(), request_px_, request_px_);
    tissue_mask(rgb, spec_.white, mask);
    clear_beyond_slide(request, mask);
    const auto inner_rgb = inner(rgb);
    const auto inner_mask = inner(ImageView<const std::uint8_t>(mask));
    tile.census = stain_census(inner_rgb, inner_mask, spec_.white);
    if (tile.census.tissue == 0) return settle(request.id);
    const PatchGrid grid(spec_.patch_px, spec_.patch_px);
    tile.tissue_px.resize(slot_count());
    tumor_count(inner_mask, grid, counts_view(tile.tissue_px));
    tile.focus.resize(slot_count());
    focus(inner_rgb, inner_mask, grid, counts_view(tile.focus));
    if (spec_.has_segmenter) {
      items_out_[static_cast<std::size_t>(request.id)].store(1);
      sink.submit(0, request.id * item_stride(), rgb, bits_of(inner_mask).data());
    } else {
      set_tumor(tile, bits_of(inner_mask), tile.tissue_px.data());
      submit_patches(request.id, tile, inner_rgb, sink);
    }
  }

  void accept_tumor(int, std::int64_t item, ImageView<const std::uint8_t> rgb,
                    const std::uint64_t* bits, const std::uint32_t* counts,
                    ItemSink& sink) override {
    const std::int64_t id = item / item_stride();
    TileRecord& tile = result_.tiles[static_cast<std::size_t>(id)];
    const auto words = static_cast<std::size_t>(result_.words_per_row()) *
                       static_cast<std::size_t>(spec_.tile_px);
    set_tumor(tile, {bits, bits + words}, counts);
    submit_patches(id, tile, inner(rgb), sink);
  }

  void accept_output(int, std::int64_t item, ImageView<const std::uint8_t>,
                     const float* output, ItemSink&) override {
    const std::int64_t id = item / item_stride();
    TileRecord& tile = result_.tiles[static_cast<std::size_t>(id)];
    const auto slot = static_cast<std::uint16_t>(item % item_stride());
    const auto place = static_cast<std::size_t>(
        std::lower_bound(tile.slots.begin(), tile.slots.end(), slot) -
        tile.slots.begin());
    const std::size_t classes = spec_.class_names.size();
    for (std::size_t c = 0; c < classes; ++c) {
      tile.logits[place * classes + c] = logit_to_fixed(output[c]);
    }
    const std::size_t distances = spec_.distance_names.size();
    for (std::size_t k = 0; k < distances; ++k) {
      tile.distances[place * distances + k] = logit_to_fixed(output[classes + k]);
    }
    items_out_[static_cast<std::size_t>(id)].fetch_sub(1);
  }

  // A tile without items out is written no more: it can be copied beside the others.
  Snapshot snapshot() const override {
    Snapshot snapshot;
    Measurement& copy = snapshot.measurement;
    copy.frame = result_.frame;
    copy.spacing = result_.spacing;
    copy.tile_px = result_.tile_px;
    copy.patch_px = result_.patch_px;
    copy.class_names = result_.class_names;
    copy.distance_names = result_.distance_names;
    copy.tiles_x = result_.tiles_x;
    copy.tiles_y = result_.tiles_y;
    copy.tiles.resize(result_.tiles.size());
    for (std::size_t i = 0; i < copy.tiles.size(); ++i) {
      if (items_out_[i].load() == 0) {
        copy.tiles[i] = result_.tiles[i];
      } else {
        ++snapshot.open_tiles;
      }
    }
    return snapshot;
  }

  Measurement measure() override { return std::move(result_); }

 private:
  void check() const {
    spec_.frame.check();
    const auto need = [](bool good, const std::string& what) {
      if (!good) throw std::invalid_argument("need " + what);
    };
    need(spec_.spacing.pm > 0, "a working spacing above 0");
    need(spec_.patch_px >= 8 && spec_.patch_px <= 4096,
         "8 <= patch_px <= 4096, got patch_px=" + std::to_string(spec_.patch_px));
    need(spec_.tile_px >= spec_.patch_px && spec_.tile_px <= 4096 &&
             spec_.tile_px % spec_.patch_px == 0,
         "tile_px up to 4096 and a multiple of patch_px, got tile_px=" +
             std::to_string(spec_.tile_px));
    need(spec_.tile_px / spec_.patch_px <= 255, "at most 255 patches a tile side");
    need(spec_.halo_px >= kTissueReachPx && spec_.halo_px <= 1024,
         std::to_string(kTissueReachPx) +
             " <= halo_px <= 1024, got halo_px=" + std::to_string(spec_.halo_px));
    need(!spec_.class_names.empty() && spec_.class_names.size() <= 1024,
         "1 to 1024 classes");
    need(spec_.distance_names.size() <= kMaxDistances,
         "at most " + std::to_string(kMaxDistances) + " distances, got " +
             std::to_string(spec_.distance_names.size()));
    need(spec_.segment_channels == 1 || spec_.segment_channels == 2,
         "1 or 2 segmenter channels");
  }

  std::size_t slot_count() const {
    return static_cast<std::size_t>(per_side_) * static_cast<std::size_t>(per_side_);
  }
  std::int64_t item_stride() const { return static_cast<std::int64_t>(slot_count()); }

  void settle(std::int64_t id) { items_out_[static_cast<std::size_t>(id)].store(0); }

  ImageView<std::uint32_t> counts_view(std::vector<std::uint32_t>& counts) const {
    return {counts.data(), per_side_, per_side_};
  }

  // The mask's closing may reach over the slide's edge; nothing was measured there.
  void clear_beyond_slide(const ReadRequest& request,
                          ImageView<std::uint8_t> mask) const {
    const auto inside = [](std::int64_t slide_px, std::int64_t begin_px,
                           std::int64_t size_px) {
      return std::clamp<std::int64_t>(slide_px - begin_px, 0, size_px);
    };
    const std::int64_t columns =
        inside(result_.frame.grid_width_px(spec_.spacing), request.x_px, mask.width);
    const std::int64_t rows =
        inside(result_.frame.grid_height_px(spec_.spacing), request.y_px, mask.height);
    for (std::int64_t y = 0; y < mask.height; ++y) {
      const std::int64_t kept = y < rows ? columns : 0;
      std::fill(mask.row(y) + kept, mask.row(y) + mask.width, std::uint8_t{0});
    }
  }

  ImageView<const std::uint8_t> inner(ImageView<const std::uint8_t> whole) const {
    return {whole.row(spec_.halo_px) + spec_.halo_px * whole.channels, spec_.tile_px,
            spec_.tile_px, whole.channels, whole.stride};
  }

  std::vector<std::uint64_t> bits_of(ImageView<const std::uint8_t> mask) const {
    const auto words = static_cast<std::size_t>(result_.words_per_row());
    std::vector<std::uint64_t> bits(words * static_cast<std::size_t>(mask.height), 0);
    for (std::int64_t y = 0; y < mask.height; ++y) {
      const std::uint8_t* row = mask.row(y);
      std::uint64_t* out = bits.data() + static_cast<std::size_t>(y) * words;
      for (std::int64_t x = 0; x < mask.width; ++x) {
        out[x / 64] |= static_cast<std::uint64_t>(row[x] != 0) << (x % 64);
      }
    }
    return bits;
  }

  void set_tumor(TileRecord& tile, const std::vector<std::uint64_t>& bits,
                 const std::uint32_t* counts) const {
    tile.tumor_px.assign(counts, counts + slot_count());
    std::int64_t total = 0;
    for (const std::uint32_t count : tile.tumor_px) total += count;
    if (total == 0) {
      tile.tumor_px.clear();
    } else if (total < std::int64_t{spec_.tile_px} * spec_.tile_px) {
      tile.mask = pack_mask(bits);
    }
  }

  void submit_patches(std::int64_t id, TileRecord& tile,
                      ImageView<const std::uint8_t> rgb, ItemSink& sink) {
    for (std::size_t slot = 0; slot < tile.tumor_px.size(); ++slot) {
      if (keeps_patch(tile.tumor_px[slot], spec_.patch_px)) {
        tile.slots.push_back(static_cast<std::uint16_t>(slot));
      }
    }
    // Complete before the first patch leaves: answers may come while others are
    // submitted.
    tile.logits.resize(tile.slots.size() * spec_.class_names.size());
    tile.distances.resize(tile.slots.size() * spec_.distance_names.size());
    items_out_[static_cast<std::size_t>(id)].store(
        static_cast<std::int32_t>(tile.slots.size()));
    const int model = spec_.has_segmenter ? 1 : 0;
    for (const std::uint16_t slot : tile.slots) {
      const std::int64_t y = slot / per_side_ * spec_.patch_px;
      const std::int64_t x = slot % per_side_ * spec_.patch_px;
      sink.submit(model, id * item_stride() + slot,
                  {rgb.row(y) + x * 3, spec_.patch_px, spec_.patch_px, 3, rgb.stride});
    }
  }

  PatchMethodSpec spec_;
  static constexpr std::int32_t kNotBegun = -1;

  Measurement result_;
  // Per tile: what models have yet to answer; kNotBegun until its pixels came.
  std::vector<std::atomic<std::int32_t>> items_out_;
  std::int32_t per_side_ = 0;
  std::int32_t request_px_ = 0;
};

}  // namespace

std::unique_ptr<Method> make_patch_method(const PatchMethodSpec& spec) {
  return std::make_unique<PatchMethod>(spec);
}

}  // namespace her2fast
