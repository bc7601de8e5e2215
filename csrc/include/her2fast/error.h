// SPDX-License-Identifier: Apache-2.0
/// Reason codes, terminal statuses and the one exception type of the library.
///
/// Thread-safety: everything here is immutable or a value. The library never prints,
/// aborts or exits; whatever goes wrong is an `Error` that names file, place and next
/// step.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace her2fast {

/// How a slide ends. Exactly one per slide; a score exists only with `scored`.
enum class Status { kScored, kIndeterminate, kFailed, kRefused };

/// Stable reason codes; names and statuses stand in one table in core/error.cpp.
enum class Code {
  // input
  kNotFound,
  kNotRegular,
  kUnsupportedFormat,
  kUnsupportedPixels,
  kTruncated,
  kIfdCycle,
  kLimitExceeded,
  kBadHeader,
  kIo,
  kHashMismatch,
  // geometry
  kNoSpacing,
  kBadSpacing,
  kNoLevel,
  kRoiInvalid,
  kRoiOutside,
  // quality control
  kNoTissue,
  kNoTumor,
  kTooLittleTumor,
  kWrongStain,
  kMissingTiles,
  kCorruptTiles,
  // model
  kModelHash,
  kModelShape,
  kModelClasses,
  kNonFinite,
  // run
  kGpuOom,
  kGpuLost,
  kCrash,
  kTimeout,
  kInputChanged,
  kCancelled,
  kDiskFull,
  kOutputBusy,
  kSelftest,
};

inline constexpr int kCodeCount = static_cast<int>(Code::kSelftest) + 1;

/// "NO_SPACING" and the like.
std::string_view code_name(Code code);
/// The code of that name. @throws std::invalid_argument
Code parse_code(std::string_view name);
/// The terminal status a slide gets when it ends with `code`.
Status code_status(Code code);
/// "scored", "indeterminate", "failed", "refused".
std::string_view status_name(Status status);

class Error : public std::runtime_error {
 public:
  Error(Code code, const std::string& message)
      : std::runtime_error(message), code_(code) {}
  Code code() const { return code_; }

 private:
  Code code_;
};

/// A device was named that this build or machine lacks.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace her2fast
