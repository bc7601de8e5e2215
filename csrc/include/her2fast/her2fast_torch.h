/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libher2fast_torch: an engine that computes a package's models with libtorch
 * (TorchScript). A library of its own; libher2fast does not know it.
 *
 * Threads: every function may be called from any thread. A batch is computed with one
 * intra-op thread, because torch changes bits with their number; cores are used by a
 * session's model_threads. torch keeps that number for each thread and the process, so a
 * host that uses the same libtorch itself sets its own number again after opening.
 * Memory: the models, once for all sessions of the engine, and a batch as floats for
 * every thread that computes. Bytes: on the CPU those of the Python package with the same
 * torch on the same machine.
 */
#ifndef HER2FAST_HER2FAST_TORCH_H
#define HER2FAST_HER2FAST_TORCH_H

#include <her2fast/her2fast.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct her2_torch_options {
  uint64_t struct_size;
  const char* device; /* "cpu" or "cuda[:N]"; null: "cpu" */
} her2_torch_options;

/*
 * Opens the package's models and fills `table` (its struct_size set), for
 * her2_engine_open with the same package: a batch of another shape than its models' ends
 * with HER2_MODEL_SHAPE, and other models of the same shape cannot be told from them.
 * Where her2_engine_open fails, call table->close yourself. HER2_INTERNAL: the libtorch
 * or libher2fast that runs is not the one it was built for; HER2_NO_DEVICE,
 * HER2_MODEL_HASH, HER2_MODEL_SHAPE.
 */
HER2_API int32_t her2_torch_open(const her2_package* package,
                                 const her2_torch_options* options,
                                 her2_engine_table* table);
/* Why the last call of this library on this thread failed. Never null. */
HER2_API const char* her2_torch_last_error(void);
/* "2.13.0": the libtorch it was built for. */
HER2_API const char* her2_torch_version(void);

#ifdef __cplusplus
}
#endif

#endif /* HER2FAST_HER2FAST_TORCH_H */
