// SPDX-License-Identifier: Apache-2.0
#include "her2fast/guideline.h"

#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "session/guideline_rule.h"

namespace her2fast {
namespace {

// Every rule set there is, the default first. The reasons: docs/decisions/guidelines.md.
constexpr std::array<Rule, 5> kRules{{
    {"asco-cap-2018", "ASCO/CAP 2018 breast guideline, affirmed in 2023",
     "Wolff et al., J Clin Oncol 2018;36:2105-2122, doi:10.1200/JCO.2018.77.8738; "
     "affirmed: "
     "Wolff et al., J Clin Oncol 2023;41:3867-3872, doi:10.1200/JCO.22.02864",
     true, true, true, false},
    {"gefpics-2021", "GEFPICS 2021, France: the ASCO/CAP cuts, HER2-low reported",
     "Franchet et al., Ann Pathol 2021;41:507-520, doi:10.1016/j.annpat.2021.07.014",
     true, true, true, false},
    {"pham-2022", "Pham et al., Table 1: the highest class with 10 % or more of the area",
     "Pham et al., Comput Med Imaging Graph 2023;108:102261, Table 1, "
     "doi:10.1016/j.compmedimag.2023.102261, arXiv:2211.09559",
     false, false, false, false},
    {"pham-2022-heterogeneous",
     "Pham et al., Table 1 and section 6.1: at least one below the highest class present",
     "Pham et al., Comput Med Imaging Graph 2023;108:102261, Table 1 and section 6.1, "
     "doi:10.1016/j.compmedimag.2023.102261, arXiv:2211.09559",
     false, false, false, true},
    {"gastric-2016", "CAP/ASCP/ASCO 2016 gastroesophageal guideline, resections",
     "Bartley et al., J Clin Oncol 2017;35:446-464, doi:10.1200/JCO.2016.69.4836", true,
     false, false, false},
}};

constexpr std::array<std::string_view, 4> kScoreNames{"0", "1+", "2+", "3+"};

// N < 2^55: the widest products below, 100 * N and 10 * (10 * N - N), fit 63 bits.
constexpr std::int64_t kAreaEnd = std::int64_t{1} << 53;
static_assert(4 * kAreaEnd <= INT64_MAX / 100);

void check_counts(const std::array<std::int64_t, 4>& counts, const char* what) {
  for (std::size_t c = 0; c < counts.size(); ++c) {
    if (counts[c] < 0 || counts[c] >= kAreaEnd) {
      throw std::invalid_argument(std::string("need 0 <= ") + what + " < 2^53, got " +
                                  what + "[" + std::to_string(c) +
                                  "]=" + std::to_string(counts[c]));
    }
  }
}

/// The areas of one slide, asked the three questions that the rules are made of.
class Areas {
 public:
  /// @param patches  per class, or null where patches are not counted.
  Areas(const std::array<std::int64_t, 4>& areas, int floor_percent,
        const std::array<std::int64_t, 4>* patches)
      : areas_(areas),
        patches_(patches),
        floor_percent_(floor_percent),
        total_(areas[0] + areas[1] + areas[2] + areas[3]) {}

  std::int64_t total() const { return total_; }

  /// Do classes [first, last] together reach the floor?
  bool present(std::size_t first, std::size_t last) const {
    std::int64_t area = 0;
    std::int64_t patches = 0;
    for (std::size_t c = first; c <= last; ++c) {
      area += areas_[c];
      if (patches_ != nullptr) patches += (*patches_)[c];
    }
    if (area == 0) return false;
    if (floor_percent_ == 0) return true;
    if (patches_ != nullptr && patches < kMinPatches) return false;
    return 100 * area >= floor_percent_ * total_;
  }

  /// What the cut of class `c` compares.
  std::int64_t compared(const Rule& rule, std::size_t c) const {
    std::int64_t area = areas_[c];
    for (std::size_t above = c + 1; rule.cumulative && above < 4; ++above)
      area += areas_[above];
    return area;
  }
  bool passes(const Rule& rule, std::size_t c) const {
    const std::int64_t margin = 10 * compared(rule, c) - total_;
    return rule.strict ? margin > 0 : margin >= 0;
  }

  std::vector<Margin> margins(const Rule& rule) const {
    std::vector<Margin> cuts;
    for (std::size_t c = 3; c >= 1; --c) {
      Margin cut;
      cut.cut = kScoreNames[c];
      cut.area = compared(rule, c);
      cut.margin = 10 * cut.area - total_;
      cut.passed = passes(rule, c);
      cuts.push_back(cut);
    }
    return cuts;
  }

  int score(const Rule& rule) const {
    int score = 0;
    for (std::size_t c = 3; c >= 1 && score == 0; --c) {
      if (passes(rule, c)) score = static_cast<int>(c);
    }
    if (rule.escalate && score < 2 && present(3, 3)) score = 2;
    if (rule.heterogeneous) {
      for (std::size_t h = 3; h >= 1; --h) {
        if (!present(h, h)) continue;
        return std::max(score, static_cast<int>(h) - 1);
      }
    }
    return score;
  }

