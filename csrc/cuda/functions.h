// SPDX-License-Identifier: Apache-2.0
/// The functions of the table, one stem a file; contracts stand in her2fast/cuda_api.h.
#pragma once

#include <cstdint>

#include "her2fast/cuda_api.h"

namespace her2fast::cuda {

std::int32_t normalize_batch(const std::uint8_t* rgb, std::int64_t n, std::int64_t height,
                             std::int64_t width, const float* mean, const float* std,
                             std::int32_t half, void* out, void* stream,
                             Her2CudaError* error);

std::int32_t tumor_count(const std::uint8_t* mask, std::int64_t n, std::int64_t height,
                         std::int64_t width, std::int32_t patch_px,
                         std::int32_t stride_px, std::uint32_t* out, void* stream,
                         Her2CudaError* error);

std::int32_t stain_unmix(const std::uint8_t* rgb, std::int64_t pixels,
                         const std::uint8_t* white, const double* stains, float* out,
                         void* stream, Her2CudaError* error);

std::int32_t tissue_mask(const std::uint8_t* rgb, std::int64_t n, std::int64_t height,
                         std::int64_t width, const std::uint8_t* white, std::uint8_t* out,
                         void* stream, Her2CudaError* error);

std::int32_t constraint_select_scratch_bytes(std::int32_t device, std::int64_t patches,
                                             std::int64_t slides, std::uint64_t* bytes,
                                             Her2CudaError* error);

std::int32_t constraint_select(const float* logits, const std::uint32_t* tumor_px,
                               std::int64_t patches, const std::int64_t* offsets,
                               const std::int64_t* labels, std::int64_t slides,
                               const Her2FractionLimits* limits, std::int32_t admissible,
                               std::uint8_t* action, std::int8_t* class_id,
                               std::uint8_t* admissible_bits,
                               Her2SlideConstraints* slides_out, std::int64_t* fault,
                               void* scratch, std::uint64_t scratch_bytes, void* stream,
                               Her2CudaError* error);

std::int32_t membrane_label_scratch_bytes(std::int32_t device, std::int64_t n,
                                          std::int64_t height, std::int64_t width,
                                          std::uint64_t* bytes, Her2CudaError* error);

std::int32_t membrane_label(const std::uint8_t* mask, const std::uint8_t* density,
                            std::int64_t n, std::int64_t height, std::int64_t width,
                            const std::int32_t* nuclei, std::int64_t nuclei_count,
                            void* scratch, std::uint64_t scratch_bytes,
                            Her2MembraneResults* results, void* stream,
                            Her2CudaError* error);

std::int32_t tumor_bits(const float* logits, const std::uint64_t* tissue, std::int64_t n,
                        const Her2TumorRule* rule, std::uint64_t* bits,
                        std::uint32_t* counts, std::int32_t* fault, void* stream,
                        Her2CudaError* error);

std::int32_t jpeg_decoder_create(std::int32_t device, const char* library,
                                 std::int32_t backend, void** out, Her2CudaError* error);

std::int32_t jpeg_decoder_describe(void* decoder, Her2JpegDecoder* out,
                                   Her2CudaError* error);

std::int32_t jpeg_decoder_destroy(void* decoder, Her2CudaError* error);

std::int32_t jpeg_decode(void* decoder, const Her2JpegBatch* batch, std::uint8_t* out,
                         void* stream, Her2CudaError* error);

std::int32_t resample_scratch_bytes(const Her2AxisWeights* x, const Her2AxisWeights* y,
                                    std::uint64_t* bytes, Her2CudaError* error);

std::int32_t resample(const std::uint8_t* rgb, std::int64_t n, std::int64_t height,
                      std::int64_t width, const Her2AxisWeights* x,
                      const Her2AxisWeights* y, std::uint8_t* out, void* scratch,
                      std::uint64_t scratch_bytes, void* stream, Her2CudaError* error);

}  // namespace her2fast::cuda
