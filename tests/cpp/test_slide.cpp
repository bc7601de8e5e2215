// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "core/sha256.h"
#include "her2fast/error.h"
#include "her2fast/slide.h"
#include "io/byte_source.h"
#include "io/container/tiff_slide.h"
#include "tiff_bytes.h"

namespace her2fast {
namespace {

using testing::Bytes;
using testing::MemorySource;

std::string sha256(const std::string& text) {
  Sha256 hash;
  for (std::size_t i = 0; i < text.size(); i += 7) {  // pieces that do not fit its blocks
    const std::string part = text.substr(i, 7);
    hash.update(part.data(), part.size());
  }
  return hash.hex();
}

TEST(Sha256, KnownAnswers) {  // FIPS 180-4 examples, and a million "a"
  EXPECT_EQ(sha256(""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Fingerprint, SeesSizeEndsAndBlocks) {
  const auto of = [](const Bytes& bytes) {
    return io::fingerprint_of(MemorySource(bytes));
  };
  Bytes bytes(std::size_t{9} << 20);
  const std::string plain = of(bytes);
  EXPECT_EQ(plain.size(), 64u);
  for (const std::size_t at :
       {std::size_t{0}, bytes.size() - 1, (std::size_t{1} << 20) - 1}) {
    Bytes changed = bytes;
    changed[at] = std::byte{1};
    EXPECT_NE(of(changed), plain) << at;
  }
  bytes.push_back(std::byte{0});
  EXPECT_NE(of(bytes), plain);
  Bytes small(1000);
  const std::string before = of(small);
  small[500] = std::byte{1};
  EXPECT_NE(of(small), before);
  EXPECT_EQ(of({}).size(), 64u);
}

TEST(OpenFile, SaysWhyNot) {
  const auto code = [](const std::string& path) {
    try {
      open_file(path);
    } catch (const Error& error) {
      return error.code();
    }
    return Code::kSelftest;
  };
  EXPECT_EQ(code("/nonexistent/slide.svs"), Code::kNotFound);
  EXPECT_EQ(code(""), Code::kNotFound);
  EXPECT_EQ(code(std::string("/tmp\0x", 6)), Code::kNotFound);
  EXPECT_EQ(code(std::string(5000, 'x')), Code::kNotFound);
  EXPECT_EQ(code(::testing::TempDir()), Code::kNotRegular);
#ifdef _WIN32
  EXPECT_EQ(code("NUL"), Code::kNotRegular);
#else
  EXPECT_EQ(code("/dev/null"), Code::kNotRegular);
#endif
}

TEST(Printable, IsAlwaysUtf8) {
  EXPECT_EQ(io::printable("a\xc3\xa9\n"), "a\xc3\xa9\\x0a");
  EXPECT_EQ(io::printable("\xff\xed\xa0\x80"), "\\xff\\xed\\xa0\\x80");
  EXPECT_EQ(io::printable("\xe2\x82"), "\\xe2\\x82");
}

TEST(Downsamples, AreWholeWhereRemaindersWereCut) {
  const auto level = [](std::int64_t width, std::int64_t height) {
    Level l;
    l.width_px = width;
    l.height_px = height;
    return l;
  };
  struct Case {
    Level full, part;
    std::int64_t num, den;
  };
  const Case cases[] = {
      {level(4443, 3567), level(2221, 1783), 2, 1},  // floor
      {level(4443, 3567), level(2222, 1784), 2, 1},  // ceil
      {level(300, 250), level(75, 62), 4, 1},
      {level(300, 250), level(37, 31), 8, 1},
      {level(100'001, 60'001), level(3125, 1875), 32, 1},
      {level(999, 999), level(333, 333), 3, 1},
      {level(50, 16), level(3, 1), 16, 1},  // 17 fits the width too; a power of two wins
      {level(1000, 1000), level(700, 700), 1000, 700},
      {level(1000, 1000), level(500, 400), 1000, 500},
  };
  for (const Case& c : cases) {
    std::vector<Level> levels{c.full, c.part};
    io::set_downsamples(levels);
    EXPECT_EQ(levels[0].down_x_num, 1);
    EXPECT_EQ(levels[1].down_x_num, c.num) << c.part.width_px;
    EXPECT_EQ(levels[1].down_x_den, c.den) << c.part.width_px;
  }
}

SlideInfo info_with(std::optional<double> x_um, std::optional<double> y_um) {
  SlideInfo info;
  info.levels.resize(1);
  info.levels[0].width_px = 1000;
  info.levels[0].height_px = 800;
  if (x_um) info.spacing_x = Spacing::from_um(*x_um);
  if (y_um) info.spacing_y = Spacing::from_um(*y_um);
  info.spacing_source = SpacingSource::kVendor;
  return info;
}

std::optional<Code> code_of(const SlideInfo& info, std::optional<double> mpp) {
  try {
    resolve_frame(info, mpp);
  } catch (const Error& error) {
    return error.code();
  }
  return std::nullopt;
}

TEST(ResolveFrame, TakesTheFilesSpacingOrTheUsers) {
  const ResolvedFrame own = resolve_frame(info_with(0.25, 0.252), std::nullopt);
  EXPECT_EQ(own.frame.spacing_x.pm, 250'000);
  EXPECT_EQ(own.frame.spacing_y.pm, 252'000);
  EXPECT_EQ(own.source, SpacingSource::kVendor);
  EXPECT_FALSE(own.warning);
  const ResolvedFrame close = resolve_frame(info_with(0.25, 0.25), 0.254);
  EXPECT_EQ(close.frame.spacing_x.pm, 254'000);
  EXPECT_EQ(close.source, SpacingSource::kUser);
  EXPECT_FALSE(close.warning);
  EXPECT_TRUE(resolve_frame(info_with(0.25, 0.25), 0.256).warning);
  EXPECT_TRUE(resolve_frame(info_with(352.8, 352.8), 0.25).warning);
  EXPECT_FALSE(resolve_frame(info_with({}, {}), 0.25).warning);
}

TEST(ResolveFrame, NeverGuesses) {
  EXPECT_EQ(code_of(info_with({}, {}), {}), Code::kNoSpacing);
  EXPECT_EQ(code_of(info_with(0.25, {}), {}), Code::kNoSpacing);
  EXPECT_EQ(code_of(info_with(0.25, 0.26), {}), Code::kBadSpacing);
  EXPECT_EQ(code_of(info_with(352.8, 352.8), {}), Code::kBadSpacing);
  EXPECT_EQ(code_of(info_with(0.07, 0.07), {}), Code::kBadSpacing);
  for (const double mpp : {0.0, -1.0, 0.07, 2.1, std::numeric_limits<double>::quiet_NaN(),
                           std::numeric_limits<double>::infinity()}) {
    EXPECT_EQ(code_of(info_with(0.25, 0.25), mpp), Code::kBadSpacing) << mpp;
  }
}

TEST(OpenSlideFromBytes, RefusesWhatIsNoTiff) {
  EXPECT_EQ(testing::code_of_open(Bytes(1000, std::byte{'x'})), Code::kUnsupportedFormat);
  EXPECT_EQ(testing::code_of_open({}), Code::kUnsupportedFormat);
  EXPECT_THROW(open_slide(std::shared_ptr<const ByteSource>()), std::invalid_argument);
}

}  // namespace
}  // namespace her2fast
