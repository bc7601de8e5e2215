// SPDX-License-Identifier: Apache-2.0
/// What the containers share about sources of bytes.
#pragma once

#include <string>

#include "her2fast/slide.h"

namespace her2fast::io {

/// A path as valid UTF-8 for messages: control characters and stray bytes become \xNN.
std::string printable(const std::string& path);

/// 64 hex digits: SHA-256 over the size (8 bytes, little-endian), then the whole source
/// up to 6 MiB, else its first 1 MiB, 64 evenly spread 64 KiB blocks and its last 1 MiB.
std::string fingerprint_of(const ByteSource& source);

}  // namespace her2fast::io
