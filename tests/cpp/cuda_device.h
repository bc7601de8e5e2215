// SPDX-License-Identifier: Apache-2.0
/// What tests of the CUDA kernels share: the library built for the CPU, its "device".
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/cuda_library.h"
#include "kernels/membrane_tile.h"

namespace her2fast {

using Bytes = std::vector<std::uint8_t>;

inline const Her2CudaTable& table() {
  set_cuda_library(CUDA_ON_HOST);
  return cuda_table();
}

/// A function of the stand-in itself.
template <typename Function>
Function* on_host(const char* name) {
  static_cast<void>(table());
  void* handle = dlopen(CUDA_ON_HOST, RTLD_NOW | RTLD_NOLOAD);
  if (handle == nullptr) throw std::runtime_error("the stand-in is not open");
  auto* const found = reinterpret_cast<Function*>(dlsym(handle, name));
  dlclose(handle);
  return found;
}

inline void set_order(int order) { on_host<void(int)>("her2_cuda_on_host_order")(order); }

/// An array on the "device"; as long as asked, so that a sanitizer sees its ends.
template <typename T>
class OnDevice {
 public:
  explicit OnDevice(std::size_t count, std::int32_t device = 0) : count_(count) {
    call_cuda("allocate", table().allocate, device, std::uint64_t{count * sizeof(T)},
              &memory_);
  }
  explicit OnDevice(const std::vector<T>& values, std::int32_t device = 0)
      : OnDevice(values.size(), device) {
    call_cuda("copy", table().copy, memory_, static_cast<const void*>(values.data()),
              std::uint64_t{count_ * sizeof(T)}, std::int32_t{HER2_CUDA_TO_DEVICE},
              static_cast<void*>(nullptr));
  }
  ~OnDevice() { table().release(memory_, nullptr); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  T* get() const { return static_cast<T*>(memory_); }
  std::vector<T> read() const {
    std::vector<T> out(count_);
    call_cuda("copy", table().copy, static_cast<void*>(out.data()),
              static_cast<const void*>(memory_), std::uint64_t{count_ * sizeof(T)},
              std::int32_t{HER2_CUDA_TO_HOST}, static_cast<void*>(nullptr));
    return out;
  }

 private:
  std::size_t count_;
  void* memory_ = nullptr;
};

inline Bytes random_bytes(std::size_t count, std::mt19937& random, double share = 1) {
  Bytes out(count);
  std::bernoulli_distribution set(share);
  for (auto& byte : out) {
    byte = set(random) ? static_cast<std::uint8_t>(random() % 255 + 1) : std::uint8_t{0};
  }
  return out;
}

inline void* const kStream = nullptr;
constexpr std::int32_t kDevice = 0;

class Cuda : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { set_order(GetParam()); }
  std::mt19937 random{7};
};

inline void expect_same(const MembraneSums& a, const MembraneSums& b) {
  EXPECT_EQ(a.first, b.first);
  EXPECT_EQ(0, std::memcmp(&a.box, &b.box, sizeof a.box));
  EXPECT_EQ(a.px, b.px);
  EXPECT_EQ(a.windows.straight, b.windows.straight);
  EXPECT_EQ(a.windows.diagonal, b.windows.diagonal);
  EXPECT_EQ(a.windows.euler4, b.windows.euler4);
}

inline void expect_same(const std::vector<GapSums>& a, const std::vector<GapSums>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].first, b[i].first);
    EXPECT_EQ(0, std::memcmp(&a[i].box, &b[i].box, sizeof a[i].box));
    EXPECT_EQ(a[i].px, b[i].px);
    EXPECT_EQ(a[i].nuclei, b[i].nuclei);
  }
}

inline void expect_same(const TileLabels& a, const TileLabels& b) {
  ASSERT_EQ(a.inner.size(), b.inner.size());
  for (std::size_t i = 0; i < a.inner.size(); ++i) {
    const Membrane &x = a.inner[i], &y = b.inner[i];
    EXPECT_TRUE(x.x == y.x && x.y == y.y && x.px == y.px);
    EXPECT_EQ(0, std::memcmp(&x.box, &y.box, sizeof x.box));
    EXPECT_EQ(x.compartments, y.compartments);
    EXPECT_EQ(x.enclosed_px, y.enclosed_px);
    EXPECT_EQ(x.perimeter_px, y.perimeter_px);
    EXPECT_EQ(x.length_px, y.length_px);
    if (a.has_density) {
      EXPECT_EQ(x.density_mean, y.density_mean);
      EXPECT_EQ(x.density_percentile, y.density_percentile);
    }
  }
  ASSERT_EQ(a.inner_compartments.size(), b.inner_compartments.size());
  for (std::size_t i = 0; i < a.inner_compartments.size(); ++i) {
    const Compartment &x = a.inner_compartments[i], &y = b.inner_compartments[i];
    EXPECT_TRUE(x.x == y.x && x.y == y.y && x.px == y.px && x.nuclei == y.nuclei);
    EXPECT_TRUE(x.membrane_x == y.membrane_x && x.membrane_y == y.membrane_y);
    EXPECT_EQ(0, std::memcmp(&x.box, &y.box, sizeof x.box));
  }
  ASSERT_EQ(a.open.size(), b.open.size());
  for (std::size_t i = 0; i < a.open.size(); ++i) expect_same(a.open[i], b.open[i]);
  EXPECT_EQ(a.histograms, b.histograms);
  expect_same(a.enclosed, b.enclosed);
  EXPECT_EQ(a.enclosed_by, b.enclosed_by);
  expect_same(a.gaps, b.gaps);
  EXPECT_EQ(a.gap_above, b.gap_above);
  EXPECT_EQ(a.sides, b.sides);
}

}  // namespace her2fast
