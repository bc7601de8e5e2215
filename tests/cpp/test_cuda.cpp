// SPDX-License-Identifier: Apache-2.0
/// The CUDA kernels, run on the CPU (tests/cuda_on_host), against the CPU's kernels:
/// equal to the bit, in three orders of a block's threads.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_device.h"
#include "her2fast/constraint_select.h"
#include "her2fast/error.h"
#include "her2fast/kernels.h"
#include "kernels/half.h"
#include "kernels/membrane_device.h"

namespace her2fast {
namespace {
INSTANTIATE_TEST_SUITE_P(Orders, Cuda, testing::Values(0, 1, 2));

TEST_P(Cuda, TumorCountIsTheCpus) {
  struct Case {
    std::int64_t n, height, width;
    std::int32_t patch, stride;
  };
  // Rows that begin at every alignment; one warp a patch and a block a patch.
  for (const Case& c : {Case{2, 40, 37, 8, 5},
                        Case{1, 300, 211, 100, 60},
                        {3, 65, 65, 65, 1},
                        {1, 64, 64, 64, 64},
                        {1, 5, 90, 1, 1},
                        {2, 9, 9, 10, 3}}) {
    const PatchGrid grid{c.patch, c.stride};
    const auto rows = grid.count_along(c.height), columns = grid.count_along(c.width);
    const auto size = static_cast<std::size_t>(c.height * c.width);
    const Bytes mask = random_bytes(size * static_cast<std::size_t>(c.n), random, 0.4);
    const auto patches = static_cast<std::size_t>(rows * columns);
    const OnDevice<std::uint8_t> in(mask);
    const OnDevice<std::uint32_t> out(patches * static_cast<std::size_t>(c.n));
    call_cuda("tumor_count", table().tumor_count, in.get(), c.n, c.height, c.width,
              c.patch, c.stride, out.get(), kStream);
    std::vector<std::uint32_t> expected(patches * static_cast<std::size_t>(c.n));
    for (std::size_t i = 0; i < static_cast<std::size_t>(c.n); ++i) {
      tumor_count({mask.data() + i * size, c.height, c.width}, grid,
                  {expected.data() + i * patches, rows, columns});
    }
    EXPECT_EQ(out.read(), expected) << c.patch << ' ' << c.stride;
  }
}

TEST_P(Cuda, StainUnmixIsTheCpus) {
  for (const std::size_t pixels : {std::size_t{1}, std::size_t{3}, std::size_t{4},
                                   std::size_t{1030}, std::size_t{5000}}) {
    const Bytes rgb = random_bytes(3 * pixels, random);
    const Rgb white{240, 251, 255};
    std::vector<float> expected(3 * pixels);
    const auto width = static_cast<std::int64_t>(pixels);
    stain_unmix({rgb.data(), 1, width, 3}, white, StainMatrix::h_dab(),
                {expected.data(), 1, width, 3});
    const StainMatrix matrix = StainMatrix::h_dab();
    const std::uint8_t whites[3] = {white.r, white.g, white.b};
    const OnDevice<float> out(3 * pixels + 1);
    for (const std::size_t shift : {std::size_t{0}, std::size_t{1}}) {  // not aligned
      Bytes shifted(3 * pixels + 1);
      std::memcpy(shifted.data() + shift, rgb.data(), rgb.size());
      const OnDevice<std::uint8_t> in(shifted);
      call_cuda("stain_unmix", table().stain_unmix, in.get() + shift, width, whites,
                matrix.rows[0].data(), out.get() + shift, kStream);
      const std::vector<float> got = out.read();
      EXPECT_EQ(0, std::memcmp(got.data() + shift, expected.data(), 12 * pixels))
          << pixels;
    }
  }
}

/// Tissue of several kinds, glass, ink and noise.
Bytes patchwork(std::int64_t height, std::int64_t width, std::mt19937& random) {
  const std::uint8_t colors[6][3] = {{255, 255, 255}, {225, 215, 230}, {150, 110, 70},
                                     {30, 60, 200},   {20, 20, 20},    {60, 200, 90}};
  Bytes out;
  const int side = 23;
  std::vector<int> kinds(
      static_cast<std::size_t>((height / side + 1) * (width / side + 1)));
  for (int& kind : kinds) kind = static_cast<int>(random() % 6);
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      const auto at = static_cast<std::size_t>(y / side * (width / side + 1) + x / side);
      for (const std::uint8_t value : colors[kinds[at]]) {
        const int noisy = value + static_cast<int>(random() % 21) - 10;
        out.push_back(static_cast<std::uint8_t>(std::clamp(noisy, 0, 255)));
      }
    }
  }
  return out;
}

