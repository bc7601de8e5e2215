/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host that computes the models with its own runtime (TensorRT, OpenVINO, DirectML,
 * ONNX Runtime, ...). What such a host writes is here: model files handed to the runtime,
 * contexts that one thread may use at a time, uint8 NHWC to normalized float NCHW, logits
 * back, failures with their reason, and a check of what the session relies on.
 *
 * The runtime itself is a stand-in, `runtime_load` and `runtime_infer`: a network of one
 * 1 x 1 convolution. Put yours there. What the stand-in says of a slide means nothing.
 */
#include <her2fast/her2fast.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_MODELS = 4, CONTEXTS = 4 };

/* ---- the runtime: a stand-in ---- */

typedef struct runtime_network {
  uint64_t file_bytes;
  int32_t height_px, width_px, channels;
  int64_t outputs;
} runtime_network;

/* A runtime parses the file here, or a copy of the model in its own format that was made
 * from exactly this file (info->sha256 tells). */
static int runtime_load(const void* file, uint64_t size, const her2_model_info* info,
                        runtime_network* network) {
  if (file == NULL || size == 0) return 0;
  network->file_bytes = size;
  network->height_px = info->height_px;
  network->width_px = info->width_px;
  network->channels = info->channels;
  network->outputs = info->outputs;
  return 1;
}

/* (n, 3, height, width) float32 -> (n, outputs); every item by itself. */
static void runtime_infer(const runtime_network* network, const float* input, int32_t n,
                          float* output) {
  const int64_t plane = (int64_t)network->height_px * network->width_px;
  const int segments = network->outputs == plane * network->channels;
  int64_t i, k, c;
  for (i = 0; i < n; ++i) {
    const float *red = input + i * 3 * plane, *green = red + plane, *blue = green + plane;
    float* out = output + i * network->outputs;
    double brown = 0;
    if (segments) { /* dark is tumor; of several planes the last one is tumor */
      memset(out, 0, (size_t)network->outputs * sizeof *out);
      out += (network->channels - 1) * plane;
      for (k = 0; k < plane; ++k) out[k] = 4.0f * (0.5f - green[k]);
      continue;
    }
    for (k = 0; k < plane; ++k) brown += red[k] - blue[k];
    brown /= (double)plane;
    for (c = 0; c < network->outputs; ++c) { /* classes; then distances, here 0 */
      const double away = brown - 0.5 * (double)c;
      out[c] = c < network->channels ? (float)(-away * away) : 0.0f;
    }
  }
}

/* ---- the engine: what the host writes ---- */

/* What one thread works with: input on its way, as a runtime's execution context. */
typedef struct work_context {
  float* input; /* (batch, 3, height, width) of the largest model */
  int busy;
} work_context;

typedef struct own_engine {
  her2_model_info info[MAX_MODELS];
  runtime_network network[MAX_MODELS];
  int32_t model_count;
  work_context contexts[CONTEXTS];
  pthread_mutex_t mutex;
  pthread_cond_t given_back;
} own_engine;

static work_context* take_context(own_engine* engine) {
  int i = 0;
  pthread_mutex_lock(&engine->mutex);
  for (;;) {
    for (i = 0; i < CONTEXTS && engine->contexts[i].busy; ++i) {
    }
    if (i < CONTEXTS) break;
    pthread_cond_wait(&engine->given_back, &engine->mutex);
  }
  engine->contexts[i].busy = 1;
  pthread_mutex_unlock(&engine->mutex);
  return &engine->contexts[i];
}

static void give_back(own_engine* engine, work_context* context) {
  pthread_mutex_lock(&engine->mutex);
  context->busy = 0;
  pthread_cond_signal(&engine->given_back);
  pthread_mutex_unlock(&engine->mutex);
}

/* input = (rgb / 255 - mean) / std, channels apart. */
static void normalize(const her2_model_info* info, const uint8_t* rgb, int32_t n,
                      float* input) {
  const int64_t plane = (int64_t)info->height_px * info->width_px;
  int64_t i, k;
  int c;
  for (c = 0; c < 3; ++c) {
    const float scale = (float)(1.0 / (255.0 * info->std[c]));
    const float shift = (float)(-info->mean[c] / info->std[c]);
    for (i = 0; i < n; ++i) {
      const uint8_t* from = rgb + i * plane * 3 + c;
      float* to = input + (i * 3 + c) * plane;
      for (k = 0; k < plane; ++k) to[k] = (float)from[3 * k] * scale + shift;
    }
  }
}

