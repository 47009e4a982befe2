// What a run says before its first step: the table that every start prints, and the long form of --dry-run.
#pragma once

#include <string>

#include "train/trainer.h"

namespace keen {

struct StartupFacts {
  const RunConfig& config;
  const Trainer& trainer;
  const Dataset& train;
  const Dataset* validation;  // null without
  int ranks;
  double gemm_flops_per_s;  // 0 where it was not measured (a dry run)
  std::string run;          // the run directory
};

// What the device holds; the host's memory beside a GPU is not part of it.
int64_t total_bytes(const std::vector<MemoryUse>& uses);
// "12.5 MiB: weights 5 MiB, gradients ..., scratch 1 MiB", and what the host takes beside a GPU.
std::string memory_summary(const std::vector<MemoryUse>& uses);

// The run, model, parameters, batch arithmetic, data, device and memory, a line each.
std::string startup_table(const StartupFacts& facts);

// The same table; then the effective config, every parameter (layers folded), memory by category in bytes,
// FLOPs a token, and the disk that checkpoints will take.
std::string dry_run_report(const StartupFacts& facts);

// environment.json: build, device, threads, ranks, precision, data.
Json environment_json(const StartupFacts& facts);

}  // namespace keen
