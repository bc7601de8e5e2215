// SPDX-License-Identifier: Apache-2.0
/// The stand-in for nvJPEG from tests: it is opened once and found by FAKE_NVJPEG.
#pragma once

#include <dlfcn.h>

#include <stdexcept>

#include "fake_nvjpeg.h"

namespace her2fast {

template <typename Function>
Function* of_fake(const char* name) {
  static void* const library = dlopen(FAKE_NVJPEG, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error(dlerror());
  return reinterpret_cast<Function*>(dlsym(library, name));
}
inline void fake_fail(const char* function, int status, int at = 1) {
  of_fake<FakeNvjpegFail>("fake_nvjpeg_fail")(function, status, at);
}
inline void fake_set(const char* what, int value) {
  of_fake<FakeNvjpegSet>("fake_nvjpeg_set")(what, value);
}
inline int seen(const char* what) {
  return of_fake<FakeNvjpegSeen>("fake_nvjpeg_seen")(what);
}

}  // namespace her2fast
