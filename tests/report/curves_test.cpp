#include "report/curves.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "run_files.h"

namespace keen {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::vector<double> ys_of(const Curve& curve) {
  std::vector<double> ys;
  for (const CurvePoint& point : curve) ys.push_back(point.y);
  return ys;
}

// With this scale a weight halves at each unit of x.
const double kHalving = 1 / std::log(2.0);

TEST(Smoothed, IsTheDebiasedMeanInTheUnitOfX) {
  const std::vector<double> ys = ys_of(smoothed({{0, 4}, {1, 2}, {2, 8}, {5, 1}}, kHalving));
  ASSERT_EQ(ys.size(), 4u);
  EXPECT_EQ(ys[0], 4);
  EXPECT_NEAR(ys[1], (4 * 0.5 + 2) / 1.5, 1e-12);
  EXPECT_NEAR(ys[2], (4 * 0.25 + 2 * 0.5 + 8) / 1.75, 1e-12);
  // Three units later what was weighs an eighth, however many points lie between.
  EXPECT_NEAR(ys[3], (10.0 / 8 + 1) / (1.75 / 8 + 1), 1e-12);
  EXPECT_EQ(ys_of(smoothed({{0, 4}, {1, 2}}, 0)), (std::vector<double>{4, 2}));
}

TEST(Smoothed, GapsStayAndWeighNothing) {
  const std::vector<double> ys = ys_of(smoothed({{0, kNaN}, {1, 2}, {2, kNaN}, {3, 5}}, kHalving));
  EXPECT_TRUE(std::isnan(ys[0]));
  EXPECT_EQ(ys[1], 2);
  EXPECT_TRUE(std::isnan(ys[2]));
  EXPECT_NEAR(ys[3], (2 * 0.25 + 5) / 1.25, 1e-12);
}

RunRecord run_with_steps(int64_t first, int64_t last) {
  RunRecord run;
  run.flops_per_token = 3;
  for (int64_t step = first; step <= last; ++step) {
    TrainPoint point;
    point.step = step;
    point.tokens = 10 * step;
    point.seconds = 0.5 * static_cast<double>(step - first + 1);
    point.loss = 1.0 / static_cast<double>(step);
    run.train.push_back(point);
  }
  return run;
}

TEST(XOf, AForkStandsBehindWhatItsParentDid) {
  RunRecord run = run_with_steps(1, 4);
  run.parent_step = 100;
  run.origin = {.step = 100, .tokens = 7000, .seconds = 60, .flops = 1e6};
  const Point& point = run.train[1];
  EXPECT_EQ(x_of(run, point, Measure::steps), 102);
  EXPECT_EQ(x_of(run, point, Measure::tokens), 7020);
  EXPECT_EQ(x_of(run, point, Measure::seconds), 61);
  EXPECT_EQ(x_of(run, point, Measure::flops), 1e6 + 60);
  EXPECT_EQ(x_of_step(run, 0, Measure::tokens), 7000);
  EXPECT_EQ(x_of_step(run, 3, Measure::seconds), 61.5);
  EXPECT_EQ(x_of_step(run, 5, Measure::tokens), std::nullopt);
  run.train.erase(run.train.begin() + 1);
  EXPECT_EQ(x_of_step(run, 2, Measure::tokens), 7020) << "between two logged steps";
  run.flops_per_token.reset();
  EXPECT_EQ(x_of(run, point, Measure::flops), std::nullopt);
  EXPECT_TRUE(train_curve(run, Measure::flops).empty());
}

TEST(XOf, AForkThatCountsOnBeginsWhereItsParentStood) {
  RunRecord run = run_with_steps(101, 104);
  run.parent_step = 100;
  run.origin = {.step = 0, .tokens = 0, .seconds = 60, .flops = 0};
  EXPECT_EQ(beginning_of(run).step, 100);
  EXPECT_EQ(beginning_of(run).tokens, 1000);
  EXPECT_EQ(x_of_step(run, 100, Measure::tokens), 1000);
  EXPECT_EQ(x_of_step(run, 100, Measure::seconds), 60);
  EXPECT_EQ(x_of_step(run, 99, Measure::tokens), std::nullopt);
  EXPECT_EQ(beginning_of(run_with_steps(1, 4)).step, 0);
}

TEST(Difference, IsTakenWhereTheBaselineHasAValue) {
  const Curve baseline = {{10, 4}, {20, 2}, {30, kNaN}, {40, 1}};
  const Curve found = difference({{5, 9}, {10, 4.5}, {15, 3.5}, {25, 7}, {40, 0}, {41, 0}}, baseline);
  ASSERT_EQ(found.size(), 3u);  // not before it, beside its gap or behind its end
  EXPECT_EQ(found[0].y, 0.5);
  EXPECT_EQ(found[1].x, 15);
  EXPECT_EQ(found[1].y, 0.5);
  EXPECT_EQ(found[2].y, -1);
}

TEST(RobustRange, LeavesOutWhatWouldPressTheRestFlat) {
  std::vector<double> values;
  for (int i = 0; i <= 100; ++i) values.push_back(i);  // quantiles 10 and 90
  EXPECT_EQ(robust_range(values, Cut::above)->high, 100);
  values.back() = 1000;
  EXPECT_EQ(robust_range(values, Cut::above)->high, 110);
  EXPECT_EQ(robust_range(values, Cut::none)->high, 1000);
  values.front() = -1000;
  EXPECT_EQ(robust_range(values, Cut::above)->low, -1000);
  EXPECT_EQ(robust_range(values, Cut::both_sides)->low, -70);
  EXPECT_EQ(robust_range(values, Cut::both_sides)->high, 170);
  values.push_back(kNaN);
  EXPECT_EQ(robust_range(values, Cut::above)->high, 110);
  EXPECT_FALSE(robust_range({kNaN, INFINITY}, Cut::none));
  EXPECT_LT(robust_range({2, 2}, Cut::above)->low, 2);
  EXPECT_GT(robust_range({0}, Cut::above)->high, 0);
}

TEST(Thinned, KeepsExtremesEndsAndGaps) {
  Curve curve;
  for (int i = 0; i < 10'000; ++i) curve.push_back({i * 0.01, std::sin(i)});
  curve[4321].y = 50;
  curve[7000].y = -50;
  for (int i = 8'500; i < 8'600; ++i) curve[static_cast<size_t>(i)].y = kNaN;
  const Curve few = thinned(curve, 0, 100, 20);
  EXPECT_LE(few.size(), 20u * 4 + 10);
  EXPECT_EQ(few.front().x, 0);
  EXPECT_EQ(few.back().x, curve.back().x);
  double lowest = 0, highest = 0;
  int gaps = 0;
  for (size_t i = 0; i < few.size(); ++i) {
    if (i > 0) {
      EXPECT_GE(few[i].x, few[i - 1].x);
    }
    if (std::isnan(few[i].y)) ++gaps;
    lowest = std::min(lowest, few[i].y);
    highest = std::max(highest, few[i].y);
  }
  EXPECT_EQ(highest, 50);
  EXPECT_EQ(lowest, -50);
  EXPECT_GE(gaps, 1);
  EXPECT_EQ(thinned({{1, 2}, {3, 4}}, 0, 5, 1).size(), 2u);
}

TEST(HeadCurves, AreByLayerAndHeadAndHaveAMean) {
  RunRecord run = run_with_steps(1, 8);
  run.attention = {
      {.step = 4, .layers = {{.layer = 1, .s = {0.5, 1.5}, .b = {}}, {.layer = 3, .s = {7}, .b = {2}}}},
      {.step = 8, .layers = {{.layer = 1, .s = {1, kNaN}, .b = {}}}}};
  const std::vector<HeadCurve> s = head_curves(run, &LayerScale::s, Measure::tokens);
  ASSERT_EQ(s.size(), 3u);
  EXPECT_EQ(s[1].layer, 1);
  EXPECT_EQ(s[1].head, 1);
  EXPECT_EQ(s[1].curve[0].x, 40);
  EXPECT_EQ(s[1].curve[0].y, 1.5);
  ASSERT_EQ(head_curves(run, &LayerScale::b, Measure::tokens).size(), 1u);
  const std::vector<HeadCurve> first = {s[0], s[1]};
  EXPECT_EQ(ys_of(mean_of(first)), (std::vector<double>{1, 1}));
  EXPECT_EQ(ys_of(lowest_of(first)), (std::vector<double>{0.5, 1}));
  EXPECT_EQ(ys_of(highest_of(first)), (std::vector<double>{1.5, 1}));
}

TEST(Across, RunsIsTakenAtThePointsOfAllAsFarAsAllReach) {
  const Curve a = {{0, 1}, {10, 3}, {20, 5}}, b = {{5, 4}, {15, 6}};
  const auto values = [](const Curve& curve) {
    std::vector<std::pair<double, double>> list;
    for (const CurvePoint& point : curve) list.emplace_back(point.x, point.y);
    return list;
  };
  using List = std::vector<std::pair<double, double>>;
  EXPECT_EQ(values(mean_across({a, b})), (List{{5, 3}, {10, 4}, {15, 5}}));
  EXPECT_EQ(values(lowest_across({a, b})), (List{{5, 2}, {10, 3}, {15, 4}}));
  EXPECT_EQ(values(highest_across({a, b})), (List{{5, 4}, {10, 5}, {15, 6}}));
  EXPECT_EQ(values(mean_across({a, {}})), values(a)) << "a run without points takes no part";
  const Curve gap = {{5, 4}, {10, NAN}, {15, 6}};
  EXPECT_TRUE(std::isnan(mean_across({a, gap})[1].y));
  EXPECT_TRUE(mean_across({}).empty());
}

}  // namespace
}  // namespace keen
