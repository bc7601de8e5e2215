// SPDX-License-Identifier: Apache-2.0
#include "io/codec/jpeg.h"

#include <cstring>
#include <new>

#include "io/codec/jpeg_escape.h"
// After jpeglib.h, whose types it names.
#include <jerror.h>

namespace her2fast::io {
namespace {

// A progressive stream may name thousands of scans, each a pass over the whole tile: real
// encoders write about ten.
constexpr int kMaxScans = 64;
// Coefficients of a progressive 4096 x 4096 tile with three full components need 96 MiB.
constexpr long kMaxMemoryBytes = 256L << 20;

void start_source(j_decompress_ptr) {}

boolean fill_source(j_decompress_ptr info) {
  // The stream ended early: say so once and let the decoder finish with an EOI.
  static const JOCTET kEnd[] = {0xff, JPEG_EOI};
  WARNMS(info, JWRN_JPEG_EOF);
  info->src->next_input_byte = kEnd;
  info->src->bytes_in_buffer = sizeof(kEnd);
  return TRUE;
}

void skip_source(j_decompress_ptr info, long bytes) {
  if (bytes <= 0) return;
  if (static_cast<std::size_t>(bytes) > info->src->bytes_in_buffer) {
    fill_source(info);
    return;
  }
  info->src->next_input_byte += bytes;
  info->src->bytes_in_buffer -= static_cast<std::size_t>(bytes);
}

void end_source(j_decompress_ptr) {}

void limit_scans(j_common_ptr info) {
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number > kMaxScans)
    JpegEscape::jump(info);
}

}  // namespace

struct JpegDecoder::State {
  jpeg_decompress_struct info;
  JpegEscape errors;
  jpeg_source_mgr source;
  jpeg_progress_mgr progress;

  void set_input(std::span<const std::byte> bytes) {
    source.next_input_byte = reinterpret_cast<const JOCTET*>(bytes.data());
    source.bytes_in_buffer = bytes.size();
  }

  /// Tables outlive an image in libjpeg, so a tile without its own would decode with
  /// those of the tile before it, or with libjpeg-turbo's defaults. Impossible code
  /// lengths and a zero quantizer make that an error instead; what the stream defines
  /// replaces them.
  void forget_tables() {
    for (JHUFF_TBL* table :
         {info.dc_huff_tbl_ptrs[0], info.dc_huff_tbl_ptrs[1], info.dc_huff_tbl_ptrs[2],
          info.dc_huff_tbl_ptrs[3], info.ac_huff_tbl_ptrs[0], info.ac_huff_tbl_ptrs[1],
          info.ac_huff_tbl_ptrs[2], info.ac_huff_tbl_ptrs[3]}) {
      std::memset(table->bits, 0, sizeof(table->bits));
      table->bits[1] = 255;
    }
    for (JQUANT_TBL* table : info.quant_tbl_ptrs) {
      std::memset(table->quantval, 0, sizeof(table->quantval));
    }
  }

  bool has_quantizers() const {
    for (int i = 0; i < info.num_components; ++i) {
      const int slot = info.comp_info[i].quant_tbl_no;
      if (slot < 0 || slot >= NUM_QUANT_TBLS) return false;
      for (const UINT16 step : info.quant_tbl_ptrs[slot]->quantval) {
        if (step == 0) return false;
      }
    }
    return true;
  }
};

JpegDecoder::JpegDecoder() : state_(std::make_unique<State>()) {
  State& s = *state_;
  std::memset(static_cast<void*>(&s.info), 0, sizeof(s.info));
  s.info.err = s.errors.arm();
  if (setjmp(s.errors.escape) != 0) {
    jpeg_destroy_decompress(&s.info);
    throw std::bad_alloc();  // nothing else can fail here
  }
  jpeg_create_decompress(&s.info);
  s.info.mem->max_memory_to_use = kMaxMemoryBytes;
  s.source.init_source = start_source;
  s.source.fill_input_buffer = fill_source;
  s.source.skip_input_data = skip_source;
  s.source.resync_to_restart = jpeg_resync_to_restart;
  s.source.term_source = end_source;
  s.info.src = &s.source;
  s.progress.progress_monitor = limit_scans;
  s.info.progress = &s.progress;
  const auto common = reinterpret_cast<j_common_ptr>(&s.info);
  for (int i = 0; i < NUM_HUFF_TBLS; ++i) {
    s.info.dc_huff_tbl_ptrs[i] = jpeg_alloc_huff_table(common);
    s.info.ac_huff_tbl_ptrs[i] = jpeg_alloc_huff_table(common);
  }
  for (JQUANT_TBL*& table : s.info.quant_tbl_ptrs) table = jpeg_alloc_quant_table(common);
}

JpegDecoder::~JpegDecoder() { jpeg_destroy_decompress(&state_->info); }

TileStatus JpegDecoder::decode(std::span<const std::byte> tables,
                               std::span<const std::byte> stream, JpegColor color,
                               std::int64_t width_px, std::int64_t height_px,
                               int denominator, ImageView<std::uint8_t> out) {
  State& s = *state_;
  jpeg_decompress_struct& info = s.info;
  s.errors.warnings = 0;
  if (setjmp(s.errors.escape) != 0) {  // no object with a destructor lives below
    jpeg_abort_decompress(&info);
    return TileStatus::kCorrupt;
  }
  s.forget_tables();
  if (!tables.empty()) {
    s.set_input(tables);
    if (jpeg_read_header(&info, FALSE) != JPEG_HEADER_TABLES_ONLY) {
      jpeg_abort_decompress(&info);
      return TileStatus::kCorrupt;
    }
  }
  s.set_input(stream);
  if (jpeg_read_header(&info, TRUE) != JPEG_HEADER_OK || info.num_components != 3 ||
      info.data_precision != 8 || info.image_width != static_cast<JDIMENSION>(width_px) ||
      info.image_height != static_cast<JDIMENSION>(height_px) || !s.has_quantizers()) {
    jpeg_abort_decompress(&info);
    return TileStatus::kCorrupt;
  }
  info.jpeg_color_space = color == JpegColor::kRgb ? JCS_RGB : JCS_YCbCr;
  info.out_color_space = JCS_RGB;
  info.scale_num = 1;
  info.scale_denom = static_cast<unsigned>(denominator);
  jpeg_start_decompress(&info);
  if (info.output_width != static_cast<JDIMENSION>(out.width) ||
      info.output_height != static_cast<JDIMENSION>(out.height) ||
      info.output_components != 3) {
    jpeg_abort_decompress(&info);
    return TileStatus::kCorrupt;
  }
  while (info.output_scanline < info.output_height) {
    JSAMPROW rows[4];
    JDIMENSION count = 0;
    while (count < 4 && info.output_scanline + count < info.output_height) {
      rows[count] = out.row(info.output_scanline + count);
      ++count;
    }
    jpeg_read_scanlines(&info, rows, count);
  }
  jpeg_finish_decompress(&info);
  return s.errors.warnings > 0 ? TileStatus::kWarned : TileStatus::kOk;
}

}  // namespace her2fast::io
