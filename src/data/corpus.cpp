#include "data/corpus.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "data/dataset.h"
#include "data/tokenizer.h"

namespace keen {

namespace fs = std::filesystem;

namespace {

constexpr size_t kPartBytes = size_t{1} << 20;
constexpr size_t kMaxTextLine = size_t{4} << 20;
constexpr size_t kMaxJsonLine = size_t{1} << 30;

bool is_json_lines(const fs::path& path) {
  return path.extension() == ".jsonl" || path.extension() == ".ndjson";
}

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

// The length of `text` without the first bytes of a character that it ends in the middle of.
size_t whole_characters(std::string_view text) {
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80) break;
    if (byte < 0xc0) continue;
    const size_t length = byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
    return length > back ? text.size() - back : text.size();
  }
  return text.size();
}

std::vector<std::string> files_below(const fs::path& directory) {
  std::vector<std::string> files;
  std::error_code error;
  fs::recursive_directory_iterator at(directory, fs::directory_options::follow_directory_symlink, error), end;
  for (; !error && at != end; at.increment(error)) {
    const fs::path& path = at->path();
    const bool hidden = path.filename().string().starts_with('.');
    std::error_code ignored;
    if (at->is_directory(ignored)) {
      if (hidden) at.disable_recursion_pending();
    } else if (!hidden && (path.extension() == ".txt" || is_json_lines(path))) {
      files.push_back(path.string());
    }
  }
  if (error) fail(Exit::data, "{}: the directory cannot be read: {}", directory.string(), error.message());
  if (files.empty())
    fail(Exit::data,
         "{}: no .txt, .jsonl or .ndjson file in this directory or below; name files of other kinds one by "
         "one or by a pattern",
         directory.string());
  std::sort(files.begin(), files.end());
  return files;
}

// Text never begins with these; a user is told what to do instead of getting a vocabulary of noise.
void refuse_compressed(const std::string& path, std::string_view head) {
  using namespace std::string_view_literals;
  struct Kind {
    std::string_view magic, name, remedy;
  };
  constexpr Kind kinds[] = {
      {"\x1f\x8b"sv, "gzip-compressed", "`zcat FILE | keen tokenize ... -`"},
      {"\x28\xb5\x2f\xfd"sv, "Zstandard-compressed", "`zstdcat FILE | keen tokenize ... -`"},
      {"\xfd"
       "7zXZ"sv,
       "xz-compressed", "`xzcat FILE | keen tokenize ... -`"},
      {"BZh9"sv, "bzip2-compressed", "`bzcat FILE | keen tokenize ... -`"},
      {"PK\x03\x04"sv, "a zip archive", "unpack it first"},
      {"PAR1"sv, "a Parquet file", "convert it to JSON lines first (data/README.md shows how)"}};
  for (const Kind& kind : kinds)
    if (head.starts_with(kind.magic)) fail(Exit::data, "{}: {}, not text; {}", path, kind.name, kind.remedy);
}

}  // namespace

// An open file and what has been read of it but not been handed on.
struct Corpus::Source {
  std::string path;
  bool json = false, at_end = false;
  std::FILE* file = nullptr;
  std::string buffer;
  int64_t line = 1;
  bool document_open = false;  // some of the document's text has been handed on
  bool inside_line = false;    // the last block ended inside a line

  ~Source() {
    if (file != nullptr && file != stdin) std::fclose(file);
  }

  // Reads another piece into the buffer, and returns its length.
  size_t read_more() {
    const size_t before = buffer.size();
    buffer.resize(before + kPartBytes);
    const size_t count = std::fread(buffer.data() + before, 1, kPartBytes, file);
    buffer.resize(before + count);
    if (std::ferror(file)) fail(Exit::data, "{}: cannot be read: {}", path, std::strerror(errno));
    if (count < kPartBytes) at_end = true;
    return count;
  }

  // The next whole lines; the last one may lack its newline at the end of the file. A line longer than
  // `max_line` is cut between characters.
  std::string take_block(size_t max_line, int64_t& bytes_read) {
    size_t newline = buffer.rfind('\n');
    while (newline == std::string::npos && !at_end && buffer.size() < max_line) {
      const size_t before = buffer.size();
      bytes_read += static_cast<int64_t>(read_more());
      const size_t found = std::string_view(buffer).substr(before).rfind('\n');
      if (found != std::string::npos) newline = before + found;
    }
    size_t length = newline == std::string::npos ? buffer.size() : newline + 1;
    if (newline == std::string::npos && !at_end) length = whole_characters(buffer);
    std::string block = buffer.substr(0, length);
    buffer.erase(0, length);
    return block;
  }
};

Corpus::Corpus(Corpus&&) noexcept = default;
Corpus::~Corpus() = default;

