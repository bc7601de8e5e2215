// SPDX-License-Identifier: Apache-2.0
#include "fake_nvjpeg.h"

// jpeglib.h needs FILE and size_t declared before it.
// clang-format off
#include <stdio.h>
#include <jpeglib.h>
// clang-format on

#include <algorithm>
#include <csetjmp>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "cuda/nvjpeg.h"

#define FAKE_EXPORT extern "C" __attribute__((visibility("default")))

namespace her2fast::cuda::nvjpeg {

struct HandleOfNvjpeg {
  unsigned flags;
  Backend backend;
};
struct StateOfNvjpeg {
  Handle handle;
  int items;  // that it was prepared for
};
struct StreamOfNvjpeg {
  bool parsed;
};

namespace {

struct Fault {
  int status, at;
};
std::map<std::string, Fault> faults;
std::map<std::string, int> seen, values;
int alive = 0;     // outlives resets
std::mutex guard;  // of all of this: decoders run side by side

/// An item whose batch was queued and not yet decoded.
struct Queued {
  const unsigned char* data;
  std::size_t size;
  bool interpolate;
  Image out;
};
std::vector<Queued> queued;

int value_of(const std::string& name, int otherwise) {
  const auto found = values.find(name);
  return found == values.end() ? otherwise : found->second;
}

/// Counts the call; what it has to fail with, or success.
Status called(const char* function) {
  ++seen[function];
  const auto fault = faults.find(function);
  if (fault == faults.end() || --fault->second.at != 0) return kSuccess;
  const auto status = static_cast<Status>(fault->second.status);
  faults.erase(fault);
  return status;
}

struct Errors {
  jpeg_error_mgr base;
  std::jmp_buf escape;
};
[[noreturn]] void on_error(j_common_ptr info) {
  std::longjmp(reinterpret_cast<Errors*>(info->err)->escape, 1);
}
void on_message(j_common_ptr info, int level) {
  if (level < 0) on_error(info);
}
void stay_silent(j_common_ptr) {}

/// By what the stream says of itself alone, as a library without its TIFF has to.
Status decode(const unsigned char* data, std::size_t size, bool interpolate, Image& out) {
  jpeg_decompress_struct info{};
  Errors errors;
  info.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = on_error;
  errors.base.emit_message = on_message;
  errors.base.output_message = stay_silent;
  if (setjmp(errors.escape) != 0) {
    jpeg_destroy_decompress(&info);
    return kBadJpeg;
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, data, static_cast<unsigned long>(size));
  jpeg_read_header(&info, TRUE);
  info.out_color_space = JCS_RGB;
  info.do_fancy_upsampling = interpolate ? TRUE : FALSE;
  jpeg_start_decompress(&info);
  const int shift = value_of("shift", 0);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = out.channel[0] + info.output_scanline * out.pitch[0];
    jpeg_read_scanlines(&info, &row, 1);
    for (JDIMENSION i = 0; shift != 0 && i < 3 * info.output_width; i += 3) {
      row[i] = static_cast<unsigned char>(std::clamp(row[i] + shift, 0, 255));
    }
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
  return kSuccess;
}

}  // namespace
}  // namespace her2fast::cuda::nvjpeg

using namespace her2fast::cuda::nvjpeg;

FAKE_EXPORT void fake_nvjpeg_reset() {
  const std::lock_guard lock(guard);
  faults.clear();
  seen.clear();
  values.clear();
}
FAKE_EXPORT void fake_nvjpeg_fail(const char* function, int status, int at) {
  const std::lock_guard lock(guard);
  faults[function] = {status, at};
}
FAKE_EXPORT void fake_nvjpeg_set(const char* what, int value) {
  const std::lock_guard lock(guard);
  values[what] = value;
}
FAKE_EXPORT int fake_nvjpeg_seen(const char* what) {
  const std::lock_guard lock(guard);
  return what == std::string("alive") ? alive : seen[what];
}

FAKE_EXPORT void fake_nvjpeg_flush() {
  const std::lock_guard lock(guard);
  for (Queued& item : std::exchange(queued, {})) {
    static_cast<void>(decode(item.data, item.size, item.interpolate, item.out));
  }
}

