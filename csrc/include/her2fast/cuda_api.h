/* SPDX-License-Identifier: Apache-2.0 */
/* libher2fast_cuda: one table of functions, opened at run time; nobody links it.
 *
 * Memory: every pointer is to device memory of one GPU unless it says "host"; every array
 * is contiguous, in C order, and need not be aligned beyond its element. Work is queued
 * on `stream` (a cudaStream_t; null is the default stream) of the GPU that holds the
 * pointers, or of `device` where there are none; the calling thread's current GPU plays
 * no part and stays what it was. Nothing here waits for the stream, but for
 * `synchronize`, `copy` from or to pageable host memory, what allocates or frees, and
 * `jpeg_decode` as it says.
 * Arguments in pageable host memory may be reused as soon as a call returns; pinned host
 * memory (`allocate_pinned`, or that of other libraries) and device memory must stay as
 * they are until the stream has passed. Scratch is the caller's: any content, not kept
 * between calls, aligned to 256 bytes.
 *
 * Every function returns a HER2_CUDA_ status and, where it is not HER2_CUDA_OK, fills
 * `error` (may be null). A fault on the device is told by a later call, as CUDA does.
 * Thread-safe. No function throws, prints or ends the process. */
#ifndef HER2FAST_CUDA_API_H
#define HER2FAST_CUDA_API_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HER2_CUDA_API_VERSION 5

enum {
  HER2_CUDA_OK = 0,
  HER2_CUDA_BAD_ARGUMENT = 1, /* a size, a value, or a pointer to host memory */
  HER2_CUDA_NO_DEVICE = 2,    /* no driver, no such GPU, or no code for it */
  HER2_CUDA_OUT_OF_MEMORY = 3,
  HER2_CUDA_LOST = 4 /* a fault on the GPU: the process cannot use it any more */
};

typedef struct Her2CudaError {
  char text[256];
} Her2CudaError;

typedef struct Her2CudaDevice {
  char name[128];
  int32_t major, minor; /* compute capability */
  int32_t multiprocessors;
  int32_t driver, runtime; /* CUDA versions, 13000 is 13.0 */
  uint64_t memory_bytes, free_bytes;
} Her2CudaDevice;

/* What `copy` copies. */
enum { HER2_CUDA_TO_DEVICE = 1, HER2_CUDA_TO_HOST = 2, HER2_CUDA_WITHIN = 3 };

/* FractionLimits of slide_table.h. */
typedef struct Her2FractionLimits {
  int32_t lower_permille[4], upper_permille[4][4];
} Her2FractionLimits;

/* SlideConstraints of constraint_select.h. */
typedef struct Her2SlideConstraints {
  int64_t class_px[4], excess_px[4], pushed_px[4], missing_px, pulled_px, reach;
} Her2SlideConstraints;

/* TumorRule of tumor_bits.h. */
typedef struct Her2TumorRule {
  int32_t channels, halo_px, tile_px, patch_px;
  float threshold;
} Her2TumorRule;

/* One component of a tile of membrane_label, in the tile's pixels. Of membranes (the
 * mask, 8-connected) and gaps (what is not mask, 4-connected). */
typedef struct Her2Component {
  int32_t first;      /* y * width + x of its first pixel, row by row */
  int32_t x0, x1, y1; /* of its box; y0 is the first pixel's row */
  int32_t px;
  int32_t is_membrane, on_border;     /* 0 or 1 */
  int32_t straight, diagonal, euler4; /* a membrane's 2 x 2 windows within the tile */
  int32_t
      above; /* a gap's: the component above its first pixel, or -1 in the first row */
  int32_t nuclei;                  /* a gap's */
  int32_t densities_at, densities; /* a membrane's place in the list of densities */
} Her2Component;

/* Where membrane_label leaves its results: device memory within the scratch. Components
 * of tile t are [first_component[t], first_component[t + 1]), in the order of their first
 * pixels; numbers in `above` and `sides` count them over the whole batch. */
typedef struct Her2MembraneResults {
  const int32_t* first_component; /* (n + 1) */
  const Her2Component* components;
  const int32_t* sides;     /* (n, 2 * width + 2 * height): top, right, bottom, left */
  const uint8_t* densities; /* of the membranes' pixels, together by component */
  const int32_t* counts;    /* (2): densities; nuclei that lay outside */
} Her2MembraneResults;

/* Weights along one axis, host: those of AxisWeights (io/resample.h). Row i is grid pixel
 * i's: its first source pixel, how many weights it has (1 to max_taps), and these, 0 to
 * 65536 and 65536 together; what follows them does not count. From row to row neither the
 * first source pixel nor the last one decreases. */
typedef struct Her2AxisWeights {
  const int32_t* rows;     /* (count, 2 + max_taps); over 2^28 source pixels at most */
  int64_t count, max_taps; /* 1 to 2^24 */
} Her2AxisWeights;

