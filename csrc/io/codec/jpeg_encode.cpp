// SPDX-License-Identifier: Apache-2.0
#include "io/codec/jpeg_encode.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "io/codec/jpeg_escape.h"

namespace her2fast::io {
namespace {

void set_table(j_compress_ptr info, int slot,
               const std::array<std::uint16_t, 64>& steps) {
  unsigned int wide[64];
  for (std::size_t i = 0; i < steps.size(); ++i) wide[i] = steps[i];
  jpeg_add_quant_table(info, slot, wide, 100, TRUE);  // 100 %: as they are
}

/// Plain C inside, so that longjmp crosses no destructor. The caller frees `*bytes`.
bool encode(const ImageView<const std::uint8_t>* rgb, const JpegQuantization& tables,
            JpegChroma chroma, unsigned char** bytes, unsigned long* size) {
  jpeg_compress_struct info;
  JpegEscape errors;
  std::memset(&info, 0, sizeof(info));
  info.err = errors.arm();
  if (setjmp(errors.escape) != 0) {
    jpeg_destroy_compress(&info);
    return false;
  }
  jpeg_create_compress(&info);
  jpeg_mem_dest(&info, bytes, size);
  info.input_components = 3;
  info.in_color_space = JCS_RGB;
  info.image_width = rgb != nullptr ? static_cast<JDIMENSION>(rgb->width) : 16;
  info.image_height = rgb != nullptr ? static_cast<JDIMENSION>(rgb->height) : 16;
  jpeg_set_defaults(&info);  // YCbCr
  info.comp_info[0].h_samp_factor = chroma == JpegChroma::k444 ? 1 : 2;
  info.comp_info[0].v_samp_factor = chroma == JpegChroma::k420 ? 2 : 1;
  set_table(&info, 0, tables.luma);
  set_table(&info, 1, tables.chroma);
  info.write_JFIF_header = FALSE;
  if (rgb == nullptr) {
    jpeg_write_tables(&info);
  } else {
    jpeg_suppress_tables(&info, TRUE);
    jpeg_start_compress(&info, FALSE);
    while (info.next_scanline < info.image_height) {
      JSAMPROW row = const_cast<JSAMPROW>(rgb->row(info.next_scanline));  // only read
      jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
  }
  jpeg_destroy_compress(&info);
  return true;
}

std::vector<std::byte> encoded(const ImageView<const std::uint8_t>* rgb,
                               const JpegQuantization& tables, JpegChroma chroma) {
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  const bool good = encode(rgb, tables, chroma, &bytes, &size);
  std::vector<std::byte> out;
  if (good) {
    const auto* begin = reinterpret_cast<const std::byte*>(bytes);
    out.assign(begin, begin + size);
  }
  std::free(bytes);
  if (!good) throw std::runtime_error("libjpeg could not encode a tile");
  return out;
}

}  // namespace

std::vector<std::byte> jpeg_tables(const JpegQuantization& tables) {
  return encoded(nullptr, tables, JpegChroma::k420);
}

std::vector<std::byte> encode_jpeg(ImageView<const std::uint8_t> rgb,
                                   const JpegQuantization& tables, JpegChroma chroma) {
  return encoded(&rgb, tables, chroma);
}

}  // namespace her2fast::io
