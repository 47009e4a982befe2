// Needles as training data: what a model learns to answer `keen needle` from.
#pragma once

#include "data/needle.h"

namespace keen {

struct NeedleDataOptions {
  std::filesystem::path source;     // a dataset of text, as `keen tokenize encode` writes it
  std::filesystem::path directory;  // the dataset to write
  int64_t context = 0;              // the model's, in tokens
  int64_t windows = 10'000, validation_windows = 100;
  uint64_t seed = 0;
  bool force = false;
};

// Writes lessons (NeedleMaker::lesson), one behind the other, each `context` tokens long, and a last
// end-of-text: so each of the windows that training and evaluation read is one lesson, with the next one's
// first token as its last target. Haystacks of train lessons come out of the source's train shards, those of
// validation lessons out of its validation shards, and both are streams of their own, which `keen needle`
// does not ask. The source's tokenizer.model is copied. Raises Exit::usage (a directory that holds a dataset,
// unless `force`; a context that is too short; more tokens than a shard holds), Exit::data, Exit::storage.
DatasetInfo write_needle_data(const NeedleDataOptions& options);

}  // namespace keen
