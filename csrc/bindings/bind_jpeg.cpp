// SPDX-License-Identifier: Apache-2.0
/// Batches of JPEG streams to pixels: by the reader's decoder, and by nvJPEG on a GPU.
/// Streams are Python's bytes, read where they lie.
#include <algorithm>
#include <array>
#include <mutex>
#include <span>
#include <string_view>

#include "bindings.h"
#include "core/cuda_library.h"
#include "io/codec/jpeg.h"
#include "io/codec/jpeg_whole.h"
#include "session/nvjpeg_slide.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace her2fast::bindings {
namespace {

using Streams = std::vector<py::bytes>;

std::vector<std::string_view> views_of(const Streams& streams) {
  return {streams.begin(), streams.end()};
}

Array<std::uint8_t> jpeg_decode(const Streams& streams, const py::bytes& tables,
                                std::int64_t height, std::int64_t width, bool rgb) {
  constexpr std::int64_t kMost = io::kMaxJpegSidePx;
  if (height < 1 || width < 1 || height > kMost || width > kMost) {
    throw std::invalid_argument("need 1 to " + std::to_string(kMost) +
                                " px a side, got " + std::to_string(width) + " x " +
                                std::to_string(height));
  }
  const std::vector<std::string_view> items = views_of(streams);
  const std::string_view shared = tables;
  Array<std::uint8_t> out(
      {static_cast<std::int64_t>(items.size()), height, width, std::int64_t{3}});
  std::uint8_t* const pixels = out.mutable_data();
  const py::gil_scoped_release unlocked;
  io::JpegDecoder decoder;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i) * height * width * 3;
    const TileStatus status = decoder.decode(
        std::as_bytes(std::span(shared)), std::as_bytes(std::span(items[i])),
        rgb ? io::JpegColor::kRgb : io::JpegColor::kYCbCr, width, height, 1,
        {pixels + at, height, width, 3});
    if (status != TileStatus::kOk) {
      throw std::invalid_argument("item " + std::to_string(i) + ": need a JPEG of " +
                                  std::to_string(width) + " x " + std::to_string(height) +
                                  " px, 3 components, without damage");
    }
  }
  return out;
}

/// HER2_CUDA_JPEG_ANY, _ENGINE or _KERNELS.
std::int32_t backend_of(const std::string& name) {
  constexpr std::array<std::string_view, 3> kBackends{"auto", "engine", "kernels"};
  const auto found = std::find(kBackends.begin(), kBackends.end(), name);
  if (found == kBackends.end()) {
    throw std::invalid_argument(R"(need backend "auto", "engine" or "kernels", got ")" +
                                name + '"');
  }
  return static_cast<std::int32_t>(found - kBackends.begin());
}

/// Of one thread at a time, by the GIL and a lock of its own.
class CudaJpegDecoder {
 public:
  CudaJpegDecoder(std::int32_t device, const std::string& library,
                  const std::string& backend) {
    const std::int32_t which = backend_of(backend);
    const py::gil_scoped_release unlocked;
    call_cuda("jpeg_decoder", table_.jpeg_decoder_create, device, library.c_str(), which,
              &decoder_);
    call_cuda("jpeg_decoder", table_.jpeg_decoder_describe, decoder_, &told_);
  }
  ~CudaJpegDecoder() {
    const py::gil_scoped_release unlocked;  // it waits for its last batch
    table_.jpeg_decoder_destroy(decoder_, nullptr);
  }
  CudaJpegDecoder(const CudaJpegDecoder&) = delete;
  CudaJpegDecoder& operator=(const CudaJpegDecoder&) = delete;

  const Her2JpegDecoder& told() const { return told_; }

