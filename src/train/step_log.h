// What a run shows while it trains, and the numbers of its metrics rows.
#pragma once

#include <chrono>
#include <string>

#include "train/metrics.h"
#include "train/trainer.h"

namespace keen {

// What a step line shows.
struct StepLine {
  int64_t step = 0, last_step = 0, tokens = 0;
  double loss = 0, grad_norm = 0, lr = 0;
  double step_ms = 0, tokens_per_s = 0, mfu = 0;  // means since the line before
  double left_s = 0;
};

// "20/40  50% 20.5k loss 6.1641 |g| 0.568 lr 1.3e-3  76ms 13.5k/s 24% 1.1s". At most 80 columns for runs of
// less than a million steps: every number has a width of its own, whatever its size, so that lines stand in
// columns.
std::string step_line(const StepLine& line);

class StepLog {
 public:
  // `gemm_flops_per_s` is the 100 % of MFU.
  StepLog(const RunConfig& config, const Trainer& trainer, double gemm_flops_per_s);

  // The metrics row of the update that has just been made.
  TrainRow row(const StepResult& result, double step_s) const;
  // s and b of every layer that has them, as they stand.
  AttentionRow attention_row() const;

  // Lines on standard output: one for every log.every steps, the first and the last; on a terminal also a
  // live line for the steps between, cut to its width and drawn at most ten times a second. Rates are means
  // over the steps since the last line. A message on standard error takes the place of the live line
  // (clear_line), which comes back below it.
  void step(const TrainRow& row, int64_t last_step);
  void validation(int64_t step, double loss);
  void saved(int64_t step);
  void finished(double elapsed_s);

 private:
  using Clock = std::chrono::steady_clock;
  void line(const std::string& text);
  void live(const std::string& text);

  const RunConfig& config_;
  const Trainer& trainer_;
  double gemm_flops_per_s_;
  bool terminal_, colour_;
  bool first_ = true;
  Clock::time_point drawn_{};  // the live line
  int64_t steps_since_line_ = 0;
  double ms_since_line_ = 0, mean_step_ms_ = 0;
};

}  // namespace keen
