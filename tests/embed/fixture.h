/* SPDX-License-Identifier: Apache-2.0 */
/* A synthetic slide, an engine by color and small helpers for the C tests. */
#ifndef HER2FAST_EMBED_FIXTURE_H
#define HER2FAST_EMBED_FIXTURE_H

#include <her2fast/her2fast.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

#define CHECK(condition)                                                              \
  do {                                                                                \
    if (!(condition)) {                                                               \
      ++failures;                                                                     \
      fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, __LINE__, #condition, \
              her2_last_error());                                                     \
    }                                                                                 \
  } while (0)

#define NEED(condition)                      \
  do {                                       \
    const int failures_before = failures;    \
    CHECK(condition);                        \
    if (failures > failures_before) exit(1); \
  } while (0)

enum { SLIDE_WIDTH = 2300, SLIDE_HEIGHT = 1900 };
static const double SLIDE_SPACING_UM = 0.484; /* no whole ratio to 1 um/px */

/* Brown and blue tissue in blobs on glass, with a little grain. */
static void slide_pixel(int64_t x, int64_t y, uint8_t* rgb) {
  const uint32_t grain = (uint32_t)((x * 2654435761u) ^ (y * 40503u)) >> 7 & 15u;
  const int64_t cell = (x / 300 + y / 260) % 4;
  const int inside = (x % 300) > 40 && (y % 260) > 30 && cell != 3;
  rgb[0] = (uint8_t)(inside ? (cell == 0   ? 150
                               : cell == 1 ? 170
                                           : 120) +
                                  grain
                            : 240 + grain);
  rgb[1] = (uint8_t)(inside ? (cell == 0   ? 100
                               : cell == 1 ? 140
                                           : 80) +
                                  grain
                            : 240 + grain);
  rgb[2] = (uint8_t)(inside ? (cell == 0   ? 70
                               : cell == 1 ? 190
                                           : 50) +
                                  grain
                            : 240 + grain);
}

/* A rectangle of the slide in a format; the caller frees it. */
static uint8_t* slide_pixels(int64_t x, int64_t y, int64_t width, int64_t height,
                             int32_t format, int64_t stride) {
  const int64_t step = format == HER2_PIXELS_RGBA || format == HER2_PIXELS_BGRA ? 4 : 3;
  const int swapped = format == HER2_PIXELS_BGR || format == HER2_PIXELS_BGRA;
  uint8_t* out = (uint8_t*)malloc((size_t)(stride * height));
  int64_t u, v;
  if (out == NULL) abort();
  memset(out, 77, (size_t)(stride * height));
  for (v = 0; v < height; ++v) {
    for (u = 0; u < width; ++u) {
      uint8_t rgb[3];
      uint8_t* to = out + v * stride + u * step;
      slide_pixel(x + u, y + v, rgb);
      to[0] = rgb[swapped ? 2 : 0];
      to[1] = rgb[1];
      to[2] = rgb[swapped ? 0 : 2];
    }
  }
  return out;
}

/* An engine by color: brown and blue tissue is tumor, and the browner a patch, the higher
 * its class. It counts its calls, and fails where a test says so. */
typedef struct color_engine {
  int64_t outputs_of_classify;
  int32_t fail_with;
  int32_t closed;
  const char* words;
} color_engine;

static int32_t color_run(void* context, int32_t model, int64_t batch_id,
                         const uint8_t* rgb, int32_t n, int32_t height_px,
                         int32_t width_px, float* output, int64_t outputs) {
  const color_engine* engine = (const color_engine*)context;
  const int64_t plane = (int64_t)height_px * width_px;
  int32_t i;
  (void)batch_id;
  if (engine->fail_with != 0) return engine->fail_with;
  for (i = 0; i < n; ++i) {
    const uint8_t* item = rgb + i * plane * 3;
    float* out = output + i * outputs;
    int64_t k, brown = 0;
    if (model == 0) {
      for (k = 0; k < outputs; ++k) {
        const int green = item[3 * (k % plane) + 1];
        out[k] = k < plane ? (float)(170 - green) : 0.0f;
      }
      continue;
    }
    for (k = 0; k < plane; ++k) brown += item[3 * k] - item[3 * k + 2];
    for (k = 0; k < outputs; ++k) {
      const int64_t center = k * 45 - 45;
      const int64_t away = brown / plane - center;
      out[k] = (float)-(away < 0 ? -away : away) / 8.0f;
    }
  }
  return 0;
}

