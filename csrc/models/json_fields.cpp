// SPDX-License-Identifier: Apache-2.0
#include "models/json_fields.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "core/printable.h"
#include "her2fast/method_package.h"
#include "models/files.h"

namespace her2fast::models {
namespace {

constexpr std::uint64_t kMaxConfigBytes = std::uint64_t{1} << 20;
/// Deeper is an attack or a mistake; what walks a value may then recurse.
constexpr int kMaxDepth = 64;
constexpr std::size_t kShownBytes = 80;

/// A string with its quotes and escapes; all but ASCII as \uXXXX.
std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', true);
}

/// The shortest digits that read back, set as Python's repr sets them: 1e16 and more, and
/// less than 1e-4, with an exponent of at least two digits; otherwise with a point.
std::string shortest(double value) {
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  const std::string text(buffer, end.ptr);
  const std::size_t e = text.find('e');
  const int exponent = std::atoi(text.c_str() + e + 1);
  if (exponent < -4 || exponent >= 16) return text;
  std::string digits = text.substr(0, e);
  const bool negative = digits[0] == '-';
  digits.erase(std::remove_if(digits.begin(), digits.end(),
                              [](char c) { return c == '-' || c == '.'; }),
               digits.end());
  std::string out = negative ? "-" : "";
  if (exponent < 0) {
    return out + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') +
           digits;
  }
  const auto whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() <= whole) {
    return out + digits + std::string(whole - digits.size(), '0') + ".0";
  }
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

void write_canonical(const nlohmann::json& value, std::string& out) {
  if (value.is_object()) {
    out += '{';
    for (auto item = value.begin(); item != value.end(); ++item) {
      if (item != value.begin()) out += ',';
      out += quoted(item.key()) + ':';
      write_canonical(item.value(), out);
    }
    out += '}';
  } else if (value.is_array()) {
    out += '[';
    for (auto item = value.begin(); item != value.end(); ++item) {
      if (item != value.begin()) out += ',';
      write_canonical(*item, out);
    }
    out += ']';
  } else if (value.is_string()) {
    out += quoted(value.get_ref<const std::string&>());
  } else if (value.is_number_float()) {
    out += shortest(value.get<double>());
  } else {
    out += value.dump();
  }
}

std::string range_text(double least, double most) {
  char text[96];
  std::snprintf(text, sizeof text, "%.10g to %.10g", least, most);
  return text;
}

}  // namespace

nlohmann::json read_json(const std::string& path) {
  const std::vector<char> bytes = read_file(path, kMaxConfigBytes);
  const auto shallow = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    if (depth > kMaxDepth) {
      throw PackageError(printable(path) + ": is not JSON that a package needs: nested " +
                         "deeper than " + std::to_string(kMaxDepth));
    }
    return true;
  };
  try {
    return nlohmann::json::parse(bytes.begin(), bytes.end(), shallow);
  } catch (const nlohmann::json::exception& error) {
    throw PackageError(printable(path) + ": is not JSON: " + printable(error.what()));
  }
}

std::string canonical_json(const nlohmann::json& value) {
  std::string out;
  write_canonical(value, out);
  return out;
}

std::string shown(const nlohmann::json& value) {
  const std::string text = canonical_json(value);
  return text.size() <= kShownBytes ? text : text.substr(0, kShownBytes) + "...";
}

std::string shown(const std::vector<std::string>& values) {
  return shown(nlohmann::json(values));
}