static int32_t run(void* context, int32_t model, int64_t batch_id, const uint8_t* rgb,
                   int32_t n, int32_t height_px, int32_t width_px, float* output,
                   int64_t outputs) {
  own_engine* engine = (own_engine*)context;
  const her2_model_info* info;
  work_context* work;
  (void)batch_id;
  if (model < 0 || model >= engine->model_count) return HER2_MODEL_SHAPE;
  info = &engine->info[model];
  if (n < 1 || n > info->batch || height_px != info->height_px ||
      width_px != info->width_px || outputs != info->outputs) {
    return HER2_MODEL_SHAPE; /* the table was opened with another package */
  }
  work = take_context(engine);
  normalize(info, rgb, n, work->input);
  runtime_infer(&engine->network[model], work->input, n, output);
  give_back(engine, work);
  /* A runtime that fails: HER2_GPU_OOM, HER2_GPU_LOST, or HER2_CRASH for the rest. */
  return HER2_OK;
}

/* Where run can fail in more ways than one, keep the words per thread. */
static const char* message(void* context) {
  (void)context;
  return "own_engine: a batch has another shape than the package's models";
}

static void close_engine(void* context) {
  own_engine* engine = (own_engine*)context;
  int i;
  if (engine == NULL) return;
  for (i = 0; i < CONTEXTS; ++i) free(engine->contexts[i].input);
  pthread_cond_destroy(&engine->given_back);
  pthread_mutex_destroy(&engine->mutex);
  free(engine);
}

static void must(int32_t status, const char* what) {
  if (status == HER2_OK) return;
  fprintf(stderr, "%s: %s: %s\n", what, her2_status_name(status), her2_last_error());
  exit(1);
}

