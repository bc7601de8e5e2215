/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HER2 scoring of whole slides for C: pixels in while a slide is scanned, or a slide
 * file; a measurement and decisions out. docs/guide/embedding.md tells how the parts fit.
 *
 *   package -> engine -> session -> push ... -> finish -> measurement -> decision
 *
 * Status codes: 0 is success; above 0 a reason code, with which a slide ends
 * (docs/guide/reason-codes.md); below 0 a fault of the call. What failed is told in words
 * by her2_last_error() until the next call on the same thread.
 *
 * Threads: every function may be called from any thread, also at once on one handle, but
 * for the close functions: close a handle when nobody uses it any more. Handles keep what
 * they need, so they may be closed in any order.
 *
 * Memory: what a her2_*_open or a call with an `out` handle gives is the caller's to
 * close. Texts and arrays in info structs live as long as their handle. Closing null does
 * nothing.
 *
 * Structs: `struct_size` first. The caller sets it to the struct's size as it knows it;
 * the library reads and writes no byte beyond. A field of value 0 asks for the default.
 *
 * The library does not print, abort, exit, read the environment, set a locale or a signal
 * handler, or keep state outside of its handles (but for each thread's last error); no
 * exception leaves it. Callbacks are plain C and must not throw. They may be called from
 * threads of the library, and may not call a function that waits for the same session
 * (finish, close).
 */
#ifndef HER2FAST_HER2FAST_H
#define HER2FAST_HER2FAST_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(HER2_BUILDING)
#define HER2_API __declspec(dllexport)
#elif defined(_WIN32)
#define HER2_API __declspec(dllimport)
#elif defined(__GNUC__)
#define HER2_API __attribute__((visibility("default")))
#else
#define HER2_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Major in the upper 16 bits: another one is another ABI, and another SONAME. */
#define HER2_ABI_MAJOR 0
#define HER2_ABI_MINOR 2 /* 2: her2_session_options.stored_quality and its like */
#define HER2_ABI_VERSION (((uint32_t)HER2_ABI_MAJOR << 16) | HER2_ABI_MINOR)

/* Faults of a call; reason codes are above 0. */
enum {
  HER2_OK = 0,
  HER2_INVALID_ARGUMENT = -1,
  HER2_WOULD_BLOCK = -2, /* nothing was taken; push again later */
  HER2_INVALID_PACKAGE = -3,
  HER2_OUT_OF_MEMORY = -4,
  HER2_NO_DEVICE = -5,
  HER2_INTERNAL = -6 /* a bug of the library; please report its message */
};

/* Reason codes that a host may want to tell apart; her2_status_name() names all. */
enum {
  HER2_LIMIT_EXCEEDED = 7,
  HER2_IO = 9,
  HER2_ROI_INVALID = 14,
  HER2_ROI_OUTSIDE = 15,
  HER2_MISSING_TILES = 20,
  HER2_MODEL_HASH = 22,
  HER2_MODEL_SHAPE = 23,
  HER2_MODEL_CLASSES = 24,
  HER2_NON_FINITE = 25,
  HER2_GPU_OOM = 26,
  HER2_GPU_LOST = 27,
  HER2_CRASH = 28,
  HER2_CANCELLED = 31
};

typedef struct her2_buffer her2_buffer;
typedef struct her2_package her2_package;
typedef struct her2_engine her2_engine;
typedef struct her2_slide her2_slide;
typedef struct her2_session her2_session;
typedef struct her2_measurement her2_measurement;
typedef struct her2_decision her2_decision;

/* ---- the library ---- */

/* HER2_ABI_VERSION of the library that runs; compare its major with the header's. */
HER2_API uint32_t her2_abi_version(void);
/* "0.1.0" */
HER2_API const char* her2_version(void);
/* Why the last call on this thread failed; "" where it did not. Never null. */
HER2_API const char* her2_last_error(void);
/* "OK", "WOULD_BLOCK", "MISSING_TILES", ...; "UNKNOWN" of any other number. */
HER2_API const char* her2_status_name(int32_t status);

/* ---- bytes that the library made ---- */

HER2_API const void* her2_buffer_data(const her2_buffer* buffer);
HER2_API uint64_t her2_buffer_size(const her2_buffer* buffer);
HER2_API void her2_buffer_close(her2_buffer* buffer);

/* ---- method packages ---- */

typedef struct her2_package_options {
  uint64_t struct_size;
  const char* folder;       /* UTF-8; holds method.json, or config.json of a bare model */
  const char* known_models; /* path of a JSON list {"<sha256>": "<name>"}; or null */
  int32_t allow_unknown;    /* 1: also run models of no list; recorded as not known */
} her2_package_options;

/* Checks and hashes; parses no model file. HER2_INVALID_PACKAGE, HER2_MODEL_HASH. */
HER2_API int32_t her2_package_open(const her2_package_options* options,
                                   her2_package** out);
HER2_API void her2_package_close(her2_package* package);

typedef struct her2_package_info {
  uint64_t struct_size;
  const char* name;
  const char* method;                 /* "constrained" or "patches" */
  const char* guideline;              /* null: areas only */
  const char* intended_use;           /* show it wherever a score is shown */
  double spacing_um;                  /* of the working grid, um/px */
  int32_t patch_px, tile_px, halo_px; /* on the working grid */
  int32_t class_count, model_count;
  int32_t synthetic; /* 1: trained on synthetic data, research use only */
} her2_package_info;

HER2_API int32_t her2_package_get_info(const her2_package* package,
                                       her2_package_info* info);
/* "0", "1+", ...; null where there is no such class. */
HER2_API const char* her2_package_class_name(const her2_package* package, int32_t index);

enum { HER2_TASK_CLASSIFY = 0, HER2_TASK_SEGMENT = 1 };
/* How outputs become probabilities. NONE: the model file gives probabilities already;
 * an engine hands on their logarithms (of a single class: the logit). */
enum {
  HER2_ACTIVATION_SOFTMAX = 0,
  HER2_ACTIVATION_SIGMOID = 1,
  HER2_ACTIVATION_NONE = 2
};

typedef struct her2_model_info {
  uint64_t struct_size;
  const char* name;   /* "segment" or "classify" */
  const char* file;   /* path of the TorchScript file */
  const char* sha256; /* of the file */
  int32_t task, activation;
  int32_t batch; /* items of every batch; the last one is padded */
  int32_t height_px, width_px;
  int32_t channels;       /* classes; of a segmenter planes of the output */
  int64_t outputs;        /* floats an item: classes, distances; or channels x H x W */
  double mean[3], std[3]; /* input = (rgb / 255 - mean) / std, channel by channel */
  int32_t known;          /* 1: the file is in a list of known models */
} her2_model_info;

/* Models in the order of `model` in her2_engine_table.run. */
HER2_API int32_t her2_package_get_model(const her2_package* package, int32_t index,
                                        her2_model_info* info);
/* The model file's bytes, hashed again: what is opened is what was checked. */
HER2_API int32_t her2_package_read_model(const her2_package* package, int32_t index,
                                         her2_buffer** out);

/* ---- engines: whatever computes models ---- */

typedef struct her2_engine_table {
  uint64_t struct_size;
  void* context;
  /*
   * One batch: rgb is (n, height_px, width_px, 3) and stays the session's; output is
   * (n, outputs) logits, all of which is written; of a segmenter (n, channels, height,
   * width). Called from as many threads at once as sessions have model threads. Items
   * beyond the slide's last are zeros. The same pixels must give the same outputs
   * whatever else is in the batch. Returns 0, or the reason code with which the session
   * ends; another value is CRASH.
   */
  int32_t (*run)(void* context, int32_t model, int64_t batch_id, const uint8_t* rgb,
                 int32_t n, int32_t height_px, int32_t width_px, float* output,
                 int64_t outputs);
  /* Frees the context; called once, when no session uses it any more. May be null. */
  void (*close)(void* context);
  /* Why this thread's last run failed; valid until its next one. May be null. */
  const char* (*message)(void* context);
} her2_engine_table;

/* Copies the table. The context is the library's from success on, else the caller's. */
HER2_API int32_t her2_engine_open(const her2_package* package,
                                  const her2_engine_table* table, her2_engine** out);
/* Sessions that use it keep it; `close` of the table comes with the last. */
HER2_API void her2_engine_close(her2_engine* engine);

/* ---- slides ---- */

typedef struct her2_byte_source {
  uint64_t struct_size;
  void* context;
  /* Reads exactly `size` bytes at `offset`; from many threads at once. 0, or HER2_IO. */
  int32_t (*read)(void* context, uint64_t offset, uint64_t size, void* out);
  /* May be null. Called once, also where opening failed, whatever the reason, but for a
   * struct_size too small to have it all: then HER2_INVALID_ARGUMENT, and no call. */
  void (*close)(void* context);
  uint64_t byte_count;
  const char* name; /* what messages call it */
} her2_byte_source;

HER2_API int32_t her2_slide_open_file(const char* path, her2_slide** out);
/* Native formats only. */
HER2_API int32_t her2_slide_open_source(const her2_byte_source* source, her2_slide** out);
HER2_API void her2_slide_close(her2_slide* slide);

typedef struct her2_slide_info {
  uint64_t struct_size;
  int64_t width_px, height_px;       /* level 0 */
  double spacing_x_um, spacing_y_um; /* 0 where the file states none */
  int32_t level_count;
  const char* format;
} her2_slide_info;

HER2_API int32_t her2_slide_get_info(const her2_slide* slide, her2_slide_info* info);
/* Pixels of level 0 as RGB; white beyond the slide. stride_bytes 0: rows follow each
 * other. A rectangle that touches a damaged or missing tile fails with CORRUPT_TILES or
 * MISSING_TILES. */
HER2_API int32_t her2_slide_read(const her2_slide* slide, int64_t x0_px, int64_t y0_px,
                                 int64_t width_px, int64_t height_px, uint8_t* rgb,
                                 int64_t stride_bytes);

/* ---- sessions: one slide each ---- */

typedef struct her2_progress {
  uint64_t struct_size;
  int64_t tiles_planned, tiles_answered;
  int64_t items_planned, items_done; /* for models, of the tiles answered so far */
  int64_t pushed_px;                 /* level-0 pixels assembled so far */
  int64_t repeated_px;               /* of them delivered before, and dropped */
  int64_t differing_px; /* repeated, and seen to differ from the first delivery */
  int64_t queued;       /* pushes that wait */
  int64_t would_block;  /* pushes that were refused */
  uint64_t memory_bytes, peak_memory_bytes; /* of pixels: waiting, being assembled, in
                                               batches, and kept for the next of these */
  int64_t uncompared_px; /* repeated when the first delivery was no longer held */
} her2_progress;

/* Pixels that share one value of color: 2 x 2, 2 x 1 (across), 1. */
enum { HER2_CHROMA_420 = 0, HER2_CHROMA_422 = 1, HER2_CHROMA_444 = 2 };
enum { HER2_LOG_INFO = 0, HER2_LOG_WARNING = 1, HER2_LOG_ERROR = 2 };
enum {
  HER2_READ_SCALED = 0,
  HER2_READ_EXACT = 1,
  HER2_READ_LEVEL0 = 2 /* scaled, from level 0 whatever levels are stored */
};

typedef struct her2_session_options {
  uint64_t struct_size;
  int64_t width_px, height_px;       /* level 0; her2_session_open_slide: of the slide */
  double spacing_x_um, spacing_y_um; /* native, um/px; for a slide equal, or 0 and 0: the
                                        file's own */
  uint64_t max_memory_bytes; /* of pixels in work, beside one batch of outputs for each
                                model thread; 0: 256 MiB */
  int32_t model_threads;     /* batches computed side by side; 0: 1 */
  int32_t read_threads;      /* of a slide; 0: 1 */
  int32_t read_mode;         /* of a slide, and of what is stored (stored_quality):
                                HER2_READ_SCALED, _EXACT or _LEVEL0 */
  uint32_t white_rgb;        /* 0xRRGGBB of empty glass; 0: 0xFFFFFF */
  const char* slide_name;    /* for the result; or null */
  void* callback_context;
  /* At most ten times a second, never twice at once; other than 0 cancels the session. */
  int32_t (*progress)(void* context, const her2_progress* progress);
  /* From any thread, also at once. `level` is HER2_LOG_*. */
  void (*log)(void* context, int32_t level, const char* message);
  /*
   * How you store what you push, for a measurement that is the stored file's: pixels are
   * coded as JPEG, and decoded as read_mode does, before they are measured. Tiles begin
   * at the origin; a tile of which something is missing is missing. Neither quality nor
   * tables: as pushed.
   */
  int32_t stored_quality;    /* 1 to 100, on libjpeg's scale with its own tables */
  int32_t stored_chroma;     /* HER2_CHROMA_* */
  int32_t stored_tile_px;    /* a multiple of 16, 64 to 4096; 0: 256 */
  int32_t stored_downsample; /* of the level that is read, the coarsest that is fine
                                enough: means of that many px a side; 0: 1, level 0 */
  /* In place of stored_quality: a JPEG of your encoder, or its tables alone (TIFF's
   * JPEGTables); its quantization tables are taken while the session is opened. */
  const void* stored_tables;
  uint64_t stored_tables_bytes;
} her2_session_options;

/* A session that is pushed to. */
HER2_API int32_t her2_session_open(const her2_engine* engine,
                                   const her2_session_options* options,
                                   her2_session** out);
/* A session that reads the slide by itself, at once and in the background. */
HER2_API int32_t her2_session_open_slide(const her2_engine* engine,
                                         const her2_slide* slide,
                                         const her2_session_options* options,
                                         her2_session** out);
/* Cancels what is not finished and waits for the session's threads. */
HER2_API void her2_session_close(her2_session* session);

enum {
  HER2_PIXELS_RGB = 0,
  HER2_PIXELS_BGR = 1,
  HER2_PIXELS_RGBA = 2, /* alpha is ignored */
  HER2_PIXELS_BGRA = 3,
  HER2_PIXELS_BLANK = 4 /* no data: the host vouches that this is glass */
};

typedef struct her2_pixels {
  uint64_t struct_size;
  int64_t x0_px, y0_px, width_px, height_px; /* level 0, inside the slide */
  int64_t stride_bytes;                      /* between rows; 0: rows follow each other */
  const uint8_t* data;
  int32_t format;
  /*
   * Null: the pixels are copied before the push returns; at most a quarter of
   * max_memory_bytes at once, more is HER2_INVALID_ARGUMENT. Else nothing is copied, and
   * the pixels must stay as they are until this is called, exactly once, from a thread of
   * the library or the one that closes the session, after a push that returned HER2_OK;
   * after any other result it is not called.
   */
  void (*release)(void* context, const void* data);
  void* release_context;
} her2_pixels;

/*
 * Rectangles of any shape in any order, at the native spacing; without copies also of any
 * size. Never waits for work.
 * HER2_WOULD_BLOCK: the models or the assembling are behind. HER2_LIMIT_EXCEEDED: this
 * order needs more than max_memory_bytes, and the session has ended. A pixel counts once,
 * by its first delivery. What is never delivered is missing, not white.
 */
HER2_API int32_t her2_session_push(her2_session* session, const her2_pixels* pixels);
HER2_API int32_t her2_session_get_progress(const her2_session* session,
                                           her2_progress* progress);
/* The measurement so far; what is not measured yet is missing in it, and no decision on
 * it gives a score unless all is measured. At any time before and after finish. */
HER2_API int32_t her2_session_snapshot(const her2_session* session,
                                       her2_measurement** out);
/* From any thread, and from callbacks. finish then returns HER2_CANCELLED. */
HER2_API int32_t her2_session_cancel(her2_session* session);
/*
 * No more pixels come: waits until all is measured. Every call gives the same result, a
 * new handle of the same measurement or the same failure. `out` may be null.
 */
HER2_API int32_t her2_session_finish(her2_session* session, her2_measurement** out);

/* ---- measurements and decisions ---- */

HER2_API void her2_measurement_close(her2_measurement* measurement);
/* The `.h2m` format of the measurement, to be stored and decided on later. Of a snapshot
 * with tiles that are not measured yet HER2_MISSING_TILES: stored, it would pass for a
 * finished one. */
HER2_API int32_t her2_measurement_save(const her2_measurement* measurement,
                                       her2_buffer** out);
/* `package` must be the one it was measured with: of other models HER2_MODEL_HASH. A file
 * of the Python package does not name them in a way that can be checked; classes and grid
 * must fit, and decisions carry a warning. */
HER2_API int32_t her2_measurement_load(const her2_package* package, const void* data,
                                       uint64_t size, her2_measurement** out);

enum { HER2_ISH_UNKNOWN = 0, HER2_ISH_POSITIVE = 1, HER2_ISH_NEGATIVE = 2 };

typedef struct her2_decide_options {
  uint64_t struct_size;
  const char* roi_geojson; /* UTF-8 text in level-0 px, or null: the whole slide */
  uint64_t roi_bytes;      /* of the text; 0: up to its terminating 0 */
  const char* guideline;   /* a rule set; null: the package's own; "none": areas only */
  int32_t ish;             /* HER2_ISH_* */
} her2_decide_options;

/* Milliseconds, no pixels, no model; as often as wanted. `options` may be null.
 * HER2_ROI_INVALID and HER2_ROI_OUTSIDE give no decision. */
HER2_API int32_t her2_measurement_decide(const her2_measurement* measurement,
                                         const her2_decide_options* options,
                                         her2_decision** out);
HER2_API void her2_decision_close(her2_decision* decision);

enum { HER2_SCORED = 0, HER2_INDETERMINATE = 1, HER2_FAILED = 2, HER2_REFUSED = 3 };

typedef struct her2_decision_info {
  uint64_t struct_size;
  int32_t status;          /* HER2_SCORED, ... : exactly one */
  int32_t code;            /* reason code; 0 where scored */
  const char* message;     /* why, in words; "" where scored */
  int32_t score;           /* 0 to 3; -1 where there is none */
  int32_t review_required; /* 1: look at it; the reasons stand in the JSON */
  int32_t provisional;     /* 1: of a measurement that was not complete */
  int32_t class_count;
  const int64_t* class_px; /* kept tumor pixels of the working grid, per class */
  const int64_t* class_patches;
  int64_t kept_tumor_px, dropped_tumor_px, tissue_px, roi_px;
  int64_t tiles_total, tiles_read, tiles_missing, tiles_corrupt, tiles_warned;
  double pixel_mm2; /* of the working grid */
} her2_decision_info;

HER2_API int32_t her2_decision_get_info(const her2_decision* decision,
                                        her2_decision_info* info);
/* The result as `her2fast score` stores it (schema "her2fast:result-1"), UTF-8. */
HER2_API const char* her2_decision_json(const her2_decision* decision);

#ifdef __cplusplus
}
#endif

#endif /* HER2FAST_HER2FAST_H */