FAKE_EXPORT Status nvjpegGetProperty(Property which, int* out) {
  const std::lock_guard lock(guard);
  *out = which == kMajorVersion   ? value_of("major", 13)
         : which == kMinorVersion ? value_of("minor", 0)
                                  : 1;
  return called("nvjpegGetProperty");
}
FAKE_EXPORT Status nvjpegCreateEx(Backend backend, void*, void*, unsigned flags,
                                  Handle* out) {
  const std::lock_guard lock(guard);
  const Status status = called("nvjpegCreateEx");
  if (status != kSuccess) return status;
  if (backend == kHardware && value_of("engine", 1) == 0) return kArchMismatch;
  *out = new HandleOfNvjpeg{flags, backend};
  ++alive;
  return kSuccess;
}
FAKE_EXPORT Status nvjpegDestroy(Handle handle) {
  const std::lock_guard lock(guard);
  delete handle;
  --alive;
  return called("nvjpegDestroy");
}
FAKE_EXPORT Status nvjpegJpegStateCreate(Handle handle, State* out) {
  const std::lock_guard lock(guard);
  const Status status = called("nvjpegJpegStateCreate");
  if (status != kSuccess) return status;
  *out = new StateOfNvjpeg{handle, 0};
  ++alive;
  return kSuccess;
}
FAKE_EXPORT Status nvjpegJpegStateDestroy(State state) {
  const std::lock_guard lock(guard);
  delete state;
  --alive;
  return called("nvjpegJpegStateDestroy");
}
FAKE_EXPORT Status nvjpegJpegStreamCreate(Handle, Stream* out) {
  const std::lock_guard lock(guard);
  const Status status = called("nvjpegJpegStreamCreate");
  if (status != kSuccess) return status;
  *out = new StreamOfNvjpeg{false};
  ++alive;
  return kSuccess;
}
FAKE_EXPORT Status nvjpegJpegStreamDestroy(Stream stream) {
  const std::lock_guard lock(guard);
  delete stream;
  --alive;
  return called("nvjpegJpegStreamDestroy");
}
FAKE_EXPORT Status nvjpegJpegStreamParseHeader(Handle, const unsigned char*, std::size_t,
                                               Stream stream) {
  const std::lock_guard lock(guard);
  stream->parsed = true;
  return called("nvjpegJpegStreamParseHeader");
}
FAKE_EXPORT Status nvjpegDecodeBatchedSupported(Handle, Stream stream, int* out) {
  const std::lock_guard lock(guard);
  *out = value_of("refused", 0);
  const Status status = called("nvjpegDecodeBatchedSupported");
  return stream->parsed ? status : kInvalidParameter;
}
FAKE_EXPORT Status nvjpegDecodeBatchedInitialize(Handle handle, State state, int items,
                                                 int threads, OutputFormat format) {
  const std::lock_guard lock(guard);
  state->items = items;
  const bool good =
      state->handle == handle && items >= 1 && threads >= 1 && format == kRgbInterleaved;
  const Status status = called("nvjpegDecodeBatchedInitialize");
  return good ? status : kInvalidParameter;
}
FAKE_EXPORT Status nvjpegDecodeBatched(Handle handle, State state,
                                       const unsigned char* const* data,
                                       const std::size_t* sizes, Image* out,
                                       cudaStream_t) {
  const std::lock_guard lock(guard);
  const int items = std::exchange(state->items, 0);  // a failure asks for a new start
  if (state->handle != handle || items < 1) return kInvalidParameter;
  const Status status = called("nvjpegDecodeBatched");
  if (status != kSuccess) return status;
  for (int i = 0; i < items; ++i) {
    const bool interpolate = (handle->flags & kUpsamplingWithInterpolation) != 0;
    if (value_of("late", 0) != 0) {
      queued.push_back({data[i], sizes[i], interpolate, out[i]});
      continue;
    }
    const Status one = decode(data[i], sizes[i], interpolate, out[i]);
    if (one != kSuccess) return one;
  }
  state->items = seen["items"] = items;
  return kSuccess;
}
