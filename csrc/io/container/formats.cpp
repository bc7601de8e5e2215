// SPDX-License-Identifier: Apache-2.0
#include "io/container/formats.h"

#include <array>

namespace her2fast::io {

std::span<const Format> formats() {
  // Named vendors before generic TIFF, which would take their files too; OpenSlide last,
  // because it decodes no JPEG at reduced scale and locks between threads.
  static constexpr std::array kFormats{
      Format{"hamamatsu", open_hamamatsu},
      Format{"aperio", open_aperio},
      Format{"generic-tiff", open_generic_tiff},
      Format{"openslide", open_with_openslide},
  };
  return kFormats;
}

}  // namespace her2fast::io
