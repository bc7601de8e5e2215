// SPDX-License-Identifier: Apache-2.0
#include "io/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <system_error>

#include "her2fast/error.h"
#include "io/byte_source.h"

namespace her2fast::io {
namespace {

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

OutputFile::OutputFile(const std::string& path) : path_(path) {
  if (path.empty() || path.find('\0') != std::string::npos) fail("create", ENOENT);
  static std::atomic<unsigned> counter{0};
  do {
    // A short name of its own: the slide's may already be 255 bytes long. Left-overs of a
    // killed process with this number are stepped over.
    temporary_ = folder_of(path) + "/.her2fast-" + std::to_string(::getpid()) + "-" +
                 std::to_string(counter.fetch_add(1)) + ".tmp";
    descriptor_ =
        ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (descriptor_ < 0 && (errno == EINTR || errno == EEXIST));
  if (descriptor_ < 0) {
    const int error = errno;
    temporary_.clear();
    fail("create", error);
  }
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void OutputFile::fail(const char* what, int error) const {
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  throw Error(
      full ? Code::kDiskFull : Code::kIo,
      printable(path_) + ": cannot " + what + ": " +
          std::generic_category().message(error) +
          (full ? "; free space and run again" : "; check the folder and its rights"));
}

void OutputFile::write(std::uint64_t offset, const void* data, std::size_t bytes) {
  auto from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t wrote = ::pwrite(descriptor_, from, bytes, static_cast<off_t>(offset));
    if (wrote < 0) {
      if (errno == EINTR) continue;
      fail("write", errno);
    }
    from += wrote;
    offset += static_cast<std::uint64_t>(wrote);
    bytes -= static_cast<std::size_t>(wrote);
  }
}

void OutputFile::append(const void* data, std::size_t bytes) {
  write(size_, data, bytes);
  size_ += bytes;
}

void OutputFile::overwrite(std::uint64_t offset, const void* data, std::size_t bytes) {
  write(offset, data, bytes);
}

void OutputFile::commit() {
  if (::fsync(descriptor_) != 0) fail("sync", errno);
  const int closing = descriptor_;
  descriptor_ = -1;
  if (::close(closing) != 0 && errno != EINTR) fail("close", errno);
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) fail("rename", errno);
  temporary_.clear();
  // The rename itself survives a power cut only once the folder is synced; file systems
  // that cannot sync a folder still have the complete file.
  const int folder = ::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    (void)::fsync(folder);
    ::close(folder);
  }
}

}  // namespace her2fast::io
