// SPDX-License-Identifier: Apache-2.0
/// DLPack capsules, read and made: only for arrays on a GPU that no library at hand
/// reads for us. Host arrays go through NumPy.
///
/// Layouts of the two tensors, names of the capsules and who deletes what:
/// https://dmlc.github.io/dlpack/latest/c_api.html and .../python_spec.html.
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "bindings.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace her2fast::bindings {
namespace {

struct DlDevice {
  std::int32_t type, id;
};

struct DlType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};

struct DlTensor {
  void* data;
  DlDevice device;
  std::int32_t ndim;
  DlType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: contiguous
  std::uint64_t byte_offset;
};

struct Managed {  // the first form, "dltensor"
  DlTensor tensor;
  void* context;
  void (*deleter)(Managed*);
};

struct Versioned {  // since 1.0, "dltensor_versioned"
  std::uint32_t major, minor;
  void* context;
  void (*deleter)(Versioned*);
  std::uint64_t flags;
  DlTensor tensor;
};

constexpr const char* kManaged = "dltensor";
constexpr const char* kVersioned = "dltensor_versioned";
constexpr std::uint64_t kReadOnly = 1;
constexpr std::int32_t kMaxDimensions = 64;
// DLPack's type codes by the letter of NumPy's type strings.
constexpr std::pair<char, std::uint8_t> kLetters[] = {
    {'i', 0}, {'u', 1}, {'f', 2}, {'b', 6}};

/// An array that came in a capsule; gives it back when it dies.
struct DlpackView {
  std::unique_ptr<Managed, void (*)(Managed*)> managed{nullptr, nullptr};
  std::unique_ptr<Versioned, void (*)(Versioned*)> versioned{nullptr, nullptr};
  const DlTensor& tensor() const { return managed ? managed->tensor : versioned->tensor; }
};

template <typename Tensor>
std::unique_ptr<Tensor, void (*)(Tensor*)> take(PyObject* capsule, const char* name,
                                                const char* used) {
  auto* tensor = static_cast<Tensor*>(PyCapsule_GetPointer(capsule, name));
  if (tensor == nullptr) throw py::error_already_set();
  // Renamed, the capsule no longer deletes: that is ours now.
  if (PyCapsule_SetName(capsule, used) != 0) throw py::error_already_set();
  return {tensor, [](Tensor* t) {
            if (t->deleter != nullptr) t->deleter(t);
          }};
}

DlpackView read_capsule(const py::object& capsule) {
  DlpackView view;
  if (PyCapsule_IsValid(capsule.ptr(), kVersioned) != 0) {
    view.versioned =
        take<Versioned>(capsule.ptr(), kVersioned, "used_dltensor_versioned");
    if (view.versioned->major != 1) {
      // Another major version may lay the rest out anew; only the deleter is where it
      // was.
      throw std::invalid_argument("need DLPack 1, got " +
                                  std::to_string(view.versioned->major));
    }
  } else if (PyCapsule_IsValid(capsule.ptr(), kManaged) != 0) {
    view.managed = take<Managed>(capsule.ptr(), kManaged, "used_dltensor");
  } else {
    throw std::invalid_argument("need a DLPack capsule that nobody has used");
  }
  const std::int32_t ndim = view.tensor().ndim;
  if (ndim < 0 || ndim > kMaxDimensions) {
    throw std::invalid_argument("need 0 to 64 dimensions, got " + std::to_string(ndim));
  }
  return view;
}

std::string type_string(const DlType& type) {
  for (const auto& [letter, code] : kLetters) {
    if (code == type.code && type.lanes == 1 && type.bits % 8 == 0) {
      return (type.bits == 8 ? "|" : "<") + std::string(1, letter) +
             std::to_string(type.bits / 8);
    }
  }
  throw std::invalid_argument("need elements of a type that NumPy has, got DLPack's " +
                              std::to_string(type.code) + " of " +
                              std::to_string(type.bits) + " bits x " +
                              std::to_string(type.lanes));
}

/// What a capsule of ours points to: the tensor, its shape, and who owns the memory.
template <typename Tensor>
struct Exported {
  Tensor tensor{};
  std::vector<std::int64_t> shape, strides;
  py::object owner;

