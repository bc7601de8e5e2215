// SPDX-License-Identifier: Apache-2.0
#include "her2fast/error.h"

#include <array>

namespace her2fast {
namespace {

struct Row {
  Code code;
  std::string_view name;
  Status status;
};

// The order is that of `Code`; a test walks it.
constexpr std::array<Row, kCodeCount> kRows{{
    {Code::kNotFound, "NOT_FOUND", Status::kFailed},
    {Code::kNotRegular, "NOT_REGULAR", Status::kRefused},
    {Code::kUnsupportedFormat, "UNSUPPORTED_FORMAT", Status::kRefused},
    {Code::kUnsupportedPixels, "UNSUPPORTED_PIXELS", Status::kRefused},
    {Code::kTruncated, "TRUNCATED", Status::kFailed},
    {Code::kIfdCycle, "IFD_CYCLE", Status::kFailed},
    {Code::kLimitExceeded, "LIMIT_EXCEEDED", Status::kFailed},
    {Code::kBadHeader, "BAD_HEADER", Status::kFailed},
    {Code::kIo, "IO", Status::kFailed},
    {Code::kHashMismatch, "HASH_MISMATCH", Status::kFailed},
    {Code::kNoSpacing, "NO_SPACING", Status::kRefused},
    {Code::kBadSpacing, "BAD_SPACING", Status::kRefused},
    {Code::kNoLevel, "NO_LEVEL", Status::kRefused},
    {Code::kRoiInvalid, "ROI_INVALID", Status::kRefused},
    {Code::kRoiOutside, "ROI_OUTSIDE", Status::kRefused},
    {Code::kNoTissue, "NO_TISSUE", Status::kIndeterminate},
    {Code::kNoTumor, "NO_TUMOR", Status::kIndeterminate},
    {Code::kTooLittleTumor, "TOO_LITTLE_TUMOR", Status::kIndeterminate},
    {Code::kWrongStain, "WRONG_STAIN", Status::kRefused},
    {Code::kMissingTiles, "MISSING_TILES", Status::kIndeterminate},
    {Code::kCorruptTiles, "CORRUPT_TILES", Status::kIndeterminate},
    {Code::kModelHash, "MODEL_HASH", Status::kRefused},
    {Code::kModelShape, "MODEL_SHAPE", Status::kRefused},
    {Code::kModelClasses, "MODEL_CLASSES", Status::kRefused},
    {Code::kNonFinite, "NON_FINITE", Status::kFailed},
    {Code::kGpuOom, "GPU_OOM", Status::kFailed},
    {Code::kGpuLost, "GPU_LOST", Status::kFailed},
    {Code::kCrash, "CRASH", Status::kFailed},
    {Code::kTimeout, "TIMEOUT", Status::kFailed},
    {Code::kInputChanged, "INPUT_CHANGED", Status::kFailed},
    {Code::kCancelled, "CANCELLED", Status::kFailed},
    {Code::kDiskFull, "DISK_FULL", Status::kFailed},
    {Code::kOutputBusy, "OUTPUT_BUSY", Status::kFailed},
    {Code::kSelftest, "SELFTEST", Status::kFailed},
}};

}  // namespace

std::string_view code_name(Code code) {
  return kRows[static_cast<std::size_t>(code)].name;
}

Code parse_code(std::string_view name) {
  for (const Row& row : kRows) {
    if (row.name == name) return row.code;
  }
  throw std::invalid_argument("need a reason code, got \"" + std::string(name) + "\"");
}

Status code_status(Code code) { return kRows[static_cast<std::size_t>(code)].status; }

std::string_view status_name(Status status) {
  switch (status) {
    case Status::kScored:
      return "scored";
    case Status::kIndeterminate:
      return "indeterminate";
    case Status::kFailed:
      return "failed";
    case Status::kRefused:
      return "refused";
  }
  return "failed";
}

}  // namespace her2fast
