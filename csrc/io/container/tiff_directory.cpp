// SPDX-License-Identifier: Apache-2.0
#include "io/container/tiff_directory.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

namespace her2fast::io {
namespace {

// Bytes per value of TIFF 6.0 and BigTIFF types, by number; 0 is unknown.
constexpr std::array<std::uint8_t, 19> kTypeBytes{0, 1, 1, 2, 4, 8, 1, 1, 2, 4,
                                                  8, 4, 8, 4, 0, 0, 8, 8, 8};
constexpr std::uint16_t kByte = 1, kAscii = 2, kShort = 3, kLong = 4, kRational = 5,
                        kUndefined = 7, kSShort = 8, kSLong = 9, kFloat = 11,
                        kDouble = 12, kIfd = 13, kLong8 = 16, kIfd8 = 18;

std::uint64_t type_bytes(std::uint16_t type) {
  return type < kTypeBytes.size() ? kTypeBytes[type] : 0;
}

bool is_integer(std::uint16_t type) {
  return type == kByte || type == kShort || type == kLong || type == kIfd ||
         type == kLong8 || type == kIfd8;
}

}  // namespace

bool TiffFile::has_magic(const ByteSource& source) {
  if (source.size() < 4) return false;
  std::array<std::byte, 4> head;
  source.read(0, head.size(), head.data());
  constexpr std::array<std::array<std::uint8_t, 4>, 4> kMagics{
      {{'I', 'I', 42, 0}, {'M', 'M', 0, 42}, {'I', 'I', 43, 0}, {'M', 'M', 0, 43}}};
  return std::any_of(kMagics.begin(), kMagics.end(), [&](const auto& magic) {
    return std::memcmp(magic.data(), head.data(), head.size()) == 0;
  });
}

bool TiffFile::is_ndpi(const ByteSource& source) {
  const std::uint64_t size = source.size();
  std::array<std::byte, 12> head{};
  if (size < head.size()) return false;
  source.read(0, head.size(), head.data());
  if (head[0] != std::byte{'I'} || head[2] != std::byte{42}) return false;
  const auto little = [](const std::byte* bytes, std::size_t count) {
    std::uint64_t value = 0;
    for (std::size_t i = count; i-- > 0;) {
      value = value << 8 | std::to_integer<std::uint64_t>(bytes[i]);
    }
    return value;
  };
  for (const std::size_t width : {std::size_t{4}, std::size_t{8}}) {
    const std::uint64_t offset = little(head.data() + 4, width);
    if (offset > size || size - offset < 2) continue;
    std::array<std::byte, 2> count_bytes;
    source.read(offset, 2, count_bytes.data());
    const std::uint64_t count = little(count_bytes.data(), 2);
    if (count == 0 || count > kMaxEntriesPerDirectory || size - offset - 2 < count * 12)
      continue;
    std::vector<std::byte> entries(count * 12);
    source.read(offset + 2, entries.size(), entries.data());
    for (std::uint64_t i = 0; i < count; ++i) {
      if (little(entries.data() + i * 12, 2) == tag::kNdpiMark) return true;
    }
  }
  return false;
}

TiffFile::TiffFile(std::shared_ptr<const ByteSource> source)
    : source_(std::move(source)) {
  if (!has_magic(*source_)) {
    throw Error(Code::kUnsupportedFormat, source_->name() + ": not a TIFF file");
  }
  std::array<std::byte, 4> head;
  source_->read(0, head.size(), head.data());
  little_ = head[0] == std::byte{'I'};
  big_ = head[little_ ? 2 : 3] == std::byte{43};
  if (big_ && (read_integer(4, 2) != 8 || read_integer(6, 2) != 0)) {
    throw Error(Code::kBadHeader,
                source_->name() + ": BigTIFF header without 8-byte offsets");
  }
  ndpi_ = is_ndpi(*source_);
  std::uint64_t offset = big_ ? read_integer(8, 8) : read_integer(4, ndpi_ ? 8 : 4);
  if (offset == 0) {
    throw Error(Code::kBadHeader, source_->name() + ": TIFF without a directory");
  }
  while (offset != 0) {
    visit(offset);
    offset = parse_directory(offset, false);
  }
  // Pyramids of OME-TIFF hang their levels below the first directory.
  if (find(directories_.front(), tag::kSubIfds) != nullptr) {
    const auto subs = integers(directories_.front(), tag::kSubIfds, 64);
    for (const std::uint64_t sub : subs) {
      visit(sub);
      parse_directory(sub, true);
    }
  }
}

std::uint64_t TiffFile::decode(const std::byte* bytes, std::size_t size) const {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < size; ++i) {
    value =
        value << 8 | std::to_integer<std::uint64_t>(bytes[little_ ? size - 1 - i : i]);
  }
  return value;
}

