// SPDX-License-Identifier: Apache-2.0
#include "kernels/check.h"

namespace her2fast {

void check_device(Device device, const char* operation) {
  if (device == Device::kCpu) return;
  throw DeviceError(std::string(operation) +
                    ": this build has no CUDA library; choose device=\"cpu\"");
}

}  // namespace her2fast
