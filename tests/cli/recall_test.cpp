#include <fmt/format.h>

#include "cli/seed_groups.h"
#include "tiny_run.h"

namespace keen::testing {
namespace {

size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST(ShortNames, LeaveOutTheDirectoriesThatAllHaveInCommon) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(short_names({"runs/a", "runs/b/checkpoints/step_00000100"}),
            (Names{"a", "b/checkpoints/step_00000100"}));
  EXPECT_EQ(short_names({"runs/a/checkpoints/step_1", "runs/a"}), (Names{"a/checkpoints/step_1", "a"}));
  EXPECT_EQ(short_names({"runs/a/x", "runs/a/y/"}), (Names{"x", "y"}));
  EXPECT_EQ(short_names({"runs/soft-1", "runs/soft-2"}), (Names{"soft-1", "soft-2"}))
      << "whole directories, not what names have in common";
  EXPECT_EQ(short_names({"/runs/a", "runs/a"}), (Names{"/runs/a", "runs/a"}));
  EXPECT_EQ(short_names({"runs/a"}), Names{"a"});
  EXPECT_EQ(short_names({"runs/a", "runs/a"}), (Names{"a", "a"}));
  EXPECT_EQ(short_names({"a", "b"}), (Names{"a", "b"}));
  EXPECT_EQ(short_names({}), Names{});
}

TEST(SeedGroups, AreNamedByWhatTheirMembersShare) {
  const std::vector<std::string> paths = {"runs/soft-1", "runs/ssmax-1", "runs/soft-2", "runs/soft-1b"};
  const std::vector<SeedGroup> groups =
      seed_groups(paths, {{"soft", 1}, {"ssmax", 1}, {"soft", 2}, {"soft", 1}});
  ASSERT_EQ(groups.size(), 3u);
  EXPECT_EQ(groups[0].name, "soft-* (2 seeds)");
  EXPECT_EQ(groups[0].members, (std::vector<size_t>{0, 2}));
  EXPECT_EQ(groups[1].name, "ssmax-1");
  EXPECT_EQ(groups[2].name, "soft-1b") << "a seed that is there already is no other sample";
}

// Recall data, and two runs of a few steps on it that differ in their seeds, with a third one of SSMax.
class RecallRuns : public TinyRun {
 public:
  RecallRuns() : TinyRun(Medium::memory) {
    EXPECT_EQ(keen({"tokenize", "recall", "--context", "48", "--pairs", "3", "--windows", "20",
                    "--validation-windows", "4", "--out", "r"})
                  .exit,
              0);
    configure({{"data", {{"train", "r/train_*.bin"}, {"validation", "r/val_*.bin"}}},
               {"schedule", {{"steps", 2}}},
               {"model", {{"vocab_size", 256}, {"context", 48}}}});
    EXPECT_EQ(train({"--run-dir", "runs/soft-1"}).exit, 0);
    EXPECT_EQ(train({"--run-dir", "runs/soft-2", "--set", "seed=8"}).exit, 0);
    EXPECT_EQ(train({"--run-dir", "runs/ssmax", "--set", "model.attention=ssmax"}).exit, 0);
  }
  Outcome recall(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), "recall");
    return keen(arguments);
  }
};

