// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>

#include "io/container/tiff_directory.h"
#include "tiff_bytes.h"

namespace her2fast {
namespace {

using namespace testing;

constexpr Dialect kDialects[] = {
    {true, false}, {false, false}, {true, true}, {false, true}};

std::string name_of(Dialect d) {
  return std::string(d.little ? "little" : "big") + "-endian " +
         (d.big ? "BigTIFF" : "classic");
}

std::optional<Code> open_with(Dialect d, std::uint16_t number, const Tag& tag) {
  Tags tags = plain_tags();
  tags[number] = tag;
  return code_of_open(build_tiff(d, plain_tiles(), {tags}));
}

Tag value(std::uint64_t v, std::uint16_t type = 4) { return {type, {v}, {}}; }

TEST(TiffDirectory, EveryDialectGivesTheSamePixels) {
  for (const Dialect d : kDialects) {
    Tags tags = plain_tags();
    add_resolution(tags, d.little);
    const auto slide =
        open_slide(std::make_shared<MemorySource>(build_tiff(d, plain_tiles(), {tags})));
    const SlideInfo& info = slide->info();
    EXPECT_EQ(info.format, "generic-tiff") << name_of(d);
    ASSERT_EQ(info.levels.size(), 1u);
    EXPECT_EQ(info.levels[0].width_px, 48);
    EXPECT_EQ(info.levels[0].height_px, 40);
    ASSERT_TRUE(info.spacing_x && info.spacing_y);
    EXPECT_EQ(info.spacing_x->pm, 500'000);
    EXPECT_EQ(info.spacing_source, SpacingSource::kTiffResolution);
    const auto scratch = make_decode_scratch();
    std::vector<std::uint8_t> rgb(32 * 32 * 3);
    for (int t = 0; t < 4; ++t) {
      const auto status =
          slide->read_tile(0, t % 2, t / 2, 1, {rgb.data(), 32, 32, 3}, *scratch);
      EXPECT_EQ(status, TileStatus::kOk);
      for (std::size_t k = 0; k < rgb.size(); ++k) {
        ASSERT_EQ(rgb[k],
                  static_cast<std::uint8_t>(7 * k + 31 * static_cast<std::size_t>(t)));
      }
    }
  }
}

TEST(TiffDirectory, EveryTruncationIsFoundAtOpen) {
  for (const Dialect d : kDialects) {
    Tags tags = plain_tags();
    add_resolution(tags, d.little);
    const Bytes whole = build_tiff(d, plain_tiles(), {tags});
    ASSERT_EQ(code_of_open(whole), std::nullopt);
    for (std::size_t size = 0; size < whole.size(); size += size < 64 ? 1 : 37) {
      const auto code =
          code_of_open(Bytes(whole.begin(), whole.begin() + static_cast<long>(size)));
      EXPECT_EQ(code, size < 4 ? Code::kUnsupportedFormat : Code::kTruncated)
          << name_of(d) << " cut to " << size;
    }
    const Bytes one_less(whole.begin(), whole.end() - 1);
    EXPECT_EQ(code_of_open(one_less), Code::kTruncated);
  }
}

TEST(TiffDirectory, TileBeyondTheEndIsTruncated) {
  // The directory comes first in the file's order of offsets, so only a tile's end is
  // cut.
  for (const Dialect d : kDialects) {
    EXPECT_EQ(open_with(d, 324, {4, {16, 16, 16, 1u << 20}, {}}), Code::kTruncated);
    EXPECT_EQ(open_with(d, 324, {4, {0xffffffff, 16, 16, 16}, {}}), Code::kTruncated);
    EXPECT_EQ(open_with(d, 325, {4, {3072, 3072, 3072, 1u << 15}, {}}), Code::kTruncated);
  }
  Tag wide{16, {16, 16, 16, ~std::uint64_t{0}}, {}};  // offset + size wraps round
  EXPECT_EQ(open_with({true, true}, 324, wide), Code::kTruncated);
}

TEST(TiffDirectory, CyclesEndAsCycles) {
  for (const Dialect d : kDialects) {
    const Tags tags = plain_tags();
    EXPECT_EQ(code_of_open(build_tiff(d, plain_tiles(), {tags}, 1)), Code::kIfdCycle);
    EXPECT_EQ(code_of_open(build_tiff(d, plain_tiles(), {tags, tags, tags}, 1)),
              Code::kIfdCycle);
  }
}

TEST(TiffDirectory, TooManyDirectoriesAreALimit) {
  Tags tiny;
  tiny[256] = value(1);
  const std::vector<Tags> many(io::kMaxDirectories + 1, tiny);
  EXPECT_EQ(code_of_open(build_tiff({}, {}, many)), Code::kLimitExceeded);
}

TEST(TiffDirectory, AbsurdNumbersHaveClearCodes) {
  for (const Dialect d : kDialects) {
    for (const std::uint16_t side : {256, 257}) {
      EXPECT_EQ(open_with(d, side, value(0)), Code::kBadHeader);
      EXPECT_EQ(open_with(d, side, value(0xffffffff)), Code::kLimitExceeded);
      EXPECT_EQ(open_with(d, side, value(1u << 26)),
                Code::kBadHeader);  // 4 tiles do not fill it
    }
    for (const std::uint16_t side : {322, 323}) {
      EXPECT_EQ(open_with(d, side, value(0)), Code::kBadHeader);
      EXPECT_EQ(open_with(d, side, value(0xffffffff)), Code::kLimitExceeded);
    }
    EXPECT_EQ(open_with(d, 324, {4, {16, 16, 16}, {}}), Code::kBadHeader);
    Tag huge = value(16);
    huge.count = 0xffffffff;
    EXPECT_EQ(open_with(d, 324, huge), Code::kTruncated);
    if (d.big) {
      huge.count = ~std::uint64_t{0};  // count * size wraps round
      EXPECT_EQ(open_with(d, 324, huge), Code::kTruncated);
    }
    EXPECT_EQ(open_with(d, 256, {2, {}, Bytes(4, std::byte{'x'})}), Code::kBadHeader);
    EXPECT_EQ(open_with(d, 322, {11, {32}, {}}), Code::kBadHeader);  // FLOAT
    EXPECT_EQ(open_with(d, 258, {3, {16, 16, 16}, {}}), Code::kUnsupportedPixels);
    EXPECT_EQ(open_with(d, 277, value(1, 3)), Code::kUnsupportedPixels);
    EXPECT_EQ(open_with(d, 277, value(4, 3)), Code::kUnsupportedPixels);
    EXPECT_EQ(open_with(d, 284, value(2, 3)), Code::kUnsupportedPixels);
    EXPECT_EQ(open_with(d, 262, value(1, 3)), Code::kUnsupportedPixels);
    EXPECT_EQ(open_with(d, 262, value(6, 3)), Code::kUnsupportedPixels);
    EXPECT_EQ(open_with(d, 339, {3, {3, 3, 3}, {}}), Code::kUnsupportedPixels);
    EXPECT_EQ(open_with(d, 259, value(5, 3)), Code::kUnsupportedFormat);
    EXPECT_EQ(open_with(d, 259, value(33005, 3)), Code::kUnsupportedFormat);
  }
}

TEST(TiffDirectory, AGiantSlideNeedsAGiantFile) {
  // 2^26 px a side would need 2^42 tiles: refused by the product, before any table is
  // made.
  Tags tags = plain_tags();
  tags[256] = value(1u << 26);
  tags[257] = value(1u << 26);
  EXPECT_EQ(code_of_open(build_tiff({}, plain_tiles(), {tags})), Code::kLimitExceeded);
}

TEST(TiffDirectory, MissingTagsAreABadHeader) {
  for (const std::uint16_t number : {256, 257, 262, 323, 324, 325}) {
    Tags tags = plain_tags();
    tags.erase(number);
    EXPECT_EQ(code_of_open(build_tiff({}, plain_tiles(), {tags})), Code::kBadHeader)
        << number;
  }
}

TEST(TiffDirectory, DuplicateTagsAreABadHeader) {
  Bytes bytes = build_tiff({}, plain_tiles(), {plain_tags()});
  // The eighth entry (296, value 3) becomes another 277 with the same value: harmless but
  // for being there twice. Entries are 12 bytes after a 2-byte count.
  const std::size_t entry = 16 + plain_tiles().size() + 2 + 7 * 12;
  ASSERT_EQ(bytes[entry], std::byte{296 & 255});
  bytes[entry] = std::byte{277 & 255};
  EXPECT_EQ(code_of_open(bytes), Code::kBadHeader);
}

TEST(TiffDirectory, TilesWithoutBytesReadAsMissing) {
  for (const auto& [number, tag] :
       {std::pair<std::uint16_t, Tag>{324, {4, {0, 16, 16, 16}, {}}},
        {325, {4, {0, 3072, 3072, 3072}, {}}}}) {
    Tags tags = plain_tags();
    tags[number] = tag;
    const auto slide =
        open_slide(std::make_shared<MemorySource>(build_tiff({}, plain_tiles(), {tags})));
    std::vector<std::uint8_t> rgb(32 * 32 * 3, 1);
    const auto scratch = make_decode_scratch();
    const ImageView<std::uint8_t> out(rgb.data(), 32, 32, 3);
    EXPECT_EQ(slide->read_tile(0, 0, 0, 1, out, *scratch), TileStatus::kMissing);
    EXPECT_EQ(std::count(rgb.begin(), rgb.end(), 255), static_cast<long>(rgb.size()));
    EXPECT_EQ(slide->read_tile(0, 1, 0, 1, out, *scratch), TileStatus::kOk);
    EXPECT_THROW(slide->read_tile(0, 2, 0, 1, out, *scratch), std::invalid_argument);
    EXPECT_THROW(slide->read_tile(0, 0, 0, 2, out, *scratch), std::invalid_argument);
  }
}

TEST(TiffDirectory, HintsNameTheTilesBytes) {
  Tags tags = plain_tags();
  tags[325] = {4, {3072, 3072, 3072, 0}, {}};  // the last tile is missing
  const auto source =
      std::make_shared<MemorySource>(build_tiff({}, plain_tiles(), {tags}));
  const auto slide = open_slide(source);
  EXPECT_TRUE(source->expected.empty());
  slide->expect_tile(0, 0, 1);
  ASSERT_EQ(source->expected.size(), 1u);
  EXPECT_EQ(source->expected[0],
            (std::pair<std::uint64_t, std::uint64_t>{16 + 2 * 3072, 3072}));
  for (const auto& [column, row] : {std::pair{1, 1}, {2, 0}, {0, 2}, {-1, 0}, {0, -1}}) {
    slide->expect_tile(0, column, row);  // no tile, or no bytes: no hint, no error
  }
  EXPECT_EQ(source->expected.size(), 1u);
}

TEST(TiffDirectory, LevelsAreSmallerCopiesOfTheFirst) {
  Tags half = plain_tags();
  half[256] = value(24);
  half[257] = value(20);
  half[324] = value(16);
  half[325] = value(3072);
  Tags label = half;  // another shape: never a level
  label[256] = value(12);
  Tags mask = half;
  mask[254] = value(4);
  const Tags same = plain_tags();  // another plane, not a level
  const auto slide = open_slide(std::make_shared<MemorySource>(
      build_tiff({}, plain_tiles(), {plain_tags(), label, mask, same, half})));
  ASSERT_EQ(slide->info().levels.size(), 2u);
  EXPECT_EQ(slide->info().levels[1].width_px, 24);
  EXPECT_EQ(slide->info().levels[1].down_x_num, 2);
  EXPECT_EQ(slide->info().levels[1].down_x_den, 1);
}

TEST(TiffDirectory, MutationsOpenOrEndInACodeWithBoundedReads) {
  // Every tag x {dropped, retyped, count 0 or huge, values, offsets}, in every dialect.
  int opened = 0, refused = 0;
  const auto run = [&](const Bytes& bytes) {
    const auto source = std::make_shared<MemorySource>(bytes);
    try {
      const auto slide = open_slide(source);
      const auto scratch = make_decode_scratch();
      const Level& level = slide->info().levels[0];
      ASSERT_LE(std::int64_t{level.tile_width_px} * level.tile_height_px, 1 << 24);
      std::vector<std::uint8_t> rgb(static_cast<std::size_t>(level.tile_width_px) *
                                    static_cast<std::size_t>(level.tile_height_px) * 3);
      slide->read_tile(0, 0, 0, 1,
                       {rgb.data(), level.tile_height_px, level.tile_width_px, 3},
                       *scratch);
      ++opened;
    } catch (const Error&) {
      ++refused;
    }
    ASSERT_LE(source->bytes_read, 16 * bytes.size() + 4096);
  };
  for (const Dialect d : kDialects) {
    for (const auto& [number, original] : plain_tags()) {
      std::vector<std::optional<Tag>> edits{std::nullopt};
      for (const std::uint16_t type :
           {0, 1, 2, 3, 4, 5, 7, 11, 12, 13, 16, 18, 99, 65535}) {
        Tag edit = original;
        edit.raw = Bytes(32, std::byte{1});
        edit.type = type;
        edits.emplace_back(edit);
      }
      for (const std::uint64_t count : {1u, 3u, 5u, 65535u, 0x7fffffffu, 0xffffffffu}) {
        Tag edit = original;
        edit.count = count;
        edits.emplace_back(edit);
      }
      for (const std::uint64_t v : {0u, 1u, 2u, 65535u, 0xffffffffu}) {
        Tag edit{4, std::vector<std::uint64_t>(original.values.size(), v), {}};
        edits.emplace_back(edit);
      }
      for (const std::uint64_t position : {0u, 4u, 16u, 12400u, 0xfffffff0u}) {
        Tag edit = original;
        edit.external = true;
        edit.position = position;
        edit.count = 4;
        edits.emplace_back(edit);
      }
      for (const auto& edit : edits) {
        Tags tags = plain_tags();
        if (edit) {
          tags[number] = *edit;
        } else {
          tags.erase(number);
        }
        run(build_tiff(d, plain_tiles(), {tags}));
      }
    }
  }
  std::mt19937 random(5);
  for (const Dialect d : kDialects) {
    const Bytes whole = build_tiff(d, plain_tiles(), {plain_tags()});
    const std::size_t first = 16 + plain_tiles().size();
    for (int i = 0; i < 500; ++i) {
      Bytes bytes = whole;
      for (int k = 0; k < 3; ++k) {
        const std::size_t at =
            random() % 4 == 0 ? random() % 16 : first + random() % (whole.size() - first);
        bytes[at] = static_cast<std::byte>(random());
      }
      run(bytes);
    }
  }
  EXPECT_GT(opened, 100);
  EXPECT_GT(refused, 500);
}

}  // namespace
}  // namespace her2fast
