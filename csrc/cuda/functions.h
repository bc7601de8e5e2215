// SPDX-License-Identifier: Apache-2.0
/// The functions of the table, one stem a file; contracts stand in her2fast/cuda_api.h.
#pragma once

#include <cstdint>

#include "her2fast/cuda_api.h"

namespace her2fast::cuda {

std::int32_t normalize_batch(const std::uint8_t* rgb, std::int64_t n, std::int64_t height,
                             std::int64_t width, const float* mean, const float* std,
                             std::int32_t half, void* out, void* stream,
                             Her2CudaError* error);

}  // namespace her2fast::cuda
