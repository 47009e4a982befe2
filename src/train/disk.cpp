#include "train/disk.h"

#include <algorithm>
#include <set>

#include "core/console.h"
#include "io/file.h"

namespace keen {

namespace {

namespace fs = std::filesystem;

// A row of metrics.jsonl: of a step, of a validation, and of each head's s and b. TensorBoard's are as long.
constexpr int64_t kTrainRow = 240, kValidationRow = 160, kHeadOfRow = 28;

// Every checkpoint that the run writes if nothing stops it.
int64_t saves_of(const RunConfig& config, int64_t last) {
  const CheckpointConfig& checkpoint = config.checkpoint;
  const auto is_regular = [&](int64_t step) { return checkpoint.every > 0 && step % checkpoint.every == 0; };
  std::set<int64_t> others(checkpoint.keep_steps.begin(), checkpoint.keep_steps.end());
  others.insert(last);
  const auto irregular = std::count_if(others.begin(), others.end(),
                                       [&](int64_t step) { return step <= last && !is_regular(step); });
  return irregular + (checkpoint.every > 0 ? last / checkpoint.every : 0) + (config.init.from ? 1 : 0);
}

int64_t bytes_in(const fs::path& directory) {
  int64_t bytes = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator at(directory, error), end; !error && at != end; at.increment(error)) {
    std::error_code gone;
    const auto size = at->is_regular_file(gone) ? at->file_size(gone) : 0;
    if (!gone) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

}  // namespace

DiskNeed disk_need(const RunConfig& config, const Params& params, DType dtype) {
  const int64_t last = config.schedule.last_step();
  const int64_t validations = config.evaluate.every > 0 ? last / config.evaluate.every + 1 : 0;
  const int64_t kept = config.checkpoint.keep + std::ssize(config.checkpoint.keep_steps);
  const int64_t heads = config.model.layers * config.model.heads;
  const int64_t rows = last * kTrainRow + validations * (kValidationRow + heads * kHeadOfRow);
  return {.checkpoint_bytes = checkpoint_bytes(params, dtype),
          .checkpoints = std::min(saves_of(config, last), kept + 1),
          .log_bytes = config.log.tensorboard ? 2 * rows : rows};
}

void check_room(const DiskNeed& need, const fs::path& run, const Warn& warn) {
  const int64_t free = free_bytes(run);
  if (free < 0) return;
  if (free < need.checkpoint_bytes)
    fail(Exit::storage,
         "{}: no room for a checkpoint: one takes {} bytes ({}), {} are free on that file system ({}); free "
         "some "
         "space, or choose another --run-dir",
         run.string(), need.checkpoint_bytes, short_bytes(need.checkpoint_bytes), free, short_bytes(free));
  const int64_t missing = need.bytes() - bytes_in(run);
  if (free < missing)
    warn(fmt::format(
        "{}: the run will need {} more than is there now ({} checkpoints of {} and its log), and {} are "
        "free on that file system; saves will fail when it is full. Free some space, or lower "
        "checkpoint.keep",
        run.string(), short_bytes(missing), need.checkpoints, short_bytes(need.checkpoint_bytes),
        short_bytes(free)));
}

}  // namespace keen
