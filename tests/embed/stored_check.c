/* SPDX-License-Identifier: Apache-2.0 */
/* A session that is told how its host stores what it pushes: the order and shape of the
 * pushes do not matter, a hole stays a hole, and what no file holds is refused. */
#include <stddef.h>

#include "fixture.h"

static const char* package_folder;

typedef struct outcome {
  her2_decision_info info;
  her2_buffer* bytes; /* of the measurement; null where it was not finished whole */
  char* json;
} outcome;

static void close_outcome(outcome* o) {
  her2_buffer_close(o->bytes);
  free(o->json);
}

static int same_bytes(const outcome* a, const outcome* b) {
  const uint64_t size = her2_buffer_size(a->bytes);
  return size == her2_buffer_size(b->bytes) &&
         memcmp(her2_buffer_data(a->bytes), her2_buffer_data(b->bytes), (size_t)size) ==
             0;
}

/* Parts of width x height px, back to front, but for the part `left_out`. */
static outcome scanned(her2_engine* engine, her2_session_options options, int64_t width,
                       int64_t height, int64_t left_out) {
  outcome out;
  her2_session* session = NULL;
  her2_measurement* measurement = NULL;
  her2_decision* decision = NULL;
  her2_progress progress;
  const int64_t columns = (SLIDE_WIDTH + width - 1) / width;
  const int64_t rows = (SLIDE_HEIGHT + height - 1) / height;
  int64_t i;
  const char* json;
  memset(&out, 0, sizeof out);
  NEED(her2_session_open(engine, &options, &session) == HER2_OK);
  for (i = columns * rows - 1; i >= 0; --i) {
    const int64_t x = i % columns * width, y = i / columns * height;
    const rect part = {x, y, x + width > SLIDE_WIDTH ? SLIDE_WIDTH - x : width,
                       y + height > SLIDE_HEIGHT ? SLIDE_HEIGHT - y : height};
    if (i == left_out) continue;
    NEED(push_rect(session, part, (int32_t)(i % 4), i % 2 == 0) == HER2_OK);
  }
  NEED(her2_session_finish(session, &measurement) == HER2_OK);
  memset(&progress, 0, sizeof progress);
  progress.struct_size = sizeof progress;
  NEED(her2_session_get_progress(session, &progress) == HER2_OK);
  CHECK(progress.repeated_px == 0 && progress.peak_memory_bytes > 0);
  if (left_out < 0) CHECK(progress.pushed_px == (int64_t)SLIDE_WIDTH * SLIDE_HEIGHT);
  out.info = decided(measurement, NULL, NULL);
  NEED(her2_measurement_decide(measurement, NULL, &decision) == HER2_OK);
  json = her2_decision_json(decision);
  out.json = (char*)malloc(strlen(json) + 1);
  if (out.json == NULL) abort();
  strcpy(out.json, json);
  her2_decision_close(decision);
  NEED(her2_measurement_save(measurement, &out.bytes) == HER2_OK);
  her2_measurement_close(measurement);
  her2_session_close(session);
  return out;
}

