// SPDX-License-Identifier: Apache-2.0
#include "core/cuda_library.h"

#include <array>
#include <filesystem>
#include <mutex>
#include <stdexcept>

#include "core/native_file.h"
#include "core/shared_library.h"
#include "her2fast/error.h"

namespace her2fast {
namespace {

std::mutex library_mutex;
std::string library_path;
const Her2CudaTable* library_table = nullptr;

struct Found {
  const Her2CudaTable* table = nullptr;  // or null, and
  std::string reasons{};                 // why there is none
  bool should_be = false;                // it was named, or a file of its name lies here
};

Found open_table() {
  Found found;
  const std::string name = own_library_name("her2fast_cuda");
  // The folder of the module that holds this code: the Python extension or libher2fast.
  const std::string folder =
      folder_of_code(reinterpret_cast<const void*>(&set_cuda_library));
  const std::array<std::string, 3> candidates{
      library_path, folder.empty() ? folder : folder + name, name};
  for (const std::string& candidate : candidates) {
    if (candidate.empty()) continue;
    // Never closed: CUDA's runtime leaves threads and contexts behind.
    std::string reason;
    void* const library = open_shared_library(candidate, &reason);
    if (library == nullptr) {
      found.reasons += (found.reasons.empty() ? "" : "; ") + reason;
      std::error_code ignored;
      found.should_be = found.should_be || candidate == library_path ||
                        std::filesystem::exists(to_path(candidate), ignored);
      if (candidate == library_path) break;  // the one that was asked for, or none
      continue;
    }
    const auto get =
        reinterpret_cast<Her2CudaTableFunction>(find_symbol(library, "her2_cuda_table"));
    const Her2CudaTable* table = get == nullptr ? nullptr : get();
    if (table != nullptr && table->version == HER2_CUDA_API_VERSION &&
        table->struct_size >= sizeof(Her2CudaTable)) {
      found.table = table;
      return found;
    }
    throw DeviceError(candidate + ": a CUDA library of another version (need " +
                      std::to_string(HER2_CUDA_API_VERSION) +
                      "); build it with this her2fast");
  }
  return found;
}

[[noreturn]] void throw_no_library(const Found& found) {
  throw DeviceError("this her2fast has no CUDA library (" + found.reasons +
                    "); build it with HER2FAST_CUDA=ON, or choose device=\"cpu\"");
}

}  // namespace

void set_cuda_library(const std::string& path) {
  const std::lock_guard lock(library_mutex);
  if (library_path != path) library_table = nullptr;  // the old one stays open
  library_path = path;
}

bool has_cuda_library() {
  const std::lock_guard lock(library_mutex);
  if (library_table != nullptr) return true;
  const Found found = open_table();
  if (found.table == nullptr && found.should_be) throw_no_library(found);
  library_table = found.table;
  return library_table != nullptr;
}

const Her2CudaTable& cuda_table() {
  const std::lock_guard lock(library_mutex);
  if (library_table == nullptr) {
    const Found found = open_table();
    if (found.table == nullptr) throw_no_library(found);
    library_table = found.table;
  }
  return *library_table;
}

void check_cuda(std::int32_t status, const Her2CudaError& error, const char* operation) {
  if (status == HER2_CUDA_OK) return;
  const std::string message = std::string(operation) + ": " + error.text;
  switch (status) {
    case HER2_CUDA_BAD_ARGUMENT:
      throw std::invalid_argument(message);
    case HER2_CUDA_OUT_OF_MEMORY:
      throw Error(Code::kGpuOom, message);
    case HER2_CUDA_LOST:
      throw Error(Code::kGpuLost, message);
    default:
      throw DeviceError(message);
  }
}

}  // namespace her2fast
