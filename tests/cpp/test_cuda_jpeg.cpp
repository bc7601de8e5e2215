// SPDX-License-Identifier: Apache-2.0
/// jpeg_decode: the host's part of it, with a stand-in for nvJPEG (tests/fake_nvjpeg)
/// beside the CUDA runtime on the CPU. Its pixels are libjpeg-turbo's, so they must be
/// the CPU reader's to the bit: that says nothing of NVIDIA's.
#include <gtest/gtest.h>
#include <jpeglib.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_device.h"
#include "fake_nvjpeg_calls.h"
#include "her2fast/error.h"
#include "io/codec/jpeg.h"

namespace her2fast {
namespace {

int waits(int device = 0) { return on_host<int(int)>("her2_cuda_on_host_waits")(device); }

struct Coding {
  int x = 1, y = 1;  // of luma, to chroma's 1
  int quality = 80;
  unsigned restart_mcus = 0;
  bool abbreviated = false;
  bool progressive = false;
};

/// A picture of (height, width), as JPEG; `tables` gets what an abbreviated one lacks.
Bytes encoded(const Bytes& rgb, std::int64_t width, std::int64_t height,
              const Coding& coding, Bytes* tables = nullptr) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* memory = nullptr;
  unsigned long size = 0;
  const auto begin = [&] {
    jpeg_mem_dest(&info, &memory, &size);
    info.input_components = 3;
    info.in_color_space = JCS_RGB;
    info.image_width = static_cast<JDIMENSION>(width);
    info.image_height = static_cast<JDIMENSION>(height);
    jpeg_set_defaults(&info);
    jpeg_set_quality(&info, coding.quality, TRUE);
    info.comp_info[0].h_samp_factor = coding.x;
    info.comp_info[0].v_samp_factor = coding.y;
    info.restart_interval = coding.restart_mcus;
    if (coding.progressive) jpeg_simple_progression(&info);
  };
  const auto take = [&] {
    Bytes out(memory, memory + size);
    std::free(memory);
    memory = nullptr;
    return out;
  };
  if (tables != nullptr) {
    begin();
    jpeg_write_tables(&info);
    *tables = take();
  }
  begin();
  if (coding.abbreviated) jpeg_suppress_tables(&info, TRUE);
  jpeg_start_compress(&info, coding.abbreviated ? FALSE : TRUE);
  while (info.next_scanline < info.image_height) {
    auto* row = const_cast<JSAMPROW>(rgb.data() + 3 * static_cast<std::size_t>(width) *
                                                      info.next_scanline);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  return take();
}

class Decoder {
 public:
  explicit Decoder(std::int32_t backend = HER2_CUDA_JPEG_ANY, std::int32_t device = 0,
                   const char* library = FAKE_NVJPEG) {
    call_cuda("jpeg_decoder", table().jpeg_decoder_create, device, library, backend,
              &decoder_);
  }
  ~Decoder() { table().jpeg_decoder_destroy(decoder_, nullptr); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  Her2JpegDecoder told() const {
    Her2JpegDecoder out{};
    call_cuda("jpeg_decoder", table().jpeg_decoder_describe, decoder_, &out);
    return out;
  }
  void decode(const std::vector<Bytes>& streams, const Bytes& tables, std::int64_t width,
              std::int64_t height, std::uint8_t* out,
              std::int32_t color = HER2_CUDA_JPEG_YCBCR) const {
    std::vector<const std::uint8_t*> data;
    std::vector<std::uint64_t> sizes;
    for (const Bytes& stream : streams) {
      data.push_back(stream.data());
      sizes.push_back(stream.size());
    }
    const Her2JpegBatch batch{data.data(),
                              sizes.data(),
                              tables.data(),
                              tables.size(),
                              static_cast<std::int64_t>(streams.size()),
                              height,
                              width,
                              color,
                              0};
    call_cuda("jpeg_decode", table().jpeg_decode, decoder_, &batch, out, kStream);
  }

 private:
  void* decoder_ = nullptr;
};

/// What the CPU's reader makes of a batch.
Bytes on_cpu(const std::vector<Bytes>& streams, const Bytes& tables, std::int64_t width,
             std::int64_t height) {
  const auto size = static_cast<std::size_t>(3 * width * height);
  Bytes out(size * streams.size());
  io::JpegDecoder decoder;
  for (std::size_t i = 0; i < streams.size(); ++i) {
    const TileStatus status =
        decoder.decode(std::as_bytes(std::span(tables)),
                       std::as_bytes(std::span(streams[i])), io::JpegColor::kYCbCr, width,
                       height, 1, {out.data() + i * size, height, width, 3});
    EXPECT_EQ(status, TileStatus::kOk);
  }
  return out;
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no error";
}

class CudaJpeg : public testing::Test {
 protected:
  void SetUp() override { of_fake<FakeNvjpegReset>("fake_nvjpeg_reset")(); }
  void TearDown() override { EXPECT_EQ(seen("alive"), 0); }

