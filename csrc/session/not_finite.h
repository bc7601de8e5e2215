// SPDX-License-Identifier: Apache-2.0
/// The one text of a model that gives no number, whichever device saw it.
#pragma once

#include <string>

#include "her2fast/error.h"

namespace her2fast {

[[noreturn]] inline void throw_not_finite(const std::string& model) {
  throw Error(Code::kNonFinite, "model " + model +
                                    " gave a value that is not finite; check the package "
                                    "with `her2fast models check`");
}

}  // namespace her2fast
