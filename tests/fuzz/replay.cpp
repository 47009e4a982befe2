// Runs a fuzz target over files and the files in directories, without libFuzzer: keen_fuzz_TARGET PATH...
#include <algorithm>
#include <fstream>
#include <iterator>
#include <vector>

#include "target.h"

int main(int argc, char** argv) {
  namespace fs = std::filesystem;
  std::vector<fs::path> inputs;
  for (const fs::path path : std::vector<std::string>(argv + 1, argv + argc)) {
    if (fs::is_directory(path))
      inputs.insert(inputs.end(), fs::directory_iterator(path), fs::directory_iterator());
    else
      inputs.push_back(path);
  }
  std::sort(inputs.begin(), inputs.end());
  for (const fs::path& path : inputs) {
    std::fprintf(stderr, "%s\n", path.c_str());
    std::ifstream file(path, std::ios::binary);
    // On the heap and exactly as long as the input, so that the sanitizer sees a step beyond its end.
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }
  std::fprintf(stderr, "%zu inputs\n", inputs.size());
  return inputs.empty() ? 1 : 0;  // a corpus that is not found tests nothing
}
