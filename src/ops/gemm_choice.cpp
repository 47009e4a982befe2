#include "ops/gemm_choice.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <fstream>
#include <string_view>

#include "core/check.h"

namespace keen::ops {

namespace {

constexpr size_t kDigits = 16;  // of a 64-bit number in hexadecimal

uint64_t hash_of(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

std::optional<uint64_t> parse_hexadecimal(std::string_view digits) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  if (error != std::errc() || end != digits.data() + digits.size()) return {};
  return value;
}

std::string line_of(const std::string& key, const GemmAlgorithm& algorithm) {
  std::string line = key + '\t';
  for (const uint64_t word : algorithm) line += fmt::format("{:016x}", word);
  return line + fmt::format("\t{:016x}", hash_of(line));
}

struct Choice {
  std::string key;
  GemmAlgorithm algorithm;
};

std::optional<Choice> parse(std::string_view line) {
  constexpr size_t kAlgorithmDigits = kDigits * std::tuple_size_v<GemmAlgorithm>;
  constexpr size_t kTail = 1 + kAlgorithmDigits + 1 + kDigits;
  if (line.size() <= kTail) return {};
  const size_t key_size = line.size() - kTail, hash_tab = line.size() - kDigits - 1;
  if (line[key_size] != '\t' || line[hash_tab] != '\t') return {};
  const auto hash = parse_hexadecimal(line.substr(hash_tab + 1));
  if (!hash || *hash != hash_of(line.substr(0, hash_tab))) return {};
  Choice choice{std::string(line.substr(0, key_size)), {}};
  for (size_t word = 0; word < choice.algorithm.size(); ++word) {
    const auto value = parse_hexadecimal(line.substr(key_size + 1 + word * kDigits, kDigits));
    if (!value) return {};
    choice.algorithm[word] = *value;
  }
  return choice;
}

}  // namespace

std::filesystem::path gemm_choices_file() {
  const char *cache = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  std::filesystem::path directory;
  // The specification has relative paths ignored.
  if (cache != nullptr && cache[0] == '/')
    directory = cache;
  else if (home != nullptr && home[0] == '/')
    directory = std::filesystem::path(home) / ".cache";
  else
    return {};
  return directory / "keen" / "gemm-choices.txt";
}

GemmChoices::GemmChoices(std::filesystem::path file) : file_(std::move(file)) {
  if (file_.empty()) return;
  std::ifstream in(file_);
  for (std::string line; std::getline(in, line);)
    if (const auto choice = parse(line)) choices_[choice->key] = choice->algorithm;
}

std::optional<GemmAlgorithm> GemmChoices::find(const std::string& key) const {
  const auto found = choices_.find(key);
  return found == choices_.end() ? std::nullopt : std::optional(found->second);
}

void GemmChoices::keep(const std::string& key, const GemmAlgorithm& algorithm) {
  check(key.find_first_of("\t\n") == std::string::npos, "gemm choices: a key without tabs and newlines");
  choices_[key] = algorithm;
  if (file_.empty()) return;
  std::error_code ignored;
  std::filesystem::create_directories(file_.parent_path(), ignored);
  const int out = open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (out < 0) return;
  // The newline in front ends a line that somebody could not finish.
  const std::string line = '\n' + line_of(key, algorithm) + '\n';
  [[maybe_unused]] const ssize_t written = write(out, line.data(), line.size());
  close(out);
}

}  // namespace keen::ops
