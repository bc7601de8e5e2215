// SPDX-License-Identifier: Apache-2.0
/// Small files read whole, large ones hashed; every failure is a PackageError.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace her2fast::models {

bool is_file(const std::string& path);
bool is_folder(const std::string& path);
/// `folder`/`name`, as text.
std::string join(const std::string& folder, const std::string& name);
/// The folder's own name, links and dots resolved, printable.
std::string folder_name(const std::string& folder);

/// @throws PackageError: unreadable, no regular file, or over `most_bytes`
std::vector<char> read_file(const std::string& path, std::uint64_t most_bytes);
/// SHA-256, hex. @throws PackageError: unreadable
std::string sha256_of_file(const std::string& path);

}  // namespace her2fast::models
