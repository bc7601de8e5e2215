/* SPDX-License-Identifier: Apache-2.0 */
/* her2fast.h as a C host uses it: any order and shape of pixels gives the same bytes,
 * every failure a code, and nothing leaks. Built as C99, run plain and under sanitizers.
 */
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "fixture.h"

static const char *package_folder, *other_package_folder;

/* ---- pushing ---- */

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

enum { MAX_RECTS = 4096 };
enum order { RASTER, SERPENTINE, COLUMNS, RANDOM };

/* Cuts the slide into tiles of a size and orders them. */
static int cut_slide(int64_t width, int64_t height, enum order order, rect* out) {
  int count = 0, i;
  const int64_t columns = (SLIDE_WIDTH + width - 1) / width;
  const int64_t rows = (SLIDE_HEIGHT + height - 1) / height;
  int64_t a, b;
  const int64_t outer = order == COLUMNS ? columns : rows;
  const int64_t inner = order == COLUMNS ? rows : columns;
  uint32_t seed = 12345;
  for (a = 0; a < outer; ++a) {
    for (b = 0; b < inner; ++b) {
      const int64_t at = order == SERPENTINE && a % 2 == 1 ? inner - 1 - b : b;
      const int64_t column = order == COLUMNS ? a : at, row = order == COLUMNS ? at : a;
      rect r;
      r.x = column * width;
      r.y = row * height;
      r.width = r.x + width > SLIDE_WIDTH ? SLIDE_WIDTH - r.x : width;
      r.height = r.y + height > SLIDE_HEIGHT ? SLIDE_HEIGHT - r.y : height;
      NEED(count < MAX_RECTS);
      out[count++] = r;
    }
  }
  for (i = count - 1; order == RANDOM && i > 0; --i) {
    int j;
    rect swap = out[i];
    seed = seed * 1664525u + 1013904223u;
    j = (int)((seed >> 8) % (uint32_t)(i + 1));
    out[i] = out[j];
    out[j] = swap;
  }
  return count;
}

/* The bytes of a measurement of the whole slide. */
static her2_buffer* measured(her2_engine* engine, const rect* rects, int count,
                             int32_t format, int zero_copy) {
  her2_session_options options = session_options();
  her2_session* session = NULL;
  her2_measurement *first = NULL, *second = NULL;
  her2_buffer *bytes = NULL, *again = NULL;
  int i;
  NEED(her2_session_open(engine, &options, &session) == HER2_OK);
  for (i = 0; i < count; ++i) {
    NEED(push_rect(session, rects[i], format, zero_copy) == HER2_OK);
  }
  NEED(her2_session_finish(session, &first) == HER2_OK);
  NEED(her2_session_finish(session, &second) == HER2_OK);
  her2_session_close(session);
  NEED(her2_measurement_save(first, &bytes) == HER2_OK);
  NEED(her2_measurement_save(second, &again) == HER2_OK);
  CHECK(her2_buffer_size(bytes) == her2_buffer_size(again));
  her2_buffer_close(again);
  her2_measurement_close(first);
  her2_measurement_close(second);
  return bytes;
}

static int same(const her2_buffer* a, const her2_buffer* b) {
  return her2_buffer_size(a) == her2_buffer_size(b) &&
         memcmp(her2_buffer_data(a), her2_buffer_data(b), her2_buffer_size(a)) == 0;
}

static void test_orders(her2_engine* engine, const her2_buffer* expected) {
  static rect rects[MAX_RECTS];
  static const struct {
    int64_t width, height;
    enum order order;
    int32_t format;
    int zero_copy;
  } cases[] = {{SLIDE_WIDTH, 64, RASTER, HER2_PIXELS_BGR, 0},
               {500, 300, SERPENTINE, HER2_PIXELS_RGBA, 1},
               {97, SLIDE_HEIGHT, COLUMNS, HER2_PIXELS_BGRA, 0},
               {201, 133, RANDOM, HER2_PIXELS_RGB, 1}};
  size_t i;
  for (i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    int count = cut_slide(cases[i].width, cases[i].height, cases[i].order, rects);
    her2_buffer* bytes;
    released = 0;
    bytes = measured(engine, rects, count, cases[i].format, cases[i].zero_copy);
    CHECK(same(bytes, expected));
    CHECK(released == (cases[i].zero_copy ? count : 0));
    her2_buffer_close(bytes);
  }
}

