// SPDX-License-Identifier: Apache-2.0
#include "her2fast/stain_unmix.h"

#include <cmath>

#include "kernels/check.h"
#include "kernels/stain_table.h"

namespace her2fast {

StainMatrix StainMatrix::h_dab() {
  // Ruifrok and Johnston 2001: (0.650, 0.704, 0.286) and (0.268, 0.570, 0.776), made
  // unit; the residual is their normal.
  StainVector hematoxylin{0.650, 0.704, 0.286}, dab{0.268, 0.570, 0.776};
  hematoxylin = scaled(hematoxylin, 1 / std::sqrt(dot(hematoxylin, hematoxylin)));
  dab = scaled(dab, 1 / std::sqrt(dot(dab, dab)));
  const StainVector normal = cross(hematoxylin, dab);
  return {{hematoxylin, dab, scaled(normal, 1 / std::sqrt(dot(normal, normal)))}};
}

void stain_unmix(ImageView<const std::uint8_t> rgb, Rgb white, const StainMatrix& stains,
                 ImageView<float> out, Device device) {
  check_device(device, "stain_unmix");
  check_channels(rgb, 3, "an RGB image");
  check_channels(out, 3, "an output");
  check_same_size(rgb, out, "an output");
  const StainTable table = stain_table(white, stains);
  for (std::int64_t y = 0; y < rgb.height; ++y) {
    const std::uint8_t* in = rgb.row(y);
    float* amounts = out.row(y);
    for (std::int64_t x = 0; x < rgb.width; ++x, in += 3, amounts += 3) {
      const StainAmounts& r = table.amounts[0][in[0]];
      const StainAmounts& g = table.amounts[1][in[1]];
      const StainAmounts& b = table.amounts[2][in[2]];
      for (int s = 0; s < 3; ++s) amounts[s] = r.stain[s] + g.stain[s] + b.stain[s];
    }
  }
}

}  // namespace her2fast
