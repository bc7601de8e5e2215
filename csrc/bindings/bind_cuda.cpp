// SPDX-License-Identifier: Apache-2.0
/// libher2fast_cuda for Python: device pointers and streams are integers, as in
/// `__cuda_array_interface__`. Shapes are the caller's word; her2fast.kernels.cuda
/// checks.
#include <array>

#include "bindings.h"
#include "core/cuda_library.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace her2fast::bindings {
namespace {

using Address = std::uintptr_t;

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

std::vector<py::dict> devices() {
  std::int32_t count = 0;
  call_cuda("devices", cuda_table().count_devices, &count);
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

}  // namespace

void bind_cuda(py::module_& parent) {
  py::module_ m = parent.def_submodule("cuda");
  const auto unlocked = py::call_guard<py::gil_scoped_release>();
  m.def("set_library", &set_cuda_library, "path"_a);
  m.def("devices", &devices);
  m.def(
      "use_device",
      [](std::int32_t device) {
        call_cuda("use_device", cuda_table().use_device, device);
      },
      "device"_a);
  m.def(
      "allocate",
      [](std::uint64_t bytes) {
        void* memory = nullptr;
        call_cuda("allocate", cuda_table().allocate, bytes, &memory);
        return reinterpret_cast<Address>(memory);
      },
      "bytes"_a, unlocked);
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
      [](Address stream) {
        call_cuda("synchronize", cuda_table().synchronize, at<void>(stream));
      },
      "stream"_a = 0, unlocked);
  m.def("normalize_batch", &normalize_batch, "rgb"_a, "n"_a, "height"_a, "width"_a,
        "mean"_a, "std"_a, "half"_a, "out"_a, "stream"_a, unlocked);
}

}  // namespace her2fast::bindings