static void stop(const char* what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

/* The package's models, loaded into the runtime. */
static own_engine* open_models(const her2_package* package) {
  own_engine* engine = (own_engine*)calloc(1, sizeof *engine);
  size_t floats = 0;
  her2_package_info package_info;
  int32_t i;
  if (engine == NULL) stop("no memory");
  pthread_mutex_init(&engine->mutex, NULL);
  pthread_cond_init(&engine->given_back, NULL);
  memset(&package_info, 0, sizeof package_info);
  package_info.struct_size = sizeof package_info;
  must(her2_package_get_info(package, &package_info), "package");
  if (package_info.model_count > MAX_MODELS) stop("the package has too many models");
  engine->model_count = package_info.model_count;
  for (i = 0; i < engine->model_count; ++i) {
    her2_model_info* info = &engine->info[i];
    her2_buffer* file = NULL;
    size_t need;
    info->struct_size = sizeof *info;
    must(her2_package_get_model(package, i, info), "model");
    if (info->activation == HER2_ACTIVATION_NONE) {
      stop("the model gives probabilities: hand on their logarithms");
    }
    /* Bytes whose hash the library has checked. */
    must(her2_package_read_model(package, i, &file), "model file");
    if (!runtime_load(her2_buffer_data(file), her2_buffer_size(file), info,
                      &engine->network[i])) {
      stop("the runtime does not load the model");
    }
    her2_buffer_close(file);
    need = (size_t)info->batch * 3 * (size_t)info->height_px * (size_t)info->width_px;
    if (need > floats) floats = need;
    printf("model %s: batches of %d x %d x %d x 3, %lld outputs\n", info->name,
           info->batch, info->height_px, info->width_px, (long long)info->outputs);
  }
  /* All memory now: a batch never waits for some. */
  for (i = 0; i < CONTEXTS; ++i) {
    engine->contexts[i].input = (float*)malloc(floats * sizeof(float));
    if (engine->contexts[i].input == NULL) stop("no memory");
  }
  return engine;
}

/* Equal pixels must give equal outputs wherever they stand in a batch, or the same slide
 * gives other bytes on another day. Many runtimes choose kernels by load or by shape: ask
 * yours for deterministic ones, of the one shape, and check as here. */
static void check_engine(const own_engine* engine) {
  int32_t model;
  for (model = 0; model < engine->model_count; ++model) {
    const her2_model_info* info = &engine->info[model];
    const size_t item = (size_t)info->height_px * (size_t)info->width_px * 3;
    const size_t outputs = (size_t)info->outputs, n = (size_t)info->batch;
    uint8_t* rgb = (uint8_t*)malloc(n * item);
    float* first = (float*)malloc(n * outputs * sizeof *first);
    float* second = (float*)malloc(n * outputs * sizeof *second);
    uint32_t seed = 1;
    size_t i;
    if (rgb == NULL || first == NULL || second == NULL) stop("no memory");
    for (i = 0; i < n * item; ++i) {
      seed = seed * 1664525u + 1013904223u;
      rgb[i] = (uint8_t)(seed >> 24);
    }
    memcpy(rgb + (n - 1) * item, rgb, item); /* the first item is also the last */
    if (run((void*)(uintptr_t)engine, model, 0, rgb, info->batch, info->height_px,
            info->width_px, first, info->outputs) != HER2_OK) {
      stop("the engine fails");
    }
    memset(rgb + item, 0, (n - 1) * item); /* alone, as in a padded batch */
    if (run((void*)(uintptr_t)engine, model, 1, rgb, info->batch, info->height_px,
            info->width_px, second, info->outputs) != HER2_OK) {
      stop("the engine fails");
    }
    if (memcmp(first, first + (n - 1) * outputs, outputs * sizeof *first) != 0 ||
        memcmp(first, second, outputs * sizeof *first) != 0) {
      stop("an item's outputs depend on its place or its neighbors");
    }
    free(second);
    free(first);
    free(rgb);
  }
  printf("outputs depend on the item alone\n");
}

int main(int argc, char** argv) {
  her2_package_options package_options;
  her2_session_options options;
  her2_engine_table table;
  her2_decision_info decided;
  her2_package* package = NULL;
  her2_engine* engine = NULL;
  her2_slide* slide = NULL;
  her2_session* session = NULL;
  her2_measurement* measurement = NULL;
  her2_decision* decision = NULL;
  own_engine* own;
  int32_t c;
  if (argc < 3) {
    fprintf(stderr, "usage: own_engine PACKAGE SLIDE [KNOWN_MODELS]\n");
    return 64;
  }
  memset(&package_options, 0, sizeof package_options);
  package_options.struct_size = sizeof package_options;
  package_options.folder = argv[1];
  package_options.known_models = argc > 3 ? argv[3] : NULL;
  package_options.allow_unknown = argc <= 3;
  must(her2_package_open(&package_options, &package), "package");

  own = open_models(package);
  check_engine(own);
  memset(&table, 0, sizeof table);
  table.struct_size = sizeof table;
  table.context = own;
  table.run = run;
  table.close = close_engine;
  table.message = message;
  must(her2_engine_open(package, &table, &engine), "engine"); /* `own` is the library's */

  must(her2_slide_open_file(argv[2], &slide), "slide");
  memset(&options, 0, sizeof options);
  options.struct_size = sizeof options;
  options.read_mode = HER2_READ_EXACT;
  options.model_threads = CONTEXTS; /* more threads than contexts would only wait */
  must(her2_session_open_slide(engine, slide, &options, &session), "session");
  must(her2_session_finish(session, &measurement), "finish");
  must(her2_measurement_decide(measurement, NULL, &decision), "decide");
  memset(&decided, 0, sizeof decided);
  decided.struct_size = sizeof decided;
  must(her2_decision_get_info(decision, &decided), "decision");
  printf("status %d, score %d\n", decided.status, decided.score);
  for (c = 0; c < decided.class_count; ++c) {
    printf("class %s: %lld px\n", her2_package_class_name(package, c),
           (long long)decided.class_px[c]);
  }
  her2_decision_close(decision);
  her2_measurement_close(measurement);
  her2_session_close(session);
  her2_slide_close(slide);
  her2_engine_close(engine); /* the last user: `close_engine` is called */
  her2_package_close(package);
  return 0;
}
