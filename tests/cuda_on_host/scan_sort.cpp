// SPDX-License-Identifier: Apache-2.0
/// csrc/cuda/scan_sort.h by the standard library, in the place of CUB.
#include "cuda/scan_sort.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace her2fast::cuda {
namespace {

/// CUB may write all over its scratch: what is kept there must not survive either.
void spoil(void* scratch, std::size_t bytes) { std::memset(scratch, 0xA5, bytes); }

template <typename T>
cudaError_t add_up(void* scratch, std::size_t bytes, const T* from, T* to,
                   std::int64_t count) {
  spoil(scratch, bytes);
  std::exclusive_scan(from, from + count, to, T{0});
  return cudaSuccess;
}

}  // namespace

cudaError_t scan_sort_bytes(std::int64_t, std::size_t* bytes) {
  *bytes = 1024;
  return cudaSuccess;
}

cudaError_t exclusive_sum(void* scratch, std::size_t bytes, const std::int32_t* from,
                          std::int32_t* to, std::int64_t count, void*) {
  return add_up(scratch, bytes, from, to, count);
}

cudaError_t exclusive_sum(void* scratch, std::size_t bytes, const std::uint64_t* from,
                          std::uint64_t* to, std::int64_t count, void*) {
  return add_up(scratch, bytes, from, to, count);
}

cudaError_t sort_pairs(void* scratch, std::size_t bytes, const std::uint64_t* keys,
                       std::uint64_t* keys_out, const std::uint32_t* values,
                       std::uint32_t* values_out, std::int64_t count, int bits, void*) {
  spoil(scratch, bytes);
  const std::uint64_t used =
      bits >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1;
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return (keys[a] & used) < (keys[b] & used);
  });
  for (std::int64_t i = 0; i < count; ++i) {
    keys_out[i] = keys[order[static_cast<std::size_t>(i)]];
    values_out[i] = values[order[static_cast<std::size_t>(i)]];
  }
  return cudaSuccess;
}

}  // namespace her2fast::cuda
