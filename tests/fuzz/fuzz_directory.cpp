// SPDX-License-Identifier: Apache-2.0
// Any bytes as the directories of a TIFF: an Error or directories whose values can be
// read.
#include "fuzz.h"
#include "io/container/tiff_directory.h"
#include "io/container/tiff_slide.h"

namespace {

using namespace her2fast;

/// One accessor a field: exceptions are what an execution costs, so the wrong ones for
/// its type are not all tried on every input. The input's size shifts the choice.
void read_field(const io::TiffFile& tiff, const io::TiffDirectory& directory,
                const io::TiffField& field, std::size_t shift) {
  switch ((field.tag + field.type + shift) & 3) {
    case 0:
      tiff.number(directory, field.tag);
      break;
    case 1:
      tiff.text(directory, field.tag, 1 << 12);
      break;
    case 2:
      tiff.signed_integer(directory, field.tag);
      break;
    default:
      tiff.integers(directory, field.tag, 1 << 12);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const io::TiffFile tiff(fuzz::source_of(data, size));
    io::check_extents(tiff);
    int failures = 0;
    for (const io::TiffDirectory& directory : tiff.directories()) {
      for (const io::TiffField& field : directory.fields) {
        try {
          read_field(tiff, directory, field, size);
        } catch (const Error&) {
          if (++failures == 2) return 0;
        }
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
