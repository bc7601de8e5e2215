// SPDX-License-Identifier: Apache-2.0
/// A decision as `her2fast score` stores it: the schema "her2fast:result-1", what a host
/// does not know null.
#pragma once

#include <string>

#include "capi/handles.h"

namespace her2fast::capi {

std::string record_json(const Measured& measured, const Decision& decision,
                        const DecideOptions& options);

}  // namespace her2fast::capi
