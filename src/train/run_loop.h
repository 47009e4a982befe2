// The loop of a run: when it steps, evaluates, logs and saves.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "train/metrics.h"
#include "train/run_directory.h"
#include "train/saver.h"
#include "train/spikes.h"
#include "train/step_log.h"
#include "train/tensorboard.h"
#include "train/trainer.h"

namespace keen {

// A run in progress. Its constructor brings the trainer to where the run stands; `train` goes on from there.
// Of several ranks all step, evaluate and stop together, and rank 0 alone has the run's directory: it decides
// where the run goes on, writes what is to be written, and speaks.
class Run {
 public:
  Run(const RunConfig& config, const std::filesystem::path& path, RunDirectory* directory, Communicator& comm,
      Trainer& trainer, const Dataset& train, const Dataset* validation, double gemm_flops_per_s);
  void train();
  // Before the run ends by an error: what is being saved is completed, and told.
  void complete_save() noexcept;
  // Whether what this raises is raised by every rank, at the same place.
  bool ends_together() const { return ends_together_; }

 private:
  using Clock = std::chrono::steady_clock;

  std::optional<Checkpoint> checkpoint_to_resume() const;
  std::optional<Checkpoint> agreed_checkpoint();
  bool agreed(bool of_rank_0);
  void resume(const Checkpoint& checkpoint);
  void start();
  void check_room() const;
  void open_log();
  void say(const std::string& text) const;
  void record_event(const std::string& event, const Json& fields);
  template <class Row> void record(const Row& row);
  void record_step(const StepResult& result, double step_s);
  void skip_step(const StepResult& result);
  void evaluate();
  void save(bool must);
  [[noreturn]] void stop_by_signal();
  int64_t last_step() const { return config_.schedule.last_step(); }
  bool save_is_due() const;
  bool evaluation_is_due() const;

  RunConfig config_;
  const std::filesystem::path path_;
  RunDirectory* directory_;  // of rank 0
  Communicator& comm_;
  Trainer& trainer_;
  const Dataset& train_;
  const Dataset* validation_;
  std::string config_text_;
  std::optional<MetricsWriter> metrics_;          // of rank 0, as soon as the directory is a run's
  std::optional<TensorBoardWriter> tensorboard_;  // likewise, while it trains, where the config asks for it
  StepLog log_;
  SpikeDetector spikes_;
  int64_t save_begun_at_ = -1;  // step
  int64_t skips_in_a_row_ = 0;
  bool evaluation_is_owed_ = false;  // a signal came before the step's validation row was there
  bool ends_together_ = false;
  double elapsed_before_s_ = 0;
  int64_t sent_before_ = 0;
  Clock::time_point started_ = Clock::now();
  std::optional<Saver> saver_;  // of rank 0; it uses what stands above
};

}  // namespace keen
