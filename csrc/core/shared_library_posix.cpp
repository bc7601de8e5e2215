// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>

#include "core/shared_library.h"

namespace her2fast {

std::string shared_library_name(const std::string& name, int major) {
  return own_library_name(name) + "." + std::to_string(major);
}

std::string own_library_name(const std::string& name) { return "lib" + name + ".so"; }

void* open_shared_library(const std::string& path, std::string* reason) {
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr && reason != nullptr) {
    const char* told = dlerror();
    *reason = told == nullptr ? path : told;
  }
  return library;
}

std::string folder_of_code(const void* function) {
  Dl_info info{};
  if (dladdr(function, &info) == 0 || info.dli_fname == nullptr) return {};
  const std::string path = info.dli_fname;
  return path.substr(0, path.rfind('/') + 1);  // all of nothing where it has none
}

void* find_symbol(void* library, const char* name) { return dlsym(library, name); }

void close_shared_library(void* library) { dlclose(library); }

}  // namespace her2fast
