// SPDX-License-Identifier: Apache-2.0
#include "io/codec/jpeg_encode.h"

#include <jpeglib.h>

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace her2fast::io {
namespace {

struct ErrorManager {
  jpeg_error_mgr base;  // first: libjpeg hands back a pointer to it
  std::jmp_buf escape;
};

[[noreturn]] void on_error(j_common_ptr info) {
  std::longjmp(reinterpret_cast<ErrorManager*>(info->err)->escape, 1);
}
void stay_silent(j_common_ptr) {}
void ignore_message(j_common_ptr, int) {}

/// Plain C inside, so that longjmp crosses no destructor. The caller frees `*bytes`.
bool encode(const ImageView<const std::uint8_t>* rgb, int quality, JpegChroma chroma,
            unsigned char** bytes, unsigned long* size) {
  jpeg_compress_struct info;
  ErrorManager errors;
  std::memset(&info, 0, sizeof(info));
  info.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = on_error;
  errors.base.emit_message = ignore_message;
  errors.base.output_message = stay_silent;
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
  jpeg_set_quality(&info, quality, TRUE);
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

std::vector<std::byte> encoded(const ImageView<const std::uint8_t>* rgb, int quality,
                               JpegChroma chroma) {
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  const bool good = encode(rgb, quality, chroma, &bytes, &size);
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

std::vector<std::byte> jpeg_tables(int quality) {
  return encoded(nullptr, quality, JpegChroma::k420);
}

std::vector<std::byte> encode_jpeg(ImageView<const std::uint8_t> rgb, int quality,
                                   JpegChroma chroma) {
  return encoded(&rgb, quality, chroma);
}

}  // namespace her2fast::io