/* ---- threads ---- */

typedef struct pusher {
  her2_session* session;
  const rect* rects;
  int count, first;
} pusher;

static void* push_every_eighth(void* context) {
  const pusher* p = (const pusher*)context;
  int i;
  for (i = p->first; i < p->count; i += 8) {
    CHECK(push_rect(p->session, p->rects[i], HER2_PIXELS_RGB, i % 2) == HER2_OK);
  }
  return NULL;
}

static void test_threads(her2_engine* engine, const her2_buffer* expected) {
  static rect rects[MAX_RECTS];
  her2_session_options options = session_options();
  const int count = cut_slide(256, 256, RASTER, rects);
  her2_session* sessions[2];
  pthread_t threads[16];
  pusher pushers[16];
  int s, i;
  for (s = 0; s < 2;
       ++s) { /* two sessions share the engine, eight threads push to each */
    NEED(her2_session_open(engine, &options, &sessions[s]) == HER2_OK);
    for (i = 0; i < 8; ++i) {
      pusher* p = &pushers[s * 8 + i];
      p->session = sessions[s];
      p->rects = rects;
      p->count = count;
      p->first = i;
      NEED(pthread_create(&threads[s * 8 + i], NULL, push_every_eighth, p) == 0);
    }
  }
  for (i = 0; i < 16; ++i) pthread_join(threads[i], NULL);
  for (s = 0; s < 2; ++s) {
    her2_measurement* measurement = NULL;
    her2_buffer* bytes = NULL;
    NEED(her2_session_finish(sessions[s], &measurement) == HER2_OK);
    NEED(her2_measurement_save(measurement, &bytes) == HER2_OK);
    CHECK(same(bytes, expected));
    her2_buffer_close(bytes);
    her2_measurement_close(measurement);
    her2_session_close(sessions[s]);
  }
}

/* ---- decisions ---- */

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

static const char kHalf[] =
    "{\"type\":\"Polygon\",\"coordinates\":[[[0,0],[1150,0],[1150,1900],[0,1900],[0,0]]]"
    "}";
static const char kBowTie[] =
    "{\"type\":\"Polygon\",\"coordinates\":[[[0,0],[900,900],[900,0],[0,900],[0,0]]]}";
static const char kElsewhere[] =
    "{\"type\":\"Polygon\",\"coordinates\":[[[9000,0],[9900,0],[9900,90],[9000,0]]]}";

/* Same classes, same grid, one word of a configuration differs: another package. */
static void test_other_package(const her2_buffer* bytes) {
  her2_package* other = open_package(other_package_folder);
  her2_measurement* measurement = NULL;
  CHECK(her2_measurement_load(other, her2_buffer_data(bytes), her2_buffer_size(bytes),
                              &measurement) == HER2_MODEL_HASH);
  CHECK(measurement == NULL && strstr(her2_last_error(), "other models") != NULL);
  her2_package_close(other);
}

static void test_decisions(const her2_package* package, const her2_buffer* bytes) {
  her2_measurement* measurement = NULL;
  her2_decide_options options;
  her2_decision* decision = NULL;
  her2_decision_info whole, half, other;
  NEED(her2_measurement_load(package, her2_buffer_data(bytes), her2_buffer_size(bytes),
                             &measurement) == HER2_OK);
  whole = decided(measurement, NULL, NULL);
  half = decided(measurement, kHalf, NULL);
  other = decided(measurement, NULL, "gastric-2016");
  CHECK(whole.status == HER2_SCORED && whole.code == 0);
  CHECK(whole.score >= 0 && whole.score <= 3 && whole.class_count == 4);
  CHECK(!whole.provisional && whole.tiles_missing == 0);
  CHECK(half.roi_px * 2 <= whole.roi_px + 2000 && half.roi_px * 2 >= whole.roi_px - 2000);
  CHECK(half.kept_tumor_px > 0 && half.kept_tumor_px < whole.kept_tumor_px);
  CHECK(other.kept_tumor_px == whole.kept_tumor_px);
  CHECK(decided(measurement, NULL, "none").score == -1);

  memset(&options, 0, sizeof options);
  options.struct_size = sizeof options;
  options.roi_geojson = kBowTie;
  CHECK(her2_measurement_decide(measurement, &options, &decision) == HER2_ROI_INVALID);
  CHECK(decision == NULL && strstr(her2_last_error(), "not simple") != NULL);
  options.roi_geojson = kElsewhere;
  CHECK(her2_measurement_decide(measurement, &options, &decision) == HER2_ROI_OUTSIDE);
  options.roi_geojson = "{\"type\":";
  CHECK(her2_measurement_decide(measurement, &options, &decision) == HER2_ROI_INVALID);
  options.roi_geojson = NULL;
  options.guideline = "no-such";
  CHECK(her2_measurement_decide(measurement, &options, &decision) ==
        HER2_INVALID_ARGUMENT);
  options.guideline = NULL;
  options.ish = 7;
  CHECK(her2_measurement_decide(measurement, &options, &decision) ==
        HER2_INVALID_ARGUMENT);
  her2_measurement_close(measurement);
  measurement = NULL;
  CHECK(her2_measurement_load(package, her2_buffer_data(bytes), 40, &measurement) > 0);
  CHECK(measurement == NULL);
}

