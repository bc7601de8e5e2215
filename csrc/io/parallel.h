// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

namespace her2fast::io {

/// Calls `work` for 0 to `count` - 1, in any order, on the caller's thread and on up to
/// `workers` - 1 more, which end with the call. Rethrows the first failure.
void parallel_for(std::int64_t count, int workers,
                  const std::function<void(std::int64_t)>& work);

}  // namespace her2fast::io
