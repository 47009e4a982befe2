// What a run shows while it trains, and the numbers of its metrics rows.
#pragma once

#include <string>

#include "train/metrics.h"
#include "train/trainer.h"

namespace keen {

class StepLog {
 public:
  // `gemm_flops_per_s` is the 100 % of MFU.
  StepLog(const RunConfig& config, const Trainer& trainer, double gemm_flops_per_s);

  // The metrics row of the update that has just been made.
  TrainRow row(const StepResult& result, double step_s) const;
  // s and b of every layer that has them, as they stand.
  AttentionRow attention_row() const;

  // Lines on standard output: one for every log.every steps, the first and the last; on a terminal also a
  // live line for the steps between. Rates are means over the steps since the last line.
  void step(const TrainRow& row, int64_t last_step);
  void validation(int64_t step, double loss);
  void saved(int64_t step);
  void finished(double elapsed_s);

 private:
  void line(const std::string& text, bool live);

  const RunConfig& config_;
  const Trainer& trainer_;
  double gemm_flops_per_s_;
  bool terminal_, colour_;
  bool first_ = true, live_line_ = false;
  int64_t steps_since_line_ = 0;
  double ms_since_line_ = 0, mean_step_ms_ = 0;
};

}  // namespace keen
