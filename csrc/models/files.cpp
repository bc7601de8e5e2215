// SPDX-License-Identifier: Apache-2.0
#include "models/files.h"

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "core/native_file.h"
#include "core/printable.h"
#include "core/sha256.h"
#include "her2fast/method_package.h"

namespace her2fast::models {
namespace {

constexpr std::size_t kChunkBytes = std::size_t{1} << 20;

std::ifstream opened(const std::string& path) {
  // A pipe or a device would make a reader wait for ever.
  if (!is_file(path)) {
    throw PackageError(printable(path) + ": there is no such file");
  }
  errno = 0;
  std::ifstream in(to_path(path), std::ios::binary);
  if (!in) {
    const std::error_code why(errno, std::generic_category());
    throw PackageError(printable(path) + ": cannot be opened: " + why.message());
  }
  return in;
}

/// Up to `size` bytes; fewer only at the end of the file.
std::size_t read_some(std::ifstream& in, char* out, std::size_t size,
                      const std::string& path) {
  in.read(out, static_cast<std::streamsize>(size));
  if (in.bad()) throw PackageError(printable(path) + ": cannot be read");
  return static_cast<std::size_t>(in.gcount());
}

}  // namespace

bool is_file(const std::string& path) {
  std::error_code ignored;  // what cannot be asked about is no file
  return std::filesystem::is_regular_file(to_path(path), ignored);
}

bool is_folder(const std::string& path) {
  std::error_code ignored;  // as above
  return std::filesystem::is_directory(to_path(path), ignored);
}

std::string join(const std::string& folder, const std::string& name) {
  return to_text(to_path(folder) / to_path(name));
}

std::string folder_name(const std::string& folder) {
  std::error_code failed;
  std::filesystem::path path = std::filesystem::weakly_canonical(to_path(folder), failed);
  if (failed) path = to_path(folder);
  if (!path.has_filename()) path = path.parent_path();  // "models/mine/"
  return printable(to_text(path.filename()));
}

std::vector<char> read_file(const std::string& path, std::uint64_t most_bytes) {
  std::ifstream in = opened(path);
  std::vector<char> bytes;
  std::size_t used = 0;
  for (;;) {
    bytes.resize(used + kChunkBytes);
    const std::size_t got = read_some(in, bytes.data() + used, kChunkBytes, path);
    used += got;
    if (used > most_bytes) {
      throw PackageError(printable(path) + ": need at most " +
                         std::to_string(most_bytes) + " bytes");
    }
    if (got < kChunkBytes) break;
  }
  bytes.resize(used);
  return bytes;
}

std::string sha256_of_file(const std::string& path) {
  std::ifstream in = opened(path);
  std::vector<char> chunk(kChunkBytes);
  Sha256 hash;
  for (;;) {
    const std::size_t got = read_some(in, chunk.data(), chunk.size(), path);
    hash.update(chunk.data(), got);
    if (got < chunk.size()) return hash.hex();
  }
}

}  // namespace her2fast::models