/* Who decodes JPEG, and on what. */
enum {
  HER2_CUDA_JPEG_ANY = 0, /* the engine where there is one */
  HER2_CUDA_JPEG_ENGINE = 1,
  HER2_CUDA_JPEG_KERNELS = 2
};
typedef struct Her2JpegDecoder {
  char library[512]; /* the nvJPEG that was opened, as it was named */
  int32_t major, minor, patch;
  int32_t backend; /* HER2_CUDA_JPEG_ENGINE or HER2_CUDA_JPEG_KERNELS */
  int32_t device;
  int32_t reserved;
} Her2JpegDecoder;

/* How the three components of JPEG streams are coded: by TIFF's photometric tag. */
enum { HER2_CUDA_JPEG_YCBCR = 0, HER2_CUDA_JPEG_RGB = 1 };

/* Host. `streams` (n) of `sizes` (n) bytes, whole or abbreviated; `tables` is what they
 * share (TIFF's JPEGTables), or null. */
typedef struct Her2JpegBatch {
  const uint8_t* const* streams;
  const uint64_t* sizes;
  const uint8_t* tables;
  uint64_t tables_size;
  int64_t n, height, width; /* 1 to 65500 px a side, at most 65536 items */
  int32_t color;
  int32_t reserved;
} Her2JpegBatch;