static void test_any_order(her2_engine* engine) {
  static const struct {
    int32_t quality, chroma, tile_px, downsample, mode;
    const char* words;
  } cases[] = {
      {70, HER2_CHROMA_420, 0, 0, HER2_READ_SCALED,
       "\"chroma\": \"4:2:0\",\n  \"tile_px\": 256,\n  \"downsample\": 1,\n  "
       "\"denominator\": 2"},
      {90, HER2_CHROMA_422, 128, 1, HER2_READ_EXACT,
       "\"chroma\": \"4:2:2\",\n  \"tile_px\": 128,\n  \"downsample\": 1,\n  "
       "\"denominator\": 1"},
      {80, HER2_CHROMA_444, 240, 2, HER2_READ_SCALED,
       "\"chroma\": \"4:4:4\",\n  \"tile_px\": 240,\n  \"downsample\": 2,\n  "
       "\"denominator\": 1"},
  };
  outcome plain = scanned(engine, session_options(), SLIDE_WIDTH, SLIDE_HEIGHT, -1);
  size_t i;
  CHECK(strstr(plain.json, "stored_as") == NULL);
  for (i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    her2_session_options options = session_options();
    outcome whole, strips, tiles;
    options.stored_quality = cases[i].quality;
    options.stored_chroma = cases[i].chroma;
    options.stored_tile_px = cases[i].tile_px;
    options.stored_downsample = cases[i].downsample;
    options.read_mode = cases[i].mode;
    whole = scanned(engine, options, SLIDE_WIDTH, SLIDE_HEIGHT, -1);
    strips = scanned(engine, options, SLIDE_WIDTH, 177, -1);
    options.model_threads = 1;
    tiles = scanned(engine, options, 311, 254, -1);
    CHECK(same_bytes(&whole, &strips) && same_bytes(&whole, &tiles));
    CHECK(!same_bytes(&whole, &plain));
    CHECK(strcmp(whole.json, tiles.json) == 0);
    CHECK(strstr(whole.json, cases[i].words) != NULL);
    CHECK(whole.info.tiles_missing == 0 && whole.info.kept_tumor_px > 0);
    close_outcome(&whole);
    close_outcome(&strips);
    close_outcome(&tiles);
  }
  close_outcome(&plain);
}

/* A strip of 10 rows is missing: with it the rows of stored tiles that it touches. */
static void test_a_hole(her2_engine* engine) {
  her2_session_options options = session_options();
  outcome o;
  options.stored_quality = 80;
  o = scanned(engine, options, SLIDE_WIDTH, 10, 100);
  CHECK(o.info.tiles_missing > 0 && o.info.tiles_missing < o.info.tiles_total);
  CHECK(o.info.status == HER2_INDETERMINATE && o.info.code == HER2_MISSING_TILES);
  close_outcome(&o);
}

/* A host that was built before there were these options. */
static void test_an_older_host(her2_engine* engine) {
  her2_session_options options = session_options();
  outcome plain = scanned(engine, options, SLIDE_WIDTH, 400, -1), older;
  options.struct_size = offsetof(her2_session_options, stored_quality);
  options.stored_quality = 70; /* beyond its struct: not looked at */
  options.stored_chroma = 99;
  older = scanned(engine, options, SLIDE_WIDTH, 400, -1);
  CHECK(same_bytes(&plain, &older));
  close_outcome(&plain);
  close_outcome(&older);
}

/* The quantization tables of libjpeg's quality 80, in zigzag order, as a stream. */
static const uint8_t tables_of_80[] = {
    0xff, 0xd8, 0xff, 0xdb, 0,  67, 0,  6,  4,  5,  6,  5,  4,  6,  6,    5,   6,  7,
    7,    6,    8,    10,   16, 10, 10, 9,  9,  10, 20, 14, 15, 12, 16,   23,  20, 24,
    24,   23,   20,   22,   22, 26, 29, 37, 31, 26, 27, 35, 28, 22, 22,   32,  44, 32,
    35,   38,   39,   41,   42, 41, 25, 31, 45, 48, 45, 40, 48, 37, 40,   41,  40, 0xff,
    0xdb, 0,    67,   1,    7,  7,  7,  10, 8,  10, 19, 10, 10, 19, 40,   26,  22, 26,
    40,   40,   40,   40,   40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40,   40,  40, 40,
    40,   40,   40,   40,   40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40,   40,  40, 40,
    40,   40,   40,   40,   40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 0xff, 0xd9};

