// SPDX-License-Identifier: Apache-2.0
#include "her2fast/measurement.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "her2fast/error.h"

namespace her2fast {
namespace {

constexpr char kMagic[4] = {'H', '2', 'M', '1'};
constexpr std::uint8_t kPlainMask = 0, kDeflatedMask = 1;  // first byte of a packed mask
constexpr std::size_t kMaxHeaderBytes = std::size_t{1} << 20;

// Little-endian on every machine; the targets of this library are, so bytes are copied.
class Writer {
 public:
  template <typename T>
  void value(T v) {
    static_assert(std::is_trivially_copyable_v<T>);
    raw(&v, sizeof(T));
  }
  template <typename T>
  void array(const std::vector<T>& v) {
    value(static_cast<std::uint32_t>(v.size()));
    raw(v.data(), v.size() * sizeof(T));
  }
  void raw(const void* data, std::size_t size) {
    const std::size_t end = bytes.size();
    bytes.resize(end + size);
    if (size > 0) std::memcpy(bytes.data() + end, data, size);
  }
  std::vector<std::uint8_t> bytes;
};

class Reader {
 public:
  Reader(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}
  template <typename T>
  T value() {
    T v;
    std::memcpy(&v, take(sizeof(T)), sizeof(T));
    return v;
  }
  template <typename T>
  void array(std::vector<T>& v) {
    const std::size_t count = value<std::uint32_t>();
    const auto* p = take(count * sizeof(T));  // checked before anything is allocated
    v.resize(count);
    if (count > 0) std::memcpy(v.data(), p, count * sizeof(T));
  }
  std::size_t left() const { return left_; }

