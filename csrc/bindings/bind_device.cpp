// SPDX-License-Identifier: Apache-2.0
/// Rings of batches on a GPU for Python: pointers and streams are integers, and a model
/// is a callable.
#include <array>

#include "bindings.h"
#include "her2fast/device_ring.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace her2fast::bindings {
namespace {

using Normalization = std::pair<std::array<float, 3>, std::array<float, 3>>;

std::unique_ptr<DeviceRing> make_ring(const std::vector<Normalization>& models,
                                      std::int32_t device, std::int32_t in_flight) {
  std::vector<DeviceModel> out;
  for (const auto& [mean, std] : models) out.push_back({mean, std});
  return std::make_unique<DeviceRing>(std::move(out), DeviceOptions{device, in_flight});
}

/// Exceptions of the callables pass through the ring, which lets nothing in flight.
std::int64_t run(DeviceRing& ring, const PatchSession& session, const py::object& compute,
                 const py::object& free_memory, bool wait) {
  const std::shared_ptr<Session> held = session.session;
  const auto address = [](const void* pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer);
  };
  const DeviceRuntime runtime{
      [&](const DevicePiece& piece) {
        const py::gil_scoped_acquire locked;
        return compute(piece.model, piece.n, piece.height_px, piece.width_px,
                       address(piece.inputs), address(piece.outputs),
                       piece.outputs_per_item, address(piece.stream))
            .cast<bool>();
      },
      [&] {
        const py::gil_scoped_acquire locked;
        free_memory();
      }};
  const py::gil_scoped_release unlocked;
  return ring.run(*held, runtime, wait);
}

}  // namespace

void bind_device(py::module_& m) {
  py::class_<BatchMemory, std::shared_ptr<BatchMemory>>(m, "BatchMemory");
  m.def("pinned_memory", &make_pinned_memory);
  py::class_<DeviceRing>(m, "DeviceRing")
      .def(py::init(&make_ring), "models"_a, "device"_a = 0,
           "in_flight"_a = DeviceOptions{}.in_flight)
      .def("run", &run, "session"_a, "compute"_a, "free_memory"_a, "wait"_a)
      .def_property_readonly("halved", &DeviceRing::halved);
}

}  // namespace her2fast::bindings
