// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>

#include "core/native_file.h"
#include "core/windows.h"

namespace her2fast {
namespace {

HANDLE native(std::intptr_t handle) { return reinterpret_cast<HANDLE>(handle); }

/// The errno value of Windows' last error; EIO for what has none.
int last_error() {
  static constexpr struct {
    DWORD windows;
    int error;
  } kErrors[] = {
      {ERROR_FILE_NOT_FOUND, ENOENT},
      {ERROR_PATH_NOT_FOUND, ENOENT},
      {ERROR_INVALID_DRIVE, ENOENT},
      {ERROR_INVALID_NAME, ENOENT},
      {ERROR_BAD_PATHNAME, ENOENT},
      {ERROR_BAD_NETPATH, ENOENT},
      {ERROR_BAD_NET_NAME, ENOENT},
      {ERROR_DIRECTORY, ENOTDIR},
      {ERROR_FILENAME_EXCED_RANGE, ENAMETOOLONG},
      {ERROR_BUFFER_OVERFLOW, ENAMETOOLONG},
      {ERROR_TOO_MANY_OPEN_FILES, EMFILE},
      {ERROR_ACCESS_DENIED, EACCES},
      {ERROR_SHARING_VIOLATION, EACCES},
      {ERROR_LOCK_VIOLATION, EACCES},
      {ERROR_WRITE_PROTECT, EROFS},
      {ERROR_FILE_EXISTS, EEXIST},
      {ERROR_ALREADY_EXISTS, EEXIST},
      {ERROR_NOT_ENOUGH_MEMORY, ENOMEM},
      {ERROR_OUTOFMEMORY, ENOMEM},
      {ERROR_HANDLE_DISK_FULL, ENOSPC},
      {ERROR_DISK_FULL, ENOSPC},
      {1295, ENOSPC},  // ERROR_DISK_QUOTA_EXCEEDED, which older headers lack
      {ERROR_FILE_TOO_LARGE, EFBIG},
  };
  const DWORD last = GetLastError();
  for (const auto& entry : kErrors) {
    if (entry.windows == last) return entry.error;
  }
  return EIO;
}

OVERLAPPED position(std::uint64_t offset) {
  OVERLAPPED at{};
  at.Offset = static_cast<DWORD>(offset);
  at.OffsetHigh = static_cast<DWORD>(offset >> 32);
  return at;
}

/// One call takes a DWORD of bytes.
DWORD call_bytes(std::size_t size) {
  return static_cast<DWORD>(std::min(size, std::size_t{1} << 30));
}

}  // namespace

std::wstring to_wide(const std::string& text) {
  const int size = static_cast<int>(text.size());
  const int length = MultiByteToWideChar(CP_UTF8, 0, text.data(), size, nullptr, 0);
  std::wstring wide(static_cast<std::size_t>(length), L'\0');
  MultiByteToWideChar(CP_UTF8, 0, text.data(), size, wide.data(), length);
  return wide;
}

std::filesystem::path to_path(const std::string& text) { return to_wide(text); }

std::string to_text(const std::filesystem::path& path) {
  const std::wstring& wide = path.native();
  const int size = static_cast<int>(wide.size());
  const int length =
      WideCharToMultiByte(CP_UTF8, 0, wide.data(), size, nullptr, 0, nullptr, nullptr);
  std::string text(static_cast<std::size_t>(length), '\0');
  WideCharToMultiByte(CP_UTF8, 0, wide.data(), size, text.data(), length, nullptr,
                      nullptr);
  return text;
}

int NativeFile::open_to_read(const std::string& path) {
  const std::wstring name = to_wide(path);
  // First: a folder could only be opened with rights of its own, and says "denied".
  const DWORD attributes = GetFileAttributesW(name.c_str());
  if (attributes == INVALID_FILE_ATTRIBUTES) return last_error();
  if ((attributes & FILE_ATTRIBUTE_DIRECTORY) != 0) return kNotRegular;
  // Others may write, rename and delete meanwhile, as on POSIX.
  handle_ = reinterpret_cast<std::intptr_t>(CreateFileW(
      name.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
      nullptr, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr));
  if (handle_ == -1) return last_error();
  LARGE_INTEGER size{};
  int error = 0;
  if (GetFileType(native(handle_)) != FILE_TYPE_DISK) {
    error = kNotRegular;
  } else if (!GetFileSizeEx(native(handle_), &size)) {
    error = last_error();
  }
  if (error != 0) {
    static_cast<void>(close());
    return error;
  }
  size_ = static_cast<std::uint64_t>(size.QuadPart);
  return 0;
}

int NativeFile::create(const std::string& path) {
  handle_ = reinterpret_cast<std::intptr_t>(
      CreateFileW(to_wide(path).c_str(), GENERIC_WRITE, FILE_SHARE_DELETE, nullptr,
                  CREATE_NEW, FILE_ATTRIBUTE_NORMAL, nullptr));
  return handle_ == -1 ? last_error() : 0;
}

// Windows lets one call at a time through to a handle; each names its place, so that
// threads do not move a position under each other.
int NativeFile::read_at(std::uint64_t offset, void* out, std::size_t size,
                        std::size_t& got) const {
  OVERLAPPED at = position(offset);
  DWORD count = 0;
  got = 0;
  if (!ReadFile(native(handle_), out, call_bytes(size), &count, &at)) {
    return GetLastError() == ERROR_HANDLE_EOF ? 0 : last_error();
  }
  got = count;
  return 0;
}

// Windows has no such hint for a file; its cache reads ahead by itself.
void NativeFile::expect(std::uint64_t, std::uint64_t) const {}

int NativeFile::write_at(std::uint64_t offset, const void* data, std::size_t size) {
  auto from = static_cast<const char*>(data);
  while (size > 0) {
    OVERLAPPED at = position(offset);
    DWORD wrote = 0;
    if (!WriteFile(native(handle_), from, call_bytes(size), &wrote, &at)) {
      return last_error();
    }
    from += wrote;
    offset += wrote;
    size -= wrote;
  }
  return 0;
}

int NativeFile::sync() { return FlushFileBuffers(native(handle_)) ? 0 : last_error(); }

int NativeFile::close() {
  if (handle_ == -1) return 0;
  const HANDLE closing = native(handle_);
  handle_ = -1;
  return CloseHandle(closing) ? 0 : last_error();
}

int replace_file(const std::string& from, const std::string& to) {
  const DWORD how = MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH;
  return MoveFileExW(to_wide(from).c_str(), to_wide(to).c_str(), how) ? 0 : last_error();
}

void remove_file(const std::string& path) { DeleteFileW(to_wide(path).c_str()); }

std::string beside(const std::string& path, const std::string& name) {
  const std::size_t end = path.find_last_of("/\\:");  // "C:file" has a folder, too
  return (end == std::string::npos ? std::string() : path.substr(0, end + 1)) + name;
}

bool is_disk_full(int error) { return error == ENOSPC || error == EFBIG; }

std::uint32_t process_id() { return GetCurrentProcessId(); }

}  // namespace her2fast
