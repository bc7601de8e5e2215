// SPDX-License-Identifier: Apache-2.0
/// What every C function does: no exception leaves it, the thread's last error is told,
/// and structs are read and written no further than their `struct_size`.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "her2fast/engine.h"
#include "her2fast/error.h"
#include "her2fast/her2fast.h"
#include "her2fast/method_package.h"

namespace her2fast::capi {

/// Keeps `message` for her2_last_error. Never throws; long ones are cut.
void set_last_error(const char* message) noexcept;

/// Runs `work`, turns what it throws into a status code.
template <typename Work>
std::int32_t guarded(const Work& work) noexcept {
  try {
    set_last_error("");
    return work();
  } catch (const Error& error) {
    set_last_error(error.what());
    return engine_status(error.code());
  } catch (const PackageError& error) {
    set_last_error(error.what());
    return HER2_INVALID_PACKAGE;
  } catch (const DeviceError& error) {
    set_last_error(error.what());
    return HER2_NO_DEVICE;
  } catch (const std::invalid_argument& error) {
    set_last_error(error.what());
    return HER2_INVALID_ARGUMENT;
  } catch (const std::bad_alloc&) {
    set_last_error("out of memory");
    return HER2_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    set_last_error(error.what());
    return HER2_INTERNAL;
  } catch (...) {
    set_last_error("something was thrown that is no exception");
    return HER2_INTERNAL;
  }
}

/// @throws std::invalid_argument  `pointer` is null
template <typename T>
T& needed(T* pointer, const char* name) {
  if (pointer == nullptr) {
    throw std::invalid_argument(std::string("need ") + name + ", got null");
  }
  return *pointer;
}

/// A struct of the caller as this library knows it; what the caller does not know is 0.
/// @param least  bytes without which it says nothing
template <typename T>
T read_struct(const T* from, std::size_t least, const char* name) {
  const std::uint64_t size = needed(from, name).struct_size;
  if (size < least) {
    throw std::invalid_argument(std::string("need ") + name + " of at least " +
                                std::to_string(least) +
                                " bytes, got struct_size=" + std::to_string(size));
  }
  T out{};
  std::memcpy(&out, from, std::min<std::uint64_t>(size, sizeof(T)));
  out.struct_size = sizeof(T);
  return out;
}

/// Fills a struct of the caller as far as it reaches.
template <typename T>
void write_struct(const T& value, T* to, const char* name) {
  const std::uint64_t size = needed(to, name).struct_size;
  if (size < 2 * sizeof(std::uint64_t)) {
    throw std::invalid_argument(std::string("need ") + name +
                                " with its struct_size, got " + std::to_string(size));
  }
  constexpr std::size_t first = sizeof(std::uint64_t);  // struct_size stays the caller's
  std::memcpy(reinterpret_cast<char*>(to) + first,
              reinterpret_cast<const char*>(&value) + first,
              std::min<std::uint64_t>(size, sizeof(T)) - first);
}

}  // namespace her2fast::capi