/* ---- what a session does along the way ---- */

static void test_snapshot_and_missing(her2_engine* engine) {
  static rect rects[MAX_RECTS];
  her2_session_options options = session_options();
  her2_session* session = NULL;
  her2_measurement* measurement = NULL;
  her2_buffer* bytes = NULL;
  her2_decision_info info;
  her2_progress progress;
  const int count = cut_slide(SLIDE_WIDTH, 100, RASTER, rects);
  int i;
  NEED(her2_session_open(engine, &options, &session) == HER2_OK);
  for (i = 0; i < count / 2; ++i) {
    NEED(push_rect(session, rects[i], HER2_PIXELS_RGB, 0) == HER2_OK);
  }
  NEED(her2_session_snapshot(session, &measurement) == HER2_OK);
  info = decided(measurement, NULL, NULL);
  CHECK(info.provisional && info.score == -1 && info.status == HER2_INDETERMINATE);
  CHECK(info.code == HER2_MISSING_TILES && info.tiles_missing > 0);
  CHECK(her2_measurement_save(measurement, &bytes) == HER2_MISSING_TILES);
  CHECK(bytes == NULL && strstr(her2_last_error(), "provisional") != NULL);
  her2_measurement_close(measurement);

  /* Half of the slide never comes: missing, not white. */
  NEED(her2_session_finish(session, &measurement) == HER2_OK);
  info = decided(measurement, NULL, NULL);
  CHECK(!info.provisional && info.score == -1 && info.code == HER2_MISSING_TILES);
  CHECK(info.tiles_read > 0 && info.tiles_read + info.tiles_missing == info.tiles_total);
  her2_measurement_close(measurement);
  CHECK(push_rect(session, rects[count - 1], HER2_PIXELS_RGB, 1) == HER2_CANCELLED);
  memset(&progress, 0, sizeof progress);
  progress.struct_size = sizeof progress;
  CHECK(her2_session_get_progress(session, &progress) == HER2_OK);
  CHECK(progress.pushed_px == (int64_t)SLIDE_WIDTH * 100 * (count / 2));
  CHECK(progress.repeated_px == 0 && progress.tiles_answered == info.tiles_read);
  her2_session_close(session);
}

/* A color engine that keeps one batch of the classifier until it is told to go on. */
typedef struct held_engine {
  color_engine color; /* first: what color_run and color_close see */
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int batches, hold_at, holding, go_on;
} held_engine;

static int32_t held_run(void* context, int32_t model, int64_t batch_id,
                        const uint8_t* rgb, int32_t n, int32_t height_px,
                        int32_t width_px, float* output, int64_t outputs) {
  held_engine* engine = (held_engine*)context;
  pthread_mutex_lock(&engine->mutex);
  if (model == 1 && ++engine->batches == engine->hold_at) {
    engine->holding = 1;
    pthread_cond_broadcast(&engine->changed);
    while (!engine->go_on) pthread_cond_wait(&engine->changed, &engine->mutex);
  }
  pthread_mutex_unlock(&engine->mutex);
  return color_run(context, model, batch_id, rgb, n, height_px, width_px, output,
                   outputs);
}

