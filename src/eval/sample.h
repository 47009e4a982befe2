// Text from a checkpoint.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "model/generator.h"

namespace keen {

struct SampleOptions {
  std::string prompt;
  int64_t tokens = 200;
  Sampling sampling;
  uint64_t seed = 0;
  std::string tokenizer;  // a SentencePiece model; empty: the config's data.tokenizer
  std::vector<std::string> sets;
};

struct SampleReport {
  int64_t prompt_tokens = 0, tokens = 0;
  double prefill_s = 0, decode_s = 0;
  bool reached_context = false;  // stopped where the learned positions of the model end
};

// Hands the text to `write` piece by piece as it is drawn, the prompt not included, until `tokens` are drawn
// or the document ends, or a model with learned positions has no more of them. An empty prompt starts a new
// document. Raises Exit::checkpoint, Exit::data (no tokenizer), Exit::usage (a prompt longer than learned
// positions).
SampleReport sample_text(const std::string& checkpoint, const SampleOptions& options,
                         const std::function<void(std::string_view)>& write);

}  // namespace keen
