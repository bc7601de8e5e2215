// SPDX-License-Identifier: Apache-2.0
/// What a measurement of this library is bound to: the package that it was made with.
#pragma once

#include <string>

#include "her2fast/measurement.h"
#include "her2fast/method_package.h"

namespace her2fast::capi {

/// `Measurement::key` of sessions: "package:" and the SHA-256 over the models' hashes,
/// their configurations' hashes and the grid. Calibration and rule sets are not in it: a
/// decision may take others.
std::string package_key(const MethodPackage& package);

/// Whether the key was made by `package_key`; the command line's says more than the
/// package and cannot be compared.
bool has_package_key(const Measurement& measurement);

}  // namespace her2fast::capi