/* A slide of tumor alone, 11 x 13 tiles of 16 patches: the last batch of 32 holds one
 * tile's. One tile of 143 may be missing of a finished slide, so only that the
 * measurement is provisional keeps back its score, and its bytes. */
static void test_one_tile_open(const her2_package* package) {
  enum { WIDTH = 11 * 256, HEIGHT = 13 * 256 };
  her2_session_options options = session_options();
  her2_session* session = NULL;
  her2_measurement* measurement = NULL;
  her2_buffer* bytes = NULL;
  her2_engine_table table;
  her2_engine* engine = NULL;
  her2_decision_info info;
  her2_pixels pixels;
  held_engine held;
  uint8_t* brown = (uint8_t*)malloc((size_t)WIDTH * HEIGHT * 3);
  int64_t i;
  if (brown == NULL) abort();
  for (i = 0; i < (int64_t)WIDTH * HEIGHT; ++i) {
    brown[3 * i] = (uint8_t)(150 + i * 7 % 13);
    brown[3 * i + 1] = 100;
    brown[3 * i + 2] = 70;
  }
  memset(&held, 0, sizeof held);
  pthread_mutex_init(&held.mutex, NULL);
  pthread_cond_init(&held.changed, NULL);
  held.hold_at = (11 * 13 * 16 + 31) / 32;
  memset(&table, 0, sizeof table);
  table.struct_size = sizeof table;
  table.context = &held;
  table.run = held_run;
  NEED(her2_engine_open(package, &table, &engine) == HER2_OK);
  options.width_px = WIDTH;
  options.height_px = HEIGHT;
  options.spacing_x_um = options.spacing_y_um = 1;
  options.model_threads = 1; /* batches come in the order of tiles */
  NEED(her2_session_open(engine, &options, &session) == HER2_OK);
  memset(&pixels, 0, sizeof pixels);
  pixels.struct_size = sizeof pixels;
  pixels.width_px = WIDTH;
  pixels.height_px = 256;
  for (i = 0; i < HEIGHT; i += 256) {
    int32_t status;
    pixels.y0_px = i;
    pixels.data = brown + i * WIDTH * 3;
    while ((status = her2_session_push(session, &pixels)) == HER2_WOULD_BLOCK)
      sched_yield();
    NEED(status == HER2_OK);
  }
  pthread_mutex_lock(&held.mutex);
  while (!held.holding) pthread_cond_wait(&held.changed, &held.mutex);
  pthread_mutex_unlock(&held.mutex);
  NEED(her2_session_snapshot(session, &measurement) == HER2_OK);
  info = decided(measurement, NULL, NULL);
  CHECK(info.tiles_total == 143 && info.tiles_missing == 1);
  CHECK(info.provisional && info.score == -1);
  CHECK(info.status == HER2_INDETERMINATE && info.code == HER2_MISSING_TILES);
  CHECK(her2_measurement_save(measurement, &bytes) == HER2_MISSING_TILES);
  CHECK(bytes == NULL && strstr(her2_last_error(), "1 of 143 tiles") != NULL);
  her2_measurement_close(measurement);

  pthread_mutex_lock(&held.mutex);
  held.go_on = 1;
  pthread_cond_broadcast(&held.changed);
  pthread_mutex_unlock(&held.mutex);
  NEED(her2_session_finish(session, &measurement) == HER2_OK);
  her2_session_close(session);
  her2_engine_close(engine);
  CHECK(held.batches == held.hold_at);
  info = decided(measurement, NULL, NULL);
  CHECK(!info.provisional && info.status == HER2_SCORED && info.tiles_missing == 0);
  NEED(her2_measurement_save(measurement, &bytes) == HER2_OK);
  her2_measurement_close(measurement);
  NEED(her2_measurement_load(package, her2_buffer_data(bytes), her2_buffer_size(bytes),
                             &measurement) == HER2_OK);
  CHECK(decided(measurement, NULL, NULL).score == info.score);
  her2_measurement_close(measurement);
  her2_buffer_close(bytes);
  pthread_cond_destroy(&held.changed);
  pthread_mutex_destroy(&held.mutex);
  free(brown);
}

