// SPDX-License-Identifier: Apache-2.0
#include "io/codec/jpeg_quantization.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "core/sha256.h"
#include "io/codec/jpeg_escape.h"

namespace her2fast::io {
namespace {

using Steps = std::array<std::uint16_t, 64>;

/// The table of a slot, which a damaged header may name beyond the last.
bool take(JQUANT_TBL* const* slots, int slot, Steps& steps) {
  if (slot < 0 || slot >= NUM_QUANT_TBLS || slots[slot] == nullptr) return false;
  const JQUANT_TBL* table = slots[slot];
  std::copy(std::begin(table->quantval), std::end(table->quantval), steps.begin());
  return true;
}

/// Plain C inside, so that longjmp crosses no destructor.
bool tables_of_quality(int quality, JpegQuantization* out) {
  jpeg_compress_struct info;
  JpegEscape errors;
  std::memset(&info, 0, sizeof(info));
  info.err = errors.arm();
  if (setjmp(errors.escape) != 0) {
    jpeg_destroy_compress(&info);
    return false;
  }
  jpeg_create_compress(&info);
  info.input_components = 3;
  info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, quality, TRUE);
  const bool both = take(info.quant_tbl_ptrs, 0, out->luma) &&
                    take(info.quant_tbl_ptrs, 1, out->chroma);
  jpeg_destroy_compress(&info);
  return both;
}

constexpr char kNoTables[] =
    "one without the quantization tables of luma and of chroma (a tile of a TIFF has "
    "none: give its JPEGTables)";

/// Of a header that was read: 4:2:0, 4:2:2 or 4:4:4.
bool chroma_of(const jpeg_decompress_struct& info, JpegChroma* chroma) {
  const jpeg_component_info* part = info.comp_info;
  for (int i = 1; i < 3; ++i) {
    if (part[i].h_samp_factor != 1 || part[i].v_samp_factor != 1) return false;
  }
  const int x = part[0].h_samp_factor, y = part[0].v_samp_factor;
  *chroma = y == 2 ? JpegChroma::k420 : x == 2 ? JpegChroma::k422 : JpegChroma::k444;
  return (x == 1 && y == 1) || (x == 2 && (y == 1 || y == 2));
}

/// What is wrong, or null. Plain C inside, as above.
const char* tables_of_stream(const unsigned char* bytes, unsigned long size,
                             JpegQuantization* out, JpegChroma* chroma, bool* image) {
  jpeg_decompress_struct info;
  JpegEscape errors;
  std::memset(&info, 0, sizeof(info));
  info.err = errors.arm();
  if (setjmp(errors.escape) != 0) {
    jpeg_destroy_decompress(&info);
    return "bytes that are none, or the beginning of one";
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, bytes, size);
  *image = jpeg_read_header(&info, FALSE) == JPEG_HEADER_OK;
  int luma = 0, second = 1;
  const char* wrong = nullptr;
  if (errors.warnings > 0) {
    wrong = "a damaged one, or the beginning of one";  // its last bytes were made up
  } else if (!*image) {
    if (info.quant_tbl_ptrs[2] != nullptr || info.quant_tbl_ptrs[3] != nullptr) {
      wrong = "tables of which it is not known which are used: give a whole JPEG";
    }
  } else if (info.num_components != 3 || info.jpeg_color_space != JCS_YCbCr) {
    wrong = "one that is not YCbCr";
  } else if (!chroma_of(info, chroma)) {
    wrong = "one with other chroma than 4:2:0, 4:2:2 and 4:4:4";
  } else {
    luma = info.comp_info[0].quant_tbl_no;
    second = info.comp_info[1].quant_tbl_no;
    if (info.comp_info[2].quant_tbl_no != second) wrong = "one with two chroma tables";
  }
  if (wrong == nullptr && !(take(info.quant_tbl_ptrs, luma, out->luma) &&
                            take(info.quant_tbl_ptrs, second, out->chroma))) {
    wrong = kNoTables;
  }
  jpeg_destroy_decompress(&info);
  return wrong;
}

bool fits(const Steps& steps) {
  return std::ranges::all_of(steps, [](std::uint16_t s) { return s >= 1 && s <= 255; });
}

}  // namespace

const char* jpeg_chroma_name(JpegChroma chroma) {
  switch (chroma) {
    case JpegChroma::k420:
      return "4:2:0";
    case JpegChroma::k422:
      return "4:2:2";
    case JpegChroma::k444:
      break;
  }
  return "4:4:4";
}

JpegQuantization jpeg_quantization(int quality) {
  JpegQuantization out;
  if (!tables_of_quality(quality, &out)) {
    throw std::runtime_error("libjpeg could not make quantization tables");
  }
  return out;
}

std::string read_jpeg_quantization(std::span<const std::byte> stream,
                                   JpegQuantization& out,
                                   std::optional<JpegChroma>& chroma) {
  JpegChroma seen{};
  bool image = false;
  const char* wrong =
      tables_of_stream(reinterpret_cast<const unsigned char*>(stream.data()),
                       static_cast<unsigned long>(stream.size()), &out, &seen, &image);
  chroma = image ? std::optional(seen) : std::nullopt;
  if (wrong == nullptr && !(fits(out.luma) && fits(out.chroma))) {
    wrong = "one with a step that is not 1 to 255";
  }
  if (wrong == nullptr) return "";
  return std::string("need a JPEG in YCbCr, or its tables, got ") + wrong;
}

std::string jpeg_quantization_sha256(const JpegQuantization& tables) {
  Sha256 hash;
  for (const Steps* steps : {&tables.luma, &tables.chroma}) {
    for (const std::uint16_t step : *steps) {
      const std::uint8_t bytes[] = {static_cast<std::uint8_t>(step & 0xff),
                                    static_cast<std::uint8_t>(step >> 8)};
      hash.update(bytes, sizeof(bytes));
    }
  }
  return hash.hex();
}

}  // namespace her2fast::io
