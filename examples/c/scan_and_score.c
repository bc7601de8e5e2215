/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A simulated scanner: pixels of level 0 come at a set rate, in strips or tiles, and are
 * scored while they come. Prints how long pushes took, how much memory the process grew
 * by, and how long after the last strip the result was there.
 *
 * Pixels come from a slide file, or are drawn (synthetic tissue of arbitrary size).
 * Models are computed by the example's own rule on colors, or by a provider's library.
 * With --stored-quality or --stored-tables they are measured as the file will hold them
 * that the scanner writes.
 */
#ifdef __linux__
#define _GNU_SOURCE 1 /* RUSAGE_THREAD */
#endif
#include <her2fast/her2fast.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "color_engine.h"
#include "system.h"

typedef struct settings {
  const char *package, *known, *slide, *provider, *order, *json, *save, *stored_tables;
  int64_t width, height, strip_width, strip_height;
  double spacing_um, mpx_per_s;
  int32_t threads, stored_quality, stored_downsample, stored_tile_px, stored_chroma,
      read_mode;
  uint64_t memory_mib;
} settings;

static double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What this thread itself has computed: the cost of a push without what else the machine
 * does meanwhile. */
static double computed_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void sleep_until(double when_s) {
  const double left = when_s - now_s();
  struct timespec t;
  if (left <= 0) return;
  t.tv_sec = (time_t)left;
  t.tv_nsec = (long)((left - (double)t.tv_sec) * 1e9);
  nanosleep(&t, NULL);
}

static void must(int32_t status, const char* what) {
  if (status == HER2_OK) return;
  fprintf(stderr, "%s: %s: %s\n", what, her2_status_name(status), her2_last_error());
  exit(1);
}

/* ---- the scanner ---- */

/* Drawn tissue: brown and blue blobs on glass, the same wherever it is cut. */
static void draw(int64_t x0, int64_t y0, int64_t width, int64_t height, uint8_t* rgb) {
  int64_t x, y;
  for (y = y0; y < y0 + height; ++y) {
    for (x = x0; x < x0 + width; ++x, rgb += 3) {
      const uint32_t grain =
          ((uint32_t)x * 2654435761u ^ (uint32_t)y * 2246822519u) >> 28;
      const int64_t field = (x / 2900 + y / 2300) % 4;
      const int tissue = x % 2900 > 400 && y % 2300 > 300 && field != 3;
      rgb[0] = (uint8_t)(tissue ? 120 + 25 * (int)field + (int)grain : 238 + (int)grain);
      rgb[1] = (uint8_t)(tissue ? 80 + 30 * (int)field + (int)grain : 238 + (int)grain);
      rgb[2] = (uint8_t)(tissue ? 60 + 60 * (int)field + (int)grain : 238 + (int)grain);
    }
  }
}

typedef struct part {
  int64_t x, y, width, height;
} part;

/* The scanner's path over the slide. */
static part* plan_path(const settings* s, int64_t* count) {
  const int64_t columns = (s->width + s->strip_width - 1) / s->strip_width;
  const int64_t rows = (s->height + s->strip_height - 1) / s->strip_height;
  const int by_columns = strcmp(s->order, "column") == 0;
  const int64_t outer = by_columns ? columns : rows, inner = by_columns ? rows : columns;
  part* path = (part*)malloc((size_t)(columns * rows) * sizeof *path);
  int64_t a, b, i;
  uint32_t seed = 1;
  if (path == NULL) abort();
  *count = 0;
  for (a = 0; a < outer; ++a) {
    for (b = 0; b < inner; ++b) {
      const int back = strcmp(s->order, "serpentine") == 0 && a % 2 == 1;
      const int64_t at = back ? inner - 1 - b : b;
      part* p = &path[(*count)++];
      p->x = (by_columns ? a : at) * s->strip_width;
      p->y = (by_columns ? at : a) * s->strip_height;
      p->width = p->x + s->strip_width > s->width ? s->width - p->x : s->strip_width;
      p->height = p->y + s->strip_height > s->height ? s->height - p->y : s->strip_height;
    }
  }
  for (i = *count - 1; strcmp(s->order, "random") == 0 && i > 0; --i) {
    const part swap = path[i];
    int64_t j;
    seed = seed * 1664525u + 1013904223u;
    j = (int64_t)(seed % (uint64_t)(i + 1));
    path[i] = path[j];
    path[j] = swap;
  }
  return path;
}

