// Corpus: documents from text files, JSON lines, directories, patterns and standard input, read in bounded
// memory.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace keen {

struct CorpusOptions {
  // A text file is one document, or documents with blank lines (empty, or white space only) between them.
  enum class Documents : uint8_t { file, blank_line };
  Documents documents = Documents::file;
  // The member of each JSON line that holds the text. When it was named, standard input is read as JSON lines
  // too.
  std::string field = "text";
  bool json_stdin = false;
};

// A stretch of a corpus, cut where a line ends (or, in a line of many MiB, where a character ends).
struct CorpusPart {
  std::string text;  // documents one after another, without the blank lines between them
  std::vector<size_t>
      document_ends;          // offsets in `text`; what follows the last one is continued by the next part
  int64_t invalid_bytes = 0;  // bytes of `text` that are not UTF-8
};

// Lines of a corpus as they lie in a file, before `parse` turns them into documents. Parsing may run on any
// thread.
struct RawPart {
  std::string bytes;
  std::vector<size_t> document_ends;  // of text; empty for JSON lines
  bool json = false;
  // Of JSON lines: where they come from, for messages.
  std::string path;
  int64_t first_line = 1;
};

// Raises Exit::data with file and line for a line that is no JSON object with the field as a string.
CorpusPart parse(RawPart raw, const CorpusOptions& options);

// Inputs are taken in the order given. A directory stands for the .txt, .jsonl and .ndjson files in it and
// below, sorted by path, hidden ones left out; a pattern for the files that match it, sorted; `-` for
// standard input. A file whose name ends in .jsonl or .ndjson holds JSON lines, any other plain text.
// Documents without any text are left out. Line ends and invalid bytes are kept as they are.
class Corpus {
 public:
  // Finds the files. Raises Exit::data for an input that does not exist, matches nothing, or has no text file
  // in it.
  Corpus(const std::vector<std::string>& inputs, CorpusOptions options);
  ~Corpus();
  Corpus(Corpus&&) noexcept;

  // The next part; false at the end. Raises Exit::data for a file that cannot be read or is compressed.
  bool next(RawPart& part);

  const CorpusOptions& options() const { return options_; }
  const std::vector<std::string>& files() const { return files_; }
  // Bytes of all files together, 0 when standard input is among them; and bytes read so far.
  int64_t total_bytes() const { return total_bytes_; }
  int64_t bytes_read() const { return bytes_read_; }

 private:
  struct Source;
  bool open_next_file();
  // Both take one block of the open file; at its end they close it.
  void read_text(RawPart& part);
  void read_json(RawPart& part);

  CorpusOptions options_;
  std::vector<std::string> files_;
  size_t next_file_ = 0;
  int64_t total_bytes_ = 0, bytes_read_ = 0;
  std::unique_ptr<Source> source_;
};

}  // namespace keen
