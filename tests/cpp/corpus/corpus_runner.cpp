// SPDX-License-Identifier: Apache-2.0
// Opens every file of the corpus of malformed slides in a process of its own, under
// limits, and compares what it ends as with what it may.
//
//   python tests/cpp/corpus/archive.py corpus_runner
//
// starts it with a folder to write in. Standard input holds records of four little-endian
// 32-bit lengths, each followed by its bytes: dialect, case, what it may end as ("A|B"),
// the file. A dialect's first record is the sound slide, whose pixels the others' are
// compared with.
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "her2fast/error.h"
#include "her2fast/slide.h"

namespace {

using namespace her2fast;

constexpr double kMaxSeconds = 2.0;  // of CPU time: a busy machine is no finding
constexpr unsigned kHangSeconds = 20;
constexpr long kMaxRssKib = 256 << 10;
constexpr double kSpacingUm = 0.25, kInchSpacingUm = 0.635;  // of the sound slide

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;  // its shadow needs terabytes of address space
#else
constexpr bool kSanitized = false;
#endif

using Size = std::pair<std::int64_t, std::int64_t>;
struct Pixels {
  std::vector<std::uint8_t> rgb;  // (height, width, 3)
  std::vector<bool> is_ok;        // (height, width): from a tile that is ok
};
using Levels = std::map<Size, Pixels>;

struct Record {
  std::string dialect, name, allowed, file;
};

bool read_record(std::istream& in, Record& record) {
  for (std::string* part :
       {&record.dialect, &record.name, &record.allowed, &record.file}) {
    std::array<unsigned char, 4> raw;
    if (!in.read(reinterpret_cast<char*>(raw.data()), raw.size())) return false;
    const std::size_t size = raw[0] | static_cast<std::size_t>(raw[1]) << 8 |
                             static_cast<std::size_t>(raw[2]) << 16 |
                             static_cast<std::size_t>(raw[3]) << 24;
    part->resize(size);
    if (!in.read(part->data(), static_cast<std::streamsize>(size))) return false;
  }
  return true;
}

Levels read_levels(const Slide& slide) {
  const DecodeScratchPtr scratch = make_decode_scratch();
  Levels levels;
  int number = 0;
  for (const Level& level : slide.info().levels) {
    if (level.width_px * level.height_px > 1 << 20) {
      throw std::runtime_error("a size that is not the slide's");
    }
    Pixels pixels;
    pixels.rgb.resize(static_cast<std::size_t>(level.width_px * level.height_px * 3));
    pixels.is_ok.resize(static_cast<std::size_t>(level.width_px * level.height_px));
    std::vector<std::uint8_t> tile(static_cast<std::size_t>(level.tile_width_px) *
                                   static_cast<std::size_t>(level.tile_height_px) * 3);
    for (std::int64_t y = 0; y < level.height_px; y += level.tile_height_px) {
      for (std::int64_t x = 0; x < level.width_px; x += level.tile_width_px) {
        const TileStatus status = slide.read_tile(
            number, x / level.tile_width_px, y / level.tile_height_px, 1,
            {tile.data(), level.tile_height_px, level.tile_width_px, 3}, *scratch);
        for (std::int64_t v = 0; v < level.tile_height_px; ++v) {
          for (std::int64_t u = 0; u < level.tile_width_px; ++u) {
            if (y + v >= level.height_px || x + u >= level.width_px) continue;
            const auto to = static_cast<std::size_t>((y + v) * level.width_px + x + u);
            const auto from = static_cast<std::size_t>(v * level.tile_width_px + u);
            std::copy_n(tile.data() + 3 * from, 3, pixels.rgb.data() + 3 * to);
            pixels.is_ok[to] = status == TileStatus::kOk;
          }
        }
      }
    }
    levels[{level.width_px, level.height_px}] = std::move(pixels);
    ++number;
  }
  return levels;
}

bool is_subset(const Levels& part, const Levels& whole) {
  return std::all_of(part.begin(), part.end(),
                     [&](const auto& level) { return whole.contains(level.first); });
}

/// What the file ends as; "wrong: ..." where that is never right.
std::string outcome(const std::string& path, const Levels& sound) {
  std::shared_ptr<const Slide> slide;
  try {
    slide = open_slide(path);
  } catch (const Error& error) {
    const bool named = std::strstr(error.what(), path.c_str()) != nullptr;
    return named ? std::string(code_name(error.code()))
                 : "wrong: nameless: " + std::string(error.what());
  }
  const Levels levels = read_levels(*slide);
  const Level& base = slide->info().levels.front();
  const Size largest = sound.rbegin()->first;
  if (Size{base.width_px, base.height_px} != largest) return "wrong: another frame";
  if (!is_subset(levels, sound)) return "wrong: a level that is none";
  bool flagged = false;
  for (const auto& [size, pixels] : levels) {
    const Pixels& expected = sound.at(size);
    for (std::size_t i = 0; i < pixels.is_ok.size(); ++i) {
      flagged |= !pixels.is_ok[i];
      if (pixels.is_ok[i] &&
          !std::equal(pixels.rgb.begin() + static_cast<std::ptrdiff_t>(3 * i),
                      pixels.rgb.begin() + static_cast<std::ptrdiff_t>(3 * i + 3),
                      expected.rgb.begin() + static_cast<std::ptrdiff_t>(3 * i))) {
        return "wrong: other pixels that are not flagged";
      }
    }
  }
  try {
    const double um = resolve_frame(slide->info(), {}).frame.spacing_x.um();
    if (std::abs(um - kInchSpacingUm) < 1e-6) return "INCH";
    if (um != kSpacingUm) return "wrong: another spacing";
  } catch (const Error& error) {
    return std::string(code_name(error.code()));
  }
  if (flagged) return "flagged";
  return is_subset(sound, levels) ? "opens" : "fewer";
}

struct Ending {
  std::string what;
  double cpu_seconds = 0;
  long rss_kib = 0;
};

template <typename Resource>  // an enumeration or a number, as the C library likes
void limit(Resource resource, rlim_t value) {
  const rlimit limits{value, value};
  setrlimit(resource, &limits);
}

Ending run_in_child(const std::string& path, const Levels& sound) {
  int ends[2];
  if (pipe(ends) != 0) return {"wrong: no pipe", 0, 0};
  const pid_t child = fork();
  if (child == 0) {
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_CPU, static_cast<rlim_t>(kMaxSeconds));
    if (!kSanitized) limit(RLIMIT_AS, rlim_t{kMaxRssKib} << 10);
    alarm(kHangSeconds);
    std::string what;
    try {
      what = outcome(path, sound);
    } catch (const std::exception& error) {
      what = std::string("wrong: ") + error.what();
    }
    const bool written =
        write(ends[1], what.data(), what.size()) == static_cast<ssize_t>(what.size());
    _exit(written ? 0 : 1);
  }
  close(ends[1]);
  Ending ending;
  std::array<char, 512> text;
  for (ssize_t got; (got = read(ends[0], text.data(), text.size())) > 0;) {
    ending.what.append(text.data(), static_cast<std::size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  rusage usage{};
  if (child < 0 || wait4(child, &status, 0, &usage) != child) {
    return {"wrong: no child process", 0, 0};
  }
  if (WIFSIGNALED(status)) {
    ending.what = "wrong: ended by signal " + std::to_string(WTERMSIG(status));
  } else if (WEXITSTATUS(status) != 0) {
    ending.what = "wrong: ended with " + std::to_string(WEXITSTATUS(status));
  }
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  ending.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  ending.rss_kib = usage.ru_maxrss;
  return ending;
}

bool may_end_as(const std::string& allowed, const std::string& what) {
  return !what.empty() &&
         ("|" + allowed + "|").find("|" + what + "|") != std::string::npos;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: corpus_runner FOLDER < ARCHIVE\n");
    return 64;
  }
  const std::string path = std::string(argv[1]) + "/slide.tiff";
  std::string dialect;
  Levels sound;
  Record record;
  std::size_t files = 0, wrong = 0;
  double slowest = 0;
  long largest_kib = 0;
  while (read_record(std::cin, record)) {
    {
      std::ofstream file(path, std::ios::binary | std::ios::trunc);
      file.write(record.file.data(), static_cast<std::streamsize>(record.file.size()));
    }
    if (record.dialect != dialect) {
      dialect = record.dialect;
      sound = read_levels(*open_slide(path));
    }
    const Ending ending = run_in_child(path, sound);
    ++files;
    slowest = std::max(slowest, ending.cpu_seconds);
    largest_kib = std::max(largest_kib, ending.rss_kib);
    const bool over =
        ending.cpu_seconds > kMaxSeconds || (!kSanitized && ending.rss_kib > kMaxRssKib);
    if (over || !may_end_as(record.allowed, ending.what)) {
      ++wrong;
      std::printf("%s: %s (%.2f s, %ld KiB), need %s\n", record.name.c_str(),
                  ending.what.c_str(), ending.cpu_seconds, ending.rss_kib,
                  record.allowed.c_str());
    }
  }
  std::remove(path.c_str());
  std::printf("%zu files, %zu wrong; slowest %.3f s of CPU, largest %ld KiB\n", files,
              wrong, slowest, largest_kib);
  return wrong == 0 && files > 1000 ? 0 : 1;
}