bool is_sha256(std::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

bool is_identifier(std::string_view text, std::size_t most) {
  const auto letter = [](char c) { return c >= 'a' && c <= 'z'; };
  return !text.empty() && text.size() <= most && letter(text[0]) &&
         std::all_of(text.begin(), text.end(), [&](char c) {
           return letter(c) || (c >= '0' && c <= '9') || c == '_';
         });
}

Fields::Fields(const nlohmann::json& value, std::string file, std::string place)
    : value_(value), file_(std::move(file)), place_(std::move(place)) {
  if (value_.is_object()) return;
  const std::string where =
      place_.empty() ? "" : place_.substr(0, place_.size() - 1) + ": ";
  throw PackageError(file_ + ": " + where + "need an object, got " + shown(value_));
}

const nlohmann::json* Fields::find(const std::string& key, bool null_is_absent) {
  known_.insert(key);
  const auto found = value_.find(key);
  if (found == value_.end() || (null_is_absent && found->is_null())) return nullptr;
  return &*found;
}

const nlohmann::json& Fields::need(const std::string& key) {
  const nlohmann::json* value = find(key);
  if (value == nullptr) refuse(key, "is missing");
  return *value;
}

std::string Fields::needed_text(const std::string& key) {
  const nlohmann::json& value = need(key);
  if (!value.is_string()) refuse(key, "need text, got " + shown(value));
  return value.get<std::string>();
}

std::string Fields::text(const std::string& key, std::string absent) {
  return find(key) == nullptr ? std::move(absent) : needed_text(key);
}

std::optional<std::string> Fields::optional_text(const std::string& key) {
  if (find(key, true) == nullptr) return std::nullopt;
  return needed_text(key);
}

bool Fields::boolean(const std::string& key, bool absent) {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return absent;
  if (!value->is_boolean()) refuse(key, "need true or false, got " + shown(*value));
  return value->get<bool>();
}

std::string Fields::choice(const std::string& key,
                           const std::vector<std::string>& choices,
                           const std::string& absent) {
  std::string chosen = text(key, absent);
  if (std::find(choices.begin(), choices.end(), chosen) == choices.end()) {
    refuse(key, "need one of " + shown(choices) + ", got " + shown(chosen));
  }
  return chosen;
}

std::optional<std::int32_t> Fields::integer(const std::string& key, std::int32_t least,
                                            std::int32_t most, bool null_is_absent) {
  const nlohmann::json* value = find(key, null_is_absent);
  if (value == nullptr) return std::nullopt;
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (!(number >= least && number <= most) || number != std::floor(number)) {
    refuse(key, "need a whole number of " + range_text(least, most) + ", got " +
                    shown(*value));
  }
  return static_cast<std::int32_t>(number);
}

double Fields::needed_number(const std::string& key, double least, double most) {
  const nlohmann::json& value = need(key);
  const double number = value.is_number() ? value.get<double>() : std::nan("");
  if (!(number >= least && number <= most)) {
    refuse(key, "need a number of " + range_text(least, most) + ", got " + shown(value));
  }
  return number;
}

std::vector<std::string> Fields::texts(const std::string& key) {
  std::vector<std::string> out;
  const nlohmann::json* value = find(key);
  if (value == nullptr) return out;
  if (!value->is_array()) refuse(key, "need a list of texts, got " + shown(*value));
  for (const nlohmann::json& item : *value) {
    if (!item.is_string()) refuse(key, "need a list of texts, got " + shown(*value));
    out.push_back(item.get<std::string>());
  }
  return out;
}

std::vector<double> Fields::numbers(const std::string& key) {
  std::vector<double> out;
  const nlohmann::json* value = find(key);
  if (value == nullptr) return out;
  if (!value->is_array()) refuse(key, "need a list of numbers, got " + shown(*value));
  for (const nlohmann::json& item : *value) {
    if (!item.is_number()) refuse(key, "need a list of numbers, got " + shown(*value));
    out.push_back(item.get<double>());
  }
  return out;
}

void Fields::refuse_others() const {
  for (auto item = value_.begin(); item != value_.end(); ++item) {
    if (!known_.contains(item.key())) refuse(item.key(), "is no key of a package");
  }
}

void Fields::refuse(const std::string& key, const std::string& message) const {
  throw PackageError(file_ + ": " + place_ + printable(key) + ": " + message);
}

}  // namespace her2fast::models
