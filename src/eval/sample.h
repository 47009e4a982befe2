// Text from a checkpoint, many texts at once.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/generator.h"

namespace keen {

struct SampleOptions {
  std::vector<std::string> prompts;  // at least one; an empty one starts a new document
  int64_t samples = 1;               // texts of each prompt
  int64_t tokens = 200;              // of a text, at most; the prompt not counted
  int64_t batch = 16;                // texts that are drawn together: sets memory and speed, never the text
  Sampling sampling;
  uint64_t seed = 0;
  std::string tokenizer;             // a SentencePiece model; empty: the config's data.tokenizer
  std::optional<double> rope_theta;  // instead of the trained one
  std::vector<std::string> sets;     // KEY=VALUE over the checkpoint's config
};

// Why a text ends.
enum class TextEnd : uint8_t {
  tokens,       // as many tokens as were asked for
  end_of_text,  // the model ended the document
  context,      // the learned positions of the model end
};
inline constexpr std::array<std::string_view, 3> kTextEndNames = {"tokens", "end_of_text", "context"};
constexpr std::string_view name_of(TextEnd end) { return kTextEndNames[static_cast<size_t>(end)]; }

struct SampledText {
  size_t prompt = 0;   // index in the options
  int64_t sample = 0;  // of this prompt, counted from 0
  int64_t prompt_tokens = 0;
  std::vector<int32_t> tokens;   // drawn; end-of-text is not among them
  std::vector<double> logprobs;  // ln of the probability of each, under the model as it is (ChosenToken)
  std::string text;              // of the tokens; valid UTF-8, other bytes are U+FFFD
  TextEnd end = TextEnd::tokens;
};

struct SampleReport {
  int64_t step = 0;                // of the checkpoint
  std::vector<SampledText> texts;  // all samples of the first prompt, then those of the next
  int64_t prompt_tokens = 0;       // that went through the model: those of a prompt once, however often
  int64_t tokens = 0;              // drawn
  double prefill_s = 0, decode_s = 0;
  int64_t context = 0;          // that the model was trained with
  bool beyond_context = false;  // a text is longer than that, its prompt included
};

// Takes a piece of text `index` (in the order of SampleReport::texts), valid UTF-8, as soon as it is drawn;
// `whole` with the last piece, which may be empty. Pieces of different texts come in any order. Returns
// whether to go on: false ends all texts where they are.
using TakePiece = std::function<bool(size_t index, std::string_view piece, bool whole)>;

// Draws the texts. Each has a random stream of its own that depends on the seed and on `sample` alone, so a
// prompt gives the same texts whichever others are drawn with it (on the CPU bit for bit, model/generator.h).
// Raises Exit::checkpoint; Exit::data (no tokenizer, or another model's); Exit::usage (a prompt longer than
// learned positions, rope_theta without RoPE); Exit::non_finite.
SampleReport sample_texts(const std::string& checkpoint, const SampleOptions& options, const TakePiece& take);

}  // namespace keen