/* ---- how long pushes took ---- */

enum { MAX_PUSHES = 1 << 22, BUCKETS = 24 };
static float push_s[MAX_PUSHES], push_computed_s[MAX_PUSHES];
static int64_t pushes = 0;

static int by_length(const void* a, const void* b) {
  const float x = *(const float*)a, y = *(const float*)b;
  return (x > y) - (x < y);
}

static double percentile_ms(const float* sorted, double share) {
  if (pushes == 0) return 0;
  return 1e3 * (double)sorted[(int64_t)(share * (double)(pushes - 1))];
}

static void print_percentiles(const char* what, float* times) {
  qsort(times, (size_t)pushes, sizeof times[0], by_length);
  printf("%s: p50 %.3f ms, p99 %.3f ms, longest %.3f ms\n", what,
         percentile_ms(times, 0.5), percentile_ms(times, 0.99),
         percentile_ms(times, 1.0));
}

static void print_histogram(void) {
  int64_t counts[BUCKETS] = {0}, i;
  int b;
  for (i = 0; i < pushes; ++i) {
    double limit = 1e-6;
    for (b = 0; b < BUCKETS - 1 && (double)push_s[i] > limit; ++b) limit *= 2;
    ++counts[b];
  }
  printf("pushes by time:\n");
  for (b = 0; b < BUCKETS; ++b) {
    if (counts[b] > 0) {
      printf("  up to %9.3f ms  %8lld\n", 1e-3 * (double)(1 << b), (long long)counts[b]);
    }
  }
}

/* What pushes ran into, all together: the core was given up (for a lock), it was taken
 * away, memory was touched for the first time. -1 where the system does not tell. */
typedef struct push_events {
  int64_t gave_up, lost, faults;
} push_events;

static push_events events = {0, 0, 0};

static push_events events_of_thread(void) {
  push_events seen = {-1, -1, -1};
#ifdef RUSAGE_THREAD
  struct rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  seen.gave_up = usage.ru_nvcsw;
  seen.lost = usage.ru_nivcsw;
  seen.faults = usage.ru_minflt;
#endif
  return seen;
}

static void count_events(const push_events* before) {
  const push_events after = events_of_thread();
  if (after.lost < 0) {
    events = after;
    return;
  }
  events.gave_up += after.gave_up - before->gave_up;
  events.lost += after.lost - before->lost;
  events.faults += after.faults - before->faults;
}

static void release_strip(void* context, const void* pixels) {
  (void)context;
  free((void*)(uintptr_t)pixels);
}

/* Pushes one part without a copy; tries again where the session is behind. */
static void push(her2_session* session, const part* p, uint8_t* rgb) {
  her2_pixels pixels;
  memset(&pixels, 0, sizeof pixels);
  pixels.struct_size = sizeof pixels;
  pixels.x0_px = p->x;
  pixels.y0_px = p->y;
  pixels.width_px = p->width;
  pixels.height_px = p->height;
  pixels.data = rgb;
  pixels.format = HER2_PIXELS_RGB;
  pixels.release = release_strip;
  for (;;) {
    const push_events events_before = events_of_thread();
    /* Outermost what costs a system call, or the clock would run in it. */
    const double computed_before = computed_s();
    const double before = now_s();
    const int32_t status = her2_session_push(session, &pixels);
    const double took = now_s() - before, computed = computed_s() - computed_before;
    count_events(&events_before);
    if (pushes < MAX_PUSHES) {
      push_computed_s[pushes] = (float)computed;
      push_s[pushes++] = (float)took;
    }
    if (status == HER2_OK) return;
    if (status != HER2_WOULD_BLOCK) must(status, "push");
    sleep_until(now_s() + 0.002); /* a scanner would hold its stage */
  }
}

/* ---- models ---- */

