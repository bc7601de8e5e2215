// SPDX-License-Identifier: Apache-2.0
/// csrc/cuda/nvjpeg.h against NVIDIA's nvjpeg.h: numbers, layouts, and signatures
/// argument by argument. Mostly when this file is compiled; skipped where that header is
/// missing.
#include <gtest/gtest.h>

#ifdef HAS_NVJPEG_H
#include <nvjpeg.h>
#endif

#include <type_traits>

#include "cuda/nvjpeg.h"

namespace her2fast::cuda::nvjpeg {
namespace {

/// Passed alike: pointers as pointers, numbers and enumerations by size.
template <typename A, typename B>
constexpr bool kAlike = std::is_pointer_v<A> ==
                            std::is_pointer_v<B>&& std::is_class_v<A> ==
                            std::is_class_v<B> &&
                        sizeof(A) == sizeof(B);

template <typename A, typename B>
constexpr bool kCalledAlike = false;
template <typename A, typename... As, typename B, typename... Bs>
constexpr bool kCalledAlike<A (*)(As...), B (*)(Bs...)> = [] {
  if constexpr (sizeof...(As) == sizeof...(Bs)) {
    return kAlike<A, B> && (kAlike<As, Bs> && ...);
  } else {
    return false;
  }
}();

// The comparison itself can fail.
static_assert(kCalledAlike<int (*)(void*, int), Status (*)(char*, unsigned)>);
static_assert(!kCalledAlike<int (*)(void*, int), int (*)(void*, long)>);
static_assert(!kCalledAlike<int (*)(void*, long), int (*)(void*, char*)>);
static_assert(!kCalledAlike<int (*)(void*), int (*)(void*, int)>);

#ifdef HAS_NVJPEG_H

#define HER2FAST_NVJPEG_COMPARE(field, symbol, ...)                            \
  static_assert(kCalledAlike<decltype(&::symbol), decltype(Functions::field)>, \
                #symbol " is called otherwise");
HER2FAST_NVJPEG_FUNCTIONS(HER2FAST_NVJPEG_COMPARE)

static_assert(sizeof(Image) == sizeof(nvjpegImage_t));
static_assert(offsetof(Image, pitch) == offsetof(nvjpegImage_t, pitch));
static_assert(std::is_same_v<decltype(Image::channel), decltype(nvjpegImage_t::channel)>);
static_assert(std::is_same_v<decltype(Image::pitch), decltype(nvjpegImage_t::pitch)>);

TEST(NvjpegHeader, NumbersAreNvidias) {
  EXPECT_EQ(int{kSuccess}, int{NVJPEG_STATUS_SUCCESS});
  EXPECT_EQ(int{kNotInitialized}, int{NVJPEG_STATUS_NOT_INITIALIZED});
  EXPECT_EQ(int{kInvalidParameter}, int{NVJPEG_STATUS_INVALID_PARAMETER});
  EXPECT_EQ(int{kBadJpeg}, int{NVJPEG_STATUS_BAD_JPEG});
  EXPECT_EQ(int{kJpegNotSupported}, int{NVJPEG_STATUS_JPEG_NOT_SUPPORTED});
  EXPECT_EQ(int{kAllocatorFailure}, int{NVJPEG_STATUS_ALLOCATOR_FAILURE});
  EXPECT_EQ(int{kExecutionFailed}, int{NVJPEG_STATUS_EXECUTION_FAILED});
  EXPECT_EQ(int{kArchMismatch}, int{NVJPEG_STATUS_ARCH_MISMATCH});
  EXPECT_EQ(int{kInternalError}, int{NVJPEG_STATUS_INTERNAL_ERROR});
  EXPECT_EQ(int{kImplementationNotSupported},
            int{NVJPEG_STATUS_IMPLEMENTATION_NOT_SUPPORTED});
  EXPECT_EQ(int{kIncompleteBitstream}, int{NVJPEG_STATUS_INCOMPLETE_BITSTREAM});
  EXPECT_EQ(int{kGpuHybrid}, int{NVJPEG_BACKEND_GPU_HYBRID});
  EXPECT_EQ(int{kHardware}, int{NVJPEG_BACKEND_HARDWARE});
  EXPECT_EQ(int{kRgbInterleaved}, int{NVJPEG_OUTPUT_RGBI});
  EXPECT_EQ(int{kMajorVersion}, int{MAJOR_VERSION});
  EXPECT_EQ(int{kMinorVersion}, int{MINOR_VERSION});
  EXPECT_EQ(int{kPatchLevel}, int{PATCH_LEVEL});
  EXPECT_EQ(kUpsamplingWithInterpolation,
            static_cast<unsigned>(NVJPEG_FLAGS_UPSAMPLING_WITH_INTERPOLATION));
}

#else

TEST(NvjpegHeader, NumbersAreNvidias) {
  GTEST_SKIP() << "no nvjpeg.h; give HER2FAST_NVJPEG_INCLUDE";
}

#endif

}  // namespace
}  // namespace her2fast::cuda::nvjpeg