static void test_limits(her2_engine* engine) {
  her2_session_options options = session_options();
  her2_session* session = NULL;
  her2_pixels pixels;
  int32_t status = HER2_OK;
  int64_t y;
  options.width_px = options.height_px = 60000;
  options.max_memory_bytes = 1 << 20;
  CHECK(her2_session_open(engine, &options, &session) == HER2_INVALID_ARGUMENT);
  options.max_memory_bytes = 16 << 20;
  NEED(her2_session_open(engine, &options, &session) == HER2_OK);
  memset(&pixels, 0, sizeof pixels);
  pixels.struct_size = sizeof pixels;
  pixels.width_px = 1400;
  pixels.height_px = 1000; /* 4.2 MB: more than a quarter, which a copy may have */
  pixels.data = (const uint8_t*)&pixels;
  CHECK(her2_session_push(session, &pixels) == HER2_INVALID_ARGUMENT);
  CHECK(strstr(her2_last_error(), "4194304 bytes in one copied push") != NULL);
  pixels.width_px = 60000;
  pixels.height_px = 1;
  pixels.format = HER2_PIXELS_BLANK;
  for (y = 0; y < 60000 && (status == HER2_OK || status == HER2_WOULD_BLOCK); y += 97) {
    pixels.y0_px = y; /* rows far apart: every block opens, none is ever full */
    status = her2_session_push(session, &pixels);
  }
  while (status == HER2_OK || status == HER2_WOULD_BLOCK) {
    sched_yield();
    status = her2_session_push(session, &pixels);
  }
  CHECK(status == HER2_LIMIT_EXCEEDED);
  CHECK(her2_session_finish(session, NULL) == HER2_LIMIT_EXCEEDED);
  CHECK(her2_session_finish(session, NULL) == HER2_LIMIT_EXCEEDED);
  her2_session_close(session);
}

static int32_t always_stop(void* context, const her2_progress* progress) {
  ++*(int*)context;
  CHECK(progress->struct_size == sizeof *progress && progress->tiles_planned > 0);
  return 1;
}

static void count_log(void* context, int32_t level, const char* message) {
  (void)context;
  CHECK(level >= HER2_LOG_INFO && level <= HER2_LOG_ERROR && message[0] != '\0');
}

static void push_slide(her2_session* session) {
  static rect rects[MAX_RECTS];
  const int count = cut_slide(SLIDE_WIDTH, 128, RASTER, rects);
  int i;
  for (i = 0; i < count; ++i) { /* the session may have ended: then every push says so */
    (void)push_rect(session, rects[i], HER2_PIXELS_RGB, 1);
  }
}

static void test_failing_callbacks(const her2_package* package, her2_engine* good) {
  color_engine failing;
  her2_engine* engine;
  her2_session_options options = session_options();
  her2_session* session = NULL;
  int calls = 0;
  memset(&failing, 0, sizeof failing);
  failing.fail_with = HER2_NON_FINITE;
  failing.words = "the accelerator is on fire";
  engine = open_engine(package, &failing);
  options.log = count_log;
  NEED(her2_session_open(engine, &options, &session) == HER2_OK);
  push_slide(session);
  CHECK(her2_session_finish(session, NULL) == HER2_NON_FINITE);
  CHECK(strstr(her2_last_error(), "on fire") != NULL);
  her2_engine_close(engine); /* the session still has it */
  CHECK(failing.closed == 0);
  her2_session_close(session);
  CHECK(failing.closed == 1);

  options.progress = always_stop;
  options.callback_context = &calls;
  NEED(her2_session_open(good, &options, &session) == HER2_OK);
  push_slide(session);
  CHECK(her2_session_finish(session, NULL) == HER2_CANCELLED);
  CHECK(calls >= 1);
  her2_session_close(session);

  /* Cancelled, and closed without a finish, with pixels on their way. */
  options.progress = NULL;
  NEED(her2_session_open(good, &options, &session) == HER2_OK);
  push_slide(session);
  CHECK(her2_session_cancel(session) == HER2_OK);
  CHECK(her2_session_finish(session, NULL) == HER2_CANCELLED);
  her2_session_close(session);
  NEED(her2_session_open(good, &options, &session) == HER2_OK);
  push_slide(session);
  her2_session_close(session);
}

