// SPDX-License-Identifier: Apache-2.0
// A slide of a hundred tiles whose sides no tile divides, measured at its own spacing.
#pragma once

#include "her2fast/session.h"

namespace her2fast {

inline PatchMethodSpec small_spec() {
  PatchMethodSpec spec;
  spec.frame = {1500, 1100, Spacing::from_um(1.0), Spacing::from_um(1.0)};
  spec.spacing = Spacing::from_um(1.0);
  spec.patch_px = 32;
  spec.tile_px = 128;
  spec.halo_px = 32;
  spec.class_names = {"0", "1+", "2+", "3+"};
  spec.classify_batch = 5;
  spec.segment_batch = 3;
  return spec;
}

}  // namespace her2fast
