// When a run saves: the state is copied, and while training goes on a thread of its own writes the copy,
// reads it back, gives it its name and prunes.
#pragma once

#include <chrono>
#include <future>
#include <optional>

#include "train/metrics.h"
#include "train/step_log.h"
#include "train/trainer.h"

namespace keen {

// The saves of one run, one at a time, by its rank 0; the other ranks are in serve_pieces during `save`.
// Where the trainer has no snapshot `save` returns when all is done. The log and the console are told of a
// save's end in the calling thread, by the first of these calls that finds it; warnings may come from
// another.
class Saver {
 public:
  // What it refers to must outlive it. `saved_step` is that of the checkpoint the run goes on from, or -1.
  Saver(std::filesystem::path checkpoints, const CheckpointConfig& config, std::string config_text,
        Trainer& trainer, Communicator& comm, MetricsWriter& metrics, StepLog& log, Warn warn,
        int64_t saved_step);
  Saver(const Saver&) = delete;
  // Waits for what is being written.
  ~Saver() = default;

  // Saves the trainer's state, after waiting for the save before. Rows of the log are on the disk before the
  // checkpoint has its name. Where this one `must` succeed, returns when it has, or raises what went wrong.
  // Otherwise a failure of storage is counted in the state and told, and training goes on.
  void save(bool must);
  // Tells of a save that has come to its end, if one has.
  void poll();
  // Waits for the save in progress, and tells of it; raises what is not of storage, or where it `must`
  // succeed.
  void finish(bool must = false);
  // Of the last checkpoint that is there.
  int64_t saved_step() const { return saved_step_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Pending {
    int64_t step = 0;
    Clock::time_point begun;
    std::optional<double> stall_ms;          // none: as long as the save
    std::future<Clock::time_point> written;  // when
  };
  void failed(int64_t step, const Error& error);

  const std::filesystem::path checkpoints_;
  const CheckpointConfig config_;
  const std::string config_text_;
  Trainer& trainer_;
  Communicator& comm_;
  MetricsWriter& metrics_;
  StepLog& log_;
  const Warn warn_;
  int64_t saved_step_;
  std::optional<Pending> pending_;  // the last member: its thread uses the others
};

}  // namespace keen
