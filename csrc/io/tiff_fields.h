// SPDX-License-Identifier: Apache-2.0
/// Little-endian TIFF directories for the writer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace her2fast::io {

/// Collects one directory's tags and lays them out, classic or BigTIFF.
class DirectoryBuilder {
 public:
  void shorts(std::uint16_t tag, const std::vector<std::uint64_t>& values) {
    add(tag, 3, 2, values);
  }
  void longs(std::uint16_t tag, const std::vector<std::uint64_t>& values) {
    add(tag, 4, 4, values);
  }
  void long8s(std::uint16_t tag, const std::vector<std::uint64_t>& values) {
    add(tag, 16, 8, values);
  }
  void ascii(std::uint16_t tag, const std::string& text);
  void bytes(std::uint16_t tag, const std::vector<std::byte>& values);
  void rational(std::uint16_t tag, std::uint32_t numerator, std::uint32_t denominator);

  /// The directory's bytes when it starts at `offset`, its values behind it; the offset
  /// of the next directory is where these bytes end, or 0 for the last.
  std::vector<std::byte> layout(std::uint64_t offset, bool big, bool last) const;

 private:
  struct Field {
    std::uint16_t tag, type;
    std::uint64_t count;
    std::vector<std::byte> value;
  };
  void add(std::uint16_t tag, std::uint16_t type, std::size_t unit,
           const std::vector<std::uint64_t>& values);

  std::vector<Field> fields_;
};

void append_little(std::vector<std::byte>& out, std::uint64_t value, std::size_t bytes);

}  // namespace her2fast::io
