/* SPDX-License-Identifier: Apache-2.0 */
/* libher2fast_cuda: one table of functions, opened at run time; nobody links it.
 *
 * Memory: every pointer is to device memory of one GPU unless it says "host"; every array
 * is contiguous, in C order, and need not be aligned beyond its element. Work is queued
 * on `stream` (a cudaStream_t; null is the default stream) of the GPU that holds the
 * pointers and nothing here waits for it, but for `synchronize`, `copy` from or to
 * pageable host memory, and what allocates or frees. Arguments in host memory may be
 * reused as soon as a call returns; device memory must live until the stream has passed.
 * Scratch is the caller's: any content, not kept between calls, aligned to 256 bytes.
 *
 * Every function returns a HER2_CUDA_ status and, where it is not HER2_CUDA_OK, fills
 * `error` (may be null). A fault on the device is told by a later call, as CUDA does.
 * Thread-safe. No function throws, prints or ends the process. */
#ifndef HER2FAST_CUDA_API_H
#define HER2FAST_CUDA_API_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HER2_CUDA_API_VERSION 1

enum {
  HER2_CUDA_OK = 0,
  HER2_CUDA_BAD_ARGUMENT = 1, /* a size, a value, or a pointer to host memory */
  HER2_CUDA_NO_DEVICE = 2,    /* no driver, no such GPU, or no code for it */
  HER2_CUDA_OUT_OF_MEMORY = 3,
  HER2_CUDA_LOST = 4 /* a fault on the GPU: the process cannot use it any more */
};

typedef struct Her2CudaError {
  char text[256];
} Her2CudaError;

typedef struct Her2CudaDevice {
  char name[128];
  int32_t major, minor; /* compute capability */
  int32_t multiprocessors;
  int32_t driver, runtime; /* CUDA versions, 13000 is 13.0 */
  uint64_t memory_bytes, free_bytes;
} Her2CudaDevice;

/* What `copy` copies. */
enum { HER2_CUDA_TO_DEVICE = 1, HER2_CUDA_TO_HOST = 2, HER2_CUDA_WITHIN = 3 };

typedef struct Her2CudaTable {
  uint64_t struct_size; /* of the library that filled it; later fields are absent */
  uint32_t version;     /* HER2_CUDA_API_VERSION */
  uint32_t reserved;

  /* --- device and memory ---------------------------------------------------------- */
  /* GPUs of this machine; HER2_CUDA_NO_DEVICE without driver or GPU. */
  int32_t (*count_devices)(int32_t* count, Her2CudaError* error);
  int32_t (*describe_device)(int32_t device, Her2CudaDevice* out, Her2CudaError* error);
  /* The GPU on which the calling thread allocates and makes streams. */
  int32_t (*use_device)(int32_t device, Her2CudaError* error);
  int32_t (*allocate)(uint64_t bytes, void** out, Her2CudaError* error);
  int32_t (*release)(void* memory, Her2CudaError* error);
  /* Host memory that copies overlap with work from and to. */
  int32_t (*allocate_pinned)(uint64_t bytes, void** out, Her2CudaError* error);
  int32_t (*release_pinned)(void* memory, Her2CudaError* error);
  int32_t (*copy)(void* to, const void* from, uint64_t bytes, int32_t kind, void* stream,
                  Her2CudaError* error);
  int32_t (*create_stream)(void** out, Her2CudaError* error);
  int32_t (*destroy_stream)(void* stream, Her2CudaError* error);
  int32_t (*synchronize)(void* stream, Her2CudaError* error);

  /* --- normalize_batch -------------------------------------------------------------
   * rgb (n, height, width, 3) uint8 -> out (n, 3, height, width): (v / 255 - mean[c]) /
   * std[c], every step rounded to float32 as torch does; `half` != 0: rounded once more,
   * to IEEE float16. mean, std: host, finite, std > 0. */
  int32_t (*normalize_batch)(const uint8_t* rgb, int64_t n, int64_t height, int64_t width,
                             const float* mean, const float* std, int32_t half, void* out,
                             void* stream, Her2CudaError* error);
} Her2CudaTable;

/* The library's only export. Immutable; never null. */
typedef const Her2CudaTable* (*Her2CudaTableFunction)(void);

#ifdef __cplusplus
}
#endif

#endif
