// SPDX-License-Identifier: Apache-2.0
/// The part of CUDA's runtime that csrc/cuda uses, on the CPU: included in the place of
/// the toolkit's header, so that the same kernels compile with a plain C++ compiler.
///
/// Blocks run one after another, a block's threads as fibers that change only at barriers
/// and warp operations, in ascending, descending or shuffled order. So arithmetic,
/// indexing, bounds (with AddressSanitizer) and most missing barriers show; races between
/// warps that need true concurrency, memory order and speed do not. Device memory and
/// shared arrays start as 0xA5 bytes; a pointer that `cudaMalloc` did not give is host
/// memory. There are two GPUs, and memory of one is refused where the other is current.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <type_traits>

#define HER2FAST_CUDA_ON_HOST 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  constexpr explicit dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1)
      : x(x_), y(y_), z(z_) {}
};

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInitializationError = 3,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorStubLibrary = 34,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorUnsupportedPtxVersion = 222,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorLaunchOutOfResources = 701,
  cudaErrorLaunchFailure = 719,
  cudaErrorCompatNotSupportedOnDevice = 804,
};
enum cudaMemcpyKind {
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3
};
enum cudaMemoryType {
  cudaMemoryTypeUnregistered = 0,
  cudaMemoryTypeDevice = 2,
  cudaMemoryTypeManaged = 3
};
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2;

struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
};
struct cudaDeviceProp {
  char name[256];
  std::size_t totalGlobalMem;
  int major, minor, multiProcessorCount;
};
using cudaStream_t = struct CudaOnHostStream*;
using cudaEvent_t = struct CudaOnHostEvent*;

cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t);
const char* cudaGetErrorName(cudaError_t);
cudaError_t cudaGetDeviceCount(int*);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp*, int);
cudaError_t cudaDeviceGetAttribute(int*, cudaDeviceAttr, int);
cudaError_t cudaDriverGetVersion(int*);
cudaError_t cudaRuntimeGetVersion(int*);
cudaError_t cudaGetDevice(int*);
cudaError_t cudaSetDevice(int);
cudaError_t cudaMemGetInfo(std::size_t*, std::size_t*);
cudaError_t cudaMalloc(void**, std::size_t);
cudaError_t cudaFree(void*);
cudaError_t cudaMallocHost(void**, std::size_t);
cudaError_t cudaFreeHost(void*);
cudaError_t cudaMemcpyAsync(void*, const void*, std::size_t, cudaMemcpyKind,
                            cudaStream_t);
cudaError_t cudaMemsetAsync(void*, int, std::size_t, cudaStream_t);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, unsigned);
cudaError_t cudaStreamDestroy(cudaStream_t);
cudaError_t cudaStreamSynchronize(cudaStream_t);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t*, unsigned);
cudaError_t cudaEventDestroy(cudaEvent_t);
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t);
cudaError_t cudaEventSynchronize(cudaEvent_t);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes*, const void*);

namespace cuda_on_host {

inline constexpr unsigned kLanes = 32;

/// The thread that runs, for kernels to read.
extern dim3 thread_index, block_index, block_size, grid_size;

/// Runs `thread` for every thread of every block.
void run(dim3 grid, dim3 block, const std::function<void()>& thread);
void wait_for_block();
/// Every lane of `lanes` gives 8 bytes; returns those of all 32, valid until the next.
const std::uint64_t* exchange(unsigned lanes, std::uint64_t value);
/// Counts blocks, so that a shared array knows when it is a new one.
std::uint64_t block_serial();
/// Adds a shared array of the running block to its sum. @throws std::logic_error
void use_shared(std::size_t bytes);

template <typename T, std::size_t kCount>
class SharedArray {
 public:
  T (&enter())[kCount] {
    if (serial_ != block_serial()) {
      serial_ = block_serial();
      use_shared(sizeof values_);
      std::memset(static_cast<void*>(values_), 0xA5, sizeof values_);
    }
    return values_;
  }

 private:
  std::uint64_t serial_ = ~std::uint64_t{0};
  T values_[kCount];
};

template <typename T>
std::uint64_t to_bits(T value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}
template <typename T>
T from_bits(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline unsigned lane() {
  return (thread_index.x +
          block_size.x * (thread_index.y + block_size.y * thread_index.z)) %
         kLanes;
}

}  // namespace cuda_on_host

#define threadIdx (::cuda_on_host::thread_index)
#define blockIdx (::cuda_on_host::block_index)
#define blockDim (::cuda_on_host::block_size)
#define gridDim (::cuda_on_host::grid_size)

#define HER2FAST_SHARED(type, name, count)                         \
  static ::cuda_on_host::SharedArray<type, count> name##_of_block; \
  type(&name)[count] = name##_of_block.enter()

inline void __syncthreads() { cuda_on_host::wait_for_block(); }
inline void __syncwarp(unsigned lanes = 0xffffffffu) { cuda_on_host::exchange(lanes, 0); }

template <typename T>
T __shfl_sync(unsigned lanes, T value, int source) {
  const std::uint64_t* all = cuda_on_host::exchange(lanes, cuda_on_host::to_bits(value));
  return cuda_on_host::from_bits<T>(
      all[static_cast<unsigned>(source) % cuda_on_host::kLanes]);
}
template <typename T>
T __shfl_down_sync(unsigned lanes, T value, unsigned delta) {
  const unsigned lane = cuda_on_host::lane();
  const std::uint64_t* all = cuda_on_host::exchange(lanes, cuda_on_host::to_bits(value));
  const unsigned source = lane + delta;
  return cuda_on_host::from_bits<T>(all[source < cuda_on_host::kLanes ? source : lane]);
}
inline unsigned __ballot_sync(unsigned lanes, int predicate) {
  const std::uint64_t* all = cuda_on_host::exchange(lanes, predicate != 0);
  unsigned bits = 0;
  for (unsigned i = 0; i < cuda_on_host::kLanes; ++i) {
    bits |= (lanes >> i & 1u) != 0 && all[i] != 0 ? 1u << i : 0u;
  }
  return bits;
}
template <typename T>
unsigned __match_any_sync(unsigned lanes, T value) {
  const std::uint64_t mine = cuda_on_host::to_bits(value);
  const std::uint64_t* all = cuda_on_host::exchange(lanes, mine);
  unsigned bits = 0;
  for (unsigned i = 0; i < cuda_on_host::kLanes; ++i) {
    bits |= (lanes >> i & 1u) != 0 && all[i] == mine ? 1u << i : 0u;
  }
  return bits;
}

inline int __popc(unsigned value) { return std::popcount(value); }
inline int __ffs(int value) {
  return value == 0 ? 0 : 1 + std::countr_zero(static_cast<unsigned>(value));
}
inline int __clz(int value) { return std::countl_zero(static_cast<unsigned>(value)); }

template <typename T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  const T old = *at;
  *at = static_cast<T>(old + value);
  return old;
}
template <typename T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  const T old = *at;
  *at = std::min(old, value);
  return old;
}
template <typename T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  const T old = *at;
  *at = std::max(old, value);
  return old;
}

namespace her2fast::cuda {

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, void*,
            Arguments... arguments) {
  cuda_on_host::run(grid, block, [&] { kernel(arguments...); });
}

}  // namespace her2fast::cuda
