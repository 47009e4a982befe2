#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace keen {

double learning_rate(const ScheduleConfig& schedule, double lr, int64_t step) {
  step = std::min(step, schedule.steps);
  if (step < schedule.warmup_steps)
    return lr * static_cast<double>(step) / static_cast<double>(schedule.warmup_steps);
  const double floor = lr * schedule.final_lr_fraction;
  const auto share = [](int64_t done, int64_t of) {
    return of <= 0 ? 1.0 : std::clamp(static_cast<double>(done) / static_cast<double>(of), 0.0, 1.0);
  };
  const double p = share(step - schedule.warmup_steps, schedule.steps - schedule.warmup_steps);
  switch (schedule.kind) {
    case ScheduleKind::constant:
      return lr;
    case ScheduleKind::cosine:
      return std::lerp(floor, lr, 0.5 * (1 + std::cos(std::numbers::pi * p)));
    case ScheduleKind::linear:
      return std::lerp(lr, floor, p);
    case ScheduleKind::wsd: {
      const auto decay_steps =
          static_cast<int64_t>(std::llround(schedule.decay_fraction * static_cast<double>(schedule.steps)));
      const int64_t decay_begins = std::max(schedule.steps - decay_steps, schedule.warmup_steps);
      return step <= decay_begins
                 ? lr
                 : std::lerp(lr, floor, share(step - decay_begins, schedule.steps - decay_begins));
    }
  }
  return lr;
}

}  // namespace keen
