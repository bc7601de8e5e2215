// SPDX-License-Identifier: Apache-2.0
#include "core/cuda_library.h"

#include <array>
#include <mutex>
#include <stdexcept>

#include "her2fast/error.h"

#ifndef _WIN32
#include <dlfcn.h>
#endif

namespace her2fast {
namespace {

constexpr const char* kName = "libher2fast_cuda.so";

std::mutex library_mutex;
std::string library_path;
const Her2CudaTable* library_table = nullptr;

#ifndef _WIN32
/// The folder of the module that holds this code: the Python extension or libher2fast.
std::string own_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&set_cuda_library), &info) == 0) return {};
  const std::string path = info.dli_fname == nullptr ? "" : info.dli_fname;
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? std::string() : path.substr(0, slash + 1);
}

const Her2CudaTable* open_table() {
  const std::string folder = own_folder();
  const std::array<std::string, 3> candidates{
      library_path, folder.empty() ? folder : folder + kName, kName};
  std::string reasons;
  for (const std::string& candidate : candidates) {
    if (candidate.empty()) continue;
    // Never closed: CUDA's runtime leaves threads and contexts behind.
    void* handle = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      const char* reason = dlerror();
      reasons += std::string(reasons.empty() ? "" : "; ") +
                 (reason == nullptr ? candidate : std::string(reason));
      if (candidate == library_path) break;  // the one that was asked for, or none
      continue;
    }
    const auto get =
        reinterpret_cast<Her2CudaTableFunction>(dlsym(handle, "her2_cuda_table"));
    const Her2CudaTable* table = get == nullptr ? nullptr : get();
    if (table != nullptr && table->version == HER2_CUDA_API_VERSION &&
        table->struct_size >= sizeof(Her2CudaTable)) {
      return table;
    }
    throw DeviceError(candidate + ": a CUDA library of another version (need " +
                      std::to_string(HER2_CUDA_API_VERSION) +
                      "); build it with this her2fast");
  }
  throw DeviceError("this her2fast has no CUDA library (" + reasons +
                    "); build it with HER2FAST_CUDA=ON, or choose device=\"cpu\"");
}
#else
const Her2CudaTable* open_table() {
  throw DeviceError("CUDA is not built for Windows; choose device=\"cpu\"");
}
#endif

}  // namespace

void set_cuda_library(const std::string& path) {
  const std::lock_guard lock(library_mutex);
  if (library_path != path) library_table = nullptr;  // the old one stays open
  library_path = path;
}

const Her2CudaTable& cuda_table() {
  const std::lock_guard lock(library_mutex);
  if (library_table == nullptr) library_table = open_table();
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
