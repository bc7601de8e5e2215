// SPDX-License-Identifier: Apache-2.0
/// Libraries opened at run time; shared_library_posix.cpp, shared_library_windows.cpp.
#pragma once

#include <string>

namespace her2fast {

/// What a library of a name and ABI major is called: "libopenslide.so.1".
std::string shared_library_name(const std::string& name, int major);

/// What a library of ours without a version is called: "libher2fast_cuda.so".
std::string own_library_name(const std::string& name);

/// Null where it cannot be opened; then `reason` (may be null) says why. A name without a
/// folder is looked for where the system has its libraries (Windows: beside the program,
/// too; never in the current folder); a path is taken from the current folder on, and
/// what the library needs is looked for beside it, too.
void* open_shared_library(const std::string& path, std::string* reason = nullptr);
/// The folder of the module that holds the code at `function`, with its last separator;
/// empty where the system does not say.
std::string folder_of_code(const void* function);
/// Null where it has no such symbol.
void* find_symbol(void* library, const char* name);
void close_shared_library(void* library);

}  // namespace her2fast
