// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "capi/guard.h"
#include "capi/handles.h"

namespace her2fast::capi {
namespace {

// Plain memory: it has no destructor, so a thread that lives on does not hold the
// library.
constexpr std::size_t kMaxMessage = 1024;
thread_local char last_error[kMaxMessage];

}  // namespace

void set_last_error(const char* message) noexcept {
  std::size_t size = std::min(std::strlen(message), kMaxMessage - 1);
  // Not within a character: UTF-8 continues with 10xxxxxx.
  while (size > 0 && message[size] != '\0' &&
         (static_cast<unsigned char>(message[size]) & 0xC0) == 0x80) {
    --size;
  }
  std::memmove(last_error, message, size);
  last_error[size] = '\0';
}

static_assert(HER2_LIMIT_EXCEEDED == engine_status(Code::kLimitExceeded));
static_assert(HER2_IO == engine_status(Code::kIo));
static_assert(HER2_ROI_INVALID == engine_status(Code::kRoiInvalid));
static_assert(HER2_ROI_OUTSIDE == engine_status(Code::kRoiOutside));
static_assert(HER2_MISSING_TILES == engine_status(Code::kMissingTiles));
static_assert(HER2_MODEL_HASH == engine_status(Code::kModelHash));
static_assert(HER2_MODEL_SHAPE == engine_status(Code::kModelShape));
static_assert(HER2_MODEL_CLASSES == engine_status(Code::kModelClasses));
static_assert(HER2_NON_FINITE == engine_status(Code::kNonFinite));
static_assert(HER2_GPU_OOM == engine_status(Code::kGpuOom));
static_assert(HER2_GPU_LOST == engine_status(Code::kGpuLost));
static_assert(HER2_CRASH == engine_status(Code::kCrash));
static_assert(HER2_CANCELLED == engine_status(Code::kCancelled));

}  // namespace her2fast::capi

using namespace her2fast;
using namespace her2fast::capi;

std::uint32_t her2_abi_version(void) { return HER2_ABI_VERSION; }

const char* her2_version(void) { return HER2FAST_VERSION; }

const char* her2_last_error(void) { return last_error; }

const char* her2_status_name(std::int32_t status) {
  switch (status) {
    case HER2_OK:
      return "OK";
    case HER2_INVALID_ARGUMENT:
      return "INVALID_ARGUMENT";
    case HER2_WOULD_BLOCK:
      return "WOULD_BLOCK";
    case HER2_INVALID_PACKAGE:
      return "INVALID_PACKAGE";
    case HER2_OUT_OF_MEMORY:
      return "OUT_OF_MEMORY";
    case HER2_NO_DEVICE:
      return "NO_DEVICE";
    case HER2_INTERNAL:
      return "INTERNAL";
    default:
      break;
  }
  if (status < 1 || status > kCodeCount) return "UNKNOWN";
  return code_name(static_cast<Code>(status - 1)).data();  // literals end with a 0
}

const void* her2_buffer_data(const her2_buffer* buffer) {
  return buffer == nullptr ? nullptr : buffer->bytes.data();
}

std::uint64_t her2_buffer_size(const her2_buffer* buffer) {
  return buffer == nullptr ? 0 : buffer->bytes.size();
}

void her2_buffer_close(her2_buffer* buffer) { delete buffer; }
