// SPDX-License-Identifier: Apache-2.0
/// SHA-256 (FIPS 180-4). A value type: one object hashes one message, on one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace her2fast {

class Sha256 {
 public:
  void update(const void* data, std::size_t size);
  /// 64 hex digits. Ends the message; call it once.
  std::string hex();

 private:
  void block(const std::uint8_t* data);

  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> pending_{};
  std::size_t pending_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
};

}  // namespace her2fast
