// SPDX-License-Identifier: Apache-2.0
/// JPEG tiles by nvJPEG. Host code: what runs on the GPU is NVIDIA's.
///
/// nvjpegDecodeBatched and not the decoupled phases: it is the one way to the JPEG
/// engine, and above 50 items decodes Huffman codes on the GPU; the phases do that per
/// image, on the host.
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cuda/functions.h"
#include "cuda/launch.h"
#include "cuda/nvjpeg_library.h"
#include "io/codec/jpeg_whole.h"

namespace her2fast::cuda {
namespace {

constexpr std::int64_t kMostItems = 65536, kMostPx = io::kMaxJpegSidePx;
/// Of the host, for Huffman codes of small batches: callers have threads of their own.
constexpr int kHostThreads = 1;

/// No exception leaves the table; containers throw where the host's memory ends.
template <typename Function>
std::int32_t guarded(Her2CudaError* error, Function function) {
  try {
    return function();
  } catch (const std::exception& failure) {
    return fail(error, HER2_CUDA_OUT_OF_MEMORY, "on the host: %s", failure.what());
  }
}

std::int32_t check(const Her2JpegBatch& batch, Her2CudaError* error) {
  const auto side = [](std::int64_t px) { return px >= 1 && px <= kMostPx; };
  if (batch.n < 0 || batch.n > kMostItems || !side(batch.height) || !side(batch.width)) {
    return fail(error, HER2_CUDA_BAD_ARGUMENT,
                "need 0 to %lld items of 1 to %lld px a side, got %lld of %lld x %lld",
                static_cast<long long>(kMostItems), static_cast<long long>(kMostPx),
                static_cast<long long>(batch.n), static_cast<long long>(batch.width),
                static_cast<long long>(batch.height));
  }
  if (batch.color == HER2_CUDA_JPEG_RGB) {
    return fail(error, HER2_CUDA_BAD_ARGUMENT,
                "need YCbCr, got RGB-coded streams, which nvJPEG would take for YCbCr; "
                "decode them on the CPU");
  }
  if (batch.color != HER2_CUDA_JPEG_YCBCR) {
    return fail(error, HER2_CUDA_BAD_ARGUMENT, "need a color of 0 or 1, got %d",
                static_cast<int>(batch.color));
  }
  return HER2_CUDA_OK;
}

class Decoder {
 public:
  Decoder() = default;
  ~Decoder() {
    const OnDevice on(told_.device, nullptr);
    static_cast<void>(land(nullptr));
    if (header_ != nullptr) nvjpeg_.stream_destroy(header_);
    if (state_ != nullptr) nvjpeg_.state_destroy(state_);
    if (handle_ != nullptr) nvjpeg_.destroy(handle_);
    if (done_ != nullptr) static_cast<void>(cudaEventDestroy(done_));
  }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  std::int32_t open(std::int32_t device, const char* library, std::int32_t backend,
                    Her2CudaError* error);
  std::int32_t decode(const Her2JpegBatch& batch, std::uint8_t* out, void* stream,
                      Her2CudaError* error);
  const Her2JpegDecoder& told() const { return told_; }

 private:
  std::int32_t create(std::int32_t backend, Her2CudaError* error);
  std::int32_t take_streams(const Her2JpegBatch& batch, std::uint8_t* out,
                            Her2CudaError* error);
  nvjpeg::Status decode_items(std::size_t first, std::size_t count, cudaStream_t stream);
  std::int32_t name_item(nvjpeg::Status result, cudaStream_t stream,
                         Her2CudaError* error);
  std::int32_t land(Her2CudaError* error);

