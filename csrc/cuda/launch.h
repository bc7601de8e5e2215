// SPDX-License-Identifier: Apache-2.0
/// What every kernel file needs: launching, checks of arguments and CUDA's errors as
/// statuses. The same files compile with a plain C++ compiler against the headers of
/// tests/cuda_on_host, which run a kernel's blocks and threads one after another.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <initializer_list>

#include "her2fast/cuda_api.h"

#ifndef HER2FAST_CUDA_ON_HOST
/// An array shared by the threads of a block.
#define HER2FAST_SHARED(type, name, count) __shared__ type name[count]
#endif

namespace her2fast::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;
/// Blocks in one launch at most; kernels stride over what is left.
inline constexpr std::int64_t kMaxBlocks = std::int64_t{1} << 20;

template <typename... Arguments>
std::int32_t fail(Her2CudaError* error, std::int32_t status, const char* format,
                  Arguments... arguments) {
  if (error != nullptr) {
    std::snprintf(error->text, sizeof error->text, format, arguments...);
  }
  return status;
}

/// Sides of a batch of images, and their product: what 64 bits count in bytes.
inline std::int32_t check_batch(std::int64_t n, std::int64_t height, std::int64_t width,
                                Her2CudaError* error) {
  constexpr std::int64_t kMost = std::int64_t{1} << 30;
  const bool good = n >= 0 && height >= 0 && width >= 0 && n <= kMost &&
                    height <= kMost && width <= kMost &&
                    (n == 0 || height == 0 || width <= (kMost << 10) / n / height);
  if (good) return HER2_CUDA_OK;
  return fail(error, HER2_CUDA_BAD_ARGUMENT,
              "need n, height, width of 0 to 2^30 and at most 2^40 pixels, got %lld x "
              "%lld x %lld",
              static_cast<long long>(n), static_cast<long long>(height),
              static_cast<long long>(width));
}

/// CUDA's verdict as a status.
inline std::int32_t status_of(cudaError_t result, Her2CudaError* error) {
  if (result == cudaSuccess) return HER2_CUDA_OK;
  std::int32_t status = HER2_CUDA_LOST;
  switch (result) {
    case cudaErrorMemoryAllocation:
      status = HER2_CUDA_OUT_OF_MEMORY;
      break;
    case cudaErrorInvalidValue:
    case cudaErrorInvalidConfiguration:
    case cudaErrorInvalidResourceHandle:
    case cudaErrorLaunchOutOfResources:
      status = HER2_CUDA_BAD_ARGUMENT;
      break;
    case cudaErrorInitializationError:
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorStubLibrary:
    case cudaErrorCompatNotSupportedOnDevice:
      status = HER2_CUDA_NO_DEVICE;
      break;
    default:
      break;
  }
  // A fault that can be told again would fail the caller's next, innocent call.
  static_cast<void>(cudaGetLastError());
  return fail(error, status, "CUDA: %s (%s)", cudaGetErrorString(result),
              cudaGetErrorName(result));
}

/// Makes a GPU the calling thread's for one call: the one named, or that of the pointers.
/// All must lie in device memory of the same GPU: a host pointer would be a fault that
/// ends the context.
class OnDevice {
 public:
  OnDevice(std::int32_t device, Her2CudaError* error) { use(device, error); }
  OnDevice(std::initializer_list<const void*> pointers, Her2CudaError* error) {
    int device = -1;
    for (const void* pointer : pointers) {
      cudaPointerAttributes attributes{};
      status_ = status_of(cudaPointerGetAttributes(&attributes, pointer), error);
      if (status_ != HER2_CUDA_OK) return;
      const bool on_gpu = attributes.type == cudaMemoryTypeDevice ||
                          attributes.type == cudaMemoryTypeManaged;
      if (!on_gpu || (device >= 0 && attributes.device != device)) {
        status_ = fail(error, HER2_CUDA_BAD_ARGUMENT,
                       on_gpu ? "need memory of one GPU, got that of two"
                              : "need device memory, got a pointer to host memory");
        return;
      }
      device = attributes.device;
    }
    use(device, error);
  }
  ~OnDevice() {
    if (changed_) static_cast<void>(cudaSetDevice(before_));
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  std::int32_t status() const { return status_; }

 private:
  void use(int device, Her2CudaError* error) {
    status_ = status_of(cudaGetDevice(&before_), error);
    if (status_ != HER2_CUDA_OK || before_ == device) return;
    status_ = status_of(cudaSetDevice(device), error);
    changed_ = status_ == HER2_CUDA_OK;
  }

  int before_ = 0;
  bool changed_ = false;
  std::int32_t status_ = HER2_CUDA_OK;
};

#ifndef HER2FAST_CUDA_ON_HOST
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, void* stream,
            Arguments... arguments) {
  kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(arguments...);
}
#endif

inline std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Blocks of `threads` for `items`, bounded: kernels stride.
inline dim3 blocks_for(std::int64_t items, int threads) {
  const std::int64_t blocks = divide_up(items, threads);
  return dim3(static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks));
}

/// Blocks that fill the GPU a few times over, for kernels that prepare something first.
inline dim3 lasting_blocks(std::int64_t items, int threads) {
  int device = 0, multiprocessors = 1;
  static_cast<void>(cudaGetDevice(&device));
  static_cast<void>(
      cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
  const std::int64_t most = std::int64_t{8} * multiprocessors;
  const std::int64_t blocks = divide_up(items, threads);
  return dim3(static_cast<unsigned>(blocks < most ? blocks : most));
}

}  // namespace her2fast::cuda