  static void drop(Tensor* tensor) {
    const py::gil_scoped_acquire locked;  // consumers delete from any thread
    delete static_cast<Exported*>(tensor->context);
  }
  static void drop_capsule(PyObject* capsule) {
    const char* name = PyCapsule_GetName(capsule);
    if (name == nullptr || std::strncmp(name, "used", 4) == 0) return;
    auto* tensor = static_cast<Tensor*>(PyCapsule_GetPointer(capsule, name));
    if (tensor != nullptr) drop(tensor);
  }
};

template <typename Tensor>
py::object export_as(const char* name, std::uintptr_t pointer,
                     std::vector<std::int64_t> shape, std::vector<std::int64_t> strides,
                     DlType type, DlDevice device, const py::object& owner) {
  auto made = std::make_unique<Exported<Tensor>>();
  made->shape = std::move(shape);
  made->strides = std::move(strides);
  made->owner = owner;
  if constexpr (std::is_same_v<Tensor, Versioned>) made->tensor.major = 1;
  made->tensor.tensor = {reinterpret_cast<void*>(pointer),
                         device,
                         static_cast<std::int32_t>(made->shape.size()),
                         type,
                         made->shape.data(),
                         made->strides.data(),
                         0};
  made->tensor.context = made.get();
  made->tensor.deleter = &Exported<Tensor>::drop;
  PyObject* capsule = PyCapsule_New(&made->tensor, name, &Exported<Tensor>::drop_capsule);
  if (capsule == nullptr) throw py::error_already_set();
  made.release();
  return py::reinterpret_steal<py::object>(capsule);
}

}  // namespace

py::object make_dlpack(std::uintptr_t pointer, std::vector<std::int64_t> shape,
                       std::vector<std::int64_t> strides, const std::string& typestr,
                       std::pair<int, int> device, const py::object& owner,
                       bool versioned) {
  if (shape.size() != strides.size()) {
    throw std::invalid_argument("need a stride for each of " +
                                std::to_string(shape.size()) + " dimensions, got " +
                                std::to_string(strides.size()));
  }
  const py::dtype dtype(typestr);
  const DlDevice place{device.first, device.second};
  for (const auto& [letter, code] : kLetters) {
    if (letter != dtype.kind()) continue;
    const DlType type{code, static_cast<std::uint8_t>(8 * dtype.itemsize()), 1};
    return versioned ? export_as<Versioned>(kVersioned, pointer, std::move(shape),
                                            std::move(strides), type, place, owner)
                     : export_as<Managed>(kManaged, pointer, std::move(shape),
                                          std::move(strides), type, place, owner);
  }
  throw std::invalid_argument("need integers, floats or bool, got " + typestr);
}

void bind_dlpack(py::module_& m) {
  py::class_<DlpackView>(m, "DlpackView")
      .def_property_readonly("pointer",
                             [](const DlpackView& self) {
                               const DlTensor& t = self.tensor();
                               return reinterpret_cast<std::uintptr_t>(t.data) +
                                      t.byte_offset;
                             })
      .def_property_readonly("shape",
                             [](const DlpackView& self) {
                               const DlTensor& t = self.tensor();
                               return py::tuple(py::cast(
                                   std::vector<std::int64_t>(t.shape, t.shape + t.ndim)));
                             })
      .def_property_readonly(
          "strides",
          [](const DlpackView& self) -> py::object {
            const DlTensor& t = self.tensor();
            if (t.strides == nullptr) return py::none();
            std::vector<std::int64_t> bytes(t.strides, t.strides + t.ndim);
            for (std::int64_t& step : bytes) step *= t.dtype.bits / 8;
            return py::tuple(py::cast(bytes));
          },
          "In bytes, as NumPy has them; None: C-contiguous.")
      .def_property_readonly(
          "typestr",
          [](const DlpackView& self) { return type_string(self.tensor().dtype); })
      .def_property_readonly("device",
                             [](const DlpackView& self) {
                               const DlDevice& d = self.tensor().device;
                               return py::make_tuple(d.type, d.id);
                             })
      .def_property_readonly("read_only", [](const DlpackView& self) {
        return self.versioned && (self.versioned->flags & kReadOnly) != 0;
      });
  m.def("read_dlpack", &read_capsule, "capsule"_a);
  m.def("make_dlpack", &make_dlpack, "pointer"_a, "shape"_a, "strides"_a, "typestr"_a,
        "device"_a, "owner"_a, "versioned"_a);
}

}  // namespace her2fast::bindings
