// SPDX-License-Identifier: Apache-2.0
/// libher2fast_cuda, opened on first use, so that nothing links CUDA.
#pragma once

#include <string>

#include "her2fast/cuda_api.h"

namespace her2fast {

/// Which file is opened from now on, for a library that lies elsewhere than beside this
/// one; empty: beside this one. Memory and streams belong to the library that made them.
void set_cuda_library(const std::string& path);

/// The library's functions. Opens it at the first call and keeps it; looks for no GPU.
/// @throws DeviceError  no such library, or one of another version.
const Her2CudaTable& cuda_table();

/// Whether there is one: false only where none was named and none is found. Opens it.
/// @throws DeviceError  one of another version, one that was named and is not there, or
///                      one beside this module that cannot be opened.
bool has_cuda_library();

/// Turns a status of the table into an exception.
/// @throws std::invalid_argument, DeviceError, or Error with kGpuOom or kGpuLost
void check_cuda(std::int32_t status, const Her2CudaError& error, const char* operation);

/// Calls a function of the table with `arguments` and a place for its error.
template <typename... Parameters, typename... Arguments>
void call_cuda(const char* operation, std::int32_t (*function)(Parameters...),
               Arguments... arguments) {
  Her2CudaError error;
  error.text[0] = '\0';
  check_cuda(function(arguments..., &error), error, operation);
}

}  // namespace her2fast
