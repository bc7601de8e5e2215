// SPDX-License-Identifier: Apache-2.0
/// Files as the operating system gives them; native_file_posix.cpp,
/// native_file_windows.cpp.
///
/// Names are UTF-8 (POSIX: any bytes) without NUL. What returns an `int` returns 0 or an
/// errno value, on every system; nothing throws but for want of memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

namespace her2fast {

/// Bytes that are no UTF-8 become U+FFFD on Windows, and so name no file.
std::filesystem::path to_path(const std::string& text);
std::string to_text(const std::filesystem::path& path);

/// An open file; the destructor closes it.
class NativeFile {
 public:
  static constexpr int kNotRegular = -1;

  NativeFile() = default;
  ~NativeFile() { static_cast<void>(close()); }
  NativeFile(const NativeFile&) = delete;
  NativeFile& operator=(const NativeFile&) = delete;

  /// kNotRegular for folders, devices and pipes, which it neither waits for nor wakes.
  [[nodiscard]] int open_to_read(const std::string& path);
  /// A new file to write; EEXIST where the name is taken.
  [[nodiscard]] int create(const std::string& path);
  /// When it was opened to read.
  std::uint64_t size() const { return size_; }

  /// Up to `size` bytes; `got` is 0 at the end. From any number of threads at once.
  [[nodiscard]] int read_at(std::uint64_t offset, void* out, std::size_t size,
                            std::size_t& got) const;
  /// A hint that these bytes will be read soon.
  void expect(std::uint64_t offset, std::uint64_t size) const;
  /// All of it.
  [[nodiscard]] int write_at(std::uint64_t offset, const void* data, std::size_t size);
  /// To the disk itself.
  [[nodiscard]] int sync();
  /// Closed also where it fails; closing what is closed does nothing.
  [[nodiscard]] int close();

 private:
  std::intptr_t handle_ = -1;  ///< a descriptor, or Windows' HANDLE
  std::uint64_t size_ = 0;
};

/// Gives `from` the name `to`, in place of what had it, so that it outlives a power cut.
[[nodiscard]] int replace_file(const std::string& from, const std::string& to);
/// Where it fails the file stays.
void remove_file(const std::string& path);
/// A path for `name` in the folder of `path`.
std::string beside(const std::string& path, const std::string& name);
/// Whether writing failed for want of room.
bool is_disk_full(int error);
std::uint32_t process_id();

}  // namespace her2fast