TEST_P(Cuda, TissueMaskIsTheCpus) {
  for (const auto& [height, width] :
       {std::pair{std::int64_t{1}, std::int64_t{1}}, {48, 64}, {49, 65}, {150, 201}}) {
    const auto size = static_cast<std::size_t>(height * width);
    Bytes rgb = patchwork(height, width, random);
    const Bytes second = patchwork(height, width, random);
    rgb.insert(rgb.end(), second.begin(), second.end());
    Bytes expected(2 * size);
    for (std::size_t i = 0; i < 2; ++i) {
      tissue_mask({rgb.data() + 3 * i * size, height, width, 3}, {250, 255, 245},
                  {expected.data() + i * size, height, width});
    }
    const std::uint8_t white[3] = {250, 255, 245};
    const OnDevice<std::uint8_t> in(rgb), out(2 * size);
    call_cuda("tissue_mask", table().tissue_mask, in.get(), std::int64_t{2}, height,
              width, white, out.get(), kStream);
    EXPECT_EQ(out.read(), expected) << height << " x " << width;
  }
}

TEST_P(Cuda, NormalizeBatchRoundsAsTorch) {
  const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};
  for (const std::int64_t side : {3, 8}) {
    const std::int64_t n = 3, plane = side * side;
    const Bytes rgb = random_bytes(static_cast<std::size_t>(3 * n * plane), random, 0.9);
    const OnDevice<std::uint8_t> in(rgb);
    const OnDevice<float> whole(rgb.size());
    const OnDevice<std::uint16_t> half(rgb.size());
    call_cuda("normalize_batch", table().normalize_batch, in.get(), n, side, side, mean,
              std, std::int32_t{0}, static_cast<void*>(whole.get()), kStream);
    call_cuda("normalize_batch", table().normalize_batch, in.get(), n, side, side, mean,
              std, std::int32_t{1}, static_cast<void*>(half.get()), kStream);
    std::vector<float> expected(rgb.size());
    std::vector<std::uint16_t> halves(rgb.size());
    for (std::int64_t i = 0; i < n * plane; ++i) {
      for (std::int64_t c = 0; c < 3; ++c) {
        const auto to = static_cast<std::size_t>((i / plane * 3 + c) * plane + i % plane);
        const auto v = static_cast<float>(rgb[static_cast<std::size_t>(3 * i + c)]);
        const float unit = v / 255.0f, centered = unit - mean[c];
        expected[to] = centered / std[c];
        halves[to] = half_bits(expected[to]);
      }
    }
    EXPECT_EQ(whole.read(), expected);
    EXPECT_EQ(half.read(), halves);
  }
}

TEST(CudaHalf, RoundsToTheNearestEven) {
  const auto infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(half_bits(1.0f), 0x3c00);
  EXPECT_EQ(half_bits(-2.0f), 0xc000);
  EXPECT_EQ(half_bits(1.0f + 0x1p-11f), 0x3c00);      // a tie, to the even one
  EXPECT_EQ(half_bits(1.0f + 3 * 0x1p-11f), 0x3c02);  // and up
  EXPECT_EQ(half_bits(65504.0f), 0x7bff);
  EXPECT_EQ(half_bits(65520.0f), 0x7c00);  // half a step beyond
  EXPECT_EQ(half_bits(0x1p-24f), 1);       // smallest subnormal
  EXPECT_EQ(half_bits(0x1p-25f), 0);
  EXPECT_EQ(half_bits(0x1.8p-25f), 1);
  EXPECT_EQ(half_bits(0x1.ffcp-15f), 0x0400);  // into the normals
  EXPECT_EQ(half_bits(-infinity), 0xfc00);
  EXPECT_EQ(half_bits(std::numeric_limits<float>::quiet_NaN()) & 0x7e00, 0x7e00);
}

