// What `keen tokenize` reads. The first byte says whether it is JSON lines, one document, or documents
// between blank lines; the documents that come out, written again, come out again.
#include <nlohmann/json.hpp>

#include "data/corpus.h"
#include "target.h"

using namespace keen;

namespace {

std::vector<std::string> documents_in(const std::filesystem::path& path, const CorpusOptions& options) {
  Corpus corpus({path.string()}, options);
  std::vector<std::string> documents;
  std::string open;  // a document that goes on in the next part
  RawPart raw;
  while (corpus.next(raw)) {
    const CorpusPart part = parse(std::move(raw), options);
    size_t begin = 0;
    for (const size_t end : part.document_ends) {
      fuzz::require(begin <= end && end <= part.text.size(), "documents follow each other");
      documents.push_back(std::exchange(open, "") + part.text.substr(begin, end - begin));
      begin = end;
    }
    open += part.text.substr(begin);
    fuzz::require(part.invalid_bytes <= std::ssize(part.text), "invalid bytes are some of the text's");
  }
  fuzz::require(open.empty(), "the last document ends");
  return documents;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const fuzz::Directory directory;
  if (size == 0) return 0;
  const bool json = data[0] == 'j', blank_lines = data[0] == 'b';
  const char* name = json ? "documents.jsonl" : "documents.txt";
  const std::string_view text = fuzz::text_of(data + 1, size - 1);
  CorpusOptions options;
  options.documents = blank_lines ? CorpusOptions::Documents::blank_line : CorpusOptions::Documents::file;

  const std::filesystem::path path = directory.put(name, text);
  const auto documents =
      fuzz::accepted(Exit::data, path.string(), [&] { return documents_in(path, options); });
  if (!documents) return 0;
  std::string copy = blank_lines ? "\n" : "";  // so that no document can look like a compressed file
  for (const std::string& document : *documents) {
    fuzz::require(!document.empty(), "no document is empty");
    copy +=
        json ? nlohmann::json({{"text", document}}).dump() + "\n" : document + (blank_lines ? "\n\n" : "");
  }
  if (!json && !blank_lines) fuzz::require(copy == text, "a file is one document, unchanged");
  fuzz::require(documents_in(directory.put(name, copy), options) == *documents, "read(write(x)) == x");
  return 0;
}
