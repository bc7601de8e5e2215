// SPDX-License-Identifier: Apache-2.0
/// The table of libher2fast_cuda; devices, memory and streams.
#include <algorithm>
#include <cstdio>

#include "cuda/functions.h"
#include "cuda/launch.h"

namespace her2fast::cuda {
namespace {

std::int32_t count_devices(std::int32_t* count, Her2CudaError* error) {
  *count = 0;
  int devices = 0;
  const std::int32_t status = status_of(cudaGetDeviceCount(&devices), error);
  if (status == HER2_CUDA_OK) *count = devices;
  return status;
}

std::int32_t describe_device(std::int32_t device, Her2CudaDevice* out,
                             Her2CudaError* error) {
  *out = {};
  cudaDeviceProp properties{};
  std::int32_t status = status_of(cudaGetDeviceProperties(&properties, device), error);
  if (status != HER2_CUDA_OK) return status;
  std::snprintf(out->name, sizeof out->name, "%.127s", properties.name);
  out->major = properties.major;
  out->minor = properties.minor;
  out->multiprocessors = properties.multiProcessorCount;
  out->memory_bytes = properties.totalGlobalMem;
  static_cast<void>(cudaDriverGetVersion(&out->driver));
  static_cast<void>(cudaRuntimeGetVersion(&out->runtime));
  const OnDevice on(device, error);
  if (on.status() != HER2_CUDA_OK) return on.status();
  std::size_t free = 0, total = 0;
  status = status_of(cudaMemGetInfo(&free, &total), error);
  out->free_bytes = free;
  return status;
}

std::int32_t allocate(std::int32_t device, std::uint64_t bytes, void** out,
                      Her2CudaError* error) {
  *out = nullptr;
  const OnDevice on(device, error);
  if (on.status() != HER2_CUDA_OK) return on.status();
  return status_of(cudaMalloc(out, std::max<std::uint64_t>(bytes, 1)), error);
}

std::int32_t release(void* memory, Her2CudaError* error) {
  if (memory == nullptr) return HER2_CUDA_OK;
  const OnDevice on({memory}, error);
  if (on.status() != HER2_CUDA_OK) return on.status();
  return status_of(cudaFree(memory), error);
}

std::int32_t allocate_pinned(std::uint64_t bytes, void** out, Her2CudaError* error) {
  *out = nullptr;
  return status_of(cudaMallocHost(out, std::max<std::uint64_t>(bytes, 1)), error);
}

std::int32_t release_pinned(void* memory, Her2CudaError* error) {
  return status_of(cudaFreeHost(memory), error);
}

std::int32_t copy(void* to, const void* from, std::uint64_t bytes, std::int32_t kind,
                  void* stream, Her2CudaError* error) {
  cudaMemcpyKind way;
  switch (kind) {
    case HER2_CUDA_TO_DEVICE:
      way = cudaMemcpyHostToDevice;
      break;
    case HER2_CUDA_TO_HOST:
      way = cudaMemcpyDeviceToHost;
      break;
    case HER2_CUDA_WITHIN:
      way = cudaMemcpyDeviceToDevice;
      break;
    default:
      return fail(error, HER2_CUDA_BAD_ARGUMENT, "need a kind of copy of 1 to 3, got %d",
                  static_cast<int>(kind));
  }
  if (bytes == 0) return HER2_CUDA_OK;
  // A default stream is that of the current GPU, so the GPU of the memory has to be it.
  const OnDevice on(
      {kind == HER2_CUDA_TO_HOST ? from : to, kind == HER2_CUDA_TO_DEVICE ? to : from},
      error);
  if (on.status() != HER2_CUDA_OK) return on.status();
  return status_of(
      cudaMemcpyAsync(to, from, bytes, way, static_cast<cudaStream_t>(stream)), error);
}

std::int32_t create_stream(std::int32_t device, void** out, Her2CudaError* error) {
  *out = nullptr;
  const OnDevice on(device, error);
  if (on.status() != HER2_CUDA_OK) return on.status();
  cudaStream_t stream = nullptr;
  const std::int32_t status =
      status_of(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), error);
  *out = stream;
  return status;
}

std::int32_t destroy_stream(void* stream, Her2CudaError* error) {
  return status_of(cudaStreamDestroy(static_cast<cudaStream_t>(stream)), error);
}

std::int32_t synchronize(std::int32_t device, void* stream, Her2CudaError* error) {
  const OnDevice on(device, error);
  if (on.status() != HER2_CUDA_OK) return on.status();
  return status_of(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), error);
}

constexpr Her2CudaTable kTable{
    sizeof(Her2CudaTable),
    HER2_CUDA_API_VERSION,
    0,
    count_devices,
    describe_device,
    allocate,
    release,
    allocate_pinned,
    release_pinned,
    copy,
    create_stream,
    destroy_stream,
    synchronize,
    normalize_batch,
    tumor_count,
    stain_unmix,
    tissue_mask,
    constraint_select_scratch_bytes,
    constraint_select,
    membrane_label_scratch_bytes,
    membrane_label,
    tumor_bits,
    jpeg_decoder_create,
    jpeg_decoder_describe,
    jpeg_decoder_destroy,
    jpeg_decode,
    resample_scratch_bytes,
    resample,
};

}  // namespace
}  // namespace her2fast::cuda

extern "C" __attribute__((visibility("default"))) const Her2CudaTable* her2_cuda_table() {
  return &her2fast::cuda::kTable;
}
