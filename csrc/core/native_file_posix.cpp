// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "core/native_file.h"

namespace her2fast {
namespace {

int descriptor(std::intptr_t handle) { return static_cast<int>(handle); }

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

std::filesystem::path to_path(const std::string& text) { return text; }
std::string to_text(const std::filesystem::path& path) { return path.native(); }

int NativeFile::open_to_read(const std::string& path) {
  // stat first: opening a device or a FIFO may block or have effects.
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return errno;
  if (!S_ISREG(status.st_mode)) return kNotRegular;
  do {
    handle_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  } while (handle_ < 0 && errno == EINTR);
  if (handle_ < 0) return errno;
  // The path may have changed between the two calls.
  int error = ::fstat(descriptor(handle_), &status) != 0 ? errno : 0;
  if (error == 0 && !S_ISREG(status.st_mode)) error = kNotRegular;
  if (error != 0) {
    static_cast<void>(close());
    return error;
  }
  size_ = static_cast<std::uint64_t>(status.st_size);
  return 0;
}

int NativeFile::create(const std::string& path) {
  do {
    handle_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (handle_ < 0 && errno == EINTR);
  return handle_ < 0 ? errno : 0;
}

int NativeFile::read_at(std::uint64_t offset, void* out, std::size_t size,
                        std::size_t& got) const {
  for (;;) {
    const ssize_t count =
        ::pread(descriptor(handle_), out, size, static_cast<off_t>(offset));
    if (count >= 0) {
      got = static_cast<std::size_t>(count);
      return 0;
    }
    if (errno != EINTR) return errno;
  }
}

void NativeFile::expect([[maybe_unused]] std::uint64_t offset,
                        [[maybe_unused]] std::uint64_t size) const {
#ifdef POSIX_FADV_WILLNEED
  // A hint that fails is none: reading itself says what is wrong.
  static_cast<void>(::posix_fadvise(descriptor(handle_), static_cast<off_t>(offset),
                                    static_cast<off_t>(size), POSIX_FADV_WILLNEED));
#endif
}

int NativeFile::write_at(std::uint64_t offset, const void* data, std::size_t size) {
  auto from = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t wrote =
        ::pwrite(descriptor(handle_), from, size, static_cast<off_t>(offset));
    if (wrote < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    from += wrote;
    offset += static_cast<std::uint64_t>(wrote);
    size -= static_cast<std::size_t>(wrote);
  }
  return 0;
}

int NativeFile::sync() { return ::fsync(descriptor(handle_)) != 0 ? errno : 0; }

int NativeFile::close() {
  if (handle_ < 0) return 0;
  const int closing = descriptor(handle_);
  handle_ = -1;
  // Linux has closed it also where it was interrupted.
  return ::close(closing) != 0 && errno != EINTR ? errno : 0;
}

int replace_file(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) return errno;
  // The rename itself survives a power cut only once the folder is synced; file systems
  // that cannot sync a folder still have the complete file.
  const int folder = ::open(folder_of(to).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    (void)::fsync(folder);
    ::close(folder);
  }
  return 0;
}

void remove_file(const std::string& path) { ::unlink(path.c_str()); }

std::string beside(const std::string& path, const std::string& name) {
  return folder_of(path) + "/" + name;
}

bool is_disk_full(int error) {
  return error == ENOSPC || error == EDQUOT || error == EFBIG;
}

std::uint32_t process_id() { return static_cast<std::uint32_t>(::getpid()); }

}  // namespace her2fast