/* Glass was promised where tissue comes later: the record says what nobody compared. */
static void test_tissue_after_blank(her2_engine* engine) {
  const rect all = {0, 0, SLIDE_WIDTH, SLIDE_HEIGHT};
  her2_session_options options = session_options();
  her2_session* session = NULL;
  her2_measurement* measurement = NULL;
  her2_decision* decision = NULL;
  her2_progress progress;
  NEED(her2_session_open(engine, &options, &session) == HER2_OK);
  NEED(push_rect(session, all, HER2_PIXELS_BLANK, 0) == HER2_OK);
  NEED(push_rect(session, all, HER2_PIXELS_RGB, 1) == HER2_OK);
  NEED(her2_session_finish(session, &measurement) == HER2_OK);
  memset(&progress, 0, sizeof progress);
  progress.struct_size = sizeof progress;
  NEED(her2_session_get_progress(session, &progress) == HER2_OK);
  CHECK(progress.differing_px == 0 && progress.uncompared_px > 0);
  CHECK(progress.uncompared_px == progress.repeated_px);
  NEED(her2_measurement_decide(measurement, NULL, &decision) == HER2_OK);
  CHECK(strstr(her2_decision_json(decision), "no longer held") != NULL);
  her2_decision_close(decision);
  her2_measurement_close(measurement);
  her2_session_close(session);
}

/* A host whose callbacks ask the session while it is closed. */
typedef struct asking_host {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  her2_session* session;
  int released;
  int64_t pushed_px; /* as the last release saw it */
} asking_host;

static void sleep_ms(long milliseconds) {
  struct timespec time;
  time.tv_sec = 0;
  time.tv_nsec = milliseconds * 1000000;
  nanosleep(&time, NULL);
}

static void release_and_ask(void* context, const void* data) {
  asking_host* host = (asking_host*)context;
  her2_progress progress;
  (void)data;
  pthread_mutex_lock(&host->mutex);
  ++host->released;
  pthread_cond_broadcast(&host->changed);
  pthread_mutex_unlock(&host->mutex);
  sleep_ms(60); /* by now the session is being closed */
  memset(&progress, 0, sizeof progress);
  progress.struct_size = sizeof progress;
  CHECK(her2_session_get_progress(host->session, &progress) == HER2_OK);
  pthread_mutex_lock(&host->mutex);
  host->pushed_px = progress.pushed_px;
  pthread_mutex_unlock(&host->mutex);
}

static int32_t slow_run(void* context, int32_t model, int64_t batch_id,
                        const uint8_t* rgb, int32_t n, int32_t height_px,
                        int32_t width_px, float* output, int64_t outputs) {
  sleep_ms(15);
  return color_run(context, model, batch_id, rgb, n, height_px, width_px, output,
                   outputs);
}

static int32_t go_on(void* context, const her2_progress* progress) {
  (void)context;
  CHECK(progress->pushed_px >= 0);
  return 0;
}

static void test_close_while_callbacks_ask(const her2_package* package) {
  const rect top = {0, 0, SLIDE_WIDTH, 1200};
  her2_session_options options = session_options();
  color_engine context;
  her2_engine_table table;
  her2_engine* engine = NULL;
  her2_pixels pixels;
  asking_host host;
  uint8_t* row = slide_pixels(0, 1500, SLIDE_WIDTH, 8, HER2_PIXELS_RGB, 3 * SLIDE_WIDTH);
  memset(&context, 0, sizeof context);
  memset(&table, 0, sizeof table);
  table.struct_size = sizeof table;
  table.context = &context;
  table.run = slow_run;
  NEED(her2_engine_open(package, &table, &engine) == HER2_OK);
  memset(&host, 0, sizeof host);
  pthread_mutex_init(&host.mutex, NULL);
  pthread_cond_init(&host.changed, NULL);
  options.progress = go_on;
  NEED(her2_session_open(engine, &options, &host.session) == HER2_OK);
  NEED(push_rect(host.session, top, HER2_PIXELS_RGB, 0) == HER2_OK);
  memset(&pixels, 0, sizeof pixels);
  pixels.struct_size = sizeof pixels;
  pixels.width_px = SLIDE_WIDTH;
  pixels.height_px = 8;
  pixels.y0_px = 1500;
  pixels.data = row;
  pixels.release = release_and_ask;
  pixels.release_context = &host;
  NEED(her2_session_push(host.session, &pixels) == HER2_OK); /* assembled */
  NEED(her2_session_push(host.session, &pixels) == HER2_OK); /* still in the queue */
  pthread_mutex_lock(&host.mutex);
  while (host.released == 0) pthread_cond_wait(&host.changed, &host.mutex);
  pthread_mutex_unlock(&host.mutex);
  her2_session_close(host.session);
  CHECK(host.released == 2);
  CHECK(host.pushed_px == (int64_t)SLIDE_WIDTH * 1208);
  her2_engine_close(engine);
  pthread_cond_destroy(&host.changed);
  pthread_mutex_destroy(&host.mutex);
  free(row);
}

