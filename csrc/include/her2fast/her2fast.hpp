// SPDX-License-Identifier: Apache-2.0
/// her2fast.h for C++17: owners for its handles, exceptions for its status codes. Inline
/// over the C functions, so that only C crosses the library's boundary.
///
/// Threads, memory and meaning are those of her2fast.h. What a host's engine throws is
/// caught here and ends the session.
#ifndef HER2FAST_HER2FAST_HPP
#define HER2FAST_HER2FAST_HPP

#include <her2fast/her2fast.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace her2 {

/// A call that failed: a status code of her2fast.h and its message.
class Error : public std::runtime_error {
 public:
  Error(std::int32_t status, const std::string& message)
      : std::runtime_error(message), status_(status) {}
  std::int32_t status() const { return status_; }
  const char* name() const { return her2_status_name(status_); }

 private:
  std::int32_t status_;
};

inline void check(std::int32_t status) {
  if (status != HER2_OK) throw Error(status, her2_last_error());
}

/// A struct of her2fast.h with its size set and all else 0.
template <typename T>
T make() {
  T value;
  std::memset(&value, 0, sizeof value);
  value.struct_size = sizeof value;
  return value;
}

namespace detail {

template <typename T, void (*close)(T*)>
struct Close {
  void operator()(T* handle) const { close(handle); }
};
template <typename T, void (*close)(T*)>
using Handle = std::unique_ptr<T, Close<T, close>>;

}  // namespace detail

class Package {
 public:
  /// @param known_models  path of a list, or empty; @throws Error
  explicit Package(const std::string& folder, const std::string& known_models = {},
                   bool allow_unknown = false) {
    auto options = make<her2_package_options>();
    options.folder = folder.c_str();
    options.known_models = known_models.empty() ? nullptr : known_models.c_str();
    options.allow_unknown = allow_unknown ? 1 : 0;
    her2_package* out = nullptr;
    check(her2_package_open(&options, &out));
    handle_.reset(out);
  }
  her2_package_info info() const {
    auto value = make<her2_package_info>();
    check(her2_package_get_info(handle_.get(), &value));
    return value;
  }
  her2_model_info model(std::int32_t index) const {
    auto value = make<her2_model_info>();
    check(her2_package_get_model(handle_.get(), index, &value));
    return value;
  }
  std::vector<std::string> class_names() const {
    std::vector<std::string> names;
    while (const char* name = her2_package_class_name(
               handle_.get(), static_cast<std::int32_t>(names.size()))) {
      names.emplace_back(name);
    }
    return names;
  }
  const her2_package* get() const { return handle_.get(); }

 private:
  detail::Handle<her2_package, her2_package_close> handle_;
};

class Engine {
 public:
  /// One batch; see her2_engine_table.run. It may throw.
  struct Batch {
    std::int32_t model;
    const std::uint8_t* rgb;  ///< (n, height_px, width_px, 3)
    std::int32_t n, height_px, width_px;
    float* output;  ///< (n, outputs)
    std::int64_t outputs;
  };
  using Run = std::function<void(const Batch&)>;

  Engine(const Package& package, Run run) {
    auto context = std::make_unique<Context>();
    context->run = std::move(run);
    auto table = make<her2_engine_table>();
    table.context = context.get();
    table.run = call;
    table.close = [](void* c) { delete static_cast<Context*>(c); };
    table.message = [](void*) -> const char* { return message(); };
    open(package, table);
    context.release();
  }
  /// A table that a provider filled; its context is the engine's from here on, and is
  /// closed also where this throws.
  Engine(const Package& package, const her2_engine_table& table) {
    try {
      open(package, table);
    } catch (...) {
      if (table.close != nullptr) table.close(table.context);
      throw;
    }
  }
  const her2_engine* get() const { return handle_.get(); }

 private:
  struct Context {
    Run run;
  };
  // Twice what her2_last_error keeps, so that words are cut there, between characters.
  static constexpr std::size_t kMaxMessage = 2048;
  // Plain memory of the thread: with a destructor it could keep threads of a program made
  // by MinGW from ending (docs/guide/embedding.md, Platforms).
  static char* message() {
    thread_local char text[kMaxMessage];
    return text;
  }
  static void keep(const char* words) noexcept {
    // In brackets: windows.h may have made a macro of it.
    const std::size_t size = (std::min)(std::strlen(words), kMaxMessage - 1);
    std::memmove(message(), words, size);
    message()[size] = '\0';
  }
  static std::int32_t call(void* context, std::int32_t model, std::int64_t,
                           const std::uint8_t* rgb, std::int32_t n,
                           std::int32_t height_px, std::int32_t width_px, float* output,
                           std::int64_t outputs) noexcept {
    try {
      static_cast<Context*>(context)->run(
          {model, rgb, n, height_px, width_px, output, outputs});
      return HER2_OK;
    } catch (const Error& error) {
      keep(error.what());
      return error.status();
    } catch (const std::exception& error) {
      keep(error.what());
    } catch (...) {
      keep("the engine threw something that is no exception");
    }
    return HER2_CRASH;
  }
  void open(const Package& package, const her2_engine_table& table) {
    her2_engine* out = nullptr;
    check(her2_engine_open(package.get(), &table, &out));
    handle_.reset(out);
  }
  detail::Handle<her2_engine, her2_engine_close> handle_;
};

