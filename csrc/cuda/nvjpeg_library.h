// SPDX-License-Identifier: Apache-2.0
/// Finds and opens nvJPEG, on the first decoder and not before.
#pragma once

#include <cstdint>
#include <string>

#include "cuda/nvjpeg.h"
#include "her2fast/cuda_api.h"

namespace her2fast::cuda {

struct NvjpegLibrary {
  nvjpeg::Functions functions;
  std::string path;  // as it was opened
  int major = 0, minor = 0, patch = 0;
};

/// @param library  to open, or null or empty: looked for as cuda_api.h says
/// Never closes what it opened: CUDA leaves threads and contexts behind.
std::int32_t open_nvjpeg(const char* library, NvjpegLibrary* out, Her2CudaError* error);

/// nvJPEG's verdict as a status.
std::int32_t status_of(nvjpeg::Status result, const char* what, Her2CudaError* error);

}  // namespace her2fast::cuda
