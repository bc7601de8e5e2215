// SPDX-License-Identifier: Apache-2.0
#include "kernels/check.h"

namespace her2fast {

void check_device(Device device, const char* operation) {
  if (device == Device::kCpu) return;
  throw DeviceError(std::string(operation) +
                    ": arrays in host memory run on the CPU; choose device=\"cpu\", or "
                    "pass arrays that lie on a GPU");
}

void check_workers(int workers) {
  if (workers >= 1 && workers <= 1024) return;
  throw std::invalid_argument("need 1 <= workers <= 1024, got " +
                              std::to_string(workers));
}

}  // namespace her2fast
