// SPDX-License-Identifier: Apache-2.0
/// libher2fast_cuda for Python: device pointers and streams are integers, as in
/// `__cuda_array_interface__`. Shapes are the caller's word; her2fast.kernels.on_cuda
/// checks.
#include <array>

#include "bindings.h"
#include "core/cuda_library.h"
#include "her2fast/constraint_select.h"
#include "kernels/membrane_device.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace her2fast::bindings {
namespace {

using Address = std::uintptr_t;

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

std::int32_t device_count() {
  std::int32_t count = 0;
  call_cuda("devices", cuda_table().count_devices, &count);
  return count;
}

std::vector<py::dict> devices() {
  const std::int32_t count = device_count();
  std::vector<py::dict> out;
  for (std::int32_t i = 0; i < count; ++i) {
    Her2CudaDevice device{};
    call_cuda("devices", cuda_table().describe_device, i, &device);
    out.emplace_back(py::dict("name"_a = device.name,
                              "capability"_a = py::make_tuple(device.major, device.minor),
                              "multiprocessors"_a = device.multiprocessors,
                              "driver"_a = device.driver, "runtime"_a = device.runtime,
                              "memory_bytes"_a = device.memory_bytes,
                              "free_bytes"_a = device.free_bytes));
  }
  return out;
}

void normalize_batch(Address rgb, std::int64_t n, std::int64_t height, std::int64_t width,
                     const std::array<float, 3>& mean, const std::array<float, 3>& std,
                     bool half, Address out, Address stream) {
  call_cuda("normalize_batch", cuda_table().normalize_batch, at<const std::uint8_t>(rgb),
            n, height, width, mean.data(), std.data(), std::int32_t{half}, at<void>(out),
            at<void>(stream));
}

using White = std::array<std::uint8_t, 3>;

void tumor_count(Address mask, std::int64_t n, std::int64_t height, std::int64_t width,
                 std::int32_t patch_px, std::int32_t stride_px, Address out,
                 Address stream) {
  call_cuda("tumor_count", cuda_table().tumor_count, at<const std::uint8_t>(mask), n,
            height, width, patch_px, stride_px, at<std::uint32_t>(out), at<void>(stream));
}

void stain_unmix(Address rgb, std::int64_t pixels, const White& white,
                 const std::array<std::array<double, 3>, 3>& stains, Address out,
                 Address stream) {
  call_cuda("stain_unmix", cuda_table().stain_unmix, at<const std::uint8_t>(rgb), pixels,
            white.data(), stains[0].data(), at<float>(out), at<void>(stream));
}

void tissue_mask(Address rgb, std::int64_t n, std::int64_t height, std::int64_t width,
                 const White& white, Address out, Address stream) {
  call_cuda("tissue_mask", cuda_table().tissue_mask, at<const std::uint8_t>(rgb), n,
            height, width, white.data(), at<std::uint8_t>(out), at<void>(stream));
}

std::uint64_t constraint_select_scratch_bytes(std::int64_t patches, std::int64_t slides,
                                              std::int32_t device) {
  std::uint64_t bytes = 0;
  call_cuda("constraint_select", cuda_table().constraint_select_scratch_bytes, device,
            patches, slides, &bytes);
  return bytes;
}

void constraint_select(Address logits, Address tumor_px,
                       const Array<std::int64_t>& offsets,
                       const Array<std::int64_t>& labels, const FractionLimits& limits,
                       const std::string& neighbors, Address action, Address class_id,
                       Address admissible, Address slides, Address fault, Address scratch,
                       std::uint64_t scratch_bytes, Address stream) {
  if (offsets.ndim() != 1 || labels.ndim() != 1 || offsets.size() != labels.size() + 1) {
    throw std::invalid_argument(
        "need one offset more than labels, each of one dimension");
  }
  Her2FractionLimits plain;
  std::copy_n(limits.lower_permille.data(), kScores, plain.lower_permille);
  std::copy_n(limits.upper_permille[0].data(), kScores * kScores,
              &plain.upper_permille[0][0]);
  const auto classes = static_cast<std::int32_t>(parse_admissible(neighbors));
  const std::int64_t patches = offsets.data()[labels.size()];
  const std::int64_t* first = offsets.data();
  const std::int64_t* label = labels.data();
  const std::int64_t count = labels.size();
  const py::gil_scoped_release unlocked;
  call_cuda("constraint_select", cuda_table().constraint_select, at<const float>(logits),
            at<const std::uint32_t>(tumor_px), patches, first, label, count, &plain,
            classes, at<std::uint8_t>(action), at<std::int8_t>(class_id),
            at<std::uint8_t>(admissible), at<Her2SlideConstraints>(slides),
            at<std::int64_t>(fault), at<void>(scratch), scratch_bytes, at<void>(stream));
}

void tumor_bits(Address logits, Address tissue, std::int64_t n, std::int32_t channels,
                std::int32_t halo_px, std::int32_t tile_px, std::int32_t patch_px,
                float threshold, Address bits, Address counts, Address fault,
                Address stream) {
  const Her2TumorRule rule{channels, halo_px, tile_px, patch_px, threshold};
  call_cuda("tumor_bits", cuda_table().tumor_bits, at<const float>(logits),
            at<const std::uint64_t>(tissue), n, &rule, at<std::uint64_t>(bits),
            at<std::uint32_t>(counts), at<std::int32_t>(fault), at<void>(stream));
}

/// A batch that was labeled: where its results will be, in the caller's scratch.
struct MembraneBatch {
  Her2MembraneResults results;
  std::int64_t n, height, width;
  bool has_density;
  Address stream;
};

std::uint64_t membrane_label_scratch_bytes(std::int64_t n, std::int64_t height,
                                           std::int64_t width, std::int32_t device) {
  std::uint64_t bytes = 0;
  call_cuda("membrane_label", cuda_table().membrane_label_scratch_bytes, device, n,
            height, width, &bytes);
  return bytes;
}

MembraneBatch membrane_label(Address mask, Address density, std::int64_t n,
                             std::int64_t height, std::int64_t width, Address nuclei,
                             std::int64_t nuclei_count, Address scratch,
                             std::uint64_t scratch_bytes, Address stream) {
  MembraneBatch out{{}, n, height, width, density != 0, stream};
  call_cuda("membrane_label", cuda_table().membrane_label, at<const std::uint8_t>(mask),
            at<const std::uint8_t>(density), n, height, width,
            at<const std::int32_t>(nuclei), nuclei_count, at<void>(scratch),
            scratch_bytes, &out.results, at<void>(stream));
  return out;
}

std::vector<MembraneTile> tiles(const MembraneBatch& batch, std::int32_t device) {
  return membrane_tiles(cuda_table(), batch.results, batch.n, batch.height, batch.width,
                        batch.has_density, device, at<void>(batch.stream));
}

}  // namespace

