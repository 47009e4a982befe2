// Forks: a new run that starts from the weights of another one, perhaps with other attention.
#pragma once

#include <optional>

#include "train/trainer.h"

namespace keen {

// What a fork will take from its parent.
struct ForkPlan {
  Checkpoint parent;
  LoadReport tensors;
};

struct ForkReport : ForkPlan {
  // Mean loss of one same validation batch (of training windows where there is no validation data) under the
  // parent as it was trained, and under the fork as it starts.
  double loss_before = 0, loss_after = 0;
};

// Finds the checkpoint that `path` names and compares its tensors with those of `params`; loads nothing.
// Raises what fork_run raises: Exit::checkpoint when there is none that is whole, and naming every tensor
// whose shape differs; Exit::usage and Exit::data where init.step: keep cannot go on. Warns where a matrix of
// one has no counterpart in the other, as with another number of layers.
ForkPlan plan_fork(const Params& params, const RunConfig& config, const std::string& path,
                   const Dataset& train, const Warn& warn);

// Fills the trainer's parameters and state from the checkpoint that `path` names. Tensors go by name; an s or
// b that the config starts at another value than the parent's config, or no longer learns, starts as the
// config says (scales_set_anew). The rest by the rules of config.init:
//   optimizer  keep: AdamW's averages come along; reset: they start at zero
//   step       keep: schedule and data order go on where the parent stood, which needs the parent's context,
//              global batch and seed (Exit::usage otherwise) and its data (Exit::data); reset: both start
//              anew
// Raises as plan_fork does, and Exit::stopped when a signal came (train/signals.h).
ForkReport fork_run(Trainer& trainer, const RunConfig& config, const std::string& path, const Dataset& train,
                    const Dataset* validation, const Warn& warn);

// A table for people: every tensor as loaded, new (with its initial value), or dropped; of a report also the
// two losses.
std::string describe(const ForkPlan& plan);
std::string describe(const ForkReport& report);

}  // namespace keen
