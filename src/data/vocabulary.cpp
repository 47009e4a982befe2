// Training a vocabulary: a sample of lines from the corpus, and SentencePiece's BPE trainer.
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <streambuf>
#include <unordered_map>

#include "core/console.h"
#include "core/philox.h"
#include "data/encode.h"
#include "io/file.h"

namespace sentencepiece::logging {
void SetMinLogLevel(int level);  // exported by the library; its installed headers leave it out
}

namespace keen {

namespace {

constexpr size_t kMaxLineBytes = 16384;
constexpr int64_t kReserved = 2 + 256;  // <unk>, <|endoftext|>, the bytes

// Lines of the corpus, spread evenly over it, of at most a given size in all. Each line has a random number
// that depends on its place alone; those below a threshold stay, and the threshold is halved whenever they
// are too many: one pass, bounded memory, and the same lines for the same text.
class LineSample {
 public:
  explicit LineSample(int64_t most_bytes) : most_bytes_(most_bytes) {}

  void add(std::string_view line) {
    const uint32_t number = random_.bits(seen_++)[0];
    if (number >= threshold_ || line.empty()) return;
    bytes_ += static_cast<int64_t>(line.size());
    lines_.push_back({number, std::string(line)});
    while (bytes_ > most_bytes_) {
      threshold_ /= 2;
      std::erase_if(lines_, [&](const Line& kept) { return kept.number >= threshold_; });
      bytes_ = 0;
      for (const Line& kept : lines_) bytes_ += static_cast<int64_t>(kept.text.size());
    }
  }
  size_t size() const { return lines_.size(); }
  const std::string& operator[](size_t i) const { return lines_[i].text; }
  int64_t bytes() const { return bytes_; }
  bool complete() const { return threshold_ == uint64_t{1} << 32; }

 private:
  struct Line {
    uint32_t number;
    std::string text;
  };
  Philox random_{0, "vocabulary sample"};
  int64_t most_bytes_, bytes_ = 0;
  uint64_t seen_ = 0, threshold_ = uint64_t{1} << 32;
  std::vector<Line> lines_;
};

class SampleIterator final : public sentencepiece::SentenceIterator {
 public:
  explicit SampleIterator(const LineSample& lines) : lines_(lines) {}
  bool done() const override { return at_ >= lines_.size(); }
  void Next() override { ++at_; }
  const std::string& value() const override { return lines_[at_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const LineSample& lines_;
  size_t at_ = 0;
};

// Listens to what SentencePiece writes to std::cerr while it trains: the number of merges made, for the
// progress line. Passes everything on where `verbose`. The stream is given back at the end.
class TrainerLog final : public std::streambuf {
 public:
  TrainerLog(Progress& progress, bool verbose)
      : progress_(progress), verbose_(verbose), stderr_buffer_(std::cerr.rdbuf(this)) {}
  ~TrainerLog() override { std::cerr.rdbuf(stderr_buffer_); }

 private:
  int overflow(int c) override {
    if (c == '\n') {
      if (verbose_) write_err(line_ + "\n");
      // "... Added: freq=2214 size=140 all=..."
      const size_t added = line_.find("Added: "), size = line_.find(" size=");
      if (added != std::string::npos && size != std::string::npos)
        progress_.update(std::strtoll(line_.c_str() + size + 6, nullptr, 10));
      line_.clear();
    } else if (c != traits_type::eof()) {
      line_ += static_cast<char>(c);
    }
    return traits_type::not_eof(c);
  }

  Progress& progress_;
  bool verbose_;
  std::streambuf* stderr_buffer_;
  std::string line_;
};

LineSample sample_lines(const VocabularyOptions& options) {
  Corpus corpus(options.inputs, options.corpus);
  LineSample lines(options.sample_bytes);
  Progress progress("Reading text", corpus.total_bytes(), "bytes");
  RawPart raw;
  while (corpus.next(raw)) {
    const CorpusPart part = parse(std::move(raw), options.corpus);
    const std::string_view text = part.text;
    for (size_t at = 0; at < text.size();) {
      const size_t newline = std::min(text.find('\n', at), text.size());
      // Overlong lines come in several pieces.
      size_t end = std::min(newline, at + kMaxLineBytes);
      while (end < newline && end > at + 1 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
      lines.add(text.substr(at, end - at));
      at = end == newline ? newline + 1 : end;
    }
    progress.update(corpus.bytes_read());
  }
  progress.finish();
  if (lines.size() == 0)
    fail(Exit::data, "\"{}\": no text in the {} file(s) of the input", options.inputs.front(),
         corpus.files().size());
  return lines;
}

// What the trainer's refusal means for the user.
[[noreturn]] void explain(const VocabularyOptions& options, std::string_view message) {
  if (message.find("too high") != std::string_view::npos)
    fail(Exit::usage,
         "--size {}: the text does not yield that many pieces; lower the size or bring more text. "
         "SentencePiece: {}",
         options.size, message);
  if (message.find("smaller than required") != std::string_view::npos ||
      message.find("required_chars") != std::string_view::npos)
    fail(Exit::usage,
         "--size {}: too small for the {} reserved pieces and the characters of the text; raise it. "
         "SentencePiece: {}",
         options.size, kReserved, message);
  fail(Exit::data, "the vocabulary cannot be trained. SentencePiece: {}", message);
}

}  // namespace

void train_vocabulary(const VocabularyOptions& options) {
  if (options.size <= kReserved || options.size > INT32_MAX)
    fail(Exit::usage,
         "--size {}: a vocabulary has more than {} pieces, since end-of-text, <unk> and the 256 bytes are "
         "among them",
         options.size, kReserved);
  if (options.model.has_parent_path()) make_directories(options.model.parent_path());
  if (std::filesystem::is_directory(options.model))
    fail(Exit::usage, "--out {}: a directory; name a file", options.model.string());
  const LineSample lines = sample_lines(options);
  const std::unordered_map<std::string, std::string> settings = {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(options.size)},
      {"byte_fallback", "true"},
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"split_digits", "true"},
      {"character_coverage", "0.9999"},
      {"max_sentence_length", std::to_string(kMaxLineBytes + 1)},
      {"num_threads", "1"},
      {"unk_id", "0"},
      {"eos_id", "1"},
      {"eos_piece", "<|endoftext|>"},
      {"bos_id", "-1"},
      {"pad_id", "-1"}};
  write_err(fmt::format("Training {} pieces on {} lines, {}{}\n", with_commas(options.size),
                        with_commas(static_cast<int64_t>(lines.size())), short_bytes(lines.bytes()),
                        lines.complete() ? "" : " (a sample, spread evenly over the text)"));
  SampleIterator iterator(lines);
  std::string model;
  Progress progress("Training the vocabulary", options.size, "pieces");
  sentencepiece::logging::SetMinLogLevel(0);
  const auto status = [&] {
    const TrainerLog log(progress, options.verbose);
    return sentencepiece::SentencePieceTrainer::Train(settings, &iterator, &model);
  }();
  sentencepiece::logging::SetMinLogLevel(2);
  if (!status.ok()) explain(options, status.message());
  progress.update(options.size);
  progress.finish();
  replace_file(options.model, model);
}

}  // namespace keen
