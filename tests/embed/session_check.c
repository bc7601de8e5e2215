/* SPDX-License-Identifier: Apache-2.0 */
/* What a session must not do: give out a provisional result as a final one, drop pixels
 * without a word, ignore half of a spacing, or race with its host when it is closed. */
#include <time.h>

#include "fixture.h"

static const char* package_folder;

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

static const char stored_level[] = "read from a level stored at 1 um/px";
static int stored_level_warnings; /* in the log; one session at a time */

static void count_stored_level(void* context, int32_t level, const char* message) {
  (void)context;
  if (level == HER2_LOG_WARNING && strstr(message, stored_level) != NULL) {
    ++stored_level_warnings;
  }
}

/* Every way of reading is taken, stands in the record, and reads what it says: at the
 * stated 0.25 um/px the file has a stored level of 1 um/px, which level 0 leaves alone.
 * Where it is read, record and log warn. Other numbers are refused. */
static void test_ways_of_reading(her2_engine* engine) {
  static const struct {
    int32_t mode;
    const char* words;
    int warned; /* of a level that JPEG compressed at the working spacing */
  } cases[] = {{HER2_READ_SCALED, "\"reading_mode\": \"scaled\"", 1},
               {HER2_READ_EXACT, "\"reading_mode\": \"exact\"", 1},
               {HER2_READ_LEVEL0, "\"reading_mode\": \"level0\"", 0}};
  static const int32_t refused[] = {-1, 3};
  int64_t tumor_px[3];
  her2_slide* slide = NULL;
  char path[4096];
  size_t i;
  her2_session_options options = session_options();
  options.spacing_x_um = options.spacing_y_um = 0.25;
  snprintf(path, sizeof path, "%s/../../demo/phantom-c.svs", package_folder);
  NEED(her2_slide_open_file(path, &slide) == HER2_OK);
  for (i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    her2_session* session = NULL;
    her2_measurement* measurement = NULL;
    her2_decision* decision = NULL;
    her2_decision_info info;
    stored_level_warnings = 0;
    options.log = count_stored_level;
    options.read_mode = cases[i].mode;
    NEED(her2_session_open_slide(engine, slide, &options, &session) == HER2_OK);
    NEED(her2_session_finish(session, &measurement) == HER2_OK);
    NEED(her2_measurement_decide(measurement, NULL, &decision) == HER2_OK);
    CHECK(strstr(her2_decision_json(decision), cases[i].words) != NULL);
    CHECK((strstr(her2_decision_json(decision), stored_level) != NULL) ==
          cases[i].warned);
    CHECK(stored_level_warnings == cases[i].warned);
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    NEED(her2_decision_get_info(decision, &info) == HER2_OK);
    tumor_px[i] = info.kept_tumor_px;
    her2_decision_close(decision);
    her2_measurement_close(measurement);
    her2_session_close(session);
  }
  CHECK(tumor_px[0] > 0 && tumor_px[0] == tumor_px[1]);
  CHECK(tumor_px[2] > 0 && tumor_px[2] != tumor_px[0]);
  for (i = 0; i < sizeof refused / sizeof refused[0]; ++i) {
    her2_session* session = NULL;
    options.read_mode = refused[i];
    CHECK(her2_session_open_slide(engine, slide, &options, &session) ==
          HER2_INVALID_ARGUMENT);
    CHECK(session == NULL && strstr(her2_last_error(), "HER2_READ_LEVEL0") != NULL);
  }
  her2_slide_close(slide);
}

int main(int argc, char** argv) {
  color_engine context;
  her2_package* package;
  her2_engine* engine;
  if (argc != 2) {
    fprintf(stderr, "usage: session_check PACKAGE_FOLDER\n");
    return 2;
  }
  package_folder = argv[1];
  memset(&context, 0, sizeof context);
  package = open_package(package_folder);
  engine = open_engine(package, &context);
  test_one_tile_open(package);
  test_tissue_after_blank(engine);
  test_close_while_callbacks_ask(package);
  test_spacing_of_a_slide(engine);
  test_ways_of_reading(engine);
  her2_engine_close(engine);
  her2_package_close(package);
  if (failures == 0) printf("session_check: all passed\n");
  return failures == 0 ? 0 : 1;
}
