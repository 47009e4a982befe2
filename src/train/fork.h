// Forks: a new run that starts from the weights of another one, perhaps with other attention.
#pragma once

#include <optional>

#include "train/trainer.h"

namespace keen {

struct ForkReport {
  Checkpoint parent;
  LoadReport tensors;
  // Mean loss of one same validation batch (of training windows where there is no validation data) under the
  // parent as it was trained, and under the fork as it starts.
  double loss_before = 0, loss_after = 0;
};

// Fills the trainer's parameters and state from the checkpoint that `path` names, by the rules of
// config.init:
//   optimizer  keep: AdamW's averages come along; reset: they start at zero
//   step       keep: schedule and data order go on where the parent stood, which needs the parent's context
//   and global
//              batch (Exit::usage otherwise) and its data (Exit::data); reset: both start anew
// Raises Exit::checkpoint naming every tensor whose shape differs.
ForkReport fork_run(Trainer& trainer, const RunConfig& config, const std::string& path, const Dataset& train,
                    const Dataset* validation, const Warn& warn);

// A table for people: every tensor as loaded, new (with its initial value), or dropped, and the two losses.
std::string describe(const ForkReport& report);

}  // namespace keen
