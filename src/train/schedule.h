// The learning rate of a step.
#pragma once

#include "train/run_config.h"

namespace keen {

// For step 1, 2, ..., schedule.steps: linear warm-up that reaches lr at warmup_steps, then by kind, with p in
// (0, 1] the share of the steps after warm-up that are done:
//   constant  lr
//   cosine    from lr to floor along half a cosine: floor + (lr - floor) (1 + cos(pi p)) / 2
//   linear    from lr to floor in a line
//   wsd       lr, and over the last decay_fraction of all steps, but not before warm-up ends, in a line to
//   floor
//             (warm-up, stable, decay; Hu et al., "MiniCPM", 2024)
// where lr is reached exactly at warmup_steps, and floor = final_lr_fraction * lr exactly at the last step,
// where the schedule leaves steps to fall in. Past the last step: its value.
double learning_rate(const ScheduleConfig& schedule, double lr, int64_t step);

}  // namespace keen
