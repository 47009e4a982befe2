// A run from its start to its end: opens or resumes its directory, forks, and decides when to evaluate, log
// and save.
#pragma once

#include <optional>
#include <string>

#include "train/run_config.h"

namespace keen {

struct RunOptions {
  std::string config_path;        // for messages: CONFIG and its --set options
  std::filesystem::path run_dir;  // empty: runs/NAME
  bool dry_run = false;           // plan and print, take no step, write nothing
};

// Trains `config` to its last step (or stop_after). The same call continues the run from its newest whole
// checkpoint; a finished run says so. Raises Error with the exit code of interface: usage, data, checkpoint,
// non_finite, device, communication, storage; Exit::stopped when a signal came and the state is saved.
void run_training(const RunConfig& config, const RunOptions& options);

}  // namespace keen
