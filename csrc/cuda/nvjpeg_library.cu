// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <vector>

#include "core/shared_library.h"
#include "cuda/launch.h"
#include "cuda/nvjpeg_library.h"

namespace her2fast::cuda {
namespace {

constexpr const char* kNext = "pip install nvidia-nvjpeg, or name the file";

/// The release of this library's own runtime first: the driver can run that. Either
/// works, for nvJPEG brings its own.
std::vector<std::string> candidates() {
  int runtime = 0;
  static_cast<void>(cudaRuntimeGetVersion(&runtime));
  const std::string folder = folder_of_code(reinterpret_cast<const void*>(&open_nvjpeg));
  std::vector<std::string> out;
  for (const int major : {runtime >= 13000 ? 13 : 12, runtime >= 13000 ? 12 : 13}) {
    const std::string name = shared_library_name("nvjpeg", major);
    // site-packages/her2fast, and where its neighbors nvidia-nvjpeg put theirs.
    const std::string package = major >= 13 ? "cu13" : "nvjpeg";
    if (!folder.empty()) out.push_back(folder + "../nvidia/" + package + "/lib/" + name);
    out.push_back(name);
    out.push_back("/usr/local/cuda/lib64/" + name);
  }
  return out;
}

std::int32_t open_any(NvjpegLibrary& out, void** library, Her2CudaError* error) {
  for (const std::string& candidate : candidates()) {
    std::string reason;
    *library = open_shared_library(candidate, &reason);
    if (*library != nullptr) {
      out.path = candidate;
      return HER2_CUDA_OK;
    }
    std::error_code ignored;
    if (candidate.find('/') != std::string::npos &&
        std::filesystem::exists(candidate, ignored)) {
      return fail(error, HER2_CUDA_NO_DEVICE, "nvJPEG is there and does not open: %s",
                  reason.c_str());
    }
  }
  return fail(error, HER2_CUDA_NO_DEVICE,
              "no nvJPEG (libnvjpeg.so.13 or .12) beside this package, where the loader "
              "looks or in /usr/local/cuda; %s, or decode on the CPU",
              kNext);
}

}  // namespace

std::int32_t open_nvjpeg(const char* named, NvjpegLibrary* out, Her2CudaError* error) {
  void* library = nullptr;
  if (named != nullptr && named[0] != '\0') {
    std::string reason;
    library = open_shared_library(named, &reason);
    if (library == nullptr) {
      return fail(error, HER2_CUDA_NO_DEVICE, "no nvJPEG: %s; %s", reason.c_str(), kNext);
    }
    out->path = named;
  } else if (const std::int32_t status = open_any(*out, &library, error);
             status != HER2_CUDA_OK) {
    return status;
  }
  nvjpeg::Functions& f = out->functions;
  const char* lacking = nullptr;
  const auto look_up = [&](auto& field, const char* symbol) {
    field = reinterpret_cast<std::remove_reference_t<decltype(field)>>(
        find_symbol(library, symbol));
    if (field == nullptr && lacking == nullptr) lacking = symbol;
  };
#define HER2FAST_NVJPEG_LOOK_UP(field, symbol, ...) look_up(f.field, #symbol);
  HER2FAST_NVJPEG_FUNCTIONS(HER2FAST_NVJPEG_LOOK_UP)
#undef HER2FAST_NVJPEG_LOOK_UP
  if (lacking != nullptr) {
    return fail(error, HER2_CUDA_NO_DEVICE, "%s is no nvJPEG to use: it lacks %s; %s",
                out->path.c_str(), lacking, kNext);
  }
  const bool told = f.get_property(nvjpeg::kMajorVersion, &out->major) == 0 &&
                    f.get_property(nvjpeg::kMinorVersion, &out->minor) == 0 &&
                    f.get_property(nvjpeg::kPatchLevel, &out->patch) == 0;
  if (!told || out->major < nvjpeg::kFirstMajor ||
      (out->major == nvjpeg::kFirstMajor && out->minor < nvjpeg::kFirstMinor)) {
    return fail(
        error, HER2_CUDA_NO_DEVICE,
        "%s: need nvJPEG %d.%d or newer, which interpolates chroma, got %d.%d; %s",
        out->path.c_str(), nvjpeg::kFirstMajor, nvjpeg::kFirstMinor, out->major,
        out->minor, kNext);
  }
  return HER2_CUDA_OK;
}

std::int32_t status_of(nvjpeg::Status result, const char* what, Her2CudaError* error) {
  std::int32_t status = HER2_CUDA_LOST;
  const char* name = "an error without a name";
  switch (result) {
    case nvjpeg::kSuccess:
      return HER2_CUDA_OK;
    case nvjpeg::kAllocatorFailure:
      status = HER2_CUDA_OUT_OF_MEMORY;
      name = "no memory";
      break;
    case nvjpeg::kBadJpeg:
    case nvjpeg::kIncompleteBitstream:
    case nvjpeg::kInvalidParameter:
      status = HER2_CUDA_BAD_ARGUMENT;
      name = "a stream that it cannot read";
      break;
    case nvjpeg::kJpegNotSupported:
      status = HER2_CUDA_BAD_ARGUMENT;
      name = "a stream of a kind that it does not take";
      break;
    case nvjpeg::kNotInitialized:
    case nvjpeg::kArchMismatch:
    case nvjpeg::kImplementationNotSupported:
      status = HER2_CUDA_NO_DEVICE;
      name = "this GPU or driver does not serve it";
      break;
    case nvjpeg::kExecutionFailed:
      name = "a fault on the GPU";
      break;
    case nvjpeg::kInternalError:
      name = "an internal error";
      break;
  }
  return fail(error, status, "nvJPEG: %s: %s (status %d)", what, name,
              static_cast<int>(result));
}

}  // namespace her2fast::cuda