  void decode(const Streams& streams, const py::bytes& tables, std::int64_t height,
              std::int64_t width, bool rgb, std::uintptr_t out, std::uintptr_t stream) {
    const std::string_view shared = tables;
    std::vector<const std::uint8_t*> data;
    std::vector<std::uint64_t> sizes;
    for (const std::string_view item : views_of(streams)) {
      data.push_back(reinterpret_cast<const std::uint8_t*>(item.data()));
      sizes.push_back(item.size());
    }
    Her2JpegBatch batch{};
    batch.streams = data.data();
    batch.sizes = sizes.data();
    batch.tables = reinterpret_cast<const std::uint8_t*>(shared.data());
    batch.tables_size = shared.size();
    batch.n = static_cast<std::int64_t>(data.size());
    batch.height = height;
    batch.width = width;
    batch.color = rgb ? HER2_CUDA_JPEG_RGB : HER2_CUDA_JPEG_YCBCR;
    const py::gil_scoped_release unlocked;
    const std::lock_guard lock(mutex_);
    call_cuda("jpeg_decode", table_.jpeg_decode, decoder_, &batch,
              reinterpret_cast<std::uint8_t*>(out), reinterpret_cast<void*>(stream));
  }

 private:
  const Her2CudaTable& table_ = cuda_table();  // another may be opened later
  void* decoder_ = nullptr;
  Her2JpegDecoder told_{};
  std::mutex mutex_;
};

}  // namespace

void bind_jpeg(py::module_& m) {
  m.def("jpeg_decode", &jpeg_decode, "streams"_a, "tables"_a, "height"_a, "width"_a,
        "rgb"_a);
  py::module_ cuda = m.def_submodule("cuda");
  py::class_<CudaJpegDecoder>(cuda, "JpegDecoder")
      .def(py::init<std::int32_t, const std::string&, const std::string&>(),
           "device"_a = 0, "library"_a = "", "backend"_a = "auto")
      .def_property_readonly("library",
                             [](const CudaJpegDecoder& d) { return d.told().library; })
      .def_property_readonly("version",
                             [](const CudaJpegDecoder& d) {
                               const Her2JpegDecoder& told = d.told();
                               return py::make_tuple(told.major, told.minor, told.patch);
                             })
      .def_property_readonly(
          "backend",
          [](const CudaJpegDecoder& d) {
            return d.told().backend == HER2_CUDA_JPEG_ENGINE ? "engine" : "kernels";
          })
      .def_property_readonly("device",
                             [](const CudaJpegDecoder& d) { return d.told().device; });
  py::class_<NvjpegDecoders, std::shared_ptr<NvjpegDecoders>>(cuda, "NvjpegDecoders")
      .def(py::init([](std::int32_t device, const std::string& library,
                       const std::string& backend) {
             const NvjpegOptions options{device, library, backend_of(backend)};
             const py::gil_scoped_release unlocked;
             return std::make_shared<NvjpegDecoders>(options);
           }),
           "device"_a = 0, "library"_a = "", "backend"_a = "auto");
  py::class_<NvjpegSlide, Slide, std::shared_ptr<NvjpegSlide>>(cuda, "NvjpegSlide")
      .def(py::init([](const std::shared_ptr<Slide>& slide,
                       const std::shared_ptr<NvjpegDecoders>& decoders) {
             return std::make_shared<NvjpegSlide>(slide, decoders);
           }),
           "slide"_a, "decoders"_a)
      .def_property_readonly("counts", [](const NvjpegSlide& slide) {
        const NvjpegSlide::Counts counts = slide.counts();
        return py::dict("tiles"_a = counts.tiles, "batches"_a = counts.batches,
                        "on_cpu"_a = counts.on_cpu);
      });
  cuda.def(
      "jpeg_decode",
      [](CudaJpegDecoder& decoder, const Streams& streams, const py::bytes& tables,
         std::int64_t height, std::int64_t width, bool rgb, std::uintptr_t out,
         std::uintptr_t stream) {
        decoder.decode(streams, tables, height, width, rgb, out, stream);
      },
      "decoder"_a, "streams"_a, "tables"_a, "height"_a, "width"_a, "rgb"_a, "out"_a,
      "stream"_a);
}

}  // namespace her2fast::bindings