/* her2_torch_open, found by name: the example needs no torch */
typedef int32_t (*open_provider_fn)(const her2_package* package, const void* options,
                                    her2_engine_table* out);
typedef const char* (*provider_error_fn)(void);

static her2_engine* open_engine(const settings* s, const her2_package* package) {
  her2_engine_table table;
  her2_engine* engine = NULL;
  memset(&table, 0, sizeof table);
  table.struct_size = sizeof table;
  if (s->provider == NULL) {
    table.run = color_engine_run;
  } else {
    void* library = library_open(s->provider);
    open_provider_fn open_provider;
    if (library == NULL || !library_symbol(library, "her2_torch_open", &open_provider)) {
      library_print_error(s->provider);
      exit(1);
    }
    if (open_provider(package, NULL, &table) != HER2_OK) {
      provider_error_fn provider_error;
      fprintf(stderr, "%s: %s\n", s->provider,
              library_symbol(library, "her2_torch_last_error", &provider_error)
                  ? provider_error()
                  : "no models");
      exit(1);
    }
  }
  must(her2_engine_open(package, &table, &engine), "engine");
  return engine;
}

static int32_t ignore_progress(void* context, const her2_progress* progress) {
  (void)context;
  (void)progress;
  return 0;
}

static void show_log(void* context, int32_t level, const char* message) {
  (void)context;
  fprintf(stderr, "%s%s\n", level == HER2_LOG_INFO ? "" : "warning: ", message);
}

static void write_file(const char* path, const void* data, size_t size) {
  FILE* file = fopen(path, "wb");
  if (file == NULL || fwrite(data, 1, size, file) != size || fclose(file) != 0) {
    fprintf(stderr, "%s: cannot be written\n", path);
    exit(1);
  }
}

/* All of a file; the caller frees it. */
static void* read_file(const char* path, uint64_t* size) {
  FILE* file = fopen(path, "rb");
  void* data = NULL;
  long end = -1;
  if (file != NULL && fseek(file, 0, SEEK_END) == 0) end = ftell(file);
  if (end > 0) data = malloc((size_t)end);
  if (data == NULL || fseek(file, 0, SEEK_SET) != 0 ||
      fread(data, 1, (size_t)end, file) != (size_t)end) {
    fprintf(stderr, "%s: cannot be read\n", path);
    exit(1);
  }
  fclose(file);
  *size = (uint64_t)end;
  return data;
}

static void report(const her2_decision* decision, const her2_package* package) {
  her2_decision_info info;
  int32_t c;
  memset(&info, 0, sizeof info);
  info.struct_size = sizeof info;
  must(her2_decision_get_info(decision, &info), "decision");
  printf("status %d %s %s\n", info.status, her2_status_name(info.code), info.message);
  printf("score %d, review %d\n", info.score, info.review_required);
  for (c = 0; c < info.class_count; ++c) {
    printf("class %s: %lld px\n", her2_package_class_name(package, c),
           (long long)info.class_px[c]);
  }
}

