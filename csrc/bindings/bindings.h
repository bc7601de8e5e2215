// SPDX-License-Identifier: Apache-2.0
/// Translation only: view in, release the GIL, call, array out.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "her2fast/bootstrap.h"
#include "her2fast/flip.h"
#include "her2fast/guideline.h"
#include "her2fast/image.h"
#include "her2fast/islands.h"
#include "her2fast/session.h"

namespace her2fast::bindings {

template <typename T>
using Array = pybind11::array_t<T, pybind11::array::c_style>;

/// Rows are whole but may lie apart: part of a larger image is read where it lies.
template <typename T>
using Rows = pybind11::array_t<T, 0>;

/// (H, W) or (H, W, C) as a view; the array must outlive it.
template <typename T, int Flags>
ImageView<const T> view(const pybind11::array_t<T, Flags>& array) {
  if (array.ndim() != 2 && array.ndim() != 3) {
    throw std::invalid_argument("need an array of 2 or 3 dimensions, got " +
                                std::to_string(array.ndim()));
  }
  const pybind11::ssize_t item = sizeof(T);
  const pybind11::ssize_t height = array.shape(0), width = array.shape(1);
  const pybind11::ssize_t channels = array.ndim() == 3 ? array.shape(2) : 1;
  const pybind11::ssize_t row = width * channels * item;
  // NumPy gives an axis of length 0 or 1 any stride.
  const bool apart = array.size() > 0 && height > 1;
  if ((array.size() > 0 && channels > 1 && array.strides(2) != item) ||
      (array.size() > 0 && width > 1 && array.strides(1) != channels * item) ||
      (apart && (array.strides(0) < row || array.strides(0) % item != 0))) {
    throw std::invalid_argument("need rows without gaps, top to bottom");
  }
  return {array.data(), height, width, channels, apart ? array.strides(0) / item : 0};
}

template <typename T>
ImageView<T> mutable_view(Array<T>& array) {
  return {array.mutable_data(), array.shape(0), array.shape(1),
          array.ndim() == 3 ? array.shape(2) : 1};
}

inline Device parse_device(const std::string& name) {
  if (name == "cpu") return Device::kCpu;
  if (name == "cuda" || name.rfind("cuda:", 0) == 0) return Device::kCuda;
  throw std::invalid_argument("need device \"cpu\" or \"cuda\", got \"" + name + "\"");
}

/// The one translation of a guideline decision, shared by decide_guideline and decide.
std::optional<Ish> parse_ish(const std::optional<std::string>& name);
pybind11::dict guideline_to_dict(const GuidelineDecision& decision);

/// What decide() says of how sure it is, shared with the functions that say it alone.
pybind11::dict flip_to_dict(const FlipCertificate& flip);
pybind11::dict bootstrap_to_dict(const Bootstrap& bootstrap);
pybind11::dict islands_to_dict(const IslandFinding& finding);

/// A DLPack capsule of memory that `owner` keeps; `strides` in elements, `device` as
/// DLPack's (type, number).
pybind11::object make_dlpack(std::uintptr_t pointer, std::vector<std::int64_t> shape,
                             std::vector<std::int64_t> strides,
                             const std::string& typestr, std::pair<int, int> device,
                             const pybind11::object& owner, bool versioned);

/// The session and the keep-alive that its batches' arrays hold on to.
struct PatchSession {
  std::shared_ptr<Session> session;
};

void bind_errors(pybind11::module_& m);
void bind_kernels(pybind11::module_& m);
void bind_training_kernels(pybind11::module_& m);
void bind_membrane(pybind11::module_& m);
void bind_cells(pybind11::module_& m);
void bind_epithelium(pybind11::module_& m);
void bind_guideline(pybind11::module_& m);
void bind_io(pybind11::module_& m);
void bind_convert(pybind11::module_& m);
void bind_dlpack(pybind11::module_& m);
void bind_reader(pybind11::module_& m);
void bind_session(pybind11::module_& m);
void bind_device(pybind11::module_& m);
void bind_review(pybind11::module_& m);
void bind_cuda(pybind11::module_& m);
void bind_jpeg(pybind11::module_& m);
void bind_resample(pybind11::module_& m);

}  // namespace her2fast::bindings
