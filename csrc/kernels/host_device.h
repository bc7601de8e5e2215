// SPDX-License-Identifier: Apache-2.0
/// A formula stands once: what is marked so compiles for the GPU too.
#pragma once

#if defined(__CUDACC__)
#define HER2FAST_HOST_DEVICE __host__ __device__
#else
#define HER2FAST_HOST_DEVICE
#endif