static void scan(const settings* s, const her2_package* package,
                 const her2_engine* engine, const her2_slide* slide) {
  her2_session_options options;
  her2_session* session = NULL;
  her2_measurement* measurement = NULL;
  her2_decision* decision = NULL;
  her2_progress at_end, finished;
  int64_t count, i, pushed_px = 0;
  part* path = plan_path(s, &count);
  const int64_t memory_before = peak_memory_kib();
  double begin, last, waited = 0;
  memset(&options, 0, sizeof options);
  options.struct_size = sizeof options;
  options.width_px = s->width;
  options.height_px = s->height;
  options.spacing_x_um = options.spacing_y_um = s->spacing_um;
  options.max_memory_bytes = s->memory_mib << 20;
  options.model_threads = s->threads;
  if (s->stored_tables != NULL) {
    options.stored_tables = read_file(s->stored_tables, &options.stored_tables_bytes);
  }
  options.stored_quality = s->stored_quality;
  options.stored_downsample = s->stored_downsample;
  options.stored_tile_px = s->stored_tile_px;
  options.stored_chroma = s->stored_chroma;
  options.read_mode = s->read_mode;
  options.progress = ignore_progress;
  options.log = show_log;
  must(her2_session_open(engine, &options, &session), "session");
  free((void*)(uintptr_t)options.stored_tables);
  begin = now_s();
  for (i = 0; i < count; ++i) {
    const part* p = &path[i];
    uint8_t* rgb = (uint8_t*)malloc((size_t)(p->width * p->height * 3));
    double ready;
    if (rgb == NULL) abort();
    if (slide != NULL) {
      must(her2_slide_read(slide, p->x, p->y, p->width, p->height, rgb, 0), "slide");
    } else {
      draw(p->x, p->y, p->width, p->height, rgb);
    }
    pushed_px += p->width * p->height;
    if (s->mpx_per_s > 0) sleep_until(begin + 1e-6 * (double)pushed_px / s->mpx_per_s);
    ready = now_s();
    push(session, p, rgb);
    waited += now_s() - ready;
  }
  last = now_s();
  memset(&at_end, 0, sizeof at_end);
  at_end.struct_size = sizeof at_end;
  must(her2_session_get_progress(session, &at_end), "progress");
  must(her2_session_finish(session, &measurement), "finish");
  memset(&finished, 0, sizeof finished);
  finished.struct_size = sizeof finished;
  must(her2_measurement_decide(measurement, NULL, &decision), "decide");
  printf("from last strip to result: %.3f s\n", now_s() - last);
  report(decision, package);
  printf("scanned %lld x %lld px at %.1f Mpx/s\n", (long long)s->width,
         (long long)s->height, 1e-6 * (double)pushed_px / (last - begin));
  must(her2_session_get_progress(session, &finished), "progress");
  printf(
      "tiles done at the last strip: %lld of %lld; pictures through models: %lld of "
      "%lld\n",
      (long long)at_end.tiles_answered, (long long)at_end.tiles_planned,
      (long long)at_end.items_done, (long long)finished.items_done);
  print_histogram();
  printf("pushes: %lld, would block %lld\n", (long long)pushes,
         (long long)at_end.would_block);
  print_percentiles("push, by the clock", push_s);
  print_percentiles("push, computed", push_computed_s);
  printf(
      "in pushes the core was given up %lld times, lost %lld times; page faults %lld\n",
      (long long)events.gave_up, (long long)events.lost, (long long)events.faults);
  printf("in pushes and waiting for room: %.3f s\n", waited);
  printf("peak memory added: %.1f MiB; pixels held at most: %.1f MiB\n",
         (double)(peak_memory_kib() - memory_before) / 1024.0,
         (double)at_end.peak_memory_bytes / 1048576.0);
  if (s->json != NULL) {
    const char* json = her2_decision_json(decision);
    write_file(s->json, json, strlen(json));
  }
  if (s->save != NULL) {
    her2_buffer* bytes = NULL;
    must(her2_measurement_save(measurement, &bytes), "save");
    write_file(s->save, her2_buffer_data(bytes), (size_t)her2_buffer_size(bytes));
    her2_buffer_close(bytes);
  }
  her2_decision_close(decision);
  her2_measurement_close(measurement);
  her2_session_close(session);
  free(path);
}

static const char kUsage[] =
    "usage: scan_and_score PACKAGE [--known FILE] [--slide FILE] [--engine LIBRARY]\n"
    "         [--size WIDTHxHEIGHT] [--spacing UM] [--strip WIDTHxHEIGHT] [--rate "
    "MPX_S]\n"
    "         [--order raster|serpentine|column|random] [--threads N] [--memory MIB]\n"
    "         [--stored-quality Q | --stored-tables JPEG [--stored-downsample N]\n"
    "         [--stored-tile PX] [--stored-chroma 420|422|444]\n"
    "         [--stored-read scaled|exact|level0]]\n"
    "         [--json FILE] [--save FILE]\n";

static int usage(void) {
  fputs(kUsage, stderr);
  return 64;
}

/* In the order of HER2_CHROMA_* and HER2_READ_*. */
static const char* const kChroma[] = {"420", "422", "444"};
static const char* const kReading[] = {"scaled", "exact", "level0"};

