// SPDX-License-Identifier: Apache-2.0
/// Reading configuration files: every complaint names file and key.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace her2fast::models {

/// A file's JSON. @throws PackageError: unreadable, over 1 MiB, no JSON (RFC 8259),
/// nested deeper than 64
nlohmann::json read_json(const std::string& path);

/// Keys sorted by code point, no spaces, ASCII, shortest numbers that read back: the
/// bytes of Python's json.dumps(..., sort_keys=True, separators=(",", ":")).
std::string canonical_json(const nlohmann::json& value);

/// The keys of one object, each asked for once.
///
/// A key that is absent gives what the getter was told to; `null` counts as absent only
/// where the getter is `optional`. Numbers are numbers: no text, no booleans; a whole
/// number may be written as 64.0.
class Fields {
 public:
  /// @param file   printable path, for messages
  /// @param place  of the object in the file, "" or "her2fast."
  /// @throws PackageError  `value` is no object
  Fields(const nlohmann::json& value, std::string file, std::string place = "");

  /// What stands at `key`, or null. The key counts as known from here on.
  const nlohmann::json* find(const std::string& key, bool null_is_absent = false);
  /// The same, which has to be there.
  const nlohmann::json& need(const std::string& key);

  std::string text(const std::string& key, std::string absent);
  std::string needed_text(const std::string& key);
  std::optional<std::string> optional_text(const std::string& key);
  bool boolean(const std::string& key, bool absent);
  /// One of `choices`; `absent` where the key is.
  std::string choice(const std::string& key, const std::vector<std::string>& choices,
                     const std::string& absent);
  std::optional<std::int32_t> integer(const std::string& key, std::int32_t least,
                                      std::int32_t most, bool null_is_absent = false);
  double needed_number(const std::string& key, double least, double most);
  std::vector<std::string> texts(const std::string& key);
  std::vector<double> numbers(const std::string& key);

  /// @throws PackageError where the object has a key that nobody asked for
  void refuse_others() const;
  /// @throws PackageError always: "FILE: PLACE.KEY: MESSAGE"
  [[noreturn]] void refuse(const std::string& key, const std::string& message) const;
  /// What a message calls the file.
  const std::string& file() const { return file_; }
  /// The place of an object below this one.
  std::string below(const std::string& key) const { return place_ + key + "."; }

 private:
  const nlohmann::json& value_;
  std::string file_, place_;
  std::set<std::string, std::less<>> known_;
};

/// A value as a message shows it: JSON, cut after 80 bytes.
std::string shown(const nlohmann::json& value);
/// A list as a message shows it: ["a","b"].
std::string shown(const std::vector<std::string>& values);
/// Lower case hex of SHA-256.
bool is_sha256(std::string_view text);
/// A letter, then up to `most` - 1 letters, digits or underscores; lower case.
bool is_identifier(std::string_view text, std::size_t most);

}  // namespace her2fast::models
