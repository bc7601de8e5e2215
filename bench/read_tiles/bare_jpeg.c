// SPDX-License-Identifier: Apache-2.0
// The decoder's limit: JPEG tiles in memory through bare libjpeg-turbo, each thread with one
// decompressor and one buffer that it reuses. No file, no cache, no checks.
//   cc -O3 -shared -fPIC bare_jpeg.c -ljpeg -lpthread -o bare_jpeg.so
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

struct work {
  const uint8_t* bytes;
  const uint64_t* offsets;  // of `count` tiles and of the end
  const uint8_t* tables;
  uint64_t table_bytes;
  int64_t count;
  int side, denominator;
  atomic_llong next;
  atomic_ullong checksum;
};

static void* decode(void* argument) {
  struct work* work = argument;
  struct jpeg_decompress_struct info;
  struct jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_decompress(&info);
  const int side = work->side / work->denominator;
  uint8_t* rgb = malloc((size_t)side * side * 3);
  if (work->table_bytes > 0) {
    jpeg_mem_src(&info, work->tables, work->table_bytes);
    jpeg_read_header(&info, FALSE);
  }
  unsigned long long sum = 0;
  for (long long i; (i = atomic_fetch_add(&work->next, 1)) < work->count;) {
    const uint64_t begin = work->offsets[2 * i], size = work->offsets[2 * i + 1];
    jpeg_mem_src(&info, work->bytes + begin, size);
    jpeg_read_header(&info, TRUE);
    info.out_color_space = JCS_RGB;
    info.jpeg_color_space = JCS_YCbCr;
    info.scale_num = 1;
    info.scale_denom = (unsigned)work->denominator;
    jpeg_start_decompress(&info);
    while (info.output_scanline < info.output_height) {
      JSAMPROW rows[4];
      for (int k = 0; k < 4; ++k) rows[k] = rgb + (info.output_scanline + k) * side * 3;
      jpeg_read_scanlines(&info, rows, 4);
    }
    jpeg_finish_decompress(&info);
    sum += rgb[side * side / 2 * 3];
  }
  atomic_fetch_add(&work->checksum, sum);
  free(rgb);
  jpeg_destroy_decompress(&info);
  return NULL;
}

// offsets: (count, 2), begin and size of each tile in `bytes`.
unsigned long long bare_decode(const uint8_t* bytes, const uint64_t* offsets, int64_t count,
                               const uint8_t* tables, uint64_t table_bytes, int side,
                               int denominator, int threads) {
  struct work work = {bytes, offsets, tables, table_bytes, count, side, denominator, 0, 0};
  pthread_t others[16];
  for (int i = 1; i < threads && i < 16; ++i) {
    pthread_create(&others[i], NULL, decode, &work);
  }
  decode(&work);
  for (int i = 1; i < threads && i < 16; ++i) pthread_join(others[i], NULL);
  return work.checksum;
}
