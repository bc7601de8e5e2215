// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "her2fast/image.h"
#include "her2fast/tissue_mask.h"

namespace her2fast {

/// Rows are unit optical-density vectors (R, G, B) of hematoxylin, DAB and the residual
/// (Ruifrok and Johnston 2001, H-DAB; decisions.md K3).
struct StainMatrix {
  std::array<std::array<double, 3>, 3> rows;
  static StainMatrix h_dab();
};

/// Amount of each stain at every pixel, by Beer-Lambert unmixing of optical density.
///
/// @param rgb  (H, W, 3), host memory.
/// @param out  (H, W, 3), host memory; hematoxylin, DAB, residual. Optical density, base
/// 10,
///             dimensionless; negative where the color lies outside the stains' cone.
/// @throws std::invalid_argument  shapes differ, the matrix is singular, a white point of
/// 0. Thread-safe. One definition of optical density: -log10(max(v, 1) / white), through
/// a table.
void stain_unmix(ImageView<const std::uint8_t> rgb, Rgb white, const StainMatrix& stains,
                 ImageView<float> out, Device device = Device::kCpu);

}  // namespace her2fast