static void test_tables(her2_engine* engine) {
  her2_session_options options = session_options();
  her2_session* session = NULL;
  outcome by_quality, by_tables;
  options.stored_quality = 80;
  by_quality = scanned(engine, options, SLIDE_WIDTH, 500, -1);
  options.stored_tables = tables_of_80;
  options.stored_tables_bytes = sizeof tables_of_80;
  CHECK(her2_session_open(engine, &options, &session) == HER2_INVALID_ARGUMENT);
  CHECK(strstr(her2_last_error(), "0 beside tables") != NULL);
  options.stored_quality = 0;
  by_tables = scanned(engine, options, SLIDE_WIDTH, 500, -1);
  CHECK(same_bytes(&by_quality, &by_tables));
  CHECK(strstr(by_quality.json, "\"jpeg_quality\": 80,\n  \"tables_sha256\": null") !=
        NULL);
  CHECK(strstr(by_tables.json, "\"jpeg_quality\": null,\n  \"tables_sha256\": \"") !=
        NULL);
  options.stored_chroma = HER2_CHROMA_444; /* tables alone say nothing of it */
  NEED(her2_session_open(engine, &options, &session) == HER2_OK);
  her2_session_close(session);
  session = NULL;
  options.stored_chroma = HER2_CHROMA_420;
  options.stored_tables_bytes = 40;
  CHECK(her2_session_open(engine, &options, &session) == HER2_INVALID_ARGUMENT);
  CHECK(strstr(her2_last_error(), "stored_tables: need a JPEG") != NULL);
  options.stored_tables_bytes = 0;
  CHECK(her2_session_open(engine, &options, &session) == HER2_INVALID_ARGUMENT);
  options.stored_tables = NULL;
  options.stored_tables_bytes = sizeof tables_of_80;
  CHECK(her2_session_open(engine, &options, &session) == HER2_INVALID_ARGUMENT);
  CHECK(strstr(her2_last_error(), "got neither") != NULL);
  close_outcome(&by_quality);
  close_outcome(&by_tables);
}

static void test_refusals(her2_engine* engine) {
  static const struct {
    int32_t quality, chroma, tile_px, downsample, mode;
    double spacing_y_um;
    const char* words;
  } cases[] = {
      {-1, 0, 0, 0, 0, 0.25, "quality of 1 to 100, got -1"},
      {101, 0, 0, 0, 0, 0.25, "quality of 1 to 100, got 101"},
      {80, 3, 0, 0, 0, 0.25, "HER2_CHROMA_*, got 3"},
      {80, -1, 0, 0, 0, 0.25, "HER2_CHROMA_*, got -1"},
      {80, 0, 100, 0, 0, 0.25, "multiple of 16 px"},
      {80, 0, -16, 0, 0, 0.25, "multiple of 16 px"},
      {80, 0, 0, -1, 0, 0.25, "downsample of 1 to 64, got -1"},
      {80, 0, 0, 5, 0, 0.25, "fine enough for 1 um/px, got 5"},
      {80, 0, 0, 4, HER2_READ_LEVEL0, 0.25, "HER2_READ_LEVEL0, got 4"},
      {80, 0, 0, 0, 0, 0.26, "one spacing for both axes"},
      {0, HER2_CHROMA_444, 0, 0, 0, 0.25, "need stored_quality"},
      {0, 0, 256, 0, 0, 0.25, "need stored_quality"},
      {0, 0, 0, 4, 0, 0.25, "need stored_quality"},
  };
  her2_slide* slide = NULL;
  her2_session* session = NULL;
  her2_session_options options = session_options();
  char path[4096];
  size_t i;
  for (i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    options.spacing_x_um = 0.25;
    options.spacing_y_um = cases[i].spacing_y_um;
    options.stored_quality = cases[i].quality;
    options.stored_chroma = cases[i].chroma;
    options.stored_tile_px = cases[i].tile_px;
    options.stored_downsample = cases[i].downsample;
    options.read_mode = cases[i].mode;
    CHECK(her2_session_open(engine, &options, &session) == HER2_INVALID_ARGUMENT);
    CHECK(session == NULL && strstr(her2_last_error(), cases[i].words) != NULL);
  }
  options = session_options();
  options.spacing_x_um = options.spacing_y_um = 0;
  options.stored_quality = 80;
  snprintf(path, sizeof path, "%s/../../demo/phantom-a.svs", package_folder);
  NEED(her2_slide_open_file(path, &slide) == HER2_OK);
  CHECK(her2_session_open_slide(engine, slide, &options, &session) ==
        HER2_INVALID_ARGUMENT);
  CHECK(session == NULL && strstr(her2_last_error(), "stored already") != NULL);
  options.stored_quality = 0;
  options.stored_tile_px = 256; /* of no use alone, and not ignored */
  CHECK(her2_session_open_slide(engine, slide, &options, &session) ==
        HER2_INVALID_ARGUMENT);
  her2_slide_close(slide);
}

