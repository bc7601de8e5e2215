// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>

#include "core/shared_library.h"

namespace her2fast {

std::string shared_library_name(const std::string& name, int major) {
  return "lib" + name + ".so." + std::to_string(major);
}

void* open_shared_library(const std::string& path) {
  return dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
}

void* find_symbol(void* library, const char* name) { return dlsym(library, name); }

void close_shared_library(void* library) { dlclose(library); }

}  // namespace her2fast
