/* SPDX-License-Identifier: Apache-2.0 */
/* her2fast.h as a C host uses it: any order and shape of pixels gives the same bytes,
 * every failure a code, and nothing leaks. Built as C99, run plain and under sanitizers.
 */
#include <pthread.h>
#include <sched.h>

#include "fixture.h"

static const char *package_folder, *other_package_folder;

/* ---- orders ---- */

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
  test_limits(engine);
  test_failing_callbacks(package, engine);
  test_faults(package, engine);
  her2_buffer_close(expected);
  her2_package_close(package);
  CHECK(context.closed == 0);
  her2_engine_close(engine);
  CHECK(context.closed == 1);
  if (failures == 0) printf("embed_check: all passed\n");
  return failures == 0 ? 0 : 1;
}
