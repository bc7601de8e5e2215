// SPDX-License-Identifier: Apache-2.0
/// Numbers as text whatever locale the process has: a host's must not reach a record.
#pragma once

#include <string>

namespace her2fast {

/// `decimals` digits after the point: printf's %.nf. 0 <= decimals <= 20.
std::string fixed_text(double value, int decimals = 6);
/// Up to `digits` significant digits, no trailing zeros: printf's %.ng. 1 <= digits
/// <= 20.
std::string short_text(double value, int digits = 6);

}  // namespace her2fast
