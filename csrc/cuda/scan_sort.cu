// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include "cuda/scan_sort.h"

namespace her2fast::cuda {

cudaError_t scan_sort_bytes(std::int64_t count, std::size_t* bytes) {
  // Asking a size touches no memory and queues nothing.
  std::size_t small = 0, large = 0, pairs = 0;
  cudaError_t result = cub::DeviceScan::ExclusiveSum(
      nullptr, small, static_cast<const std::int32_t*>(nullptr),
      static_cast<std::int32_t*>(nullptr), count);
  if (result != cudaSuccess) return result;
  result = cub::DeviceScan::ExclusiveSum(nullptr, large,
                                         static_cast<const std::uint64_t*>(nullptr),
                                         static_cast<std::uint64_t*>(nullptr), count);
  if (result != cudaSuccess) return result;
  result = cub::DeviceRadixSort::SortPairs(
      nullptr, pairs, static_cast<const std::uint64_t*>(nullptr),
      static_cast<std::uint64_t*>(nullptr), static_cast<const std::uint32_t*>(nullptr),
      static_cast<std::uint32_t*>(nullptr), count, 0, 64);
  *bytes = std::max({small, large, pairs});
  return result;
}

cudaError_t exclusive_sum(void* scratch, std::size_t bytes, const std::int32_t* from,
                          std::int32_t* to, std::int64_t count, void* stream) {
  return cub::DeviceScan::ExclusiveSum(scratch, bytes, from, to, count,
                                       static_cast<cudaStream_t>(stream));
}

cudaError_t exclusive_sum(void* scratch, std::size_t bytes, const std::uint64_t* from,
                          std::uint64_t* to, std::int64_t count, void* stream) {
  return cub::DeviceScan::ExclusiveSum(scratch, bytes, from, to, count,
                                       static_cast<cudaStream_t>(stream));
}

cudaError_t sort_pairs(void* scratch, std::size_t bytes, const std::uint64_t* keys,
                       std::uint64_t* keys_out, const std::uint32_t* values,
                       std::uint32_t* values_out, std::int64_t count, int bits,
                       void* stream) {
  return cub::DeviceRadixSort::SortPairs(scratch, bytes, keys, keys_out, values,
                                         values_out, count, 0, bits,
                                         static_cast<cudaStream_t>(stream));
}

}  // namespace her2fast::cuda
