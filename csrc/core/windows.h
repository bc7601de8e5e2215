// SPDX-License-Identifier: Apache-2.0
/// windows.h without its macros, and names for it. For *_windows.cpp alone.
#pragma once

#define WIN32_LEAN_AND_MEAN
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>

#include <string>

namespace her2fast {

/// UTF-16 of UTF-8; U+FFFD for what is none.
std::wstring to_wide(const std::string& text);

}  // namespace her2fast
