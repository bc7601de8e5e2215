// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <set>

#include "her2fast/error.h"

namespace her2fast {

TEST(ErrorTable, EveryCodeHasItsOwnNameAndNeverScores) {
  std::set<std::string_view> names;
  for (int i = 0; i < kCodeCount; ++i) {
    const auto code = static_cast<Code>(i);
    EXPECT_FALSE(code_name(code).empty());
    EXPECT_TRUE(names.insert(code_name(code)).second) << code_name(code);
    EXPECT_NE(code_status(code), Status::kScored);
  }
}

TEST(ErrorTable, RowsStandInTheOrderOfTheEnum) {
  EXPECT_EQ(code_name(Code::kNotFound), "NOT_FOUND");
  EXPECT_EQ(code_name(Code::kNoSpacing), "NO_SPACING");
  EXPECT_EQ(code_name(Code::kWrongStain), "WRONG_STAIN");
  EXPECT_EQ(code_status(Code::kWrongStain), Status::kRefused);
  EXPECT_EQ(code_status(Code::kTooLittleTumor), Status::kIndeterminate);
  EXPECT_EQ(code_name(Code::kSelftest), "SELFTEST");
}

}  // namespace her2fast
