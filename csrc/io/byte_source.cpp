// SPDX-License-Identifier: Apache-2.0
#include "io/byte_source.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <vector>

#include "core/native_file.h"
#include "core/printable.h"
#include "core/sha256.h"
#include "her2fast/error.h"

namespace her2fast {
namespace {

std::string reason(int error) { return std::generic_category().message(error); }

[[noreturn]] void throw_open_error(int error, const std::string& name) {
  const bool absent =
      error == ENOENT || error == ENOTDIR || error == ELOOP || error == ENAMETOOLONG;
  throw Error(
      absent ? Code::kNotFound : Code::kIo,
      name + ": cannot open: " + reason(error) + "; check the path and its rights");
}

class FileSource final : public ByteSource {
 public:
  explicit FileSource(const std::string& path) : name_(printable(path)) {
    if (path.empty() || path.find('\0') != std::string::npos) {
      throw Error(Code::kNotFound,
                  name_ + ": need a path without NUL, of at least a byte");
    }
    const int error = file_.open_to_read(path);
    if (error == NativeFile::kNotRegular) {
      throw Error(Code::kNotRegular,
                  name_ + ": not a regular file; name the slide's file itself");
    }
    if (error != 0) throw_open_error(error, name_);
  }

  std::uint64_t size() const override { return file_.size(); }
  const std::string& name() const override { return name_; }

  void read(std::uint64_t offset, std::size_t size, std::byte* out) const override {
    if (offset > file_.size() || size > file_.size() - offset) {
      throw_truncated(offset, size);
    }
    while (size > 0) {
      std::size_t got = 0;
      if (const int error = file_.read_at(offset, out, size, got); error != 0) {
        throw Error(Code::kIo, name_ + ": cannot read at byte " + std::to_string(offset) +
                                   ": " + reason(error));
      }
      if (got == 0) throw_truncated(offset, size);  // it shrank after it was opened
      offset += got;
      size -= got;
      out += got;
    }
  }

  void expect(std::uint64_t offset, std::uint64_t size) const override {
    file_.expect(offset, size);
  }

 private:
  [[noreturn]] void throw_truncated(std::uint64_t offset, std::size_t size) const {
    throw Error(Code::kTruncated, name_ + ": need " + std::to_string(size) +
                                      " bytes at byte " + std::to_string(offset) +
                                      ", the file has " + std::to_string(file_.size()) +
                                      "; copy it again from the scanner");
  }

  std::string name_;
  NativeFile file_;
};

}  // namespace

std::shared_ptr<const ByteSource> open_file(const std::string& path) {
  return std::make_shared<FileSource>(path);
}

namespace io {

std::string printable(const std::string& path) { return her2fast::printable(path); }

std::string fingerprint_of(const ByteSource& source) {
  constexpr std::uint64_t kEnd = std::uint64_t{1} << 20;
  constexpr std::uint64_t kBlock = std::uint64_t{64} << 10;
  constexpr std::uint64_t kBlocks = 64;
  const std::uint64_t size = source.size();
  Sha256 hash;
  std::vector<std::byte> buffer(kEnd);
  for (int i = 0; i < 8; ++i) {
    buffer[static_cast<std::size_t>(i)] = static_cast<std::byte>(size >> (8 * i));
  }
  hash.update(buffer.data(), 8);
  const auto add = [&](std::uint64_t offset, std::uint64_t bytes) {
    while (bytes > 0) {
      const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, kEnd));
      source.read(offset, part, buffer.data());
      hash.update(buffer.data(), part);
      offset += part;
      bytes -= part;
    }
  };
  if (size <= 2 * kEnd + kBlocks * kBlock) {
    add(0, size);
  } else {
    add(0, kEnd);
    for (std::uint64_t i = 0; i < kBlocks; ++i) {
      // i * (size - kBlock) stays below 2^64 for files under 2^58 bytes.
      add(i * (size - kBlock) / (kBlocks - 1), kBlock);
    }
    add(size - kEnd, kEnd);
  }
  return hash.hex();
}

}  // namespace io
}  // namespace her2fast
