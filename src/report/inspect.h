// What a path is, and whether it is whole.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "io/json.h"

namespace keen {

struct Inspection {
  Json json;         // "kind", "path", "whole", and what the kind has to tell
  std::string text;  // the same for people
  // What is not whole, when the rest could be read all the same (one checkpoint of several, one shard of
  // several).
  std::optional<Error> problem;
};

// By what it finds, `path` is a config (.json), a run directory, a checkpoint directory, a dataset directory
// (with dataset.json), a shard (.bin), a file of tensors (.safetensors) or a tokenizer (.model). Everything
// is read in full and every hash compared. Raises Exit::usage for a config that is wrong and for a path that
// is none of these, Exit::checkpoint for a damaged checkpoint, Exit::data for a damaged shard, dataset or
// tokenizer.
Inspection inspect(const std::filesystem::path& path, bool colour);

}  // namespace keen
