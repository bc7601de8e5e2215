// SPDX-License-Identifier: Apache-2.0
/// What the fuzz targets share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include "her2fast/error.h"
#include "her2fast/slide.h"

namespace her2fast::fuzz {

/// The fuzzer's bytes, not copied: a read beyond them is a finding.
class FuzzSource final : public ByteSource {
 public:
  FuzzSource(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  std::uint64_t size() const override { return size_; }
  const std::string& name() const override { return name_; }
  void read(std::uint64_t offset, std::size_t size, std::byte* out) const override {
    if (offset > size_ || size > size_ - offset) {
      throw Error(Code::kTruncated, "fuzz: beyond the end");
    }
    if (size > 0) std::memcpy(out, data_ + offset, size);
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
  std::string name_ = "fuzz";
};

inline std::shared_ptr<const ByteSource> source_of(const std::uint8_t* data,
                                                   std::size_t size) {
  return std::make_shared<FuzzSource>(data, size);
}

}  // namespace her2fast::fuzz

/// A small quarantine and short stacks: most of an execution's time went into fresh pages
/// and unwinding. What is freed stays poisoned for some thousand inputs all the same.
extern "C" inline const char* __asan_default_options() {
  return "quarantine_size_mb=8:thread_local_quarantine_size_kb=64:malloc_context_size=1";
}