class Slide {
 public:
  explicit Slide(const std::string& path) {
    her2_slide* out = nullptr;
    check(her2_slide_open_file(path.c_str(), &out));
    handle_.reset(out);
  }
  explicit Slide(const her2_byte_source& source) {
    her2_slide* out = nullptr;
    check(her2_slide_open_source(&source, &out));
    handle_.reset(out);
  }
  her2_slide_info info() const {
    auto value = make<her2_slide_info>();
    check(her2_slide_get_info(handle_.get(), &value));
    return value;
  }
  const her2_slide* get() const { return handle_.get(); }

 private:
  detail::Handle<her2_slide, her2_slide_close> handle_;
};

class Decision {
 public:
  explicit Decision(her2_decision* handle) : handle_(handle) {}
  /// Its texts and arrays live as long as this.
  her2_decision_info info() const {
    auto value = make<her2_decision_info>();
    check(her2_decision_get_info(handle_.get(), &value));
    return value;
  }
  std::string json() const { return her2_decision_json(handle_.get()); }

 private:
  detail::Handle<her2_decision, her2_decision_close> handle_;
};

class Measurement {
 public:
  explicit Measurement(her2_measurement* handle) : handle_(handle) {}
  Measurement(const Package& package, const std::vector<std::uint8_t>& bytes) {
    her2_measurement* out = nullptr;
    check(her2_measurement_load(package.get(), bytes.data(), bytes.size(), &out));
    handle_.reset(out);
  }
  std::vector<std::uint8_t> save() const {
    her2_buffer* out = nullptr;
    check(her2_measurement_save(handle_.get(), &out));
    const detail::Handle<her2_buffer, her2_buffer_close> owner(out);
    const auto* data = static_cast<const std::uint8_t*>(her2_buffer_data(out));
    return {data, data + her2_buffer_size(out)};
  }
  /// @param roi_geojson  text, or empty: the whole slide
  /// @param guideline    a rule set, "none", or empty: the package's own
  Decision decide(const std::string& roi_geojson = {},
                  const std::string& guideline = {}) const {
    auto options = make<her2_decide_options>();
    options.roi_geojson = roi_geojson.empty() ? nullptr : roi_geojson.data();
    options.roi_bytes = roi_geojson.size();
    options.guideline = guideline.empty() ? nullptr : guideline.c_str();
    return decide(options);
  }
  Decision decide(const her2_decide_options& options) const {
    her2_decision* out = nullptr;
    check(her2_measurement_decide(handle_.get(), &options, &out));
    return Decision(out);
  }

 private:
  detail::Handle<her2_measurement, her2_measurement_close> handle_;
};

class Session {
 public:
  Session(const Engine& engine, const her2_session_options& options) {
    her2_session* out = nullptr;
    check(her2_session_open(engine.get(), &options, &out));
    handle_.reset(out);
  }
  Session(const Engine& engine, const Slide& slide, const her2_session_options& options) {
    her2_session* out = nullptr;
    check(her2_session_open_slide(engine.get(), slide.get(), &options, &out));
    handle_.reset(out);
  }
  /// False: would block, push again later. @throws Error
  bool push(const her2_pixels& pixels) {
    const std::int32_t status = her2_session_push(handle_.get(), &pixels);
    if (status == HER2_WOULD_BLOCK) return false;
    check(status);
    return true;
  }
  her2_progress progress() const {
    auto value = make<her2_progress>();
    check(her2_session_get_progress(handle_.get(), &value));
    return value;
  }
  Measurement snapshot() const {
    her2_measurement* out = nullptr;
    check(her2_session_snapshot(handle_.get(), &out));
    return Measurement(out);
  }
  void cancel() { check(her2_session_cancel(handle_.get())); }
  Measurement finish() {
    her2_measurement* out = nullptr;
    check(her2_session_finish(handle_.get(), &out));
    return Measurement(out);
  }

 private:
  detail::Handle<her2_session, her2_session_close> handle_;
};

}  // namespace her2

#endif  // HER2FAST_HER2FAST_HPP