TEST(RecallCommand, TextAndJsonShowTheSame) {
  const RecallRuns shell;
  const std::vector<std::string> asked = {"runs/soft-1", "runs/ssmax/checkpoints/step_00000002",
                                          "--contexts",  "96,48,96",
                                          "--pairs",     "3",
                                          "--windows",   "4",
                                          "--seed",      "9"};
  const Outcome people = shell.recall(asked);
  EXPECT_EQ(people.exit, 0) << people.err;
  EXPECT_TRUE(people.out.starts_with("4 windows of 3 questions a context")) << people.out;
  EXPECT_EQ(people.out.find('\033'), std::string::npos);
  std::vector<std::string> program = asked;
  program.push_back("--json");
  const Outcome outcome = shell.recall(program);
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  const Json json = outcome.json();
  EXPECT_EQ(json["seed"], 9);
  EXPECT_EQ(json["windows"], 4);
  EXPECT_EQ(json["pairs"], 3);
  ASSERT_EQ(json["checkpoints"].size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    const Json& report = json["checkpoints"][i];
    EXPECT_EQ(report["checkpoint"], asked[i]);
    EXPECT_EQ(report["step"], 2);
    EXPECT_EQ(report["trained_context"], 48);
    ASSERT_EQ(report["scores"].size(), 2u) << "a context named twice is asked once";
    for (size_t j = 0; j < 2; ++j) {
      const Json& score = report["scores"][j];
      EXPECT_EQ(score["context"], j == 0 ? 48 : 96);
      EXPECT_GE(score["accuracy"], 0);
      EXPECT_LE(score["accuracy"], 1);
      EXPECT_NEAR(score["loss"].get<double>(), std::log(256), 1.5) << "in two steps nobody learns much";
      EXPECT_GT(score["loss_stderr"], 0);
      const std::string cell = fmt::format("{:.1f} ± {:.1f}", 100 * score["accuracy"].get<double>(),
                                           100 * score["accuracy_stderr"].get<double>());
      EXPECT_NE(people.out.find(cell), std::string::npos) << cell << " in " << people.out;
    }
  }
  EXPECT_NE(json["checkpoints"][0]["scores"], json["checkpoints"][1]["scores"]);
  // Equal seeds ask equal questions, and one window has no error.
  EXPECT_EQ(shell.recall(program).json(), json);
  program[9] = "10";
  EXPECT_NE(shell.recall(program).json()["checkpoints"][0]["scores"], json["checkpoints"][0]["scores"]);
  const Outcome one = shell.recall({"runs/soft-1", "--contexts", "48", "--windows", "1", "--json"});
  EXPECT_TRUE(one.json()["checkpoints"][0]["scores"][0]["accuracy_stderr"].is_null()) << one.out;
  EXPECT_EQ(one.json()["pairs"], 8);
  const Outcome swapped = shell.recall({"runs/soft-1", "--contexts", "48", "--set", "model.attention=ssmax"});
  EXPECT_TRUE(swapped.says("runs/soft-1: new ")) << swapped.err;
}

TEST(RecallCommand, SeedsAreOneLineOfItsFigure) {
  const RecallRuns shell;
  EXPECT_EQ(shell
                .recall({"runs/soft-1", "runs/ssmax", "runs/soft-2/", "--contexts", "48,96", "--windows", "3",
                         "--svg", "r.svg"})
                .exit,
            0);
  const std::string svg = content_of(shell / "r.svg");
  EXPECT_EQ(count(svg, ">soft-* (2 seeds)<"), 2u) << "in the legend and at its one curve: " << svg;
  EXPECT_EQ(count(svg, ">ssmax<"), 2u);
  EXPECT_EQ(count(svg, "soft-1") + count(svg, "soft-2") + count(svg, "runs/"), 0u);
  EXPECT_EQ(count(svg, "over seeds where there are several"), 1u);
  EXPECT_EQ(count(svg, "trained on 48"), 1u);
  // One seed alone, and the same run twice, are what they are.
  EXPECT_EQ(shell
                .recall({"runs/soft-1", "runs/soft-1/checkpoints/step_00000002", "--contexts", "48", "--svg",
                         "one.svg"})
                .exit,
            0);
  const std::string one = content_of(shell / "one.svg");
  EXPECT_EQ(count(one, "seeds"), 0u) << one;
  EXPECT_EQ(count(one, ">soft-1<"), 2u) << one;
  EXPECT_EQ(count(one, ">soft-1/checkpoints/step_00000002<"), 2u) << one;
}

