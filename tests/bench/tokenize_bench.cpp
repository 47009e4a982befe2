// Encoding text: `keen tokenize encode` as a whole (files in, shards out, all processors), and SentencePiece
// itself, called line by line on one thread, on the same text with the same vocabulary of 2,048 pieces.
// Without KEEN_BENCH_TEXT, the path of a text file, the text is drawn: words of 2 to 9 letters whose
// frequencies fall as those of a language.
#include <benchmark/benchmark.h>
#include <sentencepiece_processor.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "bench/scratch_directory.h"
#include "core/philox.h"
#include "data/encode.h"

namespace keen {
namespace {

// Zipf's law over 20,000 words.
std::string drawn_text(size_t bytes) {
  const Philox random(1);
  uint64_t at = 0;
  std::vector<std::string> words;
  for (int i = 0; i < 20000; ++i) {
    std::string word;
    const auto letters = 2 + static_cast<int>(random.uniform(at++) * 8);
    for (int j = 0; j < letters; ++j)
      word += static_cast<char>('a' + static_cast<int>(std::pow(random.uniform(at++), 2) * 26));
    words.push_back(word);
  }
  std::string text;
  for (int column = 0; text.size() < bytes; ++column) {
    text += words[static_cast<size_t>(std::pow(20000.0, random.uniform(at++))) - 1];
    text += column % 12 == 11 ? '\n' : ' ';
  }
  return text;
}

struct Text {
  ScratchDirectory directory;
  std::string bytes;
  std::string file() const { return (directory.path() / "text.txt").string(); }
  std::filesystem::path model() const { return directory.path() / "vocabulary.model"; }
  Text() {
    const char* path = std::getenv("KEEN_BENCH_TEXT");
    if (path == nullptr) {
      bytes = drawn_text(16 << 20);
    } else {
      std::ifstream in(path, std::ios::binary);
      bytes = (std::stringstream() << in.rdbuf()).str();
    }
    std::ofstream(file(), std::ios::binary) << bytes;
    VocabularyOptions options;
    options.inputs = {file()};
    options.model = model();
    options.size = 2048;
    options.sample_bytes = 4 << 20;
    train_vocabulary(options);
  }
};
const Text& text() {
  static const Text the_text;
  return the_text;
}

void report(benchmark::State& state) {
  state.SetBytesProcessed(static_cast<int64_t>(text().bytes.size()) *
                          static_cast<int64_t>(state.iterations()));
}

void keen_encode(benchmark::State& state) {
  EncodeOptions options;
  options.inputs = {text().file()};
  options.model = text().model();
  options.directory = text().directory.path() / "shards";
  options.threads = static_cast<int>(state.range(0));
  options.force = true;
  for (auto _ : state) encode_corpus(options);
  report(state);
}

void sentencepiece_encode(benchmark::State& state) {
  sentencepiece::SentencePieceProcessor processor;
  check(processor.Load(text().model().string()).ok(), "bench: the vocabulary");
  for (auto _ : state) {
    std::istringstream lines(text().bytes);
    std::vector<int> ids;
    for (std::string line; std::getline(lines, line);) {
      check(processor.Encode(line, &ids).ok(), "bench: encoding");
      benchmark::DoNotOptimize(ids.data());
    }
  }
  report(state);
}

BENCHMARK(sentencepiece_encode)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(keen_encode)->ArgName("threads")->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace keen
