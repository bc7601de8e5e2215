// SPDX-License-Identifier: Apache-2.0
/// `membrane_label` of the CUDA library, run on the CPU, against the CPU's: every label
/// and sum, in three orders of a block's threads.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "cuda_device.h"
#include "her2fast/membrane.h"
#include "kernels/membrane_device.h"
#include "kernels/membrane_tile.h"

namespace her2fast {
namespace {

INSTANTIATE_TEST_SUITE_P(Orders, Cuda, testing::Values(0, 1, 2));

TEST_P(Cuda, MembraneLabelIsTheCpus) {
  const std::int64_t n = 3;
  for (int trial = 0; trial < 24; ++trial) {
    const auto height = static_cast<std::int64_t>(trial == 0 ? 1 : random() % 70 + 1);
    const auto width = static_cast<std::int64_t>(trial == 1 ? 1 : random() % 100 + 1);
    const auto size = static_cast<std::size_t>(height * width);
    const double share[] = {0.0, 0.1, 0.35, 0.5, 0.65, 0.9, 1.0};
    const Bytes mask = random_bytes(3 * size, random, share[trial % 7]);
    const bool with_density = trial % 2 == 0;
    const Bytes density = random_bytes(3 * size, random, 0.9);
    std::vector<std::int32_t> nuclei;
    std::vector<PixelPoint> of_tile[3];
    for (int i = 0; i < trial % 5 * 6; ++i) {
      const auto t = static_cast<std::int32_t>(random() % 3);
      const PixelPoint at{static_cast<std::int32_t>(random() % width),
                          static_cast<std::int32_t>(random() % height)};
      nuclei.insert(nuclei.end(), {t, at.x, at.y});
      of_tile[t].push_back(at);
    }
    std::uint64_t bytes = 0;
    call_cuda("scratch", table().membrane_label_scratch_bytes, kDevice, n, height, width,
              &bytes);
    const OnDevice<std::uint8_t> in(mask), densities(density), scratch(bytes);
    const OnDevice<std::int32_t> points(nuclei);
    Her2MembraneResults results;
    call_cuda("membrane_label", table().membrane_label, in.get(),
              with_density ? densities.get() : nullptr, n, height, width, points.get(),
              static_cast<std::int64_t>(nuclei.size() / 3),
              static_cast<void*>(scratch.get()), bytes, &results, kStream);
    const auto tiles = membrane_tiles(table(), results, n, height, width, with_density,
                                      kDevice, nullptr);
    ASSERT_EQ(tiles.size(), 3u);
    for (std::size_t t = 0; t < 3; ++t) {
      const MembraneTile expected = membrane_label(
          {mask.data() + t * size, height, width},
          with_density
              ? ImageView<const std::uint8_t>{density.data() + t * size, height, width}
              : ImageView<const std::uint8_t>{},
          of_tile[t]);
      SCOPED_TRACE(std::to_string(height) + " x " + std::to_string(width));
      expect_same(expected.labels(), tiles[t].labels());
    }
  }
}

TEST(CudaFaults, ANucleusOutsideIsNamed) {
  set_order(0);
  const OnDevice<std::uint8_t> mask(Bytes(16));
  const OnDevice<std::int32_t> nuclei(std::vector<std::int32_t>{0, 4, 0});
  std::uint64_t bytes = 0;
  const std::int64_t one = 1, side = 4;
  call_cuda("scratch", table().membrane_label_scratch_bytes, kDevice, one, side, side,
            &bytes);
  const OnDevice<std::uint8_t> scratch(bytes);
  Her2MembraneResults results;
  call_cuda("membrane_label", table().membrane_label, mask.get(),
            static_cast<const std::uint8_t*>(nullptr), one, side, side, nuclei.get(), one,
            static_cast<void*>(scratch.get()), bytes, &results, kStream);
  EXPECT_THROW(membrane_tiles(table(), results, 1, 4, 4, false, kDevice, nullptr),
               std::invalid_argument);
  EXPECT_EQ(HER2_CUDA_BAD_ARGUMENT,
            table().membrane_label(mask.get(), nullptr, 1, 4, 4, nullptr, 0,
                                   scratch.get(), bytes - 1, &results, nullptr, nullptr));
}

}  // namespace
}  // namespace her2fast
