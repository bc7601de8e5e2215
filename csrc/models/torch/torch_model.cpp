// SPDX-License-Identifier: Apache-2.0
#include "models/torch/torch_model.h"

#include <algorithm>
#include <cstring>
#include <sstream>
#include <vector>

#include "models/torch/gpu_memory.h"

namespace her2fast::torch_engine {
namespace {

// Smallest probability whose logarithm is taken, where a model gives probabilities.
constexpr double kMinProbability = 1e-7;

std::string shape_text(at::IntArrayRef shape) {
  std::ostringstream text;
  text << shape;
  return text.str();
}

torch::Tensor channel_values(const double* values) {
  return torch::tensor({static_cast<float>(values[0]), static_cast<float>(values[1]),
                        static_cast<float>(values[2])});
}

}  // namespace

std::string last_line(const std::string& message) {
  std::string last = message;
  std::istringstream lines(message);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t first = line.find_first_not_of(" \t\r");
    if (first != std::string::npos) last = line.substr(first);
  }
  return last;
}

TorchModel::TorchModel(const her2_model_info& info, const void* bytes, std::uint64_t size,
                       const torch::Device& device)
    : info_(info),
      file_(info.file),
      device_(device),
      mean_(channel_values(info.mean)),
      std_(channel_values(info.std)) {
  try {
    std::istringstream file(
        std::string(static_cast<const char*>(bytes), static_cast<std::size_t>(size)));
    module_ = torch::jit::load(file, device_);
    module_.eval();
    const auto channels_last = [](const at::Tensor& tensor) {
      at::Tensor changed = tensor;
      if (tensor.dim() == 4) {
        changed.set_data(tensor.contiguous(at::MemoryFormat::ChannelsLast));
      }
    };
    const torch::NoGradGuard no_grad;
    for (const at::Tensor& tensor : module_.parameters()) channels_last(tensor);
    for (const at::Tensor& tensor : module_.buffers()) channels_last(tensor);
  } catch (const c10::Error& error) {
    throw Failure(HER2_MODEL_SHAPE, file_ + ": is not a TorchScript file: " +
                                        last_line(error.what_without_backtrace()));
  }
}

/// A table that is opened with another package would read and write beyond its memory.
void TorchModel::check(const Shape& shape) const {
  const bool same = shape.n >= 1 && shape.n <= info_.batch &&
                    shape.height_px == info_.height_px &&
                    shape.width_px == info_.width_px && shape.outputs == info_.outputs;
  if (same) return;
  const auto text = [](auto n, auto height, auto width, auto outputs) {
    return std::to_string(n) + " x " + std::to_string(height) + " x " +
           std::to_string(width) + " px and " + std::to_string(outputs) + " outputs";
  };
  throw Failure(
      HER2_MODEL_SHAPE,
      file_ + ": need batches of at most " +
          text(info_.batch, info_.height_px, info_.width_px, info_.outputs) + ", got " +
          text(shape.n, shape.height_px, shape.width_px, shape.outputs) +
          "; is the engine opened with the package that its table was made for?");
}

void TorchModel::run(const std::uint8_t* rgb, const Shape& shape, float* output) const {
  check(shape);
  const std::int64_t item = std::int64_t{3} * info_.height_px * info_.width_px;
  whole_or_halves(shape.n, [&](std::int32_t first, std::int32_t n) {
    run_part(rgb + first * item, n, output + first * info_.outputs);
  });
}

void TorchModel::run_part(const std::uint8_t* rgb, std::int32_t n, float* output) const {
  const c10::InferenceMode inference;
  torch::Tensor values;
  try {
    values = logits(checked(forward(stage(rgb, n)), n)).cpu();
  } catch (const c10::OutOfMemoryError& error) {
    throw Failure(HER2_GPU_OOM,
                  device_.str() + ": " + last_line(error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    throw_if_of_gpu(error.what(), error.what_without_backtrace());
    throw;
  }
  values = values.reshape({n, -1}).contiguous();
  if (values.size(1) != info_.outputs) {
    throw Failure(HER2_MODEL_SHAPE, file_ + ": need " + std::to_string(info_.outputs) +
                                        " outputs an item, got " +
                                        std::to_string(values.size(1)));
  }
  std::memcpy(output, values.data_ptr<float>(),
              static_cast<std::size_t>(n * info_.outputs) * sizeof(float));
}

/// Normalized float32 (n, 3, H, W), channels-last.
torch::Tensor TorchModel::stage(const std::uint8_t* rgb, std::int32_t n) const {
  // torch takes no pointer to const; it only reads.
  const torch::Tensor pixels =
      torch::from_blob(const_cast<std::uint8_t*>(rgb),
                       {n, info_.height_px, info_.width_px, 3}, torch::kUInt8);
  torch::Tensor inputs = pixels.to(torch::kFloat32);
  inputs.div_(255).sub_(mean_).div_(std_);
  inputs = inputs.permute({0, 3, 1, 2});
  return device_.is_cpu() ? inputs : inputs.to(device_);
}

void TorchModel::throw_if_of_gpu(const char* words, const std::string& said) const {
  const std::int32_t status = device_.is_cpu() ? HER2_OK : gpu_status(words);
  if (status != HER2_OK) throw Failure(status, device_.str() + ": " + last_line(said));
}

torch::Tensor TorchModel::forward(const torch::Tensor& inputs) const {
  c10::IValue outputs;
  try {
    outputs = module_.forward({inputs});
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const std::exception& error) {
    throw_if_of_gpu(error.what(), error.what());
    throw Failure(HER2_MODEL_SHAPE, file_ + ": the model does not take float32 " +
                                        shape_text(inputs.sizes()) + ": " +
                                        last_line(error.what()));
  }
  if (!outputs.isTensor()) {
    throw Failure(HER2_MODEL_SHAPE, file_ + ": need a tensor, got " + outputs.tagKind());
  }
  return outputs.toTensor();
}

torch::Tensor TorchModel::checked(torch::Tensor outputs, std::int64_t n) const {
  std::vector<std::int64_t> need{n, info_.outputs};
  if (info_.task == HER2_TASK_SEGMENT) {
    const std::vector<std::int64_t> plane{n, info_.height_px, info_.width_px};
    if (info_.channels == 1 && outputs.sizes() == at::IntArrayRef(plane)) return outputs;
    need = {n, info_.channels, info_.height_px, info_.width_px};
  }
  if (outputs.sizes() == at::IntArrayRef(need)) return outputs;
  const bool classes = outputs.dim() == static_cast<std::int64_t>(need.size()) &&
                       outputs.size(1) != need[1];
  throw Failure(classes ? HER2_MODEL_CLASSES : HER2_MODEL_SHAPE,
                file_ + ": need outputs of shape " + shape_text(need) + ", got " +
                    shape_text(outputs.sizes()));
}

torch::Tensor TorchModel::logits(torch::Tensor outputs) const {
  outputs = outputs.to(torch::kFloat32);
  if (info_.activation != HER2_ACTIVATION_NONE) return outputs;
  torch::Tensor distances;
  const bool has_distances =
      info_.task == HER2_TASK_CLASSIFY && info_.outputs > info_.channels;
  if (has_distances) {  // no classes: no activation is theirs
    distances = outputs.slice(1, info_.channels);
    outputs = outputs.slice(1, 0, info_.channels);
  }
  outputs = outputs.clamp(kMinProbability, 1 - kMinProbability);
  outputs = info_.channels == 1 ? outputs.logit() : outputs.log();
  return has_distances ? torch::cat({outputs, distances}, 1) : outputs;
}

}  // namespace her2fast::torch_engine