typedef struct Her2CudaTable {
  uint64_t struct_size; /* of the library that filled it; later fields are absent */
  uint32_t version;     /* HER2_CUDA_API_VERSION */
  uint32_t reserved;

  /* --- device and memory ---------------------------------------------------------- */
  /* GPUs of this machine; HER2_CUDA_NO_DEVICE without driver or GPU. */
  int32_t (*count_devices)(int32_t* count, Her2CudaError* error);
  int32_t (*describe_device)(int32_t device, Her2CudaDevice* out, Her2CudaError* error);
  int32_t (*allocate)(int32_t device, uint64_t bytes, void** out, Her2CudaError* error);
  int32_t (*release)(void* memory, Her2CudaError* error);
  /* Host memory that copies overlap with work from and to. */
  int32_t (*allocate_pinned)(uint64_t bytes, void** out, Her2CudaError* error);
  int32_t (*release_pinned)(void* memory, Her2CudaError* error);
  /* `stream` is of the GPU that holds the device's side; both, within one. */
  int32_t (*copy)(void* to, const void* from, uint64_t bytes, int32_t kind, void* stream,
                  Her2CudaError* error);
  int32_t (*create_stream)(int32_t device, void** out, Her2CudaError* error);
  int32_t (*destroy_stream)(void* stream, Her2CudaError* error);
  int32_t (*synchronize)(int32_t device, void* stream, Her2CudaError* error);

  /* --- normalize_batch -------------------------------------------------------------
   * rgb (n, height, width, 3) uint8 -> out (n, 3, height, width): (v / 255 - mean[c]) /
   * std[c], every step rounded to float32 as torch does; `half` != 0: rounded once more,
   * to IEEE float16. mean, std: host, finite, std > 0. */
  int32_t (*normalize_batch)(const uint8_t* rgb, int64_t n, int64_t height, int64_t width,
                             const float* mean, const float* std, int32_t half, void* out,
                             void* stream, Her2CudaError* error);

  /* --- tumor_count -----------------------------------------------------------------
   * mask (n, height, width) uint8 -> out (n, rows, columns) of the grid, uint32; as
   * tumor_count.h, to the bit. patch_px, stride_px: 1 to 4096. */
  int32_t (*tumor_count)(const uint8_t* mask, int64_t n, int64_t height, int64_t width,
                         int32_t patch_px, int32_t stride_px, uint32_t* out, void* stream,
                         Her2CudaError* error);

  /* --- stain_unmix -----------------------------------------------------------------
   * rgb (pixels, 3) uint8 -> out (pixels, 3) float32; as stain_unmix.h, to the bit: the
   * same table, added in the same order. white (3), stains (3, 3, rows): host. */
  int32_t (*stain_unmix)(const uint8_t* rgb, int64_t pixels, const uint8_t* white,
                         const double* stains, float* out, void* stream,
                         Her2CudaError* error);

  /* --- tissue_mask -----------------------------------------------------------------
   * rgb (n, height, width, 3) uint8 -> out (n, height, width) uint8, 0 or 1; as
   * tissue_mask.h, to the bit. Outside each image is white, so a tile needs its halo of
   * 16 px. white (3): host, at least 128. */
  int32_t (*tissue_mask)(const uint8_t* rgb, int64_t n, int64_t height, int64_t width,
                         const uint8_t* white, uint8_t* out, void* stream,
                         Her2CudaError* error);

  /* --- constraint_select -----------------------------------------------------------
   * As constraint_select.h, to the bit. Host: offsets (slides + 1), labels (slides),
   * limits. Device: logits (patches, 4) float32, tumor_px, action, class_id,
   * admissible_bits (patches), slides_out (slides), fault (1). admissible: the value of
   * `Admissible`. fault: -1; the first patch with a logit that is not finite; or patches
   * + the first slide with 2^50 tumor pixels. Outputs mean nothing then. */
  int32_t (*constraint_select_scratch_bytes)(int32_t device, int64_t patches,
                                             int64_t slides, uint64_t* bytes,
                                             Her2CudaError* error);
  int32_t (*constraint_select)(const float* logits, const uint32_t* tumor_px,
                               int64_t patches, const int64_t* offsets,
                               const int64_t* labels, int64_t slides,
                               const Her2FractionLimits* limits, int32_t admissible,
                               uint8_t* action, int8_t* class_id,
                               uint8_t* admissible_bits, Her2SlideConstraints* slides_out,
                               int64_t* fault, void* scratch, uint64_t scratch_bytes,
                               void* stream, Her2CudaError* error);

  /* --- membrane_label --------------------------------------------------------------
   * Components of n masks (n, height, width) and their integers, those of membrane.h to
   * the bit; tiles know nothing of each other. density: (n, height, width) or null.
   * nuclei (count, 3) int32: tile, x, y; may be null. At most 2^31 - 1 pixels in all, 1
   * to 8192 a side. `results` (host) says where they will be when the stream has passed.
   */
  int32_t (*membrane_label_scratch_bytes)(int32_t device, int64_t n, int64_t height,
                                          int64_t width, uint64_t* bytes,
                                          Her2CudaError* error);
  int32_t (*membrane_label)(const uint8_t* mask, const uint8_t* density, int64_t n,
                            int64_t height, int64_t width, const int32_t* nuclei,
                            int64_t nuclei_count, void* scratch, uint64_t scratch_bytes,
                            Her2MembraneResults* results, void* stream,
                            Her2CudaError* error);

  /* --- tumor_bits ------------------------------------------------------------------
   * As tumor_bits.h, to the bit, for n tiles: logits (n, channels, side, side) float32;
   * tissue, bits (n, tile_px, words) uint64; counts (n, patches a side, patches a side)
   * uint32. fault (1): 0, or 1 where a logit is not finite, halo and all; bits and counts
   * mean nothing then. rule: host. */
  int32_t (*tumor_bits)(const float* logits, const uint64_t* tissue, int64_t n,
                        const Her2TumorRule* rule, uint64_t* bits, uint32_t* counts,
                        int32_t* fault, void* stream, Her2CudaError* error);

  /* --- jpeg_decode -----------------------------------------------------------------
   * A batch of JPEG streams -> out (n, height, width, 3) uint8, by nvJPEG: NEAR the CPU
   * reader's pixels, not its bits. Baseline, 3 components, YCbCr, one size; anything else
   * is HER2_CUDA_BAD_ARGUMENT and names the item, and then `out` is undefined. Damage
   * within entropy-coded bytes may decode to something without an error.
   * A decoder is made for a GPU, kept, and used by one thread at a time; it holds the
   * streams' bytes, so the caller's are free when a call returns. Its next call waits for
   * its batch before (two decoders overlap). On the engine each call waits first for what
   * is queued on `stream`: the engine writes without regard to it.
   * library: of libnvjpeg, UTF-8; null or empty: looked for beside this library's package
   * (nvidia/cu13/lib, nvidia/nvjpeg/lib), where the loader looks, in /usr/local/cuda.
   * HER2_CUDA_NO_DEVICE where there is none, or none that runs. */
  int32_t (*jpeg_decoder_create)(int32_t device, const char* library, int32_t backend,
                                 void** out, Her2CudaError* error);
  int32_t (*jpeg_decoder_describe)(void* decoder, Her2JpegDecoder* out,
                                   Her2CudaError* error);
  int32_t (*jpeg_decoder_destroy)(void* decoder, Her2CudaError* error);
  int32_t (*jpeg_decode)(void* decoder, const Her2JpegBatch* batch, uint8_t* out,
                         void* stream, Her2CudaError* error);

  /* --- resample --------------------------------------------------------------------
   * rgb (n, height, width, 3) uint8 -> out (n, y->count, x->count, 3) uint8: means by
   * area, those of io/resample.h to the bit. Each image begins with the axes' first
   * source pixel and holds at least what their weights reach over. x, y: host; they are
   * copied to the scratch on the stream, which from pageable memory may wait for it. */
  int32_t (*resample_scratch_bytes)(const Her2AxisWeights* x, const Her2AxisWeights* y,
                                    uint64_t* bytes, Her2CudaError* error);
  int32_t (*resample)(const uint8_t* rgb, int64_t n, int64_t height, int64_t width,
                      const Her2AxisWeights* x, const Her2AxisWeights* y, uint8_t* out,
                      void* scratch, uint64_t scratch_bytes, void* stream,
                      Her2CudaError* error);
} Her2CudaTable;

/* The library's only export. Immutable; never null. */
typedef const Her2CudaTable* (*Her2CudaTableFunction)(void);

#ifdef __cplusplus
}
#endif

#endif
