// SPDX-License-Identifier: Apache-2.0
#include "bindings.h"
#include "her2fast/error.h"

namespace py = pybind11;

namespace her2fast::bindings {

/// `Error` becomes her2fast.errors.SlideError(message, code_name); `DeviceError` its
/// namesake.
void bind_errors(py::module_& m) {
  py::list codes;
  for (int i = 0; i < kCodeCount; ++i) {
    const auto code = static_cast<Code>(i);
    codes.append(py::make_tuple(std::string(code_name(code)),
                                std::string(status_name(code_status(code)))));
  }
  m.attr("REASON_CODES") = codes;
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      const py::object type = py::module_::import("her2fast.errors").attr("SlideError");
      const py::object value =
          type(std::string(error.what()), std::string(code_name(error.code())));
      PyErr_SetObject(type.ptr(), value.ptr());
    } catch (const DeviceError& error) {
      const py::object type = py::module_::import("her2fast.errors").attr("DeviceError");
      PyErr_SetString(type.ptr(), error.what());
    }
  });
}

}  // namespace her2fast::bindings
