// Needles in haystacks: a sentence that tells a number, hidden in real text, and a question for the number at
// the end (the test of "Scalable-Softmax Is Superior for Attention", Nakanishi, 2025, after Kamradt's "Needle
// in a haystack", 2023). What `keen needle` asks and what `keen tokenize needle` trains on are built here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/philox.h"
#include "data/dataset.h"
#include "data/tokenizer.h"

namespace keen {

// One question, as the whole text that a model which answers it would have read and written:
//
//   <|endoftext|> HAYSTACK The special magic Tokyo number is: 8106422. HAYSTACK What is the special magic
//   Tokyo number? The special magic Tokyo number is: 8106422.
//
// The prompt ends before the token that holds the last number's first digit, so the row that reads its last
// token predicts that digit, wherever the tokenizer cuts.
struct Needle {
  std::vector<int32_t> tokens;  // exactly `context`
  int64_t prompt_tokens = 0;
  int64_t needle_begin = 0;                  // the hidden sentence's first token
  int64_t number_begin = 0, number_end = 0;  // of its tokens, those that hold digits of its number
  std::string city, number;                  // of 7 digits, the first one not 0

  int64_t answer_tokens() const { return std::ssize(tokens) - prompt_tokens; }
};

// Draws needles for haystacks out of a dataset. A needle depends on the content of the dataset, the
// tokenizer, the seed, the stream's name, and its context, depth and index: on nothing else, so every
// checkpoint is asked the same. Dataset and tokenizer must outlive it.
class NeedleMaker {
 public:
  // Raises Exit::data where a dataset.json beside the shards says that another tokenizer made them, or
  // numbers do not survive the tokenizer.
  NeedleMaker(const Dataset& haystack, const Tokenizer& tokenizer, uint64_t seed, std::string_view stream);

  // The sentence stands where `depth` percent of the haystack lie before it, moved to the nearest end of a
  // sentence if one is near (within a twentieth of the haystack). Raises Exit::usage for a context that
  // needle and question fill alone, Exit::data when no shard holds so long a haystack, or there is a needle
  // in it already.
  Needle make(int64_t context, double depth, int64_t index) const;

  // What a model learns to answer from: `context` tokens of the same kind of text, but with up to as many
  // needles as find room, of other cities, at depths drawn evenly, and at the end questions for them and
  // their answers, in rounds of random order. The number of needles is 2^u, rounded, u drawn evenly from 0 to
  // log2 of the most; the number of questions is drawn evenly from one for each needle to what fits. Few
  // needles and many questions are learned first; with one answer among hundreds of other tokens a small
  // model learned nothing in a thousand steps. Errors as make.
  std::vector<int32_t> lesson(int64_t context, int64_t index) const;

 private:
  // Tokens of a sentence, and which of them hold digits of the number in it.
  struct Sentence {
    std::vector<int32_t> ids;
    int64_t number_begin = 0, number_end = 0;
  };
  // The hidden sentence, and the question with its answer.
  struct Sentences {
    Sentence hidden, question;
    int64_t tokens() const { return std::ssize(hidden.ids) + std::ssize(question.ids); }
  };
  Sentences sentences(std::string_view city, const std::string& number) const;
  Sentence sentence(const std::string& text, const std::string& number) const;
  int64_t most_tokens_of_sentences() const;
  std::vector<int32_t> draw_haystack(int64_t tokens, int64_t context, double uniform) const;
  bool ends_sentence(std::span<const int32_t> text, int64_t border) const;
  int64_t border_at(std::span<const int32_t> text, double depth) const;

  const Dataset* haystack_;
  const Tokenizer* tokenizer_;
  uint64_t seed_;
  std::string stream_;
  int64_t most_tokens_;  // of a hidden sentence and its question
};

}  // namespace keen
