// SPDX-License-Identifier: Apache-2.0
// The engine table over TorchModel: the C side of libher2fast_torch.
#include <ATen/Parallel.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/cuda.h>
#include <torch/script.h>
#include <torch/version.h>

#include <memory>
#include <string>
#include <vector>

#include "her2fast/her2fast_torch.h"
#include "models/torch/torch_model.h"

namespace her2fast::torch_engine {
namespace {

std::string& last_error() {
  thread_local std::string text;
  return text;
}

std::int32_t failed(std::int32_t status, const std::string& message) {
  last_error() = message;
  return status;
}

struct Models {
  std::vector<std::unique_ptr<TorchModel>> models;
};

/// torch keeps the number for each thread.
void use_one_thread() {
  thread_local const bool done = [] {
    at::set_num_threads(1);
    return true;
  }();
  (void)done;
}

std::int32_t run(void* context, std::int32_t model, std::int64_t, const std::uint8_t* rgb,
                 std::int32_t n, std::int32_t height_px, std::int32_t width_px,
                 float* output, std::int64_t outputs) noexcept {
  try {
    use_one_thread();
    static_cast<Models*>(context)
        ->models.at(static_cast<std::size_t>(model))
        ->run(rgb, {n, height_px, width_px, outputs}, output);
    return HER2_OK;
  } catch (const Failure& failure) {
    return failed(failure.status(), failure.what());
  } catch (const std::exception& error) {
    return failed(HER2_CRASH, last_line(error.what()));
  } catch (...) {
    return failed(HER2_CRASH, "libtorch threw something that is no exception");
  }
}

void close(void* context) { delete static_cast<Models*>(context); }

const char* message(void*) { return last_error().c_str(); }

/// Headers and libraries of one release: anything else has other classes under the same
/// names.
void check_abi() {
  constexpr std::uint64_t kRelease = ~std::uint64_t{0} << 40;  // major, minor, patch
  const std::uint64_t runs = aoti_torch_abi_version();
  if ((runs & kRelease) != (TORCH_ABI_VERSION & kRelease)) {
    const auto part = [&](int shift) { return std::to_string(runs >> shift & 255); };
    throw Failure(HER2_INTERNAL, "built for libtorch " TORCH_VERSION ", but " + part(56) +
                                     "." + part(48) + "." + part(40) +
                                     " runs; build the torch component again");
  }
  if (her2_abi_version() >> 16 != HER2_ABI_MAJOR) {
    throw Failure(HER2_INTERNAL, "built for ABI " + std::to_string(HER2_ABI_MAJOR) +
                                     " of libher2fast, but " +
                                     std::to_string(her2_abi_version() >> 16) + " runs");
  }
}

torch::Device device_of(const char* name) {
  const std::string text = name == nullptr ? "cpu" : name;
  try {
    const torch::Device device(text);
    if (device.is_cpu()) return device;
    const bool here = device.is_cuda() && torch::globalContext().hasCUDA() &&
                      device.index() < static_cast<int>(torch::cuda::device_count());
    if (here) return device;
  } catch (const c10::Error&) {
    // no device's name: said below
  }
  throw Failure(HER2_NO_DEVICE,
                "need device \"cpu\" or \"cuda[:N]\" of this machine and "
                "this libtorch, got \"" +
                    text + "\"");
}

void needed(std::int32_t status) {
  if (status != HER2_OK) throw Failure(status, her2_last_error());
}

std::unique_ptr<Models> open_models(const her2_package* package,
                                    const torch::Device& device) {
  her2_package_info info{};
  info.struct_size = sizeof info;
  needed(her2_package_get_info(package, &info));
  auto models = std::make_unique<Models>();
  for (std::int32_t i = 0; i < info.model_count; ++i) {
    her2_model_info model{};
    model.struct_size = sizeof model;
    needed(her2_package_get_model(package, i, &model));
    her2_buffer* buffer = nullptr;
    needed(her2_package_read_model(package, i, &buffer));
    const std::unique_ptr<her2_buffer, void (*)(her2_buffer*)> owner(buffer,
                                                                     her2_buffer_close);
    models->models.push_back(std::make_unique<TorchModel>(
        model, her2_buffer_data(buffer), her2_buffer_size(buffer), device));
  }
  return models;
}

}  // namespace
}  // namespace her2fast::torch_engine

using namespace her2fast::torch_engine;

std::int32_t her2_torch_open(const her2_package* package,
                             const her2_torch_options* options,
                             her2_engine_table* table) {
  try {
    last_error().clear();
    if (table == nullptr || table->struct_size < sizeof *table) {
      return failed(HER2_INVALID_ARGUMENT, "need an engine table with its struct_size");
    }
    if (options != nullptr && options->struct_size < sizeof *options) {
      return failed(HER2_INVALID_ARGUMENT, "need torch options with their struct_size");
    }
    check_abi();
    const torch::Device device =
        device_of(options == nullptr ? nullptr : options->device);
    std::unique_ptr<Models> models = open_models(package, device);
    table->run = run;
    table->close = close;
    table->message = message;
    table->context = models.release();
    return HER2_OK;
  } catch (const Failure& failure) {
    return failed(failure.status(), failure.what());
  } catch (const std::exception& error) {
    return failed(HER2_INTERNAL, last_line(error.what()));
  } catch (...) {
    return failed(HER2_INTERNAL, "libtorch threw something that is no exception");
  }
}

const char* her2_torch_last_error(void) { return last_error().c_str(); }

const char* her2_torch_version(void) { return TORCH_VERSION; }
