// SPDX-License-Identifier: Apache-2.0
// Any bytes as the directories of a TIFF: an Error or directories whose values can be
// read.
#include "fuzz.h"
#include "io/container/tiff_directory.h"
#include "io/container/tiff_slide.h"

namespace {

using namespace her2fast;

/// One accessor a field, and none after the first that throws: exceptions are what an
/// execution costs. The type's own, or one of the others where the input's size says so.
void read_field(const io::TiffFile& tiff, const io::TiffDirectory& directory,
                const io::TiffField& field, std::size_t shift) {
  enum Accessor : std::size_t { kNumber, kText, kSigned, kIntegers };
  const std::uint16_t type = field.type;
  std::size_t accessor = type == 2                               ? kText
                         : type == 5 || type == 11 || type == 12 ? kNumber
                         : type == 6 || type == 8 || type == 9   ? kSigned
                                                                 : kIntegers;
  if (((field.tag + shift) & 15) == 0) accessor = (accessor + 1 + shift / 16) & 3;
  switch (accessor) {
    case kNumber:
      tiff.number(directory, field.tag);
      break;
    case kText:
      tiff.text(directory, field.tag, 1 << 12);
      break;
    case kSigned:
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
    for (const io::TiffDirectory& directory : tiff.directories()) {
      for (const io::TiffField& field : directory.fields) {
        read_field(tiff, directory, field, size);
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
