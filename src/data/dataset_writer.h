// How a directory becomes a dataset, whatever its tokens are made from.
#pragma once

#include "data/dataset.h"

namespace keen {

// Leaves the directory, created where missing, without a dataset and without what a killed program left of
// one. Raises Exit::usage where it holds one, unless `force`.
void clear_dataset(const std::filesystem::path& directory, bool force);

// Ends the writing: counts the n-grams of the finished shards (the losses in `info`), gives the shards their
// names (train_NNNNNN.bin, val_NNNNNN.bin), puts `tokenizer`, the bytes of a model, beside them, and writes
// dataset.json last. Without a tokenizer there are no bytes and info.tokenizer_hash is empty.
void publish_dataset(const std::filesystem::path& directory, DatasetInfo& info, ShardWriter& train,
                     ShardWriter& validation, const std::string& tokenizer);

}  // namespace keen
