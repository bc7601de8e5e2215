// SPDX-License-Identifier: Apache-2.0
// her2fast.hpp owns what it is given also where it refuses it.
#include <cstdio>
#include <her2fast/her2fast.hpp>

namespace {

int closed = 0;

void count_close(void*) { ++closed; }

int failed(const char* what) {
  std::fprintf(stderr, "owner_check: %s\n", what);
  return 1;
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
  std::printf("owner_check: all passed\n");
  return 0;
}