/// One call of constraint_select on the device.
struct Selection {
  Bytes action, admissible;
  std::vector<std::int8_t> class_id;
  std::vector<Her2SlideConstraints> slides;
  std::int64_t fault;
};

Selection select_on_device(const SlideTable& from, const FractionLimits& limits,
                           Admissible admissible, std::int32_t device = kDevice) {
  const auto patches = static_cast<std::size_t>(from.patches());
  const auto slides = static_cast<std::size_t>(from.slides());
  Her2FractionLimits plain;
  std::copy_n(limits.lower_permille.data(), 4, plain.lower_permille);
  std::copy_n(limits.upper_permille[0].data(), 16, &plain.upper_permille[0][0]);
  std::uint64_t bytes = 0;
  call_cuda("scratch", table().constraint_select_scratch_bytes, device, from.patches(),
            from.slides(), &bytes);
  const OnDevice<float> logits(std::vector<float>(from.logits.begin(), from.logits.end()),
                               device);
  const OnDevice<std::uint32_t> px(
      std::vector<std::uint32_t>(from.tumor_px.begin(), from.tumor_px.end()), device);
  const OnDevice<std::uint8_t> action(patches, device), bits(patches, device),
      scratch(bytes, device);
  const OnDevice<std::int8_t> class_id(patches, device);
  const OnDevice<Her2SlideConstraints> out(slides, device);
  const OnDevice<std::int64_t> fault(1, device);
  call_cuda("constraint_select", table().constraint_select, logits.get(), px.get(),
            from.patches(), from.offsets.data(), from.labels.data(), from.slides(),
            &plain, static_cast<std::int32_t>(admissible), action.get(), class_id.get(),
            bits.get(), out.get(), fault.get(), static_cast<void*>(scratch.get()), bytes,
            kStream);
  return {action.read(), bits.read(), class_id.read(), out.read(), fault.read()[0]};
}

TEST_P(Cuda, ConstraintSelectIsTheCpus) {
  for (const std::int64_t patches : {0, 1, 33, 700, 1501, 3000}) {
    const std::int64_t slides = 1 + patches % 7;
    std::vector<std::int64_t> offsets{0}, labels;
    for (std::int64_t i = 1; i < slides; ++i) {
      offsets.push_back(patches == 0 ? 0 : static_cast<std::int64_t>(random() % patches));
    }
    offsets.push_back(patches);
    std::sort(offsets.begin(), offsets.end());
    for (std::int64_t i = 0; i < slides; ++i) labels.push_back(random() % 4);
    std::vector<float> logits;
    std::vector<std::uint32_t> px;
    for (std::int64_t i = 0; i < patches; ++i) {
      // Coarse values: ties in class and, where a set ends, in order; no tumor in some.
      const unsigned values = patches % 2 == 0 ? 3 : 9;
      for (int c = 0; c < 4; ++c) logits.push_back(static_cast<float>(random() % values));
      // Small ones, that often reach exactly what is needed, and large ones.
      px.push_back(random() % 3 == 0 ? 0 : random() % (patches % 2 == 0 ? 3 : 100));
    }
    const SlideTable from{logits, px, offsets, labels};
    for (const Admissible admissible :
         {Admissible::kNeighbors, Admissible::kComplement, Admissible::kLower}) {
      const auto count = static_cast<std::size_t>(patches);
      Bytes action(count), bits(count);
      std::vector<std::int8_t> class_id(count);
      std::vector<SlideConstraints> expected(static_cast<std::size_t>(slides));
      constraint_select(from, FractionLimits::pham(), admissible, 1,
                        {action, class_id, bits, expected});
      const Selection got = select_on_device(from, FractionLimits::pham(), admissible);
      EXPECT_EQ(got.fault, -1);
      EXPECT_EQ(got.action, action) << patches;
      EXPECT_EQ(got.class_id, class_id);
      EXPECT_EQ(got.admissible, bits);
      for (std::size_t s = 0; s < expected.size(); ++s) {
        const SlideConstraints& e = expected[s];
        const Her2SlideConstraints& g = got.slides[s];
        for (std::size_t c = 0; c < 4; ++c) {
          EXPECT_EQ(g.class_px[c], e.class_px[c]);
          EXPECT_EQ(g.excess_px[c], e.excess_px[c]);
          EXPECT_EQ(g.pushed_px[c], e.pushed_px[c]);
        }
        EXPECT_EQ(g.missing_px, e.missing_px);
        EXPECT_EQ(g.pulled_px, e.pulled_px);
        EXPECT_EQ(g.reach, e.reach);
      }
    }
  }
}

