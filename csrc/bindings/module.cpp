// SPDX-License-Identifier: Apache-2.0
#include "bindings.h"

PYBIND11_MODULE(_core, m) {
  m.attr("__version__") = HER2FAST_VERSION;
  her2fast::bindings::bind_errors(m);
  her2fast::bindings::bind_kernels(m);
  her2fast::bindings::bind_membrane(m);
  her2fast::bindings::bind_cells(m);
  her2fast::bindings::bind_epithelium(m);
  her2fast::bindings::bind_guideline(m);
  her2fast::bindings::bind_io(m);
  her2fast::bindings::bind_dlpack(m);
  her2fast::bindings::bind_device(m);
  her2fast::bindings::bind_session(m);
  her2fast::bindings::bind_review(m);
  her2fast::bindings::bind_cuda(m);
  her2fast::bindings::bind_jpeg(m);
  her2fast::bindings::bind_resample(m);
}
