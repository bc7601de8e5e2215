// SPDX-License-Identifier: Apache-2.0
#include "kernels/check.h"

namespace her2fast {

void check_device(Device device, const char* operation) {
  if (device == Device::kCpu) return;
  throw DeviceError(std::string(operation) +
                    ": this build has no CUDA library; choose device=\"cpu\"");
}

void check_workers(int workers) {
  if (workers >= 1 && workers <= 1024) return;
  throw std::invalid_argument("need 1 <= workers <= 1024, got " +
                              std::to_string(workers));
}

}  // namespace her2fast