 private:
  const std::uint8_t* take(std::size_t count) {
    if (count > left_) {
      throw Error(Code::kTruncated, "measurement ends early; score the slide again");
    }
    const std::uint8_t* p = data_;
    data_ += count;
    left_ -= count;
    return p;
  }
  const std::uint8_t* data_;
  std::size_t left_;
};

void write_census(Writer& out, const StainCensus& c) {
  for (const std::int64_t v : {c.pixels, c.dark, c.tissue, c.stained, c.eosin, c.h_dab}) {
    out.value(v);
  }
}

StainCensus read_census(Reader& in) {
  StainCensus c;
  for (std::int64_t* v :
       {&c.pixels, &c.dark, &c.tissue, &c.stained, &c.eosin, &c.h_dab}) {
    *v = in.value<std::int64_t>();
  }
  return c;
}

std::uint32_t checksum(const std::uint8_t* data, std::size_t size) {
  return static_cast<std::uint32_t>(crc32_z(0, data, size));
}

// What the arrays of a tile may be, so that nothing downstream checks again.
void check_tile(const Measurement& m, const TileRecord& tile, std::int64_t index) {
  const auto slots = static_cast<std::size_t>(m.patches_per_side()) *
                     static_cast<std::size_t>(m.patches_per_side());
  const auto fits = [slots](std::size_t size) { return size == 0 || size == slots; };
  bool good = static_cast<int>(tile.status) <= static_cast<int>(TileStatus::kMissing) &&
              fits(tile.tissue_px.size()) && tile.focus.size() == tile.tissue_px.size() &&
              fits(tile.tumor_px.size()) &&
              (tile.tumor_px.empty() || !tile.tissue_px.empty()) &&
              tile.logits.size() == tile.slots.size() * m.class_names.size() &&
              tile.distances.size() == tile.slots.size() * m.distance_names.size();
  for (std::size_t k = 0; good && k < tile.slots.size(); ++k) {
    good = tile.slots[k] < slots && (k == 0 || tile.slots[k - 1] < tile.slots[k]);
  }
  if (!good) {
    throw Error(Code::kBadHeader, "measurement: tile " + std::to_string(index) +
                                      " contradicts the header; score the slide again");
  }
}

}  // namespace

std::vector<std::uint8_t> pack_mask(const std::vector<std::uint64_t>& bits) {
  const std::size_t raw_bytes = bits.size() * 8;
  uLongf size = compressBound(static_cast<uLong>(raw_bytes));
  std::vector<std::uint8_t> packed(1 + size);
  // Level 1: tumor masks are blobs, more effort saves little.
  if (compress2(packed.data() + 1, &size, reinterpret_cast<const Bytef*>(bits.data()),
                static_cast<uLong>(raw_bytes), 1) != Z_OK) {
    throw std::bad_alloc();
  }
  // A ragged mask hardly shrinks, and inflating it is what another region would wait for.
  const bool deflated = size * 2 <= raw_bytes;
  packed[0] = deflated ? kDeflatedMask : kPlainMask;
  packed.resize(1 + (deflated ? size : raw_bytes));
  if (!deflated) std::memcpy(packed.data() + 1, bits.data(), raw_bytes);
  packed.shrink_to_fit();
  return packed;
}

void unpack_mask(const std::vector<std::uint8_t>& packed,
                 std::vector<std::uint64_t>& bits, std::size_t words) {
  bits.resize(words);
  bool good = false;
  if (!packed.empty() && packed[0] == kPlainMask && packed.size() == 1 + words * 8) {
    std::memcpy(bits.data(), packed.data() + 1, words * 8);
    good = true;
  } else if (!packed.empty() && packed[0] == kDeflatedMask) {
    uLongf size = static_cast<uLongf>(words * 8);
    good = uncompress(reinterpret_cast<Bytef*>(bits.data()), &size, packed.data() + 1,
                      static_cast<uLong>(packed.size() - 1)) == Z_OK &&
           size == words * 8;
  }
  if (!good) {
    throw Error(Code::kBadHeader,
                "measurement: a tumor mask is damaged; score the slide again");
  }
}

void Measurement::tumor_mask(std::int64_t x_px, std::int64_t y_px,
                             ImageView<std::uint8_t> out) const {
  for (std::int64_t y = 0; y < out.height; ++y) std::fill_n(out.row(y), out.width, 0);
  const auto words = static_cast<std::size_t>(words_per_row());
  std::vector<std::uint64_t> bits;
  for (std::int64_t index = 0; index < tiles_x * tiles_y; ++index) {
    const TileRecord& tile = tiles[static_cast<std::size_t>(index)];
    const std::int64_t left = index % tiles_x * tile_px - x_px;
    const std::int64_t top = index / tiles_x * tile_px - y_px;
    if (tile.tumor_px.empty() || left >= out.width || top >= out.height ||
        left + tile_px <= 0 || top + tile_px <= 0) {
      continue;
    }
    const std::size_t all_words = words * static_cast<std::size_t>(tile_px);
    if (tile.mask.empty()) {
      bits.assign(all_words, ~std::uint64_t{0});
    } else {
      unpack_mask(tile.mask, bits, all_words);
    }
    for (std::int64_t y = std::max<std::int64_t>(0, -top);
         y < std::min<std::int64_t>(tile_px, out.height - top); ++y) {
      const std::uint64_t* row = bits.data() + static_cast<std::size_t>(y) * words;
      for (std::int64_t x = std::max<std::int64_t>(0, -left);
           x < std::min<std::int64_t>(tile_px, out.width - left); ++x) {
        out.row(top + y)[left + x] =
            static_cast<std::uint8_t>((row[x / 64] >> (x % 64)) & 1);
      }
    }
  }
}

std::vector<std::uint8_t> Measurement::to_bytes() const {
  nlohmann::ordered_json header = {
      {"width_px", frame.width_px},
      {"height_px", frame.height_px},
      {"spacing_x_pm", frame.spacing_x.pm},
      {"spacing_y_pm", frame.spacing_y.pm},
      {"working_spacing_pm", spacing.pm},
      {"tile_px", tile_px},
      {"patch_px", patch_px},
      {"tiles_x", tiles_x},
      {"tiles_y", tiles_y},
      {"class_names", class_names},
      {"key", key},
  };
  // Only where there are any: what other packages measured keeps its bytes.
  if (!distance_names.empty()) header["distance_names"] = distance_names;
  const std::string text = header.dump();
  Writer out;
  out.raw(kMagic, sizeof kMagic);
  out.value(static_cast<std::uint32_t>(text.size()));
  out.raw(text.data(), text.size());
  for (const TileRecord& tile : tiles) {
    out.value(static_cast<std::uint8_t>(tile.status));
    write_census(out, tile.census);
    out.array(tile.tissue_px);
    out.array(tile.focus);
    out.array(tile.tumor_px);
    out.array(tile.mask);
    out.array(tile.slots);
    out.array(tile.logits);
    if (!distance_names.empty()) out.array(tile.distances);
  }
  out.value(checksum(out.bytes.data(), out.bytes.size()));
  return std::move(out.bytes);
}

Measurement Measurement::from_bytes(const std::uint8_t* data, std::size_t size) {
  if (size < 12 || std::memcmp(data, kMagic, 4) != 0) {
    throw Error(size < 12 ? Code::kTruncated : Code::kBadHeader,
                "not a measurement (want H2M1); score the slide again");
  }
  std::uint32_t stored;
  std::memcpy(&stored, data + size - 4, 4);
  if (checksum(data, size - 4) != stored) {
    throw Error(Code::kHashMismatch,
                "measurement is damaged or cut short (checksum); score the slide again");
  }
  Reader in(data + 4, size - 8);
  const std::size_t header_bytes = in.value<std::uint32_t>();
  if (header_bytes > kMaxHeaderBytes || header_bytes > in.left()) {
    throw Error(Code::kBadHeader, "measurement: header of " +
                                      std::to_string(header_bytes) +
                                      " bytes; score the slide again");
  }
  Measurement m;
  const auto* text = reinterpret_cast<const char*>(data + 8);
  try {
    const auto header = nlohmann::json::parse(text, text + header_bytes);
    m.frame = {header.at("width_px"), header.at("height_px"),
               Spacing{header.at("spacing_x_pm")}, Spacing{header.at("spacing_y_pm")}};
    m.spacing = Spacing{header.at("working_spacing_pm")};
    header.at("tile_px").get_to(m.tile_px);
    header.at("patch_px").get_to(m.patch_px);
    header.at("tiles_x").get_to(m.tiles_x);
    header.at("tiles_y").get_to(m.tiles_y);
    header.at("class_names").get_to(m.class_names);
    header.at("key").get_to(m.key);
    if (header.contains("distance_names")) {
      header.at("distance_names").get_to(m.distance_names);
    }
  } catch (const nlohmann::json::exception& error) {
    throw Error(Code::kBadHeader, std::string("measurement: ") + error.what());
  }
  m.frame.check();
  if (m.spacing.pm <= 0 || m.patch_px < 1 || m.patch_px > 4096 ||
      m.tile_px < m.patch_px || m.tile_px > 4096 || m.tile_px % m.patch_px != 0 ||
      m.tiles_x < 1 || m.tiles_y < 1 || m.tiles_x > kMaxMeasurementTiles ||
      m.tiles_y > kMaxMeasurementTiles || m.tiles_x * m.tiles_y > kMaxMeasurementTiles ||
      m.tiles_x != (m.frame.grid_width_px(m.spacing) + m.tile_px - 1) / m.tile_px ||
      m.tiles_y != (m.frame.grid_height_px(m.spacing) + m.tile_px - 1) / m.tile_px ||
      m.class_names.empty() || m.distance_names.size() > kMaxDistances) {
    throw Error(Code::kBadHeader, "measurement: impossible grid; score the slide again");
  }
  Reader body(data + 8 + header_bytes, size - 12 - header_bytes);
  const std::int64_t count = m.tiles_x * m.tiles_y;
  // A tile takes at least 73 bytes: a false count cannot ask for more memory than the
  // file has.
  if (static_cast<std::size_t>(count) > body.left() / 73) {
    throw Error(Code::kTruncated, "measurement ends early; score the slide again");
  }
  m.tiles.resize(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    TileRecord& tile = m.tiles[static_cast<std::size_t>(i)];
    tile.status = static_cast<TileStatus>(body.value<std::uint8_t>());
    tile.census = read_census(body);
    body.array(tile.tissue_px);
    body.array(tile.focus);
    body.array(tile.tumor_px);
    body.array(tile.mask);
    body.array(tile.slots);
    body.array(tile.logits);
    if (!m.distance_names.empty()) body.array(tile.distances);
    check_tile(m, tile, i);
  }
  if (body.left() != 0) {
    throw Error(Code::kBadHeader,
                "measurement: bytes after the last tile; score the slide again");
  }
  return m;
}

}  // namespace her2fast
