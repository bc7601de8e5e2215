// SPDX-License-Identifier: Apache-2.0
/// A file that appears under its name only when it is complete.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/native_file.h"

namespace her2fast::io {

/// Written in order to a temporary name beside `path`; `commit` syncs and renames it,
/// otherwise the destructor removes it. One thread at a time.
class OutputFile {
 public:
  /// @throws Error kIo, kDiskFull
  explicit OutputFile(const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  std::uint64_t size() const { return size_; }
  void append(const void* data, std::size_t bytes);
  void overwrite(std::uint64_t offset, const void* data, std::size_t bytes);
  void commit();

 private:
  [[noreturn]] void fail(const char* what, int error) const;
  void write(std::uint64_t offset, const void* data, std::size_t bytes);

  std::string path_;
  std::string temporary_;
  NativeFile file_;
  std::uint64_t size_ = 0;
};

}  // namespace her2fast::io
