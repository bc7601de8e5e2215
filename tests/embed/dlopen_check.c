/* SPDX-License-Identifier: Apache-2.0 */
/* A host that opens and closes the library a hundred times, with a session each time, and
 * sees it gone each time. */
#include <her2fast/her2fast.h>
#include <stdio.h>
#include <string.h>

#include "system.h"

typedef int32_t (*open_package_fn)(const her2_package_options*, her2_package**);
typedef int32_t (*open_engine_fn)(const her2_package*, const her2_engine_table*,
                                  her2_engine**);
typedef int32_t (*open_session_fn)(const her2_engine*, const her2_session_options*,
                                   her2_session**);
typedef int32_t (*push_fn)(her2_session*, const her2_pixels*);
typedef int32_t (*finish_fn)(her2_session*, her2_measurement**);
typedef void (*close_package_fn)(her2_package*);
typedef void (*close_engine_fn)(her2_engine*);
typedef void (*close_session_fn)(her2_session*);
typedef void (*close_measurement_fn)(her2_measurement*);

static int32_t no_run(void* context, int32_t model, int64_t batch_id, const uint8_t* rgb,
                      int32_t n, int32_t height_px, int32_t width_px, float* output,
                      int64_t outputs) {
  (void)context, (void)model, (void)batch_id, (void)rgb, (void)n, (void)height_px;
  (void)width_px, (void)output, (void)outputs;
  return HER2_CRASH; /* blank glass has nothing to compute */
}

#define LOAD(type, variable, name) \
  type variable;                   \
  if (!library_symbol(library, name, &variable)) return "no symbol " name

static const char* one_session(void* library, const char* folder) {
  her2_package_options package_options;
  her2_session_options options;
  her2_engine_table table;
  her2_pixels pixels;
  her2_package* package = NULL;
  her2_engine* engine = NULL;
  her2_session* session = NULL;
  her2_measurement* measurement = NULL;
  LOAD(open_package_fn, open_package, "her2_package_open");
  LOAD(open_engine_fn, open_engine, "her2_engine_open");
  LOAD(open_session_fn, open_session, "her2_session_open");
  LOAD(push_fn, push, "her2_session_push");
  LOAD(finish_fn, finish, "her2_session_finish");
  LOAD(close_package_fn, close_package, "her2_package_close");
  LOAD(close_engine_fn, close_engine, "her2_engine_close");
  LOAD(close_session_fn, close_session, "her2_session_close");
  LOAD(close_measurement_fn, close_measurement, "her2_measurement_close");
  memset(&package_options, 0, sizeof package_options);
  package_options.struct_size = sizeof package_options;
  package_options.folder = folder;
  package_options.allow_unknown = 1;
  if (open_package(&package_options, &package) != HER2_OK) return "her2_package_open";
  memset(&table, 0, sizeof table);
  table.struct_size = sizeof table;
  table.run = no_run;
  if (open_engine(package, &table, &engine) != HER2_OK) return "her2_engine_open";
  memset(&options, 0, sizeof options);
  options.struct_size = sizeof options;
  options.width_px = options.height_px = 1200;
  options.spacing_x_um = options.spacing_y_um = 0.5;
  if (open_session(engine, &options, &session) != HER2_OK) return "her2_session_open";
  memset(&pixels, 0, sizeof pixels);
  pixels.struct_size = sizeof pixels;
  pixels.width_px = pixels.height_px = 1200;
  pixels.format = HER2_PIXELS_BLANK;
  if (push(session, &pixels) != HER2_OK) return "her2_session_push";
  if (finish(session, &measurement) != HER2_OK) return "her2_session_finish";
  close_measurement(measurement);
  close_session(session);
  close_engine(engine);
  close_package(package);
  return NULL;
}

int main(int argc, char** argv) {
  int i;
  if (argc != 3) {
    fprintf(stderr, "usage: dlopen_check LIBRARY PACKAGE_FOLDER\n");
    return 2;
  }
  for (i = 0; i < 100; ++i) {
    void* library = library_open(argv[1]);
    const char* problem;
    if (library == NULL) {
      library_print_error(argv[1]);
      return 1;
    }
    problem = one_session(library, argv[2]);
    if (problem != NULL) {
      fprintf(stderr, "round %d: %s\n", i, problem);
      return 1;
    }
    library_close(library);
    if (library_is_open(argv[1])) {
      fprintf(stderr, "round %d: the library stays after it was closed\n", i);
      return 1;
    }
  }
  printf("dlopen_check: all passed\n");
  return 0;
}
