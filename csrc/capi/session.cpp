// SPDX-License-Identifier: Apache-2.0
#include "capi/guard.h"
#include "capi/scan_session.h"

using namespace her2fast;
using namespace her2fast::capi;

namespace {

her2_session_options options_of(const her2_session_options* options) {
  return read_struct(options, offsetof(her2_session_options, max_memory_bytes),
                     "session options");
}

ScanSession& session_of(const her2_session* session) {
  return *needed(session, "a session").session;
}

her2_session* opened(const her2_engine* engine, std::shared_ptr<const Slide> slide,
                     const her2_session_options& options) {
  return new her2_session{std::make_unique<ScanSession>(
      needed(engine, "an engine").engine, std::move(slide), options)};
}

// The order is that of PixelFormat.
static_assert(HER2_PIXELS_RGB == static_cast<int>(PixelFormat::kRgb) &&
              HER2_PIXELS_BGR == static_cast<int>(PixelFormat::kBgr) &&
              HER2_PIXELS_RGBA == static_cast<int>(PixelFormat::kRgba) &&
              HER2_PIXELS_BGRA == static_cast<int>(PixelFormat::kBgra) &&
              HER2_PIXELS_BLANK == static_cast<int>(PixelFormat::kBlank));

}  // namespace

std::int32_t her2_session_open(const her2_engine* engine,
                               const her2_session_options* options, her2_session** out) {
  return guarded([&] {
    needed(out, "an out") = nullptr;
    *out = opened(engine, nullptr, options_of(options));
    return HER2_OK;
  });
}

std::int32_t her2_session_open_slide(const her2_engine* engine, const her2_slide* slide,
                                     const her2_session_options* options,
                                     her2_session** out) {
  return guarded([&] {
    needed(out, "an out") = nullptr;
    *out = opened(engine, needed(slide, "a slide").slide, options_of(options));
    return HER2_OK;
  });
}

void her2_session_close(her2_session* session) { delete session; }

std::int32_t her2_session_push(her2_session* session, const her2_pixels* pixels) {
  return guarded([&]() -> std::int32_t {
    const auto given = read_struct(pixels, offsetof(her2_pixels, release), "pixels");
    if (given.format < HER2_PIXELS_RGB || given.format > HER2_PIXELS_BLANK) {
      throw std::invalid_argument("need a format of HER2_PIXELS_*, got " +
                                  std::to_string(given.format));
    }
    const PixelRect rect{given.x0_px,
                         given.y0_px,
                         given.width_px,
                         given.height_px,
                         given.data,
                         given.stride_bytes,
                         static_cast<PixelFormat>(given.format)};
    const bool taken =
        session_of(session).try_push(rect, {given.release, given.release_context});
    return taken ? HER2_OK : HER2_WOULD_BLOCK;
  });
}

std::int32_t her2_session_get_progress(const her2_session* session,
                                       her2_progress* progress) {
  return guarded([&] {
    write_struct(session_of(session).progress(), progress, "progress");
    return HER2_OK;
  });
}

std::int32_t her2_session_snapshot(const her2_session* session, her2_measurement** out) {
  return guarded([&] {
    needed(out, "an out") = nullptr;
    *out = new her2_measurement{session_of(session).snapshot()};
    return HER2_OK;
  });
}

std::int32_t her2_session_cancel(her2_session* session) {
  return guarded([&] {
    session_of(session).cancel();
    return HER2_OK;
  });
}

std::int32_t her2_session_finish(her2_session* session, her2_measurement** out) {
  return guarded([&] {
    if (out != nullptr) *out = nullptr;
    auto measured = session_of(session).finish();
    if (out != nullptr) *out = new her2_measurement{std::move(measured)};
    return HER2_OK;
  });
}
