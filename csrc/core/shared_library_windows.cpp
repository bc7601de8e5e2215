// SPDX-License-Identifier: Apache-2.0
#include "core/shared_library.h"
#include "core/windows.h"

namespace her2fast {

std::string shared_library_name(const std::string& name, int major) {
  return "lib" + name + "-" + std::to_string(major) + ".dll";
}

void* open_shared_library(const std::string& path) {
  // With a folder, what the library needs is looked for in that folder first.
  const DWORD how = path.find_first_of("/\\:") == std::string::npos
                        ? LOAD_LIBRARY_SEARCH_DEFAULT_DIRS
                        : LOAD_WITH_ALTERED_SEARCH_PATH;
  return LoadLibraryExW(to_wide(path).c_str(), nullptr, how);
}

void* find_symbol(void* library, const char* name) {
  return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name));
}

void close_shared_library(void* library) { FreeLibrary(static_cast<HMODULE>(library)); }

}  // namespace her2fast
