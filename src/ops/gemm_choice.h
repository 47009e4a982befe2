// The GEMM algorithms that were once found to be the fastest, kept in a file from run to run, so that a shape
// is timed once on a machine and computes the same bits ever after.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <unordered_map>

namespace keen::ops {

// What cuBLASLt calls a semi-opaque algorithm: 64 bytes that mean something to one version of the library.
using GemmAlgorithm = std::array<uint64_t, 8>;

// $XDG_CACHE_HOME/keen/gemm-choices.txt, or the same below ~/.cache. Empty where neither variable is set.
std::filesystem::path gemm_choices_file();

// A line of the file is KEY, the algorithm and a hash of both, separated by tabs; of equal keys the last line
// counts. A line that is torn, foreign or damaged is passed over. Every line is appended by one write, so
// several processes may add to one file. A file that cannot be read or written is like none: what was chosen
// then lasts as long as this object.
class GemmChoices {
 public:
  // Reads the file; an empty path keeps nothing between runs.
  explicit GemmChoices(std::filesystem::path file);

  std::optional<GemmAlgorithm> find(const std::string& key) const;
  // The key names GPU, library version and product, in printable characters: no tab and no newline.
  void keep(const std::string& key, const GemmAlgorithm& algorithm);

 private:
  std::filesystem::path file_;
  std::unordered_map<std::string, GemmAlgorithm> choices_;
};

}  // namespace keen::ops
