// SPDX-License-Identifier: Apache-2.0
// Any bytes as the directories of a TIFF: an Error or directories whose values can be
// read.
#include "fuzz.h"
#include "io/container/tiff_directory.h"
#include "io/container/tiff_slide.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace her2fast;
  try {
    const io::TiffFile tiff(fuzz::source_of(data, size));
    io::check_extents(tiff);
    for (const io::TiffDirectory& directory : tiff.directories()) {
      for (const io::TiffField& field : directory.fields) {
        try {
          tiff.number(directory, field.tag);
          tiff.text(directory, field.tag, 1 << 12);
          tiff.integers(directory, field.tag, 1 << 16);
          tiff.signed_integer(directory, field.tag);
        } catch (const Error&) {
        }
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
