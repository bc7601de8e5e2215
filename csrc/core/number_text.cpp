// SPDX-License-Identifier: Apache-2.0
#include "core/number_text.h"

#include <charconv>

namespace her2fast {
namespace {

std::string text_of(double value, std::chars_format format, int precision) {
  char text[400];  // 309 digits of the largest double, a point and 20 more
  const auto end = std::to_chars(text, text + sizeof text, value, format, precision);
  return {text, end.ptr};
}

}  // namespace

std::string fixed_text(double value, int decimals) {
  return text_of(value, std::chars_format::fixed, decimals);
}

std::string short_text(double value, int digits) {
  return text_of(value, std::chars_format::general, digits);
}

}  // namespace her2fast
