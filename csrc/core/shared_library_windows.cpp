// SPDX-License-Identifier: Apache-2.0
#include "core/shared_library.h"
#include "core/windows.h"

namespace her2fast {
namespace {

/// Whole, with backslashes: what the loader asks of a path whose folder it searches.
std::wstring full_path(const std::string& path) {
  const std::wstring wide = to_wide(path);
  const DWORD size = GetFullPathNameW(wide.c_str(), 0, nullptr, nullptr);
  std::wstring full(size, L'\0');
  const DWORD length = GetFullPathNameW(wide.c_str(), size, full.data(), nullptr);
  if (length == 0 || length >= size) return wide;
  full.resize(length);
  return full;
}

}  // namespace

std::string shared_library_name(const std::string& name, int major) {
  return own_library_name(name + "-" + std::to_string(major));
}

std::string own_library_name(const std::string& name) { return "lib" + name + ".dll"; }

void* open_shared_library(const std::string& path, std::string* reason) {
  const bool is_name = path.find_first_of("/\\:") == std::string::npos;
  // With a folder, what the library needs is looked for in that folder first.
  void* const library = is_name ? LoadLibraryExW(to_wide(path).c_str(), nullptr,
                                                 LOAD_LIBRARY_SEARCH_DEFAULT_DIRS)
                                : LoadLibraryExW(full_path(path).c_str(), nullptr,
                                                 LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR |
                                                     LOAD_LIBRARY_SEARCH_DEFAULT_DIRS);
  if (library == nullptr && reason != nullptr) {
    *reason = path + ": Windows error " + std::to_string(GetLastError());
  }
  return library;
}

std::string folder_of_code(const void* function) {
  HMODULE module = nullptr;
  if (!GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS |
                              GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT,
                          static_cast<LPCWSTR>(function), &module)) {
    return {};
  }
  std::wstring wide(32768, L'\0');  // as long as a path can be
  const DWORD length =
      GetModuleFileNameW(module, wide.data(), static_cast<DWORD>(wide.size()));
  wide.resize(length);
  wide.resize(wide.rfind(L'\\') + 1);
  const int size =
      WideCharToMultiByte(CP_UTF8, 0, wide.data(), static_cast<int>(wide.size()), nullptr,
                          0, nullptr, nullptr);
  std::string folder(static_cast<std::size_t>(size), '\0');
  WideCharToMultiByte(CP_UTF8, 0, wide.data(), static_cast<int>(wide.size()),
                      folder.data(), size, nullptr, nullptr);
  return folder;
}

void* find_symbol(void* library, const char* name) {
  return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name));
}

void close_shared_library(void* library) { FreeLibrary(static_cast<HMODULE>(library)); }

}  // namespace her2fast
