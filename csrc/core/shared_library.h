// SPDX-License-Identifier: Apache-2.0
/// Libraries opened at run time; shared_library_posix.cpp, shared_library_windows.cpp.
#pragma once

#include <string>

namespace her2fast {

/// What a library of a name and ABI major is called: "libopenslide.so.1".
std::string shared_library_name(const std::string& name, int major);

/// Null where it cannot be opened. A name without a folder is looked for where the system
/// has its libraries (Windows: beside the program, too; never in the current folder).
void* open_shared_library(const std::string& path);
/// Null where it has no such symbol.
void* find_symbol(void* library, const char* name);
void close_shared_library(void* library);

}  // namespace her2fast
