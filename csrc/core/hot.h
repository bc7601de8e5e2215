// SPDX-License-Identifier: Apache-2.0
/// HER2FAST_HOT: a second copy of a hot loop for AVX2, chosen at load time. Only for
/// loops whose elements are independent or whose sums are integers: they give the same
/// bits. Not under sanitizers: the resolver would run before their start-up.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) &&            \
    !defined(__SANITIZE_THREAD__)
#define HER2FAST_HOT __attribute__((target_clones("avx2", "default")))
#else
#define HER2FAST_HOT
#endif
