// SPDX-License-Identifier: Apache-2.0
#include "io/output_file.h"

#include <atomic>
#include <cerrno>
#include <system_error>

#include "her2fast/error.h"
#include "io/byte_source.h"

namespace her2fast::io {

OutputFile::OutputFile(const std::string& path) : path_(path) {
  if (path.empty() || path.find('\0') != std::string::npos) fail("create", ENOENT);
  static std::atomic<unsigned> counter{0};
  int error = 0;
  do {
    // A short name of its own: the slide's may already be 255 bytes long. Left-overs of a
    // killed process with this number are stepped over.
    temporary_ = beside(path, ".her2fast-" + std::to_string(process_id()) + "-" +
                                  std::to_string(counter.fetch_add(1)) + ".tmp");
    error = file_.create(temporary_);
  } while (error == EEXIST);
  if (error != 0) {
    temporary_.clear();
    fail("create", error);
  }
}

OutputFile::~OutputFile() {
  static_cast<void>(file_.close());  // Windows removes no file that is open
  if (!temporary_.empty()) remove_file(temporary_);
}

void OutputFile::fail(const char* what, int error) const {
  const bool full = is_disk_full(error);
  throw Error(
      full ? Code::kDiskFull : Code::kIo,
      printable(path_) + ": cannot " + what + ": " +
          std::generic_category().message(error) +
          (full ? "; free space and run again" : "; check the folder and its rights"));
}

void OutputFile::write(std::uint64_t offset, const void* data, std::size_t bytes) {
  if (const int error = file_.write_at(offset, data, bytes)) fail("write", error);
}

void OutputFile::append(const void* data, std::size_t bytes) {
  write(size_, data, bytes);
  size_ += bytes;
}

void OutputFile::overwrite(std::uint64_t offset, const void* data, std::size_t bytes) {
  write(offset, data, bytes);
}

void OutputFile::commit() {
  if (const int error = file_.sync()) fail("sync", error);
  if (const int error = file_.close()) fail("close", error);
  if (const int error = replace_file(temporary_, path_)) fail("rename", error);
  temporary_.clear();
}

}  // namespace her2fast::io
