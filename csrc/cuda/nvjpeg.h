// SPDX-License-Identifier: Apache-2.0
/// The part of NVIDIA's nvJPEG that jpeg_decode.cu calls, declared anew: the library is
/// opened at run time and its header is not needed to build. Numbers, layouts and
/// signatures are its ABI (https://docs.nvidia.com/cuda/nvjpeg); test_nvjpeg_header.cpp
/// compares them with nvjpeg.h where there is one.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <type_traits>

namespace her2fast::cuda::nvjpeg {

using Handle = struct HandleOfNvjpeg*;
using State = struct StateOfNvjpeg*;
using Stream = struct StreamOfNvjpeg*;

enum Status : int {
  kSuccess = 0,
  kNotInitialized = 1,
  kInvalidParameter = 2,
  kBadJpeg = 3,
  kJpegNotSupported = 4,
  kAllocatorFailure = 5,
  kExecutionFailed = 6,
  kArchMismatch = 7,
  kInternalError = 8,
  kImplementationNotSupported = 9,
  kIncompleteBitstream = 10,
};
enum Backend : int { kGpuHybrid = 2, kHardware = 3 };
enum OutputFormat : int { kRgbInterleaved = 5 };
enum Property : int { kMajorVersion = 0, kMinorVersion = 1, kPatchLevel = 2 };
/// Chroma is interpolated between its samples, as libjpeg-turbo does; else it is
/// repeated.
inline constexpr unsigned kUpsamplingWithInterpolation = 32;
/// The first release that knows it.
inline constexpr int kFirstMajor = 12, kFirstMinor = 1;

struct Image {
  unsigned char* channel[4];
  std::size_t pitch[4];
};

/// What is looked up, by its exported name.
#define HER2FAST_NVJPEG_FUNCTIONS(X)                                                   \
  X(get_property, nvjpegGetProperty, Status (*)(Property, int*))                       \
  X(create, nvjpegCreateEx, Status (*)(Backend, void*, void*, unsigned, Handle*))      \
  X(destroy, nvjpegDestroy, Status (*)(Handle))                                        \
  X(state_create, nvjpegJpegStateCreate, Status (*)(Handle, State*))                   \
  X(state_destroy, nvjpegJpegStateDestroy, Status (*)(State))                          \
  X(stream_create, nvjpegJpegStreamCreate, Status (*)(Handle, Stream*))                \
  X(stream_destroy, nvjpegJpegStreamDestroy, Status (*)(Stream))                       \
  X(parse_header, nvjpegJpegStreamParseHeader,                                         \
    Status (*)(Handle, const unsigned char*, std::size_t, Stream))                     \
  X(batch_supported, nvjpegDecodeBatchedSupported, Status (*)(Handle, Stream, int*))   \
  X(batch_initialize, nvjpegDecodeBatchedInitialize,                                   \
    Status (*)(Handle, State, int, int, OutputFormat))                                 \
  X(batch_decode, nvjpegDecodeBatched,                                                 \
    Status (*)(Handle, State, const unsigned char* const*, const std::size_t*, Image*, \
               cudaStream_t))

struct Functions {
#define HER2FAST_NVJPEG_FIELD(field, symbol, ...) \
  std::type_identity_t<__VA_ARGS__> field = nullptr;
  HER2FAST_NVJPEG_FUNCTIONS(HER2FAST_NVJPEG_FIELD)
#undef HER2FAST_NVJPEG_FIELD
};

}  // namespace her2fast::cuda::nvjpeg