Corpus::Corpus(const std::vector<std::string>& inputs, CorpusOptions options) : options_(std::move(options)) {
  bool standard_input = false;
  for (const std::string& input : inputs) {
    if (input == "-") {
      if (standard_input) fail(Exit::usage, "standard input (-) can be read once only, but is named twice");
      standard_input = true;
      files_.push_back(input);
      continue;
    }
    const auto matches = match_files(input);
    if (matches.empty()) fail(Exit::data, "\"{}\": no such file or directory, and no file matches it", input);
    for (const fs::path& path : matches) {
      if (fs::is_directory(path)) {
        const auto below = files_below(path);
        files_.insert(files_.end(), below.begin(), below.end());
      } else {
        files_.push_back(path.string());
      }
    }
  }
  for (const std::string& file : files_) {
    std::error_code unknown;
    const auto size = file == "-" ? 0 : fs::file_size(file, unknown);
    if (!unknown) total_bytes_ += static_cast<int64_t>(size);
  }
  if (standard_input) total_bytes_ = 0;
}

bool Corpus::open_next_file() {
  if (next_file_ == files_.size()) return false;
  const std::string& path = files_[next_file_++];
  source_ = std::make_unique<Source>();
  const bool standard_input = path == "-";
  source_->path = standard_input ? "standard input" : path;
  source_->json = standard_input ? options_.json_stdin : is_json_lines(path);
  source_->file = standard_input ? stdin : std::fopen(path.c_str(), "rb");
  if (source_->file == nullptr) fail(Exit::data, "{}: cannot be opened: {}", path, std::strerror(errno));
  bytes_read_ += static_cast<int64_t>(source_->read_more());
  refuse_compressed(source_->path, source_->buffer);
  return true;
}

void Corpus::read_text(RawPart& part) {
  Source& source = *source_;
  part.json = false;
  const std::string block = source.take_block(kMaxTextLine, bytes_read_);
  if (options_.documents == CorpusOptions::Documents::file) {
    part.bytes += block;
    source.document_open |= !block.empty();
  } else {
    for (size_t at = 0; at < block.size();) {
      const size_t newline = std::min(block.find('\n', at), block.size());
      const std::string_view line = std::string_view(block).substr(at, newline - at);
      if (!source.inside_line && is_blank(line)) {
        if (source.document_open) part.document_ends.push_back(part.bytes.size());
        source.document_open = false;
      } else {
        if (source.document_open && !source.inside_line) part.bytes += '\n';
        part.bytes += line;
        source.document_open = true;
      }
      source.inside_line = newline == block.size();
      at = newline + 1;
    }
  }
  if (source.at_end && source.buffer.empty()) {
    if (source.document_open) part.document_ends.push_back(part.bytes.size());
    source_.reset();
  }
}

void Corpus::read_json(RawPart& part) {
  Source& source = *source_;
  part.json = true;
  part.path = source.path;
  part.first_line = source.line;
  part.bytes = source.take_block(kMaxJsonLine, bytes_read_);
  if (part.bytes.size() >= kMaxJsonLine && part.bytes.find('\n') == std::string::npos)
    fail(Exit::data, "{} line {}: longer than 1 GiB; cut the document into several", source.path,
         source.line);
  source.line += std::count(part.bytes.begin(), part.bytes.end(), '\n');
  if (source.at_end && source.buffer.empty()) source_.reset();
}

bool Corpus::next(RawPart& part) {
  part = {};
  while (part.bytes.size() < kPartBytes) {
    if (source_ == nullptr && !open_next_file()) break;
    if (source_->json) {
      // Lines of one file make a part of their own.
      if (part.bytes.empty() && part.document_ends.empty()) read_json(part);
      if (!part.bytes.empty() || !part.document_ends.empty()) return true;
    } else {
      read_text(part);
    }
  }
  return !part.bytes.empty() || !part.document_ends.empty();
}

CorpusPart parse(RawPart raw, const CorpusOptions& options) {
  CorpusPart part;
  if (!raw.json) {
    part.text = std::move(raw.bytes);
    part.document_ends = std::move(raw.document_ends);
  }
  int64_t line_number = raw.first_line;
  for (size_t at = 0; raw.json && at < raw.bytes.size(); ++line_number) {
    const size_t newline = std::min(raw.bytes.find('\n', at), raw.bytes.size());
    const std::string_view line = std::string_view(raw.bytes).substr(at, newline - at);
    at = newline + 1;
    if (is_blank(line)) continue;
    nlohmann::json json;
    try {
      json = nlohmann::json::parse(line);
    } catch (const nlohmann::json::exception& error) {
      fail(Exit::data, "{} line {}: not JSON: {}", raw.path, line_number, error.what());
    }
    const auto member = json.is_object() ? json.find(options.field) : json.end();
    if (!json.is_object() || member == json.end())
      fail(Exit::data,
           "{} line {}: {}; each line must be a JSON object whose member \"{}\" is the text (--field names "
           "another)",
           raw.path, line_number, json.is_object() ? "no such member" : "no JSON object", options.field);
    if (!member->is_string())
      fail(Exit::data, "{} line {}: \"{}\" is {}, not a string", raw.path, line_number, options.field,
           member->type_name());
    const std::string& text = member->get_ref<const std::string&>();
    if (text.empty()) continue;
    part.text += text;
    part.document_ends.push_back(part.text.size());
  }
  for (size_t at = 0; at < part.text.size();) {
    const size_t length = utf8_length(std::string_view(part.text).substr(at, 4));
    part.invalid_bytes += length == 0;
    at += std::max<size_t>(length, 1);
  }
  return part;
}

}  // namespace keen
