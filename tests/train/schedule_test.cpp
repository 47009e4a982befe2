#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace keen {
namespace {

constexpr double kLr = 6e-4, kFloor = 6e-4 * 0.1;

ScheduleConfig schedule(ScheduleKind kind) {
  return {.kind = kind,
          .steps = 110,
          .warmup_steps = 10,
          .final_lr_fraction = 0.1,
          .decay_fraction = 0.2,
          .stop_after = {}};
}

double rate(ScheduleKind kind, int64_t step) { return learning_rate(schedule(kind), kLr, step); }

constexpr ScheduleKind kAll[] = {ScheduleKind::constant, ScheduleKind::cosine, ScheduleKind::linear,
                                 ScheduleKind::wsd};

TEST(Schedule, WarmsUpInALineToExactlyLr) {
  for (const ScheduleKind kind : kAll) {
    for (int64_t step = 1; step < 10; ++step)
      EXPECT_NEAR(rate(kind, step), kLr * static_cast<double>(step) / 10, 1e-18) << name_of(kind) << step;
    EXPECT_EQ(rate(kind, 10), kLr) << name_of(kind);
  }
}

TEST(Schedule, TheMiddleLiesBetweenTheEndOfWarmUpAndTheEnd) {
  EXPECT_EQ(rate(ScheduleKind::constant, 60), kLr);
  // Divided by the total, warm-up included, these would be reached at step 55.
  EXPECT_NEAR(rate(ScheduleKind::cosine, 60), (kLr + kFloor) / 2, 1e-18);
  EXPECT_NEAR(rate(ScheduleKind::linear, 60), (kLr + kFloor) / 2, 1e-18);
  EXPECT_NEAR(rate(ScheduleKind::cosine, 35), kFloor + (kLr - kFloor) * (1 + std::sqrt(0.5)) / 2, 1e-18);
  EXPECT_NEAR(rate(ScheduleKind::linear, 35), kFloor + (kLr - kFloor) * 0.75, 1e-18);
  EXPECT_EQ(rate(ScheduleKind::wsd, 60), kLr);
}

TEST(Schedule, TheFloorIsReachedExactlyAtTheLastStepAndKept) {
  for (const ScheduleKind kind : kAll) {
    const double last = kind == ScheduleKind::constant ? kLr : kFloor;
    for (const int64_t step : {110, 111, 1000}) EXPECT_EQ(rate(kind, step), last) << name_of(kind) << step;
    if (kind != ScheduleKind::constant) {
      EXPECT_GT(rate(kind, 109), kFloor) << name_of(kind);
    }
  }
  for (const double lr : {1e-3, 3e-4, 0.1, 2.5e-4, 7e-5})
    for (const double fraction : {0.0, 0.1, 0.3, 0.7, 1.0})
      for (const ScheduleKind kind : {ScheduleKind::cosine, ScheduleKind::linear, ScheduleKind::wsd}) {
        ScheduleConfig config = schedule(kind);
        config.final_lr_fraction = fraction;
        EXPECT_EQ(learning_rate(config, lr, 110), lr * fraction);
        EXPECT_EQ(learning_rate(config, lr, 10), lr);
      }
}

TEST(Schedule, WsdDecaysOverItsShareOfAllSteps) {
  // A fifth of 110 steps: 22, so 88 is the last step of full rate.
  EXPECT_EQ(rate(ScheduleKind::wsd, 88), kLr);
  EXPECT_NEAR(rate(ScheduleKind::wsd, 89), kLr + (kFloor - kLr) / 22, 1e-18);
  EXPECT_NEAR(rate(ScheduleKind::wsd, 99), (kLr + kFloor) / 2, 1e-18);
  ScheduleConfig config = schedule(ScheduleKind::wsd);
  config.decay_fraction = 0;
  for (const int64_t step : {10, 109, 110, 111}) EXPECT_EQ(learning_rate(config, kLr, step), kLr) << step;
  // All of it decay: it begins where warm-up ends, not inside of it.
  config.decay_fraction = 1;
  EXPECT_EQ(learning_rate(config, kLr, 10), kLr);
  EXPECT_NEAR(learning_rate(config, kLr, 60), (kLr + kFloor) / 2, 1e-18);
}

TEST(Schedule, NoWarmUpAndOnlyWarmUp) {
  for (const ScheduleKind kind : kAll) {
    ScheduleConfig config = schedule(kind);
    config.warmup_steps = 0;
    EXPECT_LE(learning_rate(config, kLr, 1), kLr) << name_of(kind);
    EXPECT_GT(learning_rate(config, kLr, 1), 0.98 * kLr) << name_of(kind);
    config.warmup_steps = 220;
    EXPECT_NEAR(learning_rate(config, kLr, 110), kLr / 2, 1e-18) << name_of(kind);
    EXPECT_NEAR(learning_rate(config, kLr, 500), kLr / 2, 1e-18) << name_of(kind);
  }
}

}  // namespace
}  // namespace keen
