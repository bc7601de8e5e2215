// SPDX-License-Identifier: Apache-2.0
#include "bindings.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace her2fast::bindings {

void bind_kernels(py::module_& m) { (void)m; }

}  // namespace her2fast::bindings