  Bytes picture(std::int64_t width, std::int64_t height) {
    Bytes rgb(static_cast<std::size_t>(3 * width * height));
    const auto row = static_cast<std::size_t>(3 * width);
    for (std::size_t i = 0; i < rgb.size(); ++i) {
      rgb[i] =
          static_cast<std::uint8_t>(i / row * 2 % 90 + i % row / 2 % 90 + random() % 60);
    }
    return rgb;
  }
  std::vector<Bytes> streams(std::size_t count, std::int64_t width, std::int64_t height,
                             const Coding& coding = {}, Bytes* tables = nullptr) {
    std::vector<Bytes> out;
    for (std::size_t i = 0; i < count; ++i) {
      out.push_back(encoded(picture(width, height), width, height, coding, tables));
    }
    return out;
  }
  std::mt19937 random{11};
};

constexpr std::int64_t kSide = 48;
constexpr std::size_t kTileBytes = 3 * kSide * kSide;

TEST_F(CudaJpeg, BatchesAreTheCpuReaders) {
  for (const std::int32_t backend : {HER2_CUDA_JPEG_ENGINE, HER2_CUDA_JPEG_KERNELS}) {
    const Decoder decoder(backend);
    for (const Coding& coding :
         {Coding{1, 1, 95}, Coding{2, 1, 80}, Coding{2, 2, 50}, Coding{1, 2, 70},
          Coding{2, 2, 90, 5}, Coding{2, 2, 80, 0, true}, Coding{2, 1, 80, 3, true}}) {
      for (const auto& [width, height] :
           {std::pair{kSide, kSide}, {std::int64_t{1}, std::int64_t{1}}, {37, 21}}) {
        Bytes tables;
        const auto batch = streams(3, width, height, coding, &tables);
        const Bytes shared = coding.abbreviated ? tables : Bytes{};
        const auto size = static_cast<std::size_t>(9 * width * height);
        const OnDevice<std::uint8_t> out(size);  // and not a byte more
        decoder.decode(batch, shared, width, height, out.get());
        EXPECT_EQ(out.read(), on_cpu(batch, shared, width, height))
            << coding.x << coding.y << ' ' << width << ' ' << backend;
      }
    }
  }
}

TEST_F(CudaJpeg, AnyNumberOfItemsOneAfterAnother) {
  const Decoder decoder;
  int started = 0;
  std::size_t before = 0;
  for (const std::size_t count : {1, 5, 5, 2, 2, 60, 0, 60}) {
    const auto batch = streams(count, kSide, kSide);
    const OnDevice<std::uint8_t> out(count * kTileBytes);
    decoder.decode(batch, {}, kSide, kSide, out.get());
    EXPECT_EQ(out.read(), on_cpu(batch, {}, kSide, kSide)) << count;
    if (count == 0) continue;  // nothing is asked of nvJPEG
    EXPECT_EQ(seen("items"), static_cast<int>(count));
    // Prepared anew where the number changes, not otherwise.
    started += count != before ? 1 : 0;
    before = count;
    EXPECT_EQ(seen("nvjpegDecodeBatchedInitialize"), started);
  }
}

TEST_F(CudaJpeg, ItSaysWhoDecodes) {
  const Decoder on_engine;
  EXPECT_EQ(on_engine.told().backend, HER2_CUDA_JPEG_ENGINE);
  EXPECT_EQ(on_engine.told().major, 13);
  EXPECT_EQ(on_engine.told().minor, 0);
  EXPECT_EQ(on_engine.told().patch, 1);
  EXPECT_EQ(on_engine.told().library, std::string(FAKE_NVJPEG));
  EXPECT_EQ(Decoder(HER2_CUDA_JPEG_KERNELS).told().backend, HER2_CUDA_JPEG_KERNELS);
  fake_set("engine", 0);
  EXPECT_EQ(Decoder().told().backend, HER2_CUDA_JPEG_KERNELS);
  EXPECT_EQ(message_of([] { Decoder decoder(HER2_CUDA_JPEG_ENGINE); }),
            "jpeg_decoder: nvJPEG 13.0 makes no decoder on a JPEG engine here (status "
            "7): this GPU may have none");
  fake_set("engine", 1);
  // What release 13 says where there is no driver: no engine, and nothing lost.
  fake_fail("nvjpegCreateEx", 6);
  EXPECT_EQ(Decoder().told().backend, HER2_CUDA_JPEG_KERNELS);
  fake_fail("nvjpegCreateEx", 6);
  EXPECT_THROW(Decoder decoder(HER2_CUDA_JPEG_KERNELS), DeviceError);
}

TEST_F(CudaJpeg, OnlyTheEngineWaitsForTheStream) {
  const auto batch = streams(2, kSide, kSide);
  const OnDevice<std::uint8_t> out(2 * kTileBytes);
  for (const std::int32_t backend : {HER2_CUDA_JPEG_KERNELS, HER2_CUDA_JPEG_ENGINE}) {
    const int engine = backend == HER2_CUDA_JPEG_ENGINE ? 1 : 0;
    const Decoder decoder(backend);
    int before = waits();
    decoder.decode(batch, {}, kSide, kSide, out.get());
    EXPECT_EQ(waits() - before, engine);
    before = waits();
    // And each for its own batch before, whose bytes it still holds; not for items.
    decoder.decode(batch, {}, kSide, kSide, out.get());
    EXPECT_EQ(waits() - before, engine + 1);
  }
}

TEST_F(CudaJpeg, WhatCannotBeDecodedIsNamedAndNothingDecoded) {
  const Decoder decoder;
  const OnDevice<std::uint8_t> out(3 * kTileBytes);
  const Bytes untouched = out.read();
  const auto message = [&](const std::vector<Bytes>& batch, std::int64_t side = kSide,
                           std::int32_t color = HER2_CUDA_JPEG_YCBCR) {
    return message_of([&] { decoder.decode(batch, {}, side, side, out.get(), color); });
  };
  auto batch = streams(3, kSide, kSide);
  batch[1] = streams(1, kSide, kSide, {2, 2, 80, 0, false, true})[0];
  EXPECT_EQ(message(batch),
            "jpeg_decode: item 1: need a baseline JPEG, got a progressive one");
  batch[1] = streams(1, 40, kSide)[0];
  EXPECT_EQ(message(batch), "jpeg_decode: item 1: need 48 x 48 px, got 40 x 48");
  batch[1] = {};
  EXPECT_EQ(message(batch),
            "jpeg_decode: item 1: need a JPEG stream that begins with a start of image");
  EXPECT_EQ(message(batch, kSide, HER2_CUDA_JPEG_RGB),
            "jpeg_decode: need YCbCr, got RGB-coded streams, which nvJPEG would take for "
            "YCbCr; decode them on the CPU");
  EXPECT_EQ(message(batch, kSide, 2), "jpeg_decode: need a color of 0 or 1, got 2");
  for (const auto& [width, height] :
       {std::pair{std::int64_t{0}, kSide}, {kSide, 0}, {65501, kSide}, {kSide, 65501}}) {
    EXPECT_EQ(message_of([&] { decoder.decode(batch, {}, width, height, out.get()); }),
              "jpeg_decode: need 0 to 65536 items of 1 to 65500 px a side, got 3 of " +
                  std::to_string(width) + " x " + std::to_string(height));
  }
  const std::vector<Bytes> many(65537);
  EXPECT_NE(message(many).find("need 0 to 65536 items"), std::string::npos);
  fake_set("refused", 1);
  EXPECT_EQ(message(streams(2, kSide, kSide)),
            "jpeg_decode: item 0: the JPEG engine does not take it; use a decoder by "
            "kernels");
  fake_set("refused", 0);
  fake_fail("nvjpegJpegStreamParseHeader", 3, 2);
  EXPECT_NE(message(streams(2, kSide, kSide)).find("item 1: the JPEG engine"),
            std::string::npos);
  EXPECT_EQ(seen("nvjpegDecodeBatched"), 0);
  EXPECT_EQ(out.read(), untouched);
  const Bytes on_the_host(kTileBytes);
  EXPECT_THROW(decoder.decode(streams(1, kSide, kSide), {}, kSide, kSide,
                              const_cast<std::uint8_t*>(on_the_host.data())),
               std::invalid_argument);
  EXPECT_EQ(seen("nvjpegDecodeBatched"), 0);
}

TEST_F(CudaJpeg, ItsVerdictsHaveTheirCodes) {
  struct Case {
    int status;
    Code code;  // of Error
    bool argument, device;
  };
  const auto batch = streams(2, kSide, kSide);
  const OnDevice<std::uint8_t> out(2 * kTileBytes);
  const Bytes expected = on_cpu(batch, {}, kSide, kSide);
  for (const char* function : {"nvjpegDecodeBatched", "nvjpegDecodeBatchedInitialize"}) {
    for (const Case& c :
         {Case{2, {}, true, false}, Case{3, {}, true, false}, Case{4, {}, true, false},
          Case{10, {}, true, false}, Case{5, Code::kGpuOom, false, false},
          Case{6, Code::kGpuLost, false, false}, Case{8, Code::kGpuLost, false, false},
          Case{77, Code::kGpuLost, false, false}, Case{1, {}, false, true},
          Case{7, {}, false, true}, Case{9, {}, false, true}}) {
      const Decoder decoder;
      fake_fail(function, c.status);
      try {
        decoder.decode(batch, {}, kSide, kSide, out.get());
        ADD_FAILURE() << c.status;
      } catch (const std::invalid_argument&) {
        EXPECT_TRUE(c.argument) << c.status;
      } catch (const DeviceError&) {
        EXPECT_TRUE(c.device) << c.status;
      } catch (const Error& error) {
        EXPECT_FALSE(c.argument || c.device) << c.status;
        EXPECT_EQ(error.code(), c.code) << c.status;
      }
      // The next batch begins anew.
      decoder.decode(batch, {}, kSide, kSide, out.get());
      EXPECT_EQ(out.read(), expected);
    }
  }
}

TEST_F(CudaJpeg, AnItemThatFailsWithinTheBatchIsFound) {
  auto batch = streams(3, kSide, kSide);
  // Coded bytes that end early: only a decoder sees it.
  batch[2].erase(batch[2].end() - 200, batch[2].end() - 2);
  const OnDevice<std::uint8_t> out(3 * kTileBytes);
  const Decoder decoder;
  EXPECT_EQ(message_of([&] { decoder.decode(batch, {}, kSide, kSide, out.get()); }),
            "jpeg_decode: nvJPEG: item 2: a stream that it cannot read (status 3)");
  // One that no item alone repeats.
  batch.pop_back();
  fake_fail("nvjpegDecodeBatched", 4);
  EXPECT_EQ(message_of([&] { decoder.decode(batch, {}, kSide, kSide, out.get()); }),
            "jpeg_decode: nvJPEG: a batch: a stream of a kind that it does not take "
            "(status 4)");
}

TEST_F(CudaJpeg, ADecoderThatCannotBeMadeLeavesNothing) {
  for (const char* function :
       {"nvjpegCreateEx", "nvjpegJpegStateCreate", "nvjpegJpegStreamCreate"}) {
    fake_fail(function, 5);
    EXPECT_THROW(Decoder(), Error) << function;  // no memory is not "no engine"
    EXPECT_EQ(seen("alive"), 0) << function;
  }
  EXPECT_THROW(Decoder(HER2_CUDA_JPEG_ANY, 2), DeviceError);
  EXPECT_THROW(Decoder(3), std::invalid_argument);
}

TEST_F(CudaJpeg, ALibraryThatDoesNotServeIsADeviceError) {
  const auto message = [](const char* library) {
    return message_of([&] {
      try {
        const Decoder decoder(HER2_CUDA_JPEG_ANY, 0, library);
      } catch (const DeviceError&) {
        throw;
      } catch (const std::exception&) {
        ADD_FAILURE() << "not a DeviceError";
      }
    });
  };
  EXPECT_NE(message("/nowhere/libnvjpeg.so.13").find("jpeg_decoder: no nvJPEG: /nowhere"),
            std::string::npos);
  EXPECT_NE(message(NO_NVJPEG).find("is no nvJPEG to use: it lacks nvjpegGetProperty"),
            std::string::npos);
  for (const auto& [major, minor] : {std::pair{12, 0}, {11, 9}}) {
    fake_set("major", major);
    fake_set("minor", minor);
    EXPECT_NE(message(FAKE_NVJPEG).find("need nvJPEG 12.1 or newer"), std::string::npos);
  }
  fake_set("minor", 1);
  fake_set("major", 12);
  EXPECT_EQ(message(FAKE_NVJPEG), "no error");
  fake_fail("nvjpegGetProperty", 1);
  EXPECT_NE(message(FAKE_NVJPEG).find("need nvJPEG 12.1 or newer"), std::string::npos);
}

TEST_F(CudaJpeg, TheGpuIsThatOfTheDecoder) {
  const auto batch = streams(1, kSide, kSide);
  const Decoder second(HER2_CUDA_JPEG_ANY, 1);
  EXPECT_EQ(second.told().device, 1);
  const OnDevice<std::uint8_t> there(kTileBytes, 1), here(kTileBytes, 0);
  const int before = waits(1), elsewhere = waits(0);
  second.decode(batch, {}, kSide, kSide, there.get());
  EXPECT_EQ(waits(1) - before, 1);
  EXPECT_EQ(waits(0), elsewhere);
  EXPECT_EQ(message_of([&] { second.decode(batch, {}, kSide, kSide, here.get()); }),
            "jpeg_decode: need memory of GPU 1, which has the decoder, got that of 0");
  EXPECT_EQ(on_host<int(int)>("her2_cuda_on_host_use")(0), 0);  // still current
}

TEST_F(CudaJpeg, BytesAreTheCallersAgainWhenACallReturns) {
  auto batch = streams(2, kSide, kSide);
  const Bytes expected = on_cpu(batch, {}, kSide, kSide);
  const Decoder decoder;
  const OnDevice<std::uint8_t> out(2 * kTileBytes);
  fake_set("late", 1);
  decoder.decode(batch, {}, kSide, kSide, out.get());
  for (Bytes& stream : batch) stream.assign(stream.size(), 0);
  EXPECT_NE(out.read(), expected);
  of_fake<FakeNvjpegFlush>("fake_nvjpeg_flush")();
  EXPECT_EQ(out.read(), expected);
}

/// As site-packages: her2fast/libher2fast_cuda.so, nvidia/nvjpeg/lib. The stand-in of the
/// runtime tells no version, so release 12 comes first.
TEST_F(CudaJpeg, ItIsLookedForBesideThePackage) {
  namespace fs = std::filesystem;
  bool elsewhere = fs::exists("/usr/local/cuda/lib64/libnvjpeg.so.13") ||
                   fs::exists("/usr/local/cuda/lib64/libnvjpeg.so.12");
  for (const char* name : {"libnvjpeg.so.13", "libnvjpeg.so.12"}) {
    elsewhere = elsewhere || dlopen(name, RTLD_NOW | RTLD_LOCAL) != nullptr;
  }
  const fs::path file =
      fs::path(CUDA_ON_HOST).parent_path() / "../nvidia/nvjpeg/lib/libnvjpeg.so.12";
  fs::create_directories(file.parent_path());
  fs::remove(file);
  const auto message = [] {
    return message_of([] { Decoder(HER2_CUDA_JPEG_ANY, 0, nullptr); });
  };
  if (!elsewhere) {
    EXPECT_EQ(message(),
              "jpeg_decoder: no nvJPEG (libnvjpeg.so.13 or .12) beside this package, "
              "where the loader looks or in /usr/local/cuda; pip install nvidia-nvjpeg, "
              "or name the file, or decode on the CPU");
  }
  std::ofstream(file) << "no library";
  EXPECT_EQ(message().find("jpeg_decoder: nvJPEG is there and does not open: "), 0u);
  fs::remove(file);
  fs::create_symlink(FAKE_NVJPEG, file);
  EXPECT_EQ(Decoder(HER2_CUDA_JPEG_ANY, 0, "").told().library, file.string());
  fs::remove(file);
}

}  // namespace
}  // namespace her2fast
