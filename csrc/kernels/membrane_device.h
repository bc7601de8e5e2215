// SPDX-License-Identifier: Apache-2.0
/// What the GPU's membrane_label found, as the tiles that MembraneMerge takes.
#pragma once

#include <vector>

#include "her2fast/cuda_api.h"
#include "her2fast/membrane.h"

namespace her2fast {

/// Copies the results of a batch, waits for the device's stream and makes one tile of
/// each mask: those of membrane_label on the CPU.
/// @throws std::invalid_argument  a nucleus lay outside. What check_cuda throws.
std::vector<MembraneTile> membrane_tiles(const Her2CudaTable& cuda,
                                         const Her2MembraneResults& results,
                                         std::int64_t n, std::int64_t height,
                                         std::int64_t width, bool has_density,
                                         std::int32_t device, void* stream);

}  // namespace her2fast
