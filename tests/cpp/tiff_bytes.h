// SPDX-License-Identifier: Apache-2.0
/// TIFF files built by hand, in every dialect, and a source that counts what is read of
/// them.
#pragma once

#include <atomic>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "her2fast/error.h"
#include "her2fast/slide.h"

namespace her2fast::testing {

using Bytes = std::vector<std::byte>;

class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(Bytes bytes) : bytes_(std::move(bytes)) {}
  std::uint64_t size() const override { return bytes_.size(); }
  const std::string& name() const override { return name_; }
  void read(std::uint64_t offset, std::size_t size, std::byte* out) const override {
    if (offset > bytes_.size() || size > bytes_.size() - offset) {
      throw Error(Code::kTruncated, "memory: beyond the end");
    }
    bytes_read += size;
    std::memcpy(out, bytes_.data() + offset, size);
  }
  void expect(std::uint64_t offset, std::uint64_t size) const override {
    expected.emplace_back(offset, size);
  }
  mutable std::atomic<std::uint64_t> bytes_read{0};
  mutable std::vector<std::pair<std::uint64_t, std::uint64_t>> expected;  // offset, size

 private:
  Bytes bytes_;
  std::string name_ = "memory";
};

struct Dialect {
  bool little = true;
  bool big = false;
};

struct Tag {
  std::uint16_t type = 3;  // SHORT
  std::vector<std::uint64_t> values;
  Bytes raw;                // used instead of `values` where not empty
  std::uint64_t count = 0;  // overrides the true count where not 0
  bool external = false;    // `position` instead of the value
  std::uint64_t position = 0;
};
using Tags = std::map<std::uint16_t, Tag>;

inline void put(Bytes& out, std::uint64_t value, std::size_t size, bool little) {
  for (std::size_t i = 0; i < size; ++i) {
    const std::size_t shift = 8 * (little ? i : size - 1 - i);
    out.push_back(static_cast<std::byte>(value >> shift));
  }
}

inline std::size_t unit_of(std::uint16_t type) {
  switch (type) {
    case 3:
      return 2;
    case 4:
    case 9:
    case 11:
    case 13:
      return 4;
    case 5:
    case 12:
    case 16:
      return 8;
    default:
      return 1;
  }
}

/// Header, `data` (its offset is 16), then the directories one after the other.
/// @param last_next  the last directory's "next" offset; 1 stands for the first
/// directory.
inline Bytes build_tiff(Dialect d, const Bytes& data,
                        const std::vector<Tags>& directories,
                        std::uint64_t last_next = 0) {
  const std::size_t word = d.big ? 8 : 4;
  Bytes out;
  const char order = d.little ? 'I' : 'M';
  out.push_back(static_cast<std::byte>(order));
  out.push_back(static_cast<std::byte>(order));
  put(out, d.big ? 43 : 42, 2, d.little);
  const std::uint64_t first = (16 + data.size() + 7) / 8 * 8;
  if (d.big) put(out, 8, 2, d.little), put(out, 0, 2, d.little);
  put(out, first, word, d.little);
  out.resize(16);
  out.insert(out.end(), data.begin(), data.end());
  out.resize(first);
  for (std::size_t i = 0; i < directories.size(); ++i) {
    const Tags& tags = directories[i];
    const std::uint64_t start = out.size();
    const std::uint64_t after =
        start + (d.big ? 8 : 2) + tags.size() * (d.big ? 20 : 12) + word;
    Bytes values;
    put(out, tags.size(), d.big ? 8 : 2, d.little);
    for (const auto& [number, tag] : tags) {
      Bytes raw = tag.raw;
      if (raw.empty()) {
        for (const std::uint64_t v : tag.values) put(raw, v, unit_of(tag.type), d.little);
      }
      put(out, number, 2, d.little);
      put(out, tag.type, 2, d.little);
      put(out, tag.count != 0 ? tag.count : raw.size() / unit_of(tag.type), word,
          d.little);
      if (tag.external) {
        put(out, tag.position, word, d.little);
      } else if (raw.size() <= word) {
        out.insert(out.end(), raw.begin(), raw.end());
        out.resize(out.size() + word - raw.size());
      } else {
        put(out, after + values.size(), word, d.little);
        values.insert(values.end(), raw.begin(), raw.end());
      }
    }
    const bool last = i + 1 == directories.size();
    const std::uint64_t next =
        last ? (last_next == 1 ? first : last_next) : after + values.size();
    put(out, next, word, d.little);
    out.insert(out.end(), values.begin(), values.end());
  }
  return out;
}

/// 48 x 40 px of uncompressed RGB in four tiles of 32 x 32; byte k of tile t is 7k + 31t.
inline Bytes plain_tiles() {
  Bytes data;
  for (std::size_t t = 0; t < 4; ++t) {
    for (std::size_t k = 0; k < 32 * 32 * 3; ++k) {
      data.push_back(static_cast<std::byte>(7 * k + 31 * t));
    }
  }
  return data;
}

inline Tags plain_tags() {
  constexpr std::uint64_t kTile = 32 * 32 * 3;
  Tags tags;
  tags[256] = {4, {48}, {}};
  tags[257] = {4, {40}, {}};
  tags[258] = {3, {8, 8, 8}, {}};
  tags[259] = {3, {1}, {}};
  tags[262] = {3, {2}, {}};
  tags[277] = {3, {3}, {}};
  tags[282] = {5, {}, {}};
  tags[284] = {3, {1}, {}};
  tags[296] = {3, {3}, {}};
  tags[322] = {3, {32}, {}};
  tags[323] = {3, {32}, {}};
  tags[324] = {4, {16, 16 + kTile, 16 + 2 * kTile, 16 + 3 * kTile}, {}};
  tags[325] = {4, {kTile, kTile, kTile, kTile}, {}};
  tags.erase(282);
  return tags;
}

/// 20000 px/cm, which is 0.5 um/px.
inline void add_resolution(Tags& tags, bool little) {
  for (const std::uint16_t number : {std::uint16_t{282}, std::uint16_t{283}}) {
    Tag tag;
    tag.type = 5;
    put(tag.raw, 40000, 4, little);
    put(tag.raw, 2, 4, little);
    tags[number] = tag;
  }
}

/// What opening ends with; nothing where it opens.
inline std::optional<Code> code_of_open(const Bytes& bytes) {
  try {
    open_slide(std::make_shared<MemorySource>(bytes));
  } catch (const Error& error) {
    return error.code();
  }
  return std::nullopt;
}

}  // namespace her2fast::testing