/* One spacing for a slide, not one that is half ignored. */
static void test_spacing_of_a_slide(her2_engine* engine) {
  static const struct {
    double x, y;
    int32_t status;
  } cases[] = {{0.25, 0.26, HER2_INVALID_ARGUMENT},
               {0, 0.5, HER2_INVALID_ARGUMENT},
               {0.5, 0, HER2_INVALID_ARGUMENT},
               {0, 0, HER2_OK},
               {0.5, 0.5, HER2_OK}};
  her2_slide* slide = NULL;
  char path[4096];
  size_t i;
  snprintf(path, sizeof path, "%s/../../demo/phantom-a.svs", package_folder);
  NEED(her2_slide_open_file(path, &slide) == HER2_OK);
  for (i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    her2_session_options options = session_options();
    her2_session* session = NULL;
    options.spacing_x_um = cases[i].x;
    options.spacing_y_um = cases[i].y;
    CHECK(her2_session_open_slide(engine, slide, &options, &session) == cases[i].status);
    CHECK((session != NULL) == (cases[i].status == HER2_OK));
    her2_session_close(session);
  }
  her2_slide_close(slide);
}

static int32_t failing_read(void* context, uint64_t offset, uint64_t size, void* out) {
  (void)offset;
  (void)size;
  (void)out;
  ++*(int*)context;
  return 5;
}

static void count_close(void* context) { *(int*)context += 100; }

