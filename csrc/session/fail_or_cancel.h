// SPDX-License-Identifier: Apache-2.0
/// How a thread of this library ends a session that it cannot go on with.
#pragma once

#include <string>

#include "her2fast/session.h"

namespace her2fast {

/// Fails the session with both texts in a row. Never throws: where there is no memory for
/// the words, the session is cancelled, so that nobody waits for ever.
inline void fail_or_cancel(Session& session, Code code, const char* doing,
                           const char* what) noexcept {
  try {
    session.fail(code, std::string(doing) + what);
  } catch (...) {
    session.cancel();  // allocates nothing
  }
}

}  // namespace her2fast
