// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cerrno>
#include <fstream>
#include <iterator>
#include <thread>
#include <vector>

#include "core/native_file.h"
#include "core/shared_library.h"

namespace her2fast {
namespace {

namespace fs = std::filesystem;

class NativeFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        fs::temp_directory_path() / ("her2fast-file-" + std::to_string(process_id()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const {
    return to_text(folder_ / to_path(name));
  }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream out(folder_ / to_path(name), std::ios::binary);
    out << text;
    return path(name);
  }
  std::string content(const std::string& name) const {
    std::ifstream in(folder_ / to_path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  fs::path folder_;
};

std::string read(const NativeFile& file, std::uint64_t offset, std::size_t size) {
  std::string text(size, '?');
  std::size_t got = 0;
  EXPECT_EQ(file.read_at(offset, text.data(), size, got), 0);
  return text.substr(0, got);
}

TEST_F(NativeFiles, NamesAreUtf8) {
  // "Präparat", two characters of three bytes, and one that takes two of UTF-16.
  const std::string name = "Pr\xc3\xa4parat \xe7\x97\x85\xe7\x90\x86 \xf0\x9f\x94\xac";
  EXPECT_EQ(to_text(to_path(name)), name);
  NativeFile file;
  ASSERT_EQ(file.create(path(name)), 0);
  ASSERT_EQ(file.write_at(0, "abc", 3), 0);
  ASSERT_EQ(file.close(), 0);
  EXPECT_EQ(content(name), "abc");
  NativeFile again;
  ASSERT_EQ(again.open_to_read(path(name)), 0);
  EXPECT_EQ(again.size(), 3u);
  EXPECT_EQ(read(again, 1, 9), "bc");
}

TEST_F(NativeFiles, SaysWhyItDoesNotOpen) {
  NativeFile file;
  EXPECT_EQ(file.open_to_read(path("absent")), ENOENT);
  EXPECT_EQ(file.open_to_read(to_text(folder_)), NativeFile::kNotRegular);
  EXPECT_EQ(file.open_to_read(path("no-folder/absent")), ENOENT);
  EXPECT_EQ(file.create(path("no-folder/new")), ENOENT);
  const std::string taken = write("taken", "first");
  EXPECT_EQ(file.create(taken), EEXIST);
  EXPECT_EQ(content("taken"), "first");
  // What failed to open is closed, and may be opened.
  EXPECT_EQ(file.close(), 0);
  EXPECT_EQ(file.open_to_read(taken), 0);
  EXPECT_EQ(file.size(), 5u);
}

TEST_F(NativeFiles, ReadsAndWritesAtAnyPlace) {
  NativeFile out;
  ASSERT_EQ(out.create(path("a")), 0);
  ASSERT_EQ(out.write_at(4, "efgh", 4), 0);
  ASSERT_EQ(out.write_at(0, "abcd", 4), 0);
  ASSERT_EQ(out.sync(), 0);
  ASSERT_EQ(out.close(), 0);
  NativeFile in;
  ASSERT_EQ(in.open_to_read(path("a")), 0);
  in.expect(0, 8);
  in.expect(100, 8);
  EXPECT_EQ(read(in, 2, 4), "cdef");
  EXPECT_EQ(read(in, 6, 4), "gh");
  EXPECT_EQ(read(in, 8, 4), "");
  EXPECT_EQ(read(in, 1000, 4), "");
}

TEST_F(NativeFiles, PlacesBeyondFourGigabytes) {
  constexpr std::uint64_t kFar = (std::uint64_t{1} << 32) + 5;
  {
    NativeFile out;
    ASSERT_EQ(out.create(path("large")), 0);
    ASSERT_EQ(out.write_at(5, "near", 4), 0);
    ASSERT_EQ(out.write_at(kFar, "far", 3), 0);
  }
  NativeFile in;
  ASSERT_EQ(in.open_to_read(path("large")), 0);
  EXPECT_EQ(in.size(), kFar + 3);
  EXPECT_EQ(read(in, 5, 4), "near");
  EXPECT_EQ(read(in, kFar, 4), "far");
}

TEST_F(NativeFiles, ThreadsDoNotMoveEachOthersPlace) {
  constexpr std::uint64_t kBlocks = 64, kBlockBytes = 4096;
  std::string text;
  for (std::uint64_t i = 0; i < kBlocks; ++i) {
    text.append(kBlockBytes, static_cast<char>(i + 1));
  }
  NativeFile file;
  ASSERT_EQ(file.open_to_read(write("blocks", text)), 0);
  std::vector<int> wrong(4);
  {
    std::vector<std::jthread> threads;
    for (std::size_t t = 0; t < wrong.size(); ++t) {
      threads.emplace_back([&, t] {
        std::string block(kBlockBytes, '\0');
        for (std::uint64_t i = 0; i < 10 * kBlocks; ++i) {
          const std::uint64_t at = (i * 7 + t * 13) % kBlocks;
          std::size_t got = 0;
          const int error =
              file.read_at(at * kBlockBytes, block.data(), kBlockBytes, got);
          wrong[t] += error != 0 || got != kBlockBytes ||
                      block != std::string(kBlockBytes, static_cast<char>(at + 1));
        }
      });
    }
  }
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST_F(NativeFiles, ReplacesWhatHadTheName) {
  const std::string from = write("new", "new content"), to = write("old", "old");
  EXPECT_EQ(replace_file(from, to), 0);
  EXPECT_EQ(content("old"), "new content");
  EXPECT_FALSE(fs::exists(folder_ / "new"));
  EXPECT_EQ(replace_file(path("absent"), to), ENOENT);
  EXPECT_EQ(content("old"), "new content");
  remove_file(to);
  EXPECT_FALSE(fs::exists(folder_ / "old"));
  remove_file(to);
}

TEST_F(NativeFiles, BesideIsInTheSameFolder) {
  const std::string name = beside(path("slide.tiff"), "other");
  EXPECT_TRUE(fs::equivalent(to_path(name).parent_path(), folder_)) << name;
  EXPECT_EQ(to_path(name).filename(), "other");
  EXPECT_EQ(to_path(beside("slide.tiff", "other")).lexically_normal(), "other");
}

TEST(DiskFull, IsToldFromOtherErrors) {
  EXPECT_TRUE(is_disk_full(ENOSPC));
  EXPECT_TRUE(is_disk_full(EFBIG));
  EXPECT_FALSE(is_disk_full(EACCES));
  EXPECT_FALSE(is_disk_full(0));
}

TEST(SharedLibrary, OpensWhatThereIs) {
#ifdef _WIN32
  const char *system = "kernel32.dll", *symbol = "GetTickCount";
#else
  const char *system = "libm.so.6", *symbol = "cos";
#endif
  void* library = open_shared_library(system);
  ASSERT_NE(library, nullptr);
  EXPECT_NE(find_symbol(library, symbol), nullptr);
  EXPECT_EQ(find_symbol(library, "her2fast_has_no_such_symbol"), nullptr);
  close_shared_library(library);
  EXPECT_EQ(open_shared_library("/no-such-folder/libnothing.so"), nullptr);
  EXPECT_EQ(open_shared_library(shared_library_name("her2fast-nothing", 7)), nullptr);
  std::string reason;
  EXPECT_EQ(open_shared_library("/no-such-folder/libnothing.so", &reason), nullptr);
  EXPECT_NE(reason.find("libnothing.so"), std::string::npos) << reason;
}

TEST(SharedLibrary, APathMayBeginInTheCurrentFolder) {
#ifdef _WIN32
  const char *system = "version.dll", *symbol = "VerQueryValueW";
#else
  const char *system = "libm.so.6", *symbol = "cos";
#endif
  void* library = open_shared_library(system);
  ASSERT_NE(library, nullptr);
  const std::string folder = folder_of_code(find_symbol(library, symbol));
  ASSERT_FALSE(folder.empty());
  const fs::path whole = to_path(folder + system);
  ASSERT_TRUE(fs::exists(whole)) << folder;
  void* const same = open_shared_library(folder + system);
  EXPECT_EQ(same, library);
  close_shared_library(same);
  close_shared_library(library);

  const fs::path copy = "her2fast-copy-of-a-library.so";
  fs::copy_file(whole, copy, fs::copy_options::overwrite_existing);
  library = open_shared_library("./" + copy.string());
  ASSERT_NE(library, nullptr);
  EXPECT_NE(find_symbol(library, symbol), nullptr);
  close_shared_library(library);
  fs::remove(copy);
}

}  // namespace
}  // namespace her2fast
