// SPDX-License-Identifier: Apache-2.0
#include "session/domain.h"

#include <stdexcept>
#include <string>

namespace her2fast {

DomainEvidence::DomainEvidence(const Measurement& measurement,
                               const std::optional<DomainLimits>& limits)
    : limits_(limits) {
  if (!limits_) return;
  const std::size_t names = measurement.distance_names.size();
  if (limits_->cut_q16.size() != names || names == 0) {
    throw std::invalid_argument("need a cut for each of the measurement's " +
                                std::to_string(names) + " distances, got " +
                                std::to_string(limits_->cut_q16.size()) +
                                "; score the slide again");
  }
  if (limits_->max_share_permille < 0 || limits_->max_share_permille > 1000) {
    throw std::invalid_argument("need 0 <= max_share_permille <= 1000, got " +
                                std::to_string(limits_->max_share_permille));
  }
  finding_.sum_q8_px.assign(names, 0);
}

void DomainEvidence::add_kept(const std::int32_t* distances, std::int64_t tumor_px) {
  if (!limits_) return;
  bool outside = false;
  for (std::size_t k = 0; k < finding_.sum_q8_px.size(); ++k) {
    outside = outside || distances[k] > limits_->cut_q16[k];
    // Eight bits go, so that the largest slide of the largest distances fits.
    finding_.sum_q8_px[k] += (std::int64_t{distances[k]} * tumor_px) >> 8;
  }
  if (outside) finding_.outside_px += tumor_px;
}

std::optional<DomainFinding> DomainEvidence::judge(std::int64_t kept_tumor_px) const {
  if (!limits_) return std::nullopt;
  DomainFinding finding = finding_;
  finding.is_outside =
      finding.outside_px * 1000 > limits_->max_share_permille * kept_tumor_px;
  return finding;
}

}  // namespace her2fast