void bind_cuda(py::module_& parent) {
  py::module_ m = parent.def_submodule("cuda");
  const auto unlocked = py::call_guard<py::gil_scoped_release>();
  m.def("set_library", &set_cuda_library, "path"_a);
  m.def("has_library", &has_cuda_library, unlocked);
  // Describing asks each GPU for its memory, which makes a context there.
  m.def("device_count", &device_count, unlocked);
  m.def("devices", &devices);
  m.def(
      "allocate",
      [](std::uint64_t bytes, std::int32_t device) {
        void* memory = nullptr;
        call_cuda("allocate", cuda_table().allocate, device, bytes, &memory);
        return reinterpret_cast<Address>(memory);
      },
      "bytes"_a, "device"_a = 0, unlocked);
  m.def(
      "release",
      [](Address memory) {
        call_cuda("release", cuda_table().release, at<void>(memory));
      },
      "memory"_a, unlocked);
  m.def(
      "copy",
      [](Address to, Address from, std::uint64_t bytes, std::int32_t kind,
         Address stream) {
        call_cuda("copy", cuda_table().copy, at<void>(to), at<const void>(from), bytes,
                  kind, at<void>(stream));
      },
      "to"_a, "from_"_a, "bytes"_a, "kind"_a, "stream"_a = 0, unlocked);
  m.attr("TO_DEVICE") = static_cast<int>(HER2_CUDA_TO_DEVICE);
  m.attr("TO_HOST") = static_cast<int>(HER2_CUDA_TO_HOST);
  m.attr("WITHIN") = static_cast<int>(HER2_CUDA_WITHIN);
  m.def(
      "synchronize",
      [](Address stream, std::int32_t device) {
        call_cuda("synchronize", cuda_table().synchronize, device, at<void>(stream));
      },
      "stream"_a = 0, "device"_a = 0, unlocked);
  m.def("normalize_batch", &normalize_batch, "rgb"_a, "n"_a, "height"_a, "width"_a,
        "mean"_a, "std"_a, "half"_a, "out"_a, "stream"_a, unlocked);
  m.def("tumor_count", &tumor_count, "mask"_a, "n"_a, "height"_a, "width"_a, "patch_px"_a,
        "stride_px"_a, "out"_a, "stream"_a, unlocked);
  m.def("stain_unmix", &stain_unmix, "rgb"_a, "pixels"_a, "white"_a, "stains"_a, "out"_a,
        "stream"_a, unlocked);
  m.def("tissue_mask", &tissue_mask, "rgb"_a, "n"_a, "height"_a, "width"_a, "white"_a,
        "out"_a, "stream"_a, unlocked);
  m.def("tumor_bits", &tumor_bits, "logits"_a, "tissue"_a, "n"_a, "channels"_a,
        "halo_px"_a, "tile_px"_a, "patch_px"_a, "threshold"_a, "bits"_a, "counts"_a,
        "fault"_a, "stream"_a, unlocked);
  m.attr("SLIDE_WORDS") = sizeof(Her2SlideConstraints) / sizeof(std::int64_t);
  m.def("constraint_select_scratch_bytes", &constraint_select_scratch_bytes, "patches"_a,
        "slides"_a, "device"_a = 0);
  m.def("constraint_select", &constraint_select, "logits"_a, "tumor_px"_a,
        "offsets"_a.noconvert(), "labels"_a.noconvert(), "limits"_a, "neighbors"_a,
        "action"_a, "class_id"_a, "admissible"_a, "slides"_a, "fault"_a, "scratch"_a,
        "scratch_bytes"_a, "stream"_a);
  py::class_<MembraneBatch>(m, "MembraneBatch")
      .def("tiles", &tiles, "device"_a = 0, unlocked);
  m.def("membrane_label_scratch_bytes", &membrane_label_scratch_bytes, "n"_a, "height"_a,
        "width"_a, "device"_a = 0);
  m.def("membrane_label", &membrane_label, "mask"_a, "density"_a, "n"_a, "height"_a,
        "width"_a, "nuclei"_a, "nuclei_count"_a, "scratch"_a, "scratch_bytes"_a,
        "stream"_a, unlocked);
}

}  // namespace her2fast::bindings
