// SPDX-License-Identifier: Apache-2.0
#include "io/tiff_fields.h"

#include <algorithm>

namespace her2fast::io {

void append_little(std::vector<std::byte>& out, std::uint64_t value, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i)
    out.push_back(static_cast<std::byte>(value >> (8 * i)));
}

void DirectoryBuilder::add(std::uint16_t tag, std::uint16_t type, std::size_t unit,
                           const std::vector<std::uint64_t>& values) {
  Field field{tag, type, values.size(), {}};
  field.value.reserve(values.size() * unit);
  for (const std::uint64_t value : values) append_little(field.value, value, unit);
  fields_.push_back(std::move(field));
}

void DirectoryBuilder::ascii(std::uint16_t tag, const std::string& text) {
  Field field{tag, 2, text.size() + 1, {}};
  for (const char c : text) field.value.push_back(static_cast<std::byte>(c));
  field.value.push_back(std::byte{0});
  fields_.push_back(std::move(field));
}

void DirectoryBuilder::bytes(std::uint16_t tag, const std::vector<std::byte>& values) {
  fields_.push_back(Field{tag, 7, values.size(), values});
}

void DirectoryBuilder::rational(std::uint16_t tag, std::uint32_t numerator,
                                std::uint32_t denominator) {
  Field field{tag, 5, 1, {}};
  append_little(field.value, numerator, 4);
  append_little(field.value, denominator, 4);
  fields_.push_back(std::move(field));
}

std::vector<std::byte> DirectoryBuilder::layout(std::uint64_t offset, bool big,
                                                bool last) const {
  std::vector<Field> fields = fields_;
  std::sort(fields.begin(), fields.end(),
            [](const Field& a, const Field& b) { return a.tag < b.tag; });
  const std::size_t word = big ? 8 : 4, entry = big ? 20 : 12;
  const std::uint64_t values_at = offset + (big ? 8 : 2) + fields.size() * entry + word;
  std::vector<std::byte> head, values;
  append_little(head, fields.size(), big ? 8 : 2);
  for (const Field& field : fields) {
    append_little(head, field.tag, 2);
    append_little(head, field.type, 2);
    append_little(head, field.count, word);
    if (field.value.size() <= word) {
      head.insert(head.end(), field.value.begin(), field.value.end());
      head.resize(head.size() + word - field.value.size());
    } else {
      values.resize((values.size() + 7) / 8 * 8);
      append_little(head, values_at + values.size(), word);
      values.insert(values.end(), field.value.begin(), field.value.end());
    }
  }
  // Directories start at a multiple of 8. The last has nothing behind it: whatever is cut
  // off a file's end is then noticed.
  const std::size_t total = head.size() + word + values.size();
  const std::size_t padding = last ? 0 : (8 - (offset + total) % 8) % 8;
  append_little(head, last ? 0 : offset + total + padding, word);
  head.insert(head.end(), values.begin(), values.end());
  head.resize(head.size() + padding);
  return head;
}

}  // namespace her2fast::io