 private:
  const std::array<std::int64_t, 4>& areas_;
  const std::array<std::int64_t, 4>* patches_;
  int floor_percent_;
  std::int64_t total_ = 0;
};

void check_options(const std::array<std::int64_t, 4>& areas,
                   const GuidelineOptions& options) {
  check_counts(areas, "areas");
  if (options.patches) check_counts(*options.patches, "patches");
  if (options.floor_percent < 0 || options.floor_percent > 100) {
    throw std::invalid_argument("need 0 <= floor_percent <= 100, got floor_percent=" +
                                std::to_string(options.floor_percent));
  }
  if (options.unusual && (*options.unusual < 0 || *options.unusual > areas[2])) {
    throw std::invalid_argument(
        "need 0 <= unusual <= areas[2], which they are part of, got unusual=" +
        std::to_string(*options.unusual) + " of " + std::to_string(areas[2]));
  }
}

/// What follows from the score and, for 2+ alone, from in-situ hybridization.
void add_views(GuidelineDecision& decision, std::optional<Ish> ish) {
  const int score = *decision.score;
  if (score == 2 && !ish) {
    decision.three_way = "equivocal";
    return;
  }
  const bool positive = score == 3 || (score == 2 && *ish == Ish::kPositive);
  decision.binary = positive ? "positive" : "negative";
  decision.three_way = decision.binary;
  decision.her2_view = positive ? "high" : score == 0 ? "zero" : "low";
}

}  // namespace

const Rule& find_rule(std::string_view name) {
  std::string known;
  for (const Rule& rule : kRules) {
    if (rule.name == name) return rule;
    known += (known.empty() ? "" : ", ") + std::string(rule.name);
  }
  throw std::invalid_argument("need a rule set of " + known + ", got \"" +
                              std::string(name) + "\"");
}

int score_areas(const Rule& rule, const std::array<std::int64_t, 4>& areas,
                int floor_percent, const std::array<std::int64_t, 4>* patches) {
  const Areas slide(areas, floor_percent, patches);
  return slide.total() == 0 ? -1 : slide.score(rule);
}

std::string_view score_name(int score) {
  if (score < 0 || score > 3) {
    throw std::invalid_argument("need 0 <= score <= 3, got score=" +
                                std::to_string(score));
  }
  return kScoreNames[static_cast<std::size_t>(score)];
}

const std::vector<RuleSetInfo>& rule_sets() {
  static const std::vector<RuleSetInfo> infos = [] {
    std::vector<RuleSetInfo> all;
    for (const Rule& rule : kRules) {
      all.push_back(
          {std::string(rule.name), std::string(rule.title), std::string(rule.source)});
    }
    return all;
  }();
  return infos;
}

GuidelineDecision decide_guideline(const std::array<std::int64_t, 4>& areas,
                                   std::string_view rule_set,
                                   const GuidelineOptions& options) {
  const Rule& rule = find_rule(rule_set);
  check_options(areas, options);
  const Areas slide(areas, options.floor_percent,
                    options.patches ? &*options.patches : nullptr);
  GuidelineDecision decision;
  decision.rule_set = rule.name;
  // Completeness of faint membranes is not to be seen in areas; only membranes can tell.
  decision.ihc0_membrane_staining = "not_assessable";
  if (slide.total() == 0) {
    decision.review_required = true;  // no tumor is not evaluable, never 0
    return decision;
  }

  decision.score = slide.score(rule);
  decision.margins = slide.margins(rule);
  add_views(decision, options.ish);

  const bool ultralow = *decision.score == 0 && slide.present(1, 2);
  if (ultralow) decision.flags.emplace_back("ULTRALOW");
  if (*decision.score == 0 && options.unusual) {
    decision.ihc0_membrane_staining = ultralow ? "ultralow" : "null";
  }
  const auto review = [&decision](const char* flag) {
    decision.flags.emplace_back(flag);
    decision.review_required = true;
  };
  if (*decision.score < 2 && slide.present(2, 2)) {
    review("GUIDELINE_GAP");
    decision.alternative = "2+";
  }
  for (const Margin& cut : decision.margins) {
    // |area / N - 1/10| <= 1/100
    if (10 * (cut.margin < 0 ? -cut.margin : cut.margin) <= slide.total()) {
      review("BORDERLINE");
      break;
    }
  }
  if (slide.score(find_rule("pham-2022")) !=
      slide.score(find_rule("pham-2022-heterogeneous"))) {
    review("HETEROGENEOUS");
  }
  if (options.unusual && 10 * *options.unusual > slide.total()) review("UNUSUAL_PATTERN");
  return decision;
}

}  // namespace her2fast
