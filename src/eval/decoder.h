// A checkpoint made ready to read and write text, token by token.
#pragma once

#include <memory>

#include "data/tokenizer.h"
#include "eval/checkpoint_config.h"
#include "model/generator.h"

namespace keen {

// The SentencePiece model in `path`, or where that is empty in the config's data.tokenizer. Raises
// Exit::data, its message beginning with `command`, where there is none, or one with more pieces than the
// model has.
Tokenizer open_tokenizer(std::string_view command, const std::string& path, const RunConfig& config);

// How many texts of `context` tokens, at most `most`, are in a model's cache together: as many tokens as a
// training micro-batch has, so that memory does not grow with the context.
int64_t texts_together(const RunConfig& config, int64_t context, int64_t most);

// The model of a checkpoint, with room for B texts of `capacity` tokens.
struct Decoder {
  Context ctx;
  Gpt gpt;
  Gpt::Arenas arenas;
  std::unique_ptr<Generator> generator;
  LoadReport loaded;

  Decoder(const LoadedConfig& loaded, int64_t B, int64_t capacity, bool keep_queries = false);
};

}  // namespace keen
