#include "report/marks.h"

#include "run_files.h"

namespace keen {
namespace {

std::vector<Json> events(std::initializer_list<const char*> lines) {
  std::vector<Json> list;
  for (const char* line : lines) list.push_back(parse_json(line, "event", Exit::data));
  return list;
}

std::vector<std::string> told(const std::vector<Mark>& marks) {
  std::vector<std::string> list;
  for (const Mark& mark : marks)
    list.push_back(fmt::format("{} {}: {}", mark.step, name_of(mark.kind), mark.text));
  return list;
}

TEST(MarksOfEvents, TellWhatHappened) {
  EXPECT_EQ(
      told(marks_of_events(events(
          {R"({"event": "fork", "step": 0, "parent": "runs/a/checkpoints/step_2", "loss_before": 3.5, "loss_after": 3.75})",
           R"({"event": "save", "step": 0})", R"({"event": "save_failed", "step": 4, "reason": "disk full"})",
           R"({"event": "non_finite", "step": 6, "first_bad": ""})",
           R"({"event": "non_finite", "step": 6, "first_bad": "norm.weight"})",
           R"({"event": "stop", "step": 8, "reason": "signal", "signal": 15})",
           R"({"event": "resume", "step": 8, "changed": {"log.every": [1, 10], "precision": ["fp32", "bf16"]}})",
           R"({"event": "stop", "step": 9, "reason": "done"})"}))),
      (std::vector<std::string>{"0 fork: fork of runs/a/checkpoints/step_2; loss on one same batch 3.5000 "
                                "before the swap, 3.7500 after",
                                "4 save_failed: save failed: disk full",
                                "6 non_finite: gradient of norm.weight not finite; 2 batches in a row",
                                "8 signal: stopped by signal 15",
                                "8 resume: resumed; changed log.every 1 -> 10, precision fp32 -> bf16"}));
}

TEST(MarksOfEvents, ForgetTheCourseThatARunHasLeft) {
  EXPECT_EQ(
      told(marks_of_events(events(
          {R"({"event": "start", "step": 0})", R"({"event": "save_failed", "step": 5, "reason": "x"})",
           R"({"event": "save_failed", "step": 9, "reason": "y"})", R"({"event": "resume", "step": 5})"}))),
      (std::vector<std::string>{"5 save_failed: save failed: x", "5 resume: resumed"}));
}

struct Losses {
  std::vector<int64_t> steps;
  std::vector<std::optional<double>> values;

  Losses& add(std::optional<double> loss) {
    steps.push_back(std::ssize(steps) + 1);
    values.push_back(loss);
    return *this;
  }
  // Around 3, with median 3 and median distance `spread` from it.
  Losses& quiet(int count, double spread = 0.02, double middle = 3) {
    for (int i = 0; i < count; ++i) add(middle + spread * (i % 3 - 1));
    return *this;
  }
  std::vector<std::string> marks() const { return told(marks_of_losses(steps, values)); }
};

TEST(MarksOfLosses, AnExcursionIsOneSpikeAtItsFirstStep) {
  // The limit is 6 * 1.4826 * 0.02 = 0.1779 above 3; half of it, 0.089, ends the excursion.
  EXPECT_EQ(Losses().quiet(60).add(3.17).quiet(9).marks(), std::vector<std::string>{});
  EXPECT_EQ(
      Losses().quiet(60).add(3.19).add(5.25).add(3.10).add(3.2).quiet(9).marks(),
      std::vector<std::string>{"61 spike: spike: loss 5.2500, 2.2500 above the recent ones, at step 62"});
  EXPECT_EQ(Losses().quiet(60).add(4).quiet(3).add(4).quiet(9).marks().size(), 2u);
  EXPECT_EQ(Losses().quiet(60).add(4).marks().size(), 1u) << "while it lasts";
}

TEST(MarksOfLosses, SmallNoiseNeedsMoreThanATenthOfANat) {
  EXPECT_TRUE(Losses().quiet(60, 0.001).add(3.09).quiet(9).marks().empty());
  EXPECT_EQ(Losses().quiet(60, 0.001).add(3.11).quiet(9).marks().size(), 1u);
  EXPECT_TRUE(Losses().quiet(19).add(9).quiet(9).marks().empty()) << "too few to judge by";
  EXPECT_EQ(Losses().quiet(20).add(9).quiet(9).marks().size(), 1u);
}

TEST(MarksOfLosses, NeitherSpikesNorWhatIsNotFiniteMoveTheRule) {
  Losses losses;
  losses.quiet(60);
  for (int i = 0; i < 10; ++i) losses.add(50).add(std::nullopt).add(std::nullopt).quiet(3);
  losses.add(3.3).quiet(3);
  const auto marks = losses.marks();
  const auto count = [&](const char* kind) {
    return std::count_if(marks.begin(), marks.end(),
                         [&](const std::string& mark) { return mark.find(kind) != std::string::npos; });
  };
  EXPECT_EQ(count("spike"), 11);
  EXPECT_EQ(count("not finite"), 10) << "one for each stretch";
}

TEST(MarksOfLosses, AFallingCurveHasNoSpikesAndANewLevelIsOne) {
  Losses falling;
  for (int i = 0; i < 500; ++i) falling.add(8 - 0.01 * i + 0.02 * (i % 3 - 1));
  EXPECT_TRUE(falling.marks().empty());
  EXPECT_EQ(Losses().quiet(60).quiet(200, 0.02, 6).marks().size(), 1u);
  EXPECT_EQ(Losses().quiet(60).quiet(200, 0.02, 6).add(7).quiet(9, 0.02, 6).marks().size(), 2u)
      << "the new level is what is judged by";
}

// What a run logs as loss_spike is what its curve is marked with.
TEST(MarksOfLosses, AreAtTheStepsOfTheEvents) {
  Losses losses;
  losses.quiet(60)
      .add(3.5)
      .add(4)
      .quiet(5)
      .add(std::nullopt)
      .quiet(30)
      .add(9)
      .quiet(70, 0.02, 5)
      .add(8)
      .quiet(3, 0.02, 5);
  SpikeDetector detector;
  std::vector<int64_t> logged, marked;
  for (size_t i = 0; i < losses.steps.size(); ++i)
    if (losses.values[i] && detector.take(*losses.values[i])) logged.push_back(losses.steps[i]);
  for (const Mark& mark : marks_of_losses(losses.steps, losses.values))
    if (mark.kind == Mark::Kind::spike) marked.push_back(mark.step);
  EXPECT_EQ(marked, logged);
  EXPECT_EQ(logged.size(), 3u);
}

TEST(MarksOfLosses, ADivergedPeakIsShort) {
  std::vector<int64_t> steps;
  std::vector<std::optional<double>> losses;
  for (int64_t step = 1; step <= 40; ++step) {
    steps.push_back(step);
    losses.emplace_back(step == 30 ? 1e308 : 3.0);
  }
  const std::vector<Mark> marks = marks_of_losses(steps, losses);
  ASSERT_EQ(marks.size(), 1u);
  EXPECT_EQ(marks[0].text, "spike: loss 1e+308, 1e+308 above the recent ones");
}

}  // namespace
}  // namespace keen