std::uint64_t TiffFile::read_integer(std::uint64_t offset, std::size_t size) const {
  std::array<std::byte, 8> bytes;
  source_->read(offset, size, bytes.data());
  return decode(bytes.data(), size);
}

void TiffFile::visit(std::uint64_t offset) {
  if (std::find(visited_.begin(), visited_.end(), offset) != visited_.end()) {
    throw Error(Code::kIfdCycle, source_->name() + ": directory at byte " +
                                     std::to_string(offset) +
                                     " is chained twice; the file is damaged");
  }
  if (visited_.size() >= kMaxDirectories) {
    throw Error(Code::kLimitExceeded, source_->name() + ": more than " +
                                          std::to_string(kMaxDirectories) +
                                          " directories");
  }
  visited_.push_back(offset);
}

std::uint64_t TiffFile::parse_directory(std::uint64_t offset, bool is_sub) {
  const std::string place =
      source_->name() + ": directory " + std::to_string(directories_.size());
  const std::uint64_t size = source_->size();
  const std::size_t count_bytes = big_ ? 8 : 2, entry_bytes = big_ ? 20 : 12,
                    word = big_ ? 8 : 4, next_bytes = big_ || ndpi_ ? 8 : 4;
  const auto need = [&](std::uint64_t position, std::uint64_t bytes,
                        const std::string& what) {
    if (position <= size && bytes <= size - position) return;
    throw Error(Code::kTruncated, place + " " + what + ": need " + std::to_string(bytes) +
                                      " bytes at byte " + std::to_string(position) +
                                      ", the file has " + std::to_string(size) +
                                      "; copy it again from the scanner");
  };
  need(offset, count_bytes, "count");
  const std::uint64_t count = read_integer(offset, count_bytes);
  if (count == 0) throw Error(Code::kBadHeader, place + " has no entries");
  if (count > kMaxEntriesPerDirectory || entries_ + count > kMaxEntries) {
    throw Error(Code::kLimitExceeded, place + " has " + std::to_string(count) +
                                          " entries, more than a slide needs");
  }
  entries_ += static_cast<std::size_t>(count);
  const std::size_t high_bytes = ndpi_ ? 4 : 0;
  const std::uint64_t total = count * (entry_bytes + high_bytes) + next_bytes;
  need(offset + count_bytes, total, "entries");
  std::vector<std::byte> raw(static_cast<std::size_t>(total));
  source_->read(offset + count_bytes, raw.size(), raw.data());

  const std::byte* next = raw.data() + static_cast<std::size_t>(count) * entry_bytes;
  TiffDirectory directory;
  directory.index = directories_.size();
  directory.is_sub = is_sub;
  directory.fields.reserve(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < count; ++i) {
    const std::byte* entry = raw.data() + i * entry_bytes;
    TiffField field;
    field.tag = static_cast<std::uint16_t>(decode(entry, 2));
    field.type = static_cast<std::uint16_t>(decode(entry + 2, 2));
    field.count = decode(entry + 4, word);
    const std::uint64_t unit = type_bytes(field.type);
    if (unit == 0) {
      field.count = 0;  // its extent is unknown: keep the tag, read nothing
    } else if (field.count > size / unit) {
      need(size, field.count, "tag " + std::to_string(field.tag));
    }
    const std::uint64_t bytes = field.count * unit;
    const std::uint64_t high = ndpi_ ? decode(next + next_bytes + i * 4, 4) : 0;
    if (bytes <= word) {
      field.position = offset + count_bytes + i * entry_bytes + 4 + word;
      if (field.type == kLong && field.count == 1)
        field.high = static_cast<std::uint32_t>(high);
    } else {
      field.position = decode(entry + 4 + word, word) | high << 32;
    }
    need(field.position, bytes, "tag " + std::to_string(field.tag));
    directory.fields.push_back(field);
  }
  directories_.push_back(std::move(directory));
  return decode(next, next_bytes);
}

Error TiffFile::error(Code code, const TiffDirectory& directory, std::uint16_t tag,
                      const std::string& what) const {
  return Error(code, source_->name() + ": directory " + std::to_string(directory.index) +
                         " tag " + std::to_string(tag) + ": " + what);
}

const TiffField* TiffFile::find(const TiffDirectory& directory, std::uint16_t tag) const {
  const TiffField* found = nullptr;
  for (const TiffField& field : directory.fields) {
    if (field.tag != tag) continue;
    if (found != nullptr) throw error(Code::kBadHeader, directory, tag, "occurs twice");
    found = &field;
  }
  return found;
}

