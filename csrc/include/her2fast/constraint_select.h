// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "her2fast/image.h"
#include "her2fast/slide_table.h"

namespace her2fast {

/// What training does with a patch. Codes are stable.
enum class PatchAction : std::uint8_t {
  kNone = 0,   ///< not in the epoch's training set
  kUpper = 1,  ///< in excess: away from its predicted class (S^u, partial-label loss)
  kLower = 2,  ///< missing: toward the slide's label (S^l, cross-entropy)
};

/// Which classes a patch that is pushed away from class c may become.
enum class Admissible {
  kNeighbors,   ///< c - 1 and c + 1, within 0 to 3
  kComplement,  ///< all but c
  kLower,       ///< c - 1 alone: neighbors can push up
};
/// "neighbors", "complement", "lower". @throws std::invalid_argument
Admissible parse_admissible(std::string_view name);

/// What a slide's predictions break. Pixels.
struct SlideConstraints {
  std::array<std::int64_t, kScores> class_px;   ///< tumor by predicted class
  std::array<std::int64_t, kScores> excess_px;  ///< least that must leave; 0: in order
  std::array<std::int64_t, kScores> pushed_px;  ///< in S^u of the class, before S^l wins
  std::int64_t missing_px;                      ///< least that must come; 0: in order
  std::int64_t pulled_px;                       ///< in S^l
  std::int32_t reach;  ///< 0, or how far from the label S^l had to look: 1 to 3 classes
};

/// One element per patch, but for `slides`.
struct SelectionView {
  std::span<std::uint8_t> action;      ///< PatchAction
  std::span<std::int8_t> class_id;     ///< kUpper: the class left; kLower: the label; -1
  std::span<std::uint8_t> admissible;  ///< bit c: class c is a target; 0 for kNone
  std::span<SlideConstraints> slides;  ///< (slides)
};

/// The training set of an epoch (Pham et al., Eq. 9 and 12 to 14).
///
/// Predicted class: highest logit, the lowest class where equal. Order: log-odds of the
/// class in float32, then patch index, ascending. A class c > label with 1000 * px >= U *
/// N is in excess: patches predicted c leave from the front until what remains is below U
/// (strictly). A label with 1000 * px < L * N is missing: patches predicted one class
/// away come from the back until L is reached; where they do not suffice all of them
/// come, then those two classes away, then three. A patch in both sets is kLower. A slide
/// without tumor breaks nothing. Cost: linear expected time (weighted quickselect);
/// log-odds only where a constraint is broken. Slides run on up to `workers` threads (1
/// to 1024); the result does not depend on them. Bit-equal on every machine: integers and
/// IEEE double arithmetic only.
/// @throws std::invalid_argument  a shape or a value is wrong, a logit is not finite.
/// @throws DeviceError            this build or this machine lacks `device`.
void constraint_select(const SlideTable& table, const FractionLimits& limits,
                       Admissible admissible, int workers, const SelectionView& out,
                       Device device = Device::kCpu);

}  // namespace her2fast
