#include "train/spikes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace keen {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(),
                 kInfinity = std::numeric_limits<double>::infinity();

// Losses around 3 with median 3 and median distance 0.02 from it.
void quiet(SpikeDetector& detector, int count) {
  for (int i = 0; i < count; ++i) EXPECT_FALSE(detector.take(3 + 0.02 * (i % 3 - 1))) << i;
}

TEST(Spikes, AreToldByMedianDeviationAndZ) {
  SpikeDetector detector;
  quiet(detector, 60);
  const auto spike = detector.take(4);
  ASSERT_TRUE(spike);
  EXPECT_EQ(spike->loss, 4);
  EXPECT_EQ(spike->median, 3);
  EXPECT_NEAR(spike->deviation, 1.4826 * 0.02, 1e-12);
  EXPECT_NEAR(spike->z(), 1 / (1.4826 * 0.02), 1e-9);
  EXPECT_TRUE(detector.in_spike());
  EXPECT_FALSE(detector.take(5)) << "it goes on";
  EXPECT_TRUE(detector.spike_is_open());
  quiet(detector, 1);
  EXPECT_FALSE(detector.in_spike());
  EXPECT_TRUE(detector.take(4)) << "another one";
}

TEST(Spikes, LossesThatAreAllTheSameHaveADeviationToJudgeBy) {
  SpikeDetector detector;
  for (int i = 0; i < 60; ++i) EXPECT_FALSE(detector.take(2));
  EXPECT_FALSE(detector.take(2 + 0.99 * kLeastSpike));
  const auto spike = detector.take(2 + 1.01 * kLeastSpike);
  ASSERT_TRUE(spike);
  EXPECT_TRUE(std::isfinite(spike->z()));
  EXPECT_GT(spike->z(), kSpikeDeviations);
}

// A sum that took in one NaN would say no ever after; one that took in an infinity, too.
TEST(Spikes, WhatIsNotFiniteTakesNoPart) {
  SpikeDetector detector, without;
  for (int i = 0; i < 200; ++i) {
    const double loss = i % 40 == 39 ? 6 : 3 + 0.02 * (i % 3 - 1);
    for (const double bad : {kNaN, kInfinity, -kInfinity}) EXPECT_FALSE(detector.take(bad));
    const auto spike = detector.take(loss), same = without.take(loss);
    ASSERT_EQ(spike.has_value(), same.has_value()) << i;
    EXPECT_EQ(spike.has_value(), i % 40 == 39) << i;
    if (spike) {
      EXPECT_EQ(spike->median, same->median);
    }
  }
}

TEST(Spikes, ALossThatStaysUpIsTheNewNormal) {
  SpikeDetector detector;
  quiet(detector, 60);
  EXPECT_TRUE(detector.take(6));
  for (int64_t i = 1; i < kSpikeWindow; ++i) EXPECT_FALSE(detector.take(6));
  EXPECT_TRUE(detector.in_spike()) << "the last of them belongs to it";
  EXPECT_FALSE(detector.spike_is_open());
  EXPECT_FALSE(detector.take(6));
  EXPECT_TRUE(detector.take(8));
}

}  // namespace
}  // namespace keen
