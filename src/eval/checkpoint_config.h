// A checkpoint together with the config that it was trained with, as a user wants to look at it.
#pragma once

#include <optional>

#include "train/checkpoint.h"
#include "train/run_config.h"

namespace keen {

struct LoadedConfig {
  Checkpoint checkpoint;
  RunConfig config;
};

// `path` is a checkpoint or a run directory (its newest whole checkpoint). `sets` are KEY=VALUE over its
// config; only device, precision, attention_path, batch.micro_sequences, model.attention and model.rope_theta
// can be changed without training, and any other key raises Exit::usage, and so does rope_theta for a model
// without RoPE. s = "auto" stays that of the training context.
LoadedConfig load_checkpoint_config(const std::string& path, std::vector<std::string> sets,
                                    std::optional<double> rope_theta = {});

// Raises Exit::usage where the model of checkpoint `path` has learned positions and fewer than `context`.
void expect_positions(const LoadedConfig& loaded, const std::string& path, int64_t context);

// What other attention did to a checkpoint's tensors, for people: "new NAME = VALUE", "dropped NAME".
std::vector<std::string> swapped_tensors(const LoadReport& report);

// What a checkpoint is one sample of: two with other seeds and the same `rest` (the config that it was
// trained with, but for name, seed, log and checkpoint, and its step) differ in nothing but chance. Forks of
// different parents do not.
struct Sample {
  std::string rest;
  int64_t seed = 0;
};
Sample sample_of(const LoadedConfig& loaded);

// Places of samples that belong together, in order of their first member; no group has a seed twice.
std::vector<std::vector<size_t>> groups_of(const std::vector<Sample>& samples);

}  // namespace keen