TEST_P(Cuda, ConstraintSelectNamesTheFault) {
  std::vector<float> logits(40, 0.5f);
  const std::vector<std::uint32_t> px(10, 7);
  const std::vector<std::int64_t> offsets{0, 4, 10}, labels{3, 0};
  logits[4 * 8 + 1] = std::numeric_limits<float>::infinity();
  logits[4 * 6 + 2] = std::numeric_limits<float>::quiet_NaN();
  const SlideTable from{logits, px, offsets, labels};
  EXPECT_EQ(select_on_device(from, FractionLimits::pham(), Admissible::kLower).fault, 6);
  const std::vector<std::int64_t> bad{0, 11, 10}, high{3, 4};
  const FractionLimits limits = FractionLimits::pham();
  EXPECT_THROW(select_on_device({logits, px, bad, labels}, limits, Admissible::kLower),
               std::invalid_argument);
  EXPECT_THROW(select_on_device({logits, px, offsets, high}, limits, Admissible::kLower),
               std::invalid_argument);
}

TEST(CudaFaults, BadInputIsRefusedBeforeAnythingRuns) {
  set_order(0);
  const OnDevice<std::uint8_t> in(Bytes(12));
  const OnDevice<std::uint32_t> out(12);
  Her2CudaError error;
  const auto count = table().tumor_count;
  const std::int64_t two = 2;
  std::uint8_t host[12] = {};
  EXPECT_EQ(HER2_CUDA_OK, count(in.get(), 0, two, two, 1, 1, out.get(), nullptr, &error));
  EXPECT_EQ(HER2_CUDA_BAD_ARGUMENT,
            count(in.get(), -1, two, two, 1, 1, out.get(), nullptr, &error));
  EXPECT_EQ(HER2_CUDA_BAD_ARGUMENT,
            count(in.get(), 1, two, two, 0, 1, out.get(), nullptr, &error));
  EXPECT_NE(std::string(error.text).find("patch_px"), std::string::npos) << error.text;
  EXPECT_EQ(HER2_CUDA_BAD_ARGUMENT,
            count(host, 1, two, two, 1, 1, out.get(), nullptr, &error));
  EXPECT_NE(std::string(error.text).find("host memory"), std::string::npos) << error.text;
  EXPECT_EQ(HER2_CUDA_BAD_ARGUMENT,
            count(host, 1, two, two, 1, 1, out.get(), nullptr, nullptr));
  const std::uint8_t dark[3] = {100, 255, 255}, zero[3] = {255, 0, 255};
  const double singular[9] = {1, 0, 0, 1, 0, 0, 0, 0, 1};
  const StainMatrix good = StainMatrix::h_dab();
  auto* const floats = reinterpret_cast<float*>(out.get());
  EXPECT_EQ(HER2_CUDA_BAD_ARGUMENT,
            table().tissue_mask(in.get(), 1, two, two, dark, in.get(), nullptr, &error));
  EXPECT_EQ(HER2_CUDA_BAD_ARGUMENT,
            table().stain_unmix(in.get(), two, zero, good.rows[0].data(), floats, nullptr,
                                &error));
  EXPECT_EQ(HER2_CUDA_BAD_ARGUMENT,
            table().stain_unmix(in.get(), two, dark, singular, floats, nullptr, &error));
  const float mean[3] = {0, 0, 0}, std[3] = {1, 0, 1};
  EXPECT_EQ(HER2_CUDA_BAD_ARGUMENT,
            table().normalize_batch(in.get(), 1, two, two, mean, std, 0, floats, nullptr,
                                    &error));
  std::uint64_t bytes = 0;
  EXPECT_EQ(HER2_CUDA_BAD_ARGUMENT,
            table().membrane_label_scratch_bytes(0, 1, 9000, 2, &bytes, &error));
  EXPECT_EQ(HER2_CUDA_BAD_ARGUMENT, table().copy(host, in.get(), 4, 9, nullptr, &error));
}

