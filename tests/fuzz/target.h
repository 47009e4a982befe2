// What the fuzz targets share. A target is one .cpp of this folder: LLVMFuzzerTestOneInput gives some bytes
// to a parser as if they came from a file of somebody else, and asserts what must hold of the outcome. Linked
// with libFuzzer (KEEN_FUZZ, scripts/fuzz.sh) it looks for inputs that break it; linked with replay.cpp it
// runs over the inputs in corpus/TARGET, which is the CTest fuzz.TARGET of every build.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "core/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace keen::fuzz {

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// What a target asserts. A failure ends the process, which libFuzzer takes for a finding.
inline void require(bool ok, std::string_view what) {
  if (ok) return;
  std::fprintf(stderr, "this does not hold: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

// What `parse` returns, or nothing where it refuses the input: with this exit code, and a message that begins
// with the source. Any other exception is a finding.
template <class Parse>
auto accepted(Exit exit, std::string_view source, const Parse& parse) -> std::optional<decltype(parse())> {
  try {
    return parse();
  } catch (const Error& error) {
    require(error.exit == exit, error.what());
    require(std::string_view(error.what()).starts_with(source), error.what());
    return std::nullopt;
  }
}

// A directory in memory for parsers that take a path, removed when the process ends as it should.
class Directory {
 public:
  Directory() {
    std::error_code missing;
    const bool shm = std::filesystem::is_directory("/dev/shm", missing);
    std::string name = (shm ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path()) /
                       "keen-fuzz-XXXXXX";
    require(mkdtemp(name.data()) != nullptr, "a directory can be made");
    path_ = name;
  }
  ~Directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Directory(const Directory&) = delete;

  std::filesystem::path operator/(const char* name) const { return path_ / name; }
  // Writes a file anew, and returns its path.
  std::filesystem::path put(const char* name, std::string_view content) const {
    const std::filesystem::path path = path_ / name;
    std::FILE* file = std::fopen(path.c_str(), "wb");
    require(file != nullptr && std::fwrite(content.data(), 1, content.size(), file) == content.size() &&
                std::fclose(file) == 0,
            "a file can be written");
    return path;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace keen::fuzz