static void test_faults(const her2_package* package, her2_engine* engine) {
  her2_byte_source source;
  her2_slide* slide = NULL;
  her2_package_options wrong;
  her2_package* none = NULL;
  her2_session_options options = session_options();
  her2_session* session = NULL;
  her2_package_info info;
  her2_model_info model;
  her2_pixels pixels;
  int calls = 0;
  memset(&source, 0, sizeof source);
  source.struct_size = sizeof source;
  source.context = &calls;
  source.read = failing_read;
  source.close = count_close;
  source.byte_count = 1000000;
  source.name = "vendor.svs";
  CHECK(her2_slide_open_source(&source, &slide) == HER2_IO && slide == NULL);
  CHECK(strstr(her2_last_error(), "vendor.svs") != NULL);
  CHECK(calls > 100);
  calls = 0; /* closed once, also where there is nothing to read with or to write to */
  source.read = NULL;
  CHECK(her2_slide_open_source(&source, &slide) == HER2_INVALID_ARGUMENT);
  CHECK(calls == 100);
  source.read = failing_read;
  CHECK(her2_slide_open_source(&source, NULL) == HER2_INVALID_ARGUMENT);
  CHECK(calls == 200);
  source.struct_size = offsetof(her2_byte_source, close);
  CHECK(her2_slide_open_source(&source, &slide) == HER2_INVALID_ARGUMENT);
  CHECK(calls == 200);
  CHECK(her2_slide_open_file("/no/such/slide.svs", &slide) == 1); /* NOT_FOUND */
  CHECK(strcmp(her2_status_name(1), "NOT_FOUND") == 0);

  memset(&wrong, 0, sizeof wrong);
  wrong.struct_size = sizeof wrong;
  wrong.folder = "/no/such/package";
  CHECK(her2_package_open(&wrong, &none) == HER2_INVALID_PACKAGE && none == NULL);
  wrong.folder = package_folder; /* in no list */
  CHECK(her2_package_open(&wrong, &none) == HER2_MODEL_HASH);
  wrong.struct_size = 8;
  CHECK(her2_package_open(&wrong, &none) == HER2_INVALID_ARGUMENT);
  CHECK(her2_package_open(NULL, &none) == HER2_INVALID_ARGUMENT);
  CHECK(her2_package_open(&wrong, NULL) == HER2_INVALID_ARGUMENT);

  options.spacing_x_um = 1.5; /* coarser than the package wants */
  CHECK(her2_session_open(engine, &options, &session) > 0 && session == NULL);
  CHECK(strcmp(her2_status_name(13), "NO_LEVEL") == 0);
  options.spacing_x_um = -1;
  CHECK(her2_session_open(engine, &options, &session) == HER2_INVALID_ARGUMENT);
  CHECK(her2_session_open(NULL, &options, &session) == HER2_INVALID_ARGUMENT);
  CHECK(her2_session_finish(NULL, NULL) == HER2_INVALID_ARGUMENT);

  options = session_options();
  NEED(her2_session_open(engine, &options, &session) == HER2_OK);
  memset(&pixels, 0, sizeof pixels);
  pixels.struct_size = sizeof pixels;
  pixels.width_px = pixels.height_px = 100;
  pixels.data = (const uint8_t*)&pixels;
  pixels.x0_px = SLIDE_WIDTH - 50;
  CHECK(her2_session_push(session, &pixels) == HER2_INVALID_ARGUMENT);
  CHECK(strstr(her2_last_error(), "inside the slide") != NULL);
  pixels.x0_px = 0;
  pixels.format = 17;
  CHECK(her2_session_push(session, &pixels) == HER2_INVALID_ARGUMENT);
  her2_session_close(session);

  /* An older host knows shorter structs: nothing is written beyond them. */
  memset(&info, 0xAB, sizeof info);
  info.struct_size = offsetof(her2_package_info, guideline);
  CHECK(her2_package_get_info(package, &info) == HER2_OK);
  CHECK(strcmp(info.name, "constrained-tiny") == 0);
  CHECK(*(const unsigned char*)&info.guideline == 0xAB);
  memset(&model, 0, sizeof model);
  model.struct_size = sizeof model;
  CHECK(her2_package_get_model(package, 1, &model) == HER2_OK);
  CHECK(model.task == HER2_TASK_CLASSIFY && model.width_px == 64 && model.channels == 4);
  CHECK(her2_package_get_model(package, 2, &model) == HER2_INVALID_ARGUMENT);
  CHECK(strcmp(her2_package_class_name(package, 3), "3+") == 0);
  CHECK(her2_package_class_name(package, 4) == NULL);

  her2_package_close(NULL);
  her2_engine_close(NULL);
  her2_slide_close(NULL);
  her2_session_close(NULL);
  her2_measurement_close(NULL);
  her2_decision_close(NULL);
  her2_buffer_close(NULL);
}

int main(int argc, char** argv) {
  const rect all = {0, 0, SLIDE_WIDTH, SLIDE_HEIGHT};
  color_engine context;
  her2_package* package;
  her2_engine* engine;
  her2_buffer* expected;
  if (argc != 3) {
    fprintf(stderr, "usage: embed_check PACKAGE_FOLDER OTHER_PACKAGE_FOLDER\n");
    return 2;
  }
  package_folder = argv[1];
  other_package_folder = argv[2];
  CHECK(her2_abi_version() == HER2_ABI_VERSION);
  CHECK(strcmp(her2_status_name(HER2_WOULD_BLOCK), "WOULD_BLOCK") == 0);
  CHECK(strcmp(her2_status_name(12345), "UNKNOWN") == 0);
  memset(&context, 0, sizeof context);
  package = open_package(package_folder);
  engine = open_engine(package, &context);
  expected = measured(engine, &all, 1, HER2_PIXELS_RGB, 1);
  test_orders(engine, expected);
  test_threads(engine, expected);
  test_decisions(package, expected);
  test_other_package(expected);
  test_snapshot_and_missing(engine);
  test_one_tile_open(package);
  test_limits(engine);
  test_failing_callbacks(package, engine);
  test_tissue_after_blank(engine);
  test_close_while_callbacks_ask(package);
  test_spacing_of_a_slide(engine);
  test_faults(package, engine);
  her2_buffer_close(expected);
  her2_package_close(package);
  CHECK(context.closed == 0);
  her2_engine_close(engine);
  CHECK(context.closed == 1);
  if (failures == 0) printf("embed_check: all passed\n");
  return failures == 0 ? 0 : 1;
}
