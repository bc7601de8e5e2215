// SPDX-License-Identifier: Apache-2.0
/// How much of the kept tumor lies far from what the package was trained on.
#pragma once

#include <cstdint>
#include <optional>

#include "her2fast/decide.h"

namespace her2fast {

/// Collects the distances of one decision's kept patches and judges them at the end.
class DomainEvidence {
 public:
  /// @throws std::invalid_argument  limits that do not fit the measurement
  DomainEvidence(const Measurement& measurement,
                 const std::optional<DomainLimits>& limits);

  /// @param distances those of the patch, Measurement::distance_names of them
  void add_kept(const std::int32_t* distances, std::int64_t tumor_px);

  /// Absent without limits.
  std::optional<DomainFinding> judge(std::int64_t kept_tumor_px) const;

 private:
  const std::optional<DomainLimits>& limits_;
  DomainFinding finding_;
};

}  // namespace her2fast
