// SPDX-License-Identifier: Apache-2.0
#include "io/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <vector>

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
    // stat first: opening a device or a FIFO may block or have effects.
    struct stat status{};
    if (::stat(path.c_str(), &status) != 0) throw_open_error(errno, name_);
    check_regular(status);
    do {
      descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    } while (descriptor_ < 0 && errno == EINTR);
    if (descriptor_ < 0) throw_open_error(errno, name_);
    try {
      if (::fstat(descriptor_, &status) != 0) throw_open_error(errno, name_);
      check_regular(status);  // the path may have changed between the two calls
    } catch (...) {
      ::close(descriptor_);
      throw;
    }
    size_ = static_cast<std::uint64_t>(status.st_size);
  }
  ~FileSource() override { ::close(descriptor_); }
  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;

  std::uint64_t size() const override { return size_; }
  const std::string& name() const override { return name_; }

  void read(std::uint64_t offset, std::size_t size, std::byte* out) const override {
    if (offset > size_ || size > size_ - offset) throw_truncated(offset, size);
    while (size > 0) {
      const ssize_t got = ::pread(descriptor_, out, size, static_cast<off_t>(offset));
      if (got < 0) {
        if (errno == EINTR) continue;
        throw Error(Code::kIo, name_ + ": cannot read at byte " + std::to_string(offset) +
                                   ": " + reason(errno));
      }
      if (got == 0) throw_truncated(offset, size);  // it shrank after it was opened
      offset += static_cast<std::uint64_t>(got);
      size -= static_cast<std::size_t>(got);
      out += got;
    }
  }

#ifdef POSIX_FADV_WILLNEED
  void expect(std::uint64_t offset, std::uint64_t size) const override {
    // A hint that fails is none: reading itself says what is wrong.
    static_cast<void>(::posix_fadvise(descriptor_, static_cast<off_t>(offset),
                                      static_cast<off_t>(size), POSIX_FADV_WILLNEED));
  }
#endif

 private:
  void check_regular(const struct stat& status) const {
    if (S_ISREG(status.st_mode)) return;
    throw Error(Code::kNotRegular,
                name_ + ": not a regular file; name the slide's file itself");
  }
  [[noreturn]] void throw_truncated(std::uint64_t offset, std::size_t size) const {
    throw Error(Code::kTruncated, name_ + ": need " + std::to_string(size) +
                                      " bytes at byte " + std::to_string(offset) +
                                      ", the file has " + std::to_string(size_) +
                                      "; copy it again from the scanner");
  }

  std::string name_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
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