static void color_close(void* context) { ++((color_engine*)context)->closed; }

static const char* color_message(void* context) {
  return ((color_engine*)context)->words;
}

static her2_package* open_package(const char* folder) {
  her2_package_options options;
  her2_package* package = NULL;
  memset(&options, 0, sizeof options);
  options.struct_size = sizeof options;
  options.folder = folder;
  options.allow_unknown = 1;
  NEED(her2_package_open(&options, &package) == HER2_OK);
  return package;
}

static her2_engine* open_engine(const her2_package* package, color_engine* context) {
  her2_engine_table table;
  her2_engine* engine = NULL;
  memset(&table, 0, sizeof table);
  table.struct_size = sizeof table;
  table.context = context;
  table.run = color_run;
  table.close = color_close;
  table.message = color_message;
  NEED(her2_engine_open(package, &table, &engine) == HER2_OK);
  return engine;
}

static her2_session_options session_options(void) {
  her2_session_options options;
  memset(&options, 0, sizeof options);
  options.struct_size = sizeof options;
  options.width_px = SLIDE_WIDTH;
  options.height_px = SLIDE_HEIGHT;
  options.spacing_x_um = options.spacing_y_um = SLIDE_SPACING_UM;
  options.model_threads = 2;
  return options;
}

typedef struct rect {
  int64_t x, y, width, height;
} rect;

static int released = 0;
static pthread_mutex_t released_mutex = PTHREAD_MUTEX_INITIALIZER;

static void release_pixels(void* context, const void* data) {
  CHECK(context == (void*)&released);
  free((void*)(uintptr_t)data);
  pthread_mutex_lock(&released_mutex);
  ++released;
  pthread_mutex_unlock(&released_mutex);
}

/* Pushes until it is taken; without copying every other time. */
static int32_t push_rect(her2_session* session, rect r, int32_t format, int zero_copy) {
  const int64_t step = format == HER2_PIXELS_RGBA || format == HER2_PIXELS_BGRA ? 4 : 3;
  her2_pixels pixels;
  int32_t status;
  memset(&pixels, 0, sizeof pixels);
  pixels.struct_size = sizeof pixels;
  pixels.x0_px = r.x;
  pixels.y0_px = r.y;
  pixels.width_px = r.width;
  pixels.height_px = r.height;
  pixels.format = format;
  pixels.stride_bytes = r.width * step + 8;
  pixels.data = slide_pixels(r.x, r.y, r.width, r.height, format, pixels.stride_bytes);
  if (zero_copy) {
    pixels.release = release_pixels;
    pixels.release_context = &released;
  }
  while ((status = her2_session_push(session, &pixels)) == HER2_WOULD_BLOCK)
    sched_yield();
  if (!zero_copy || status != HER2_OK) free((void*)(uintptr_t)pixels.data);
  return status;
}

static her2_decision_info decided(const her2_measurement* measurement, const char* roi,
                                  const char* guideline) {
  her2_decide_options options;
  her2_decision_info info;
  her2_decision* decision = NULL;
  memset(&options, 0, sizeof options);
  memset(&info, 0, sizeof info);
  options.struct_size = sizeof options;
  options.roi_geojson = roi;
  options.guideline = guideline;
  NEED(her2_measurement_decide(measurement, &options, &decision) == HER2_OK);
  info.struct_size = sizeof info;
  NEED(her2_decision_get_info(decision, &info) == HER2_OK);
  CHECK(strstr(her2_decision_json(decision), "\"record_version\": 1") != NULL);
  her2_decision_close(decision);
  info.class_px = info.class_patches = NULL;
  info.message = NULL;
  return info;
}

#endif
