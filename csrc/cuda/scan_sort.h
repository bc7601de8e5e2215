// SPDX-License-Identifier: Apache-2.0
/// Sorting and adding up on the device: CUB behind plain functions (scan_sort.cu), so
/// that it is compiled once, and the standard library in the tests on the host.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace her2fast::cuda {

/// What either function needs as `scratch` for up to `count` items.
cudaError_t scan_sort_bytes(std::int64_t count, std::size_t* bytes);

/// to[i] = from[0] + ... + from[i - 1]; `to` may be `from`.
cudaError_t exclusive_sum(void* scratch, std::size_t bytes, const std::int32_t* from,
                          std::int32_t* to, std::int64_t count, void* stream);
cudaError_t exclusive_sum(void* scratch, std::size_t bytes, const std::uint64_t* from,
                          std::uint64_t* to, std::int64_t count, void* stream);

/// Pairs by ascending key, of which the lowest `bits` bits count; equal keys keep their
/// order.
cudaError_t sort_pairs(void* scratch, std::size_t bytes, const std::uint64_t* keys,
                       std::uint64_t* keys_out, const std::uint32_t* values,
                       std::uint32_t* values_out, std::int64_t count, int bits,
                       void* stream);

}  // namespace her2fast::cuda