/* Rows of pixels with others left out between: nothing can be let go. */
static void test_the_limit(her2_engine* engine) {
  enum { WIDTH = 60000, HEIGHT = 400 };
  her2_session_options options = session_options();
  her2_session* session = NULL;
  her2_pixels pixels;
  uint8_t* row = (uint8_t*)calloc(WIDTH, 3);
  int32_t status = HER2_OK;
  if (row == NULL) abort();
  options.width_px = WIDTH;
  options.height_px = HEIGHT;
  options.spacing_x_um = options.spacing_y_um = 0.25;
  options.max_memory_bytes = (uint64_t)32 << 20;
  options.stored_quality = 80;
  NEED(her2_session_open(engine, &options, &session) == HER2_OK);
  memset(&pixels, 0, sizeof pixels);
  pixels.struct_size = sizeof pixels;
  pixels.width_px = WIDTH;
  pixels.height_px = 1;
  pixels.data = row;
  for (; pixels.y0_px < HEIGHT && (status == HER2_OK || status == HER2_WOULD_BLOCK);) {
    status = her2_session_push(session, &pixels);
    if (status == HER2_OK) pixels.y0_px += 3; /* rows are missing, so nothing is let go */
  }
  CHECK(status == HER2_LIMIT_EXCEEDED);
  CHECK(her2_session_finish(session, NULL) == HER2_LIMIT_EXCEEDED);
  her2_session_close(session);
  free(row);
}

static void test_closed_while_it_codes(her2_engine* engine) {
  her2_session_options options = session_options();
  const rect all = {0, 0, SLIDE_WIDTH, SLIDE_HEIGHT};
  int i, while_coding = 0;
  options.stored_quality = 80;
  for (i = 0; i < 8; ++i) {
    her2_session* session = NULL;
    her2_progress progress;
    memset(&progress, 0, sizeof progress);
    progress.struct_size = sizeof progress;
    NEED(her2_session_open(engine, &options, &session) == HER2_OK);
    NEED(push_rect(session, all, HER2_PIXELS_RGB, 1) == HER2_OK);
    /* Pixels count when the thread begins with them. */
    while (progress.pushed_px == 0) {
      NEED(her2_session_get_progress(session, &progress) == HER2_OK);
      sched_yield();
    }
    NEED(her2_session_get_progress(session, &progress) == HER2_OK);
    if (progress.queued == 0 && progress.items_done == 0) ++while_coding;
    her2_session_close(session);
  }
  CHECK(while_coding > 0);
}

int main(int argc, char** argv) {
  color_engine context;
  her2_package* package;
  her2_engine* engine;
  if (argc != 2) {
    fprintf(stderr, "usage: stored_check PACKAGE_FOLDER\n");
    return 2;
  }
  package_folder = argv[1];
  memset(&context, 0, sizeof context);
  package = open_package(package_folder);
  engine = open_engine(package, &context);
  test_any_order(engine);
  test_a_hole(engine);
  test_an_older_host(engine);
  test_tables(engine);
  test_refusals(engine);
  test_the_limit(engine);
  test_closed_while_it_codes(engine);
  her2_engine_close(engine);
  her2_package_close(package);
  if (failures == 0) printf("stored_check: all passed\n");
  return failures == 0 ? 0 : 1;
}