std::optional<std::uint64_t> TiffFile::integer(const TiffDirectory& directory,
                                               std::uint16_t tag) const {
  const TiffField* field = find(directory, tag);
  if (field == nullptr) return std::nullopt;
  if (!is_integer(field->type) || field->count == 0) {
    throw error(Code::kBadHeader, directory, tag,
                "need an unsigned integer, got type " + std::to_string(field->type) +
                    " with count " + std::to_string(field->count));
  }
  return read_integer(field->position,
                      static_cast<std::size_t>(type_bytes(field->type))) |
         std::uint64_t{field->high} << 32;
}

std::optional<std::int64_t> TiffFile::signed_integer(const TiffDirectory& directory,
                                                     std::uint16_t tag) const {
  const TiffField* field = find(directory, tag);
  if (field != nullptr && field->count > 0) {
    if (field->type == kSShort)
      return static_cast<std::int16_t>(read_integer(field->position, 2));
    if (field->type == kSLong)
      return static_cast<std::int32_t>(read_integer(field->position, 4));
  }
  const auto value = integer(directory, tag);
  if (!value) return std::nullopt;
  return static_cast<std::int64_t>(*value);
}

std::vector<std::uint64_t> TiffFile::integers(const TiffDirectory& directory,
                                              std::uint16_t tag,
                                              std::uint64_t max_count) const {
  const TiffField* field = find(directory, tag);
  if (field == nullptr) return {};
  if (!is_integer(field->type)) {
    throw error(Code::kBadHeader, directory, tag,
                "need unsigned integers, got type " + std::to_string(field->type));
  }
  if (field->count > max_count) {
    throw error(Code::kLimitExceeded, directory, tag,
                "need at most " + std::to_string(max_count) + " values, got " +
                    std::to_string(field->count));
  }
  const auto unit = static_cast<std::size_t>(type_bytes(field->type));
  std::vector<std::byte> raw(static_cast<std::size_t>(field->count) * unit);
  source_->read(field->position, raw.size(), raw.data());
  std::vector<std::uint64_t> values(static_cast<std::size_t>(field->count));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = decode(raw.data() + i * unit, unit);
  if (field->high != 0) values[0] |= std::uint64_t{field->high} << 32;
  return values;
}

std::optional<double> TiffFile::number(const TiffDirectory& directory,
                                       std::uint16_t tag) const {
  const TiffField* field = find(directory, tag);
  if (field == nullptr || field->count == 0) return std::nullopt;
  double value = 0.0;
  if (field->type == kRational) {
    const auto numerator = static_cast<double>(read_integer(field->position, 4));
    const auto denominator = static_cast<double>(read_integer(field->position + 4, 4));
    if (denominator == 0.0) return std::nullopt;
    value = numerator / denominator;
  } else if (field->type == kFloat) {
    value = std::bit_cast<float>(
        static_cast<std::uint32_t>(read_integer(field->position, 4)));
  } else if (field->type == kDouble) {
    value = std::bit_cast<double>(read_integer(field->position, 8));
  }
  if (!std::isfinite(value) || value <= 0.0) return std::nullopt;
  return value;
}

std::string TiffFile::text(const TiffDirectory& directory, std::uint16_t tag,
                           std::size_t max_bytes) const {
  const TiffField* field = find(directory, tag);
  if (field == nullptr ||
      (field->type != kAscii && field->type != kByte && field->type != kUndefined)) {
    return {};
  }
  std::string text(
      static_cast<std::size_t>(std::min<std::uint64_t>(field->count, max_bytes)), '\0');
  source_->read(field->position, text.size(), reinterpret_cast<std::byte*>(text.data()));
  text.resize(std::min(text.size(), text.find('\0')));
  return text;
}

std::vector<std::byte> TiffFile::bytes(const TiffDirectory& directory, std::uint16_t tag,
                                       std::size_t max_bytes) const {
  const TiffField* field = find(directory, tag);
  if (field == nullptr) return {};
  if (field->type != kByte && field->type != kUndefined) {
    throw error(Code::kBadHeader, directory, tag,
                "need bytes, got type " + std::to_string(field->type));
  }
  if (field->count > max_bytes) {
    throw error(Code::kLimitExceeded, directory, tag,
                "need at most " + std::to_string(max_bytes) + " bytes, got " +
                    std::to_string(field->count));
  }
  std::vector<std::byte> out(static_cast<std::size_t>(field->count));
  source_->read(field->position, out.size(), out.data());
  return out;
}

}  // namespace her2fast::io