/* Which of three words it is; 0 where none. */
static int chosen(const char* value, const char* const words[3], int32_t* out) {
  for (*out = 0; *out < 3; ++*out) {
    if (strcmp(value, words[*out]) == 0) return 1;
  }
  return 0;
}

int main(int argc, char** argv) {
  settings s;
  her2_package_options package_options;
  her2_package* package = NULL;
  her2_engine* engine;
  her2_slide* slide = NULL;
  int i;
  memset(&s, 0, sizeof s);
  s.width = s.height = 8192;
  s.strip_height = 512;
  s.spacing_um = 0.25;
  s.order = "raster";
  if (argc < 2 || argc % 2 != 0) return usage();
  s.package = argv[1];
  for (i = 2; i < argc; i += 2) {
    const char *name = argv[i], *value = argv[i + 1];
    long long a = 0, b = 0;
    if (strcmp(name, "--known") == 0) {
      s.known = value;
    } else if (strcmp(name, "--slide") == 0) {
      s.slide = value;
    } else if (strcmp(name, "--engine") == 0) {
      s.provider = value;
    } else if (strcmp(name, "--order") == 0) {
      s.order = value;
    } else if (strcmp(name, "--json") == 0) {
      s.json = value;
    } else if (strcmp(name, "--save") == 0) {
      s.save = value;
    } else if (strcmp(name, "--spacing") == 0) {
      s.spacing_um = atof(value);
    } else if (strcmp(name, "--rate") == 0) {
      s.mpx_per_s = atof(value);
    } else if (strcmp(name, "--threads") == 0) {
      s.threads = atoi(value);
    } else if (strcmp(name, "--stored-quality") == 0) {
      s.stored_quality = atoi(value);
      if (s.stored_quality == 0) return usage(); /* that would be raw pixels */
    } else if (strcmp(name, "--stored-tables") == 0) {
      s.stored_tables = value;
    } else if (strcmp(name, "--stored-downsample") == 0) {
      s.stored_downsample = atoi(value);
      if (s.stored_downsample == 0) return usage();
    } else if (strcmp(name, "--stored-tile") == 0) {
      s.stored_tile_px = atoi(value);
      if (s.stored_tile_px == 0) return usage();
    } else if (strcmp(name, "--stored-chroma") == 0) {
      if (!chosen(value, kChroma, &s.stored_chroma)) return usage();
    } else if (strcmp(name, "--stored-read") == 0) {
      if (!chosen(value, kReading, &s.read_mode)) return usage();
    } else if (strcmp(name, "--memory") == 0) {
      s.memory_mib = (uint64_t)atoi(value);
    } else if (strcmp(name, "--size") == 0 && sscanf(value, "%lldx%lld", &a, &b) == 2) {
      s.width = a;
      s.height = b;
    } else if (strcmp(name, "--strip") == 0 && sscanf(value, "%lldx%lld", &a, &b) == 2) {
      s.strip_width = a;
      s.strip_height = b;
    } else {
      return usage();
    }
  }
  if (her2_abi_version() >> 16 != HER2_ABI_MAJOR) {
    fprintf(stderr, "built for another ABI than the library's\n");
    return 1;
  }
  memset(&package_options, 0, sizeof package_options);
  package_options.struct_size = sizeof package_options;
  package_options.folder = s.package;
  package_options.known_models = s.known;
  package_options.allow_unknown = s.known == NULL;
  must(her2_package_open(&package_options, &package), "package");
  engine = open_engine(&s, package);
  if (s.slide != NULL) {
    her2_slide_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    must(her2_slide_open_file(s.slide, &slide), "slide");
    must(her2_slide_get_info(slide, &info), "slide");
    s.width = info.width_px;
    s.height = info.height_px;
    if (info.spacing_x_um > 0) s.spacing_um = info.spacing_x_um;
  }
  if (s.strip_width <= 0) s.strip_width = s.width;
  if (s.strip_height <= 0) return usage();
  scan(&s, package, engine, slide);
  her2_slide_close(slide);
  her2_engine_close(engine);
  her2_package_close(package);
  return 0;
}
