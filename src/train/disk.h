// What a run takes on its disk, and whether there is room for it.
#pragma once

#include <filesystem>

#include "model/params.h"
#include "train/checkpoint.h"
#include "train/run_config.h"

namespace keen {

struct DiskNeed {
  int64_t checkpoint_bytes = 0;  // of one
  // That lie there at a time at most: those that are kept, and the one being written.
  int64_t checkpoints = 0;
  int64_t log_bytes = 0;  // metrics.jsonl, and TensorBoard's files; about

  int64_t bytes() const { return checkpoints * checkpoint_bytes + log_bytes; }
};
// `dtype` is that of the masters; the parameters need no memory.
DiskNeed disk_need(const RunConfig& config, const Params& params, DType dtype);

// Compares what the run in this directory still needs (what is there already counts) with what is free.
// Raises Exit::storage where not even one checkpoint fits; that fewer than all fit is a warning.
void check_room(const DiskNeed& need, const std::filesystem::path& run, const Warn& warn);

}  // namespace keen