TEST(CudaFaults, ABadCallIsNoLostGpu) {
  Her2CudaError error;
  void* const no_stream = reinterpret_cast<void*>(std::uintptr_t{4711});
  EXPECT_EQ(HER2_CUDA_BAD_ARGUMENT, table().synchronize(0, no_stream, &error));
  EXPECT_NE(std::string(error.text).find("not a stream"), std::string::npos);
  EXPECT_EQ(HER2_CUDA_NO_DEVICE, table().synchronize(2, kStream, &error));
  EXPECT_EQ(HER2_CUDA_NO_DEVICE, table().synchronize(-1, kStream, &error));
  void* memory = &error;
  EXPECT_EQ(HER2_CUDA_NO_DEVICE, table().allocate(2, 8, &memory, &error));
  EXPECT_EQ(memory, nullptr);
  EXPECT_EQ(HER2_CUDA_BAD_ARGUMENT, table().release(&error, &error));
  EXPECT_EQ(HER2_CUDA_OK, table().release(nullptr, &error));
}

TEST(CudaFaults, ALibraryThatIsNotThereIsADeviceError) {
  set_cuda_library("/nowhere/libher2fast_cuda.so");
  try {
    cuda_table();
    FAIL();
  } catch (const DeviceError& error) {
    EXPECT_NE(std::string(error.what()).find("/nowhere/"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("device=\"cpu\""), std::string::npos);
  }
}

/// Everything on the second GPU while the first is the thread's, or the other way round.
TEST_P(Cuda, TheCurrentGpuPlaysNoPart) {
  const auto use = on_host<int(int)>("her2_cuda_on_host_use");
  const auto waits = on_host<int(int)>("her2_cuda_on_host_waits");
  for (const std::int32_t device : {0, 1}) {
    const int other = 1 - device;
    ASSERT_EQ(use(other), 0);
    const std::int64_t one = 1, side = 16;
    const Bytes mask = random_bytes(256, random, 0.5);
    std::uint64_t bytes = 0;
    call_cuda("scratch", table().membrane_label_scratch_bytes, device, one, side, side,
              &bytes);
    const OnDevice<std::uint8_t> in(mask, device), copy(256, device),
        scratch(bytes, device);
    call_cuda("copy", table().copy, static_cast<void*>(copy.get()),
              static_cast<const void*>(in.get()), std::uint64_t{256},
              std::int32_t{HER2_CUDA_WITHIN}, kStream);
    EXPECT_EQ(copy.read(), mask);
    Her2MembraneResults results;
    call_cuda("membrane_label", table().membrane_label, in.get(),
              static_cast<const std::uint8_t*>(nullptr), one, side, side,
              static_cast<const std::int32_t*>(nullptr), std::int64_t{0},
              static_cast<void*>(scratch.get()), bytes, &results, kStream);
    const int before = waits(device), before_other = waits(other);
    const auto tiles =
        membrane_tiles(table(), results, 1, side, side, false, device, kStream);
    EXPECT_EQ(waits(device), before + 2);
    EXPECT_EQ(waits(other), before_other);
    expect_same(membrane_label({mask.data(), side, side}, {}, {}).labels(),
                tiles.at(0).labels());
    const std::vector<float> logits(12, 1.0f);
    const std::vector<std::uint32_t> px{1, 2, 3};
    const std::vector<std::int64_t> offsets{0, 3}, labels{2};
    const SlideTable slide{logits, px, offsets, labels};
    const auto limits = FractionLimits::pham();
    const Selection here = select_on_device(slide, limits, Admissible::kLower, device);
    EXPECT_EQ(here.fault, -1);
    Her2CudaDevice described;
    call_cuda("devices", table().describe_device, device, &described);
    const OnDevice<std::uint8_t> elsewhere(1, other);
    EXPECT_EQ(
        HER2_CUDA_BAD_ARGUMENT,  // between two GPUs, no stream orders it for both
        table().copy(copy.get(), elsewhere.get(), 1, HER2_CUDA_WITHIN, kStream, nullptr));
    EXPECT_EQ(use(0), other);
  }
}

}  // namespace
}  // namespace her2fast
