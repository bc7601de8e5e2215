// SPDX-License-Identifier: Apache-2.0
#include "her2fast/slide.h"

namespace her2fast {

std::string_view spacing_source_name(SpacingSource source) {
  switch (source) {
    case SpacingSource::kUser:
      return "user";
    case SpacingSource::kVendor:
      return "vendor";
    case SpacingSource::kTiffResolution:
      return "tiff-resolution";
    case SpacingSource::kNone:
      return "none";
  }
  return "none";
}

}  // namespace her2fast
