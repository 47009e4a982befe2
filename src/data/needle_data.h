// Needles as training data: what a model learns to answer `keen needle` from.
#pragma once

#include "data/needle.h"
#include "data/task_data.h"

namespace keen {

// Writes lessons (NeedleMaker::lesson). `source` is the directory of a dataset of text, as `keen tokenize
// encode` writes it. Haystacks of train lessons come out of its train shards, those of validation lessons out
// of its validation shards, and both are streams of their own, which `keen needle` does not ask. Its
// tokenizer.model is copied. Raises what write_task_data does, Exit::usage for a context that is too short,
// Exit::data.
DatasetInfo write_needle_data(const std::filesystem::path& source, const TaskOptions& options);

}  // namespace keen
