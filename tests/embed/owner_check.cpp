// SPDX-License-Identifier: Apache-2.0
// her2fast.hpp owns what it is given also where it refuses it, and what an engine throws
// is told where the session ends.
#include <cstdio>
#include <her2fast/her2fast.hpp>
#include <string>

namespace {

int closed = 0;

void count_close(void*) { ++closed; }

int failed(const char* what) {
  std::fprintf(stderr, "owner_check: %s\n", what);
  return 1;
}

/// What finish says of a session whose engine throws these words.
std::string told(const her2::Package& package, const std::string& words) {
  const her2::Engine engine(package, [&](auto&&) { throw std::runtime_error(words); });
  constexpr std::int64_t kSide = 700;
  std::string brown;
  for (std::int64_t i = 0; i < kSide * kSide; ++i) brown += "\x96\x64\x46";
  auto options = her2::make<her2_session_options>();
  options.width_px = options.height_px = kSide;
  options.spacing_x_um = options.spacing_y_um = 1;
  her2::Session session(engine, options);
  auto pixels = her2::make<her2_pixels>();
  pixels.width_px = pixels.height_px = kSide;
  pixels.data = reinterpret_cast<const std::uint8_t*>(brown.data());
  try {
    while (!session.push(pixels)) {
    }
    session.finish();
  } catch (const her2::Error& error) {
    if (error.status() == HER2_CRASH) return error.what();
  }
  return "no CRASH";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return failed("usage: owner_check PACKAGE_FOLDER");
  const her2::Package package(argv[1], {}, true);
  auto table = her2::make<her2_engine_table>();
  table.close = count_close;
  try {
    const her2::Engine engine(package, table);
    return failed("a table without `run` was taken");
  } catch (const her2::Error& error) {
    if (error.status() != HER2_INVALID_ARGUMENT) return failed(error.what());
  }
  if (closed != 1) return failed("the context of a refused table was not closed once");
  table.run = [](void*, std::int32_t, std::int64_t, const std::uint8_t*, std::int32_t,
                 std::int32_t, std::int32_t, float*,
                 std::int64_t) -> std::int32_t { return HER2_CRASH; };
  { const her2::Engine engine(package, table); }
  if (closed != 2) return failed("the context of an engine was not closed once");
  const std::string words = "the accelerator is on fire";
  if (told(package, words) != words) return failed(told(package, words).c_str());
  // Cut between characters: each has two bytes.
  std::string many;
  while (many.size() < 5000) many += "\xC3\xA4";
  const std::string cut = told(package, many);
  if (cut.size() != 1022 || many.compare(0, cut.size(), cut) != 0) {
    return failed(("long words came as " + cut).c_str());
  }
  std::printf("owner_check: all passed\n");
  return 0;
}
