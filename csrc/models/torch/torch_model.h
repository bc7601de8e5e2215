// SPDX-License-Identifier: Apache-2.0
/// One TorchScript file on one device: pixels in, logits out. Thread-safe.
///
/// The steps and their order are those of python/her2fast/models/runner.py, so that the
/// same libtorch gives the same bits.
#pragma once

#include <torch/script.h>

#include <cstdint>
#include <string>

#include "her2fast/her2fast.h"
#include "models/torch/failure.h"

namespace her2fast::torch_engine {

/// The last line of torch's long messages, which says what went wrong.
std::string last_line(const std::string& message);

class TorchModel {
 public:
  /// @param bytes  the file, whose hash was checked. @throws Failure
  TorchModel(const her2_model_info& info, const void* bytes, std::uint64_t size,
             const torch::Device& device);
  /// What an engine table's `run` says of its memory.
  struct Shape {
    std::int32_t n = 0, height_px = 0, width_px = 0;
    std::int64_t outputs = 0;
  };
  /// @param rgb (n, height_px, width_px, 3); @param output (n, outputs). @throws Failure:
  ///        HER2_MODEL_SHAPE where `shape` is not the model's; nothing is touched then.
  ///        HER2_GPU_OOM: also with half a batch
  void run(const std::uint8_t* rgb, const Shape& shape, float* output) const;

 private:
  void check(const Shape& shape) const;
  /// @throws Failure: HER2_GPU_OOM, HER2_GPU_LOST, with the last line of what was `said`
  void throw_if_of_gpu(const char* words, const std::string& said) const;
  void run_part(const std::uint8_t* rgb, std::int32_t n, float* output) const;
  torch::Tensor stage(const std::uint8_t* rgb, std::int32_t n) const;
  torch::Tensor forward(const torch::Tensor& inputs) const;
  torch::Tensor checked(torch::Tensor outputs, std::int64_t n) const;
  torch::Tensor logits(torch::Tensor outputs) const;

  her2_model_info info_;  // its texts belong to the package, which the engine keeps
  std::string file_;
  torch::Device device_;
  torch::Tensor mean_, std_;
  mutable torch::jit::script::Module module_;
};

}  // namespace her2fast::torch_engine