TEST(RecallCommand, RefusesWhatCannotBe) {
  const RecallRuns shell;
  expect_error(shell.recall({}), 2, {"CHECKPOINT", "See \"keen recall -h\""});
  expect_error(shell.recall({"runs/soft-1"}), 2, {"--contexts"});
  const std::vector<std::pair<std::string, std::vector<std::string>>> cases = {
      {"--contexts", {"", "0", "-1", "48,x", "1e9", "nan"}},
      {"--pairs", {"0", "65", "x", "1.5"}},
      {"--windows", {"0", "-3", "x", "9223372036854775807"}},
      {"--seed", {"x", "1.5"}},
      {"--rope-theta", {"0", "nan"}},
      {"--set", {"model.width=3", "nothing"}}};
  for (const auto& [option, values] : cases)
    for (const std::string& value : values) {
      std::vector<std::string> arguments = {"runs/soft-1", option + "=" + value};
      if (option != "--contexts") arguments.insert(arguments.end(), {"--contexts", "48"});
      SCOPED_TRACE(option + "=" + value);
      expect_error(shell.recall(arguments), 2, {option});
    }
  expect_error(shell.recall({"runs/soft-1", "--contexts", "48", "--svg", "no/r.svg"}), 2,
               {"--svg", "no directory"});
  expect_error(shell.recall({"runs/soft-1", "--contexts", "48,32"}), 2, {"context 32", "33 tokens"});
  expect_error(shell.recall({"runs/soft-1", "runs/none", "--contexts", "48"}), 4, {"runs/none"});
  shell.configure({{"schedule", {{"steps", 1}}}});
  ASSERT_EQ(shell.train({"--run-dir", "runs/text"}).exit, 0);
  const Outcome other = shell.recall({"runs/soft-1", "runs/text", "--contexts", "48"});
  expect_error(other, 3, {"runs/text", "300", "tokenize recall"});
  EXPECT_EQ(other.out, "") << "nobody was asked";
}

TEST(EvalCommand, SeedsAreOneLineOfItsFigure) {
  const RecallRuns shell;
  EXPECT_EQ(shell
                .keen({"eval", "runs/soft-1", "runs/soft-2", "runs/ssmax", "--data", "r/val_*.bin", "--svg",
                       "e.svg"})
                .exit,
            0);
  const std::string svg = content_of(shell / "e.svg");
  EXPECT_EQ(count(svg, ">soft-* (2 seeds)<"), 2u) << "in the legend and at its one curve: " << svg;
  EXPECT_EQ(count(svg, ">ssmax<"), 2u);
  EXPECT_EQ(count(svg, "soft-1") + count(svg, "soft-2"), 0u);
}

// The task is one that a small model solves: from noise to nearly every answer.
TEST(SlowRecall, IsLearnedAndRecallSaysSo) {
  const TinyRun shell;
  ASSERT_EQ(
      shell.keen({"tokenize", "recall", "--windows", "12000", "--seed", "1", "--out", "data/recall-128"})
          .exit,
      0);
  const std::vector<std::string> asked = {"recall", "runs/recall", "--contexts", "128", "--json"};
  const auto accuracy = [&] {
    const Outcome outcome = shell.keen(asked);
    EXPECT_EQ(outcome.exit, 0) << outcome.err;
    return outcome.json()["checkpoints"][0]["scores"][0]["accuracy"].get<double>();
  };
  const auto train = [&](const std::string& until) {
    return shell.keen({"train", KEEN_SOURCE "/configs/recall-softmax.json", "--run-dir", "runs/recall",
                       "--set", "seed=1", "--set", "schedule.steps=350", "--set",
                       "schedule.stop_after=" + until, "--set", "checkpoint.every=0", "--set", "device=cpu",
                       "--set", "precision=fp32"});
  };
  const Outcome begun = train("10");
  ASSERT_EQ(begun.exit, 0) << begun.err;
  EXPECT_LT(accuracy(), 0.2);
  const Outcome learned = train("350");
  ASSERT_EQ(learned.exit, 0) << learned.err;
  EXPECT_GT(accuracy(), 0.9);
}

}  // namespace
}  // namespace keen::testing
