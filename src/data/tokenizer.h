// The tokenizer: a SentencePiece model (Kudo and Richardson, "SentencePiece: A simple and language
// independent subword tokenizer", 2018) and the way keen uses it.
//
// Text is encoded line by line, a newline being its byte piece <0x0A>. The tokens of a line are those that
// SentencePiece itself gives it, except where SentencePiece would lose information: bytes that are not UTF-8,
// and U+2581 (which it uses as the sign for a space), become byte pieces. So with a model that does not
// change the text before it is cut into pieces, as the ones trained by keen, decode(encode(x)) = x for every
// string of bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace keen {

class Tokenizer {
 public:
  // Raises Exit::data, naming the file, when it is missing or no SentencePiece model, or when the model lacks
  // byte pieces (--byte_fallback) or an end-of-text id (its eos).
  explicit Tokenizer(const std::filesystem::path& model);
  Tokenizer(Tokenizer&&) noexcept;
  ~Tokenizer();

  int64_t vocab_size() const { return vocab_size_; }
  int32_t end_of_text() const { return end_of_text_; }
  // XXH3-64 of the model file.
  const std::string& hash() const { return hash_; }
  // Whether decode(encode(x)) = x holds. False for a model that normalizes text or adds a space before each
  // line.
  bool lossless() const { return lossless_; }

  // Appends the tokens of `text` to `ids`. Safe to call from several threads.
  void encode(std::string_view text, std::vector<int32_t>& ids) const;
  std::vector<int32_t> encode(std::string_view text) const;
  // The bytes that the tokens stand for; control pieces such as end-of-text stand for none, the unknown piece
  // for U+FFFD. The decoded parts of a sequence are the parts of the decoded sequence, so text can be shown
  // as it is sampled (a part may end inside a character). Raises Exit::data for an id outside the vocabulary.
  std::string decode(std::span<const int32_t> ids) const;

 private:
  friend class Encoder;

  // Tokens of a piece of valid UTF-8 without newlines and U+2581.
  void encode_run(std::string_view run, std::vector<int32_t>& ids) const;
  template <class Run>
  void encode_with(std::string_view text, std::vector<int32_t>& ids, const Run& run) const;

  std::unique_ptr<sentencepiece::SentencePieceProcessor> model_;
  int64_t vocab_size_ = 0;
  int32_t end_of_text_ = 0;
  std::string hash_;
  bool lossless_ = false, separable_ = false;
  std::vector<int32_t> byte_ids_;      // the piece of each byte
  std::vector<std::string> surfaces_;  // the bytes of each piece
};

// Encodes much text: gives the same tokens as Tokenizer::encode, several times as fast, by remembering words.
// That is exact where no piece of the vocabulary reaches over the start of a word (a space after something
// else than a space), because merges then never cross it; with other models nothing is remembered. One for
// each thread; the tokenizer must outlive it.
class Encoder {
 public:
  explicit Encoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  // Appends.
  void encode(std::string_view text, std::vector<int32_t>& ids);

 private:
  void encode_words(std::string_view run, std::vector<int32_t>& ids);

  struct StringHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  const Tokenizer* tokenizer_;
  std::unordered_map<std::string, std::vector<int32_t>, StringHash, std::equal_to<>> words_;
};

// The length in bytes of the valid UTF-8 character at the start of `text`; 0 where there is none. Surrogates,
// overlong forms and code points above U+10FFFF are not valid.
size_t utf8_length(std::string_view text);

}  // namespace keen
