// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <random>

#include "core/number_text.h"

namespace her2fast {
namespace {

std::string printed(const char* format, int precision, double value) {
  char text[400];
  std::snprintf(text, sizeof text, format, precision, value);
  return text;
}

// The tests run in the C locale, where printf has the same point.
TEST(NumberText, IsPrintfWithoutALocale) {
  EXPECT_EQ(fixed_text(0.05, 4), "0.0500");
  EXPECT_EQ(short_text(1e9), "1e+09");
  EXPECT_EQ(short_text(2.0), "2");
  EXPECT_EQ(fixed_text(-1.7e308, 20).size(), 331U);
  std::mt19937_64 random(1);
  for (int i = 0; i < 2000; ++i) {
    const double value =
        std::ldexp(static_cast<double>(random()), static_cast<int>(random() % 120) - 120);
    const int precision = 1 + static_cast<int>(random() % 12);
    EXPECT_EQ(fixed_text(value, precision), printed("%.*f", precision, value));
    EXPECT_EQ(short_text(value, precision), printed("%.*g", precision, value));
  }
}

}  // namespace
}  // namespace her2fast
