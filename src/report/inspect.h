// What a path is, and whether it is whole.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "io/json.h"

namespace keen {

struct InspectOptions {
  bool colour = false;
  // Every tensor, head, checkpoint and shard in the text, however many; without it kinds of tensors and many
  // files are summed up, so that the text stays short. JSON always has everything.
  bool all = false;
};

struct Inspection {
  Json json;         // "kind", "path", "whole", and what the kind has to tell
  std::string text;  // the same for people, at most kConsoleWidth wide but for long paths
  // What is not whole, when the rest could be read all the same (one checkpoint of several, one shard of
  // several, weights that are not finite).
  std::optional<Error> problem;
};

// By what it finds, `path` is a config (.json), a run directory, a directory of runs, a checkpoint directory,
// a dataset directory (with dataset.json), a shard (.bin), a file of tensors (.safetensors) or a tokenizer
// (.model). Everything is read in full and every hash compared. Raises Exit::usage for a config that is wrong
// and for a path that is none of these, Exit::checkpoint for a damaged checkpoint, Exit::data for a damaged
// shard, dataset or tokenizer.
//
//   config      what it describes and what a run of it needs: parameters, memory by category, computation,
//   disk;
//               whether its data and its parent are there
//   run         where it stands, whether it is training now, what happened to it, which checkpoints are whole
//   runs        the same of every run in a line
//   checkpoint  the state, every tensor in numbers, s and b of each head
//   dataset     what was encoded, whether every shard is what was written, how the text begins
//   shard       what it holds, whether its dataset knows it so, how its text begins
//   tokenizer   its pieces
Inspection inspect(const std::filesystem::path& path, const InspectOptions& options = {});

}  // namespace keen