  nvjpeg::Functions nvjpeg_;
  Her2JpegDecoder told_{};
  nvjpeg::Handle handle_ = nullptr;
  nvjpeg::State state_ = nullptr;
  nvjpeg::Stream header_ = nullptr;  // for questions about one stream
  cudaEvent_t done_ = nullptr;       // behind the last batch
  bool in_flight_ = false;
  std::size_t ready_for_ = 0;  // items a batch; 0 after a failure
  std::vector<std::vector<std::byte>> streams_;
  std::vector<const unsigned char*> data_;
  std::vector<std::size_t> sizes_;
  std::vector<nvjpeg::Image> images_;
};

std::int32_t Decoder::create(std::int32_t backend, Her2CudaError* error) {
  const bool engine = backend == HER2_CUDA_JPEG_ENGINE;
  const nvjpeg::Status result =
      nvjpeg_.create(engine ? nvjpeg::kHardware : nvjpeg::kGpuHybrid, nullptr, nullptr,
                     nvjpeg::kUpsamplingWithInterpolation, &handle_);
  told_.backend = backend;
  if (result == nvjpeg::kSuccess) return HER2_CUDA_OK;
  handle_ = nullptr;
  if (result == nvjpeg::kAllocatorFailure) return status_of(result, "a decoder", error);
  // Without an engine or a driver of its release it says so in several ways, "execution
  // failed" among them: nothing ran that could have been lost.
  return fail(error, HER2_CUDA_NO_DEVICE,
              "nvJPEG %d.%d makes no decoder %s here (status %d): %s", told_.major,
              told_.minor, engine ? "on a JPEG engine" : "by kernels",
              static_cast<int>(result),
              engine ? "this GPU may have none" : "this GPU or driver may be too old");
}

std::int32_t Decoder::open(std::int32_t device, const char* library, std::int32_t backend,
                           Her2CudaError* error) {
  if (backend < HER2_CUDA_JPEG_ANY || backend > HER2_CUDA_JPEG_KERNELS) {
    return fail(error, HER2_CUDA_BAD_ARGUMENT, "need a backend of 0 to 2, got %d",
                static_cast<int>(backend));
  }
  told_.device = device;
  const OnDevice on(device, error);
  if (on.status() != HER2_CUDA_OK) return on.status();
  NvjpegLibrary opened;
  std::int32_t status = open_nvjpeg(library, &opened, error);
  if (status != HER2_CUDA_OK) return status;
  nvjpeg_ = opened.functions;
  std::snprintf(told_.library, sizeof told_.library, "%s", opened.path.c_str());
  told_.major = opened.major;
  told_.minor = opened.minor;
  told_.patch = opened.patch;
  status = create(
      backend == HER2_CUDA_JPEG_KERNELS ? HER2_CUDA_JPEG_KERNELS : HER2_CUDA_JPEG_ENGINE,
      error);
  // Most GPUs have no engine, and say so in more than one way.
  if (status == HER2_CUDA_NO_DEVICE && backend == HER2_CUDA_JPEG_ANY) {
    status = create(HER2_CUDA_JPEG_KERNELS, error);
  }
  if (status != HER2_CUDA_OK) return status;
  status = status_of(nvjpeg_.state_create(handle_, &state_), "a decoder's state", error);
  if (status != HER2_CUDA_OK) return status;
  status = status_of(nvjpeg_.stream_create(handle_, &header_), "a parser", error);
  if (status != HER2_CUDA_OK) return status;
  return status_of(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), error);
}

/// Waits for the batch before, whose bytes and state the next one takes.
std::int32_t Decoder::land(Her2CudaError* error) {
  if (!in_flight_) return HER2_CUDA_OK;
  in_flight_ = false;
  return status_of(cudaEventSynchronize(done_), error);
}

std::int32_t Decoder::take_streams(const Her2JpegBatch& batch, std::uint8_t* out,
                                   Her2CudaError* error) {
  const auto n = static_cast<std::size_t>(batch.n);
  if (streams_.size() < n) streams_.resize(n);
  data_.resize(n);
  sizes_.resize(n);
  images_.assign(n, {});
  const std::span tables(reinterpret_cast<const std::byte*>(batch.tables),
                         static_cast<std::size_t>(batch.tables_size));
  const auto pitch = static_cast<std::size_t>(3 * batch.width);
  for (std::size_t i = 0; i < n; ++i) {
    const std::span stream(reinterpret_cast<const std::byte*>(batch.streams[i]),
                           static_cast<std::size_t>(batch.sizes[i]));
    std::string wrong =
        io::whole_jpeg(tables, stream, batch.width, batch.height, streams_[i]);
    data_[i] = reinterpret_cast<const unsigned char*>(streams_[i].data());
    sizes_[i] = streams_[i].size();
    images_[i].channel[0] = out + i * pitch * static_cast<std::size_t>(batch.height);
    images_[i].pitch[0] = pitch;
    if (wrong.empty() && told_.backend == HER2_CUDA_JPEG_ENGINE) {
      int refused = 1;  // 0 is yes
      if (nvjpeg_.parse_header(handle_, data_[i], sizes_[i], header_) != 0 ||
          nvjpeg_.batch_supported(handle_, header_, &refused) != 0 || refused != 0) {
        wrong = "the JPEG engine does not take it; use a decoder by kernels";
      }
    }
    if (!wrong.empty()) {
      return fail(error, HER2_CUDA_BAD_ARGUMENT, "item %lld: %s",
                  static_cast<long long>(i), wrong.c_str());
    }
  }
  return HER2_CUDA_OK;
}

nvjpeg::Status Decoder::decode_items(std::size_t first, std::size_t count,
                                     cudaStream_t stream) {
  nvjpeg::Status result = nvjpeg::kSuccess;
  if (ready_for_ != count) {
    result = nvjpeg_.batch_initialize(handle_, state_, static_cast<int>(count),
                                      kHostThreads, nvjpeg::kRgbInterleaved);
  }
  ready_for_ = 0;
  if (result != nvjpeg::kSuccess) return result;
  result = nvjpeg_.batch_decode(handle_, state_, data_.data() + first,
                                sizes_.data() + first, images_.data() + first, stream);
  if (result == nvjpeg::kSuccess) ready_for_ = count;
  return result;
}

/// A batch has one verdict: the item is found by decoding each by itself.
std::int32_t Decoder::name_item(nvjpeg::Status result, cudaStream_t stream,
                                Her2CudaError* error) {
  const std::int32_t status = status_of(result, "a batch", error);
  if (status != HER2_CUDA_BAD_ARGUMENT) return status;
  for (std::size_t i = 0; i < data_.size(); ++i) {
    const nvjpeg::Status alone = decode_items(i, 1, stream);
    if (alone == nvjpeg::kSuccess) continue;
    const std::string item = "item " + std::to_string(i);
    return status_of(alone, item.c_str(), error);
  }
  return status;
}

std::int32_t Decoder::decode(const Her2JpegBatch& batch, std::uint8_t* out, void* stream,
                             Her2CudaError* error) {
  std::int32_t status = check(batch, error);
  if (status != HER2_CUDA_OK || batch.n == 0) return status;
  const OnDevice on({out}, error);
  if (on.status() != HER2_CUDA_OK) return on.status();
  int device = 0;
  status = status_of(cudaGetDevice(&device), error);
  if (status != HER2_CUDA_OK) return status;
  if (device != told_.device) {
    return fail(error, HER2_CUDA_BAD_ARGUMENT,
                "need memory of GPU %d, which has the decoder, got that of %d",
                static_cast<int>(told_.device), device);
  }
  status = land(error);
  if (status == HER2_CUDA_OK) status = take_streams(batch, out, error);
  if (status != HER2_CUDA_OK) return status;
  const auto queue = static_cast<cudaStream_t>(stream);
  if (told_.backend == HER2_CUDA_JPEG_ENGINE) {
    // The engine writes when the call is made, even where the stream waits for something
    // (seen on H100 with nvJPEG 12.3 to 13.2:
    // github.com/meta-pytorch/torchcodec/pull/1634).
    status = status_of(cudaStreamSynchronize(queue), error);
    if (status != HER2_CUDA_OK) return status;
  }
  const nvjpeg::Status result = decode_items(0, data_.size(), queue);
  status = result == nvjpeg::kSuccess ? HER2_CUDA_OK : name_item(result, queue, error);
  // Also behind a failure: something of the batch may be on its way.
  const std::int32_t recorded =
      status_of(cudaEventRecord(done_, queue), status == HER2_CUDA_OK ? error : nullptr);
  in_flight_ = recorded == HER2_CUDA_OK;
  return status != HER2_CUDA_OK ? status : recorded;
}

}  // namespace

std::int32_t jpeg_decoder_create(std::int32_t device, const char* library,
                                 std::int32_t backend, void** out, Her2CudaError* error) {
  *out = nullptr;
  return guarded(error, [&] {
    auto decoder = std::make_unique<Decoder>();
    const std::int32_t status = decoder->open(device, library, backend, error);
    if (status == HER2_CUDA_OK) *out = decoder.release();
    return status;
  });
}

std::int32_t jpeg_decoder_describe(void* decoder, Her2JpegDecoder* out, Her2CudaError*) {
  *out = static_cast<const Decoder*>(decoder)->told();
  return HER2_CUDA_OK;
}

std::int32_t jpeg_decoder_destroy(void* decoder, Her2CudaError*) {
  delete static_cast<Decoder*>(decoder);
  return HER2_CUDA_OK;
}

std::int32_t jpeg_decode(void* decoder, const Her2JpegBatch* batch, std::uint8_t* out,
                         void* stream, Her2CudaError* error) {
  return guarded(error, [&] {
    return static_cast<Decoder*>(decoder)->decode(*batch, out, stream, error);
  });
}

}  // namespace her2fast::cuda
