#include "ops/gemm_choice.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "core/check.h"
#include "temporary_directory.h"

namespace keen::ops {
namespace {

using testing::TemporaryDirectory;

constexpr GemmAlgorithm kFirst{1, 2, 3, 4, 5, 6, 7, ~uint64_t{0}}, kSecond{9, 8, 7, 6, 5, 4, 3, 2};

std::string read(const std::filesystem::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(GemmChoice, LastsFromOneObjectToTheNext) {
  const TemporaryDirectory directory;
  const std::filesystem::path file = directory.path() / "not" / "yet" / "there.txt";
  {
    GemmChoices choices(file);
    EXPECT_FALSE(choices.find("a card, 8 x 8"));
    choices.keep("a card, 8 x 8", kSecond);
    choices.keep("a card, 8 x 8", kFirst);
    choices.keep("a card, 8 x 9", kSecond);
    EXPECT_EQ(choices.find("a card, 8 x 8"), kFirst);
  }
  const GemmChoices again(file);
  EXPECT_EQ(again.find("a card, 8 x 8"), kFirst);
  EXPECT_EQ(again.find("a card, 8 x 9"), kSecond);
  EXPECT_FALSE(again.find("another card, 8 x 8"));
}

TEST(GemmChoice, PassesOverWhatIsTornForeignOrDamaged) {
  const TemporaryDirectory directory;
  const std::filesystem::path file = directory.path() / "choices.txt";
  GemmChoices(file).keep("whole", kFirst);
  const std::string whole = read(file);
  for (size_t length = 0; length + 1 < whole.size(); ++length) {
    std::ofstream(file) << whole.substr(0, length);
    EXPECT_FALSE(GemmChoices(file).find("whole")) << length;
    GemmChoices(file).keep("next", kSecond);
    EXPECT_EQ(GemmChoices(file).find("next"), kSecond) << "after a line of " << length << " bytes";
  }
  for (size_t at = 1; at + 1 < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = damaged[at] == '0' ? '1' : '0';
    std::ofstream(file) << damaged;
    EXPECT_FALSE(GemmChoices(file).find("whole")) << at;
  }
  std::ofstream(file) << std::string(1000, '\0') << "\n\t\n\n{\"not\": \"ours\"}\n" << whole;
  EXPECT_EQ(GemmChoices(file).find("whole"), kFirst);
}

TEST(GemmChoice, AFileThatCannotBeWrittenIsLikeNone) {
  const TemporaryDirectory directory;
  std::ofstream(directory.path() / "a file") << "in the way";
  for (const std::filesystem::path& file :
       {std::filesystem::path(), directory.path(), directory.path() / "a file" / "choices.txt"}) {
    GemmChoices choices(file);
    choices.keep("key", kFirst);
    EXPECT_EQ(choices.find("key"), kFirst);
    EXPECT_FALSE(GemmChoices(file).find("key"));
  }
  EXPECT_THROW(GemmChoices({}).keep("two\nlines", kFirst), Error);
}

TEST(GemmChoice, LiesInTheUsersCache) {
  const auto file_with = [](const char* cache, const char* home) {
    cache != nullptr ? setenv("XDG_CACHE_HOME", cache, 1) : unsetenv("XDG_CACHE_HOME");
    home != nullptr ? setenv("HOME", home, 1) : unsetenv("HOME");
    return gemm_choices_file();
  };
  const char *cache = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  const std::string cache_before = cache != nullptr ? cache : "", home_before = home != nullptr ? home : "";
  EXPECT_EQ(file_with("/cache", "/home/me"), "/cache/keen/gemm-choices.txt");
  EXPECT_EQ(file_with(nullptr, "/home/me"), "/home/me/.cache/keen/gemm-choices.txt");
  EXPECT_EQ(file_with("", "/home/me"), "/home/me/.cache/keen/gemm-choices.txt");
  EXPECT_EQ(file_with("relative", nullptr), "");
  EXPECT_EQ(file_with(nullptr, nullptr), "");
  file_with(cache_before.empty() ? nullptr : cache_before.c_str(),
            home_before.empty() ? nullptr : home_before.c_str());
}

}  // namespace
}  // namespace keen::ops
