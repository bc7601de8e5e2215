// SPDX-License-Identifier: Apache-2.0
/// libjpeg without words: an error jumps to `escape`, a warning is counted, nothing is
/// printed. Between setjmp and the last call of libjpeg there must be no object with a
/// destructor.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <cstdio>
// jpeglib.h needs FILE and size_t declared before it.
#include <jpeglib.h>

namespace her2fast::io {

struct JpegEscape {
  jpeg_error_mgr base;  // first: libjpeg hands back a pointer to it
  std::jmp_buf escape;
  long warnings;

  jpeg_error_mgr* arm() {
    jpeg_error_mgr* manager = jpeg_std_error(&base);
    warnings = 0;
    base.error_exit = jump;
    base.emit_message = [](j_common_ptr info, int level) {
      if (level < 0) ++reinterpret_cast<JpegEscape*>(info->err)->warnings;
    };
    base.output_message = [](j_common_ptr) {};
    return manager;
  }

  [[noreturn]] static void jump(j_common_ptr info) {
    std::longjmp(reinterpret_cast<JpegEscape*>(info->err)->escape, 1);
  }
};

}  // namespace her2fast::io
