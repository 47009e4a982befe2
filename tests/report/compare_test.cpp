#include "report/compare.h"

#include <gtest/gtest.h>

#include "core/console.h"
#include "temporary_directory.h"

namespace keen {
namespace {

using testing::put;
using testing::TemporaryDirectory;

std::string validation_row(int64_t step, int64_t tokens, const std::string& loss) {
  return fmt::format(R"({{"kind":"validation","step":{},"tokens":{},"loss":{},"perplexity":null}})", step,
                     tokens, loss) +
         "\n";
}
std::string train_row(int64_t step, double speed) {
  return fmt::format(
             R"({{"kind":"train","step":{},"tokens":{},"loss":3.5,"grad_norm":1,"lr":0.001,"step_ms":5,"tokens_per_s":{},"mfu":null,"elapsed_s":{}}})",
             step, step * 100, speed, step * 0.5) +
         "\n";
}

// A run directory with this config and these rows.
std::filesystem::path make_run(const TemporaryDirectory& tmp, const std::string& name,
                               const std::string& config, const std::string& metrics) {
  const auto path = tmp / name;
  std::filesystem::create_directory(path);
  put(path / "config.json", config);
  put(path / "metrics.jsonl", metrics);
  return path;
}

constexpr const char* kConfig =
    R"({"name": "a", "seed": 1, "model": {"attention": "softmax"}, "schedule": {"steps": 30}})";

TEST(ReadRun, TakesTheLastRowOfAStepAndLeavesOutATornLine) {
  TemporaryDirectory tmp;
  const RunRecord run = read_run(
      make_run(tmp, "r", kConfig,
               validation_row(10, 1000, "4.0") + train_row(10, 50) + validation_row(20, 2000, "3.9") +
                   R"({"kind":"event","event":"resume","step":10})" + "\n" + validation_row(20, 2000, "3.5") +
                   train_row(20, 70) + train_row(30, 60) + R"({"kind":"validation","step":30,"tok)"));
  ASSERT_EQ(run.validation.size(), 2u);
  EXPECT_EQ(run.validation[1].loss, 3.5);
  EXPECT_EQ(run.steps, 30);
  EXPECT_EQ(run.tokens, 3000);
  EXPECT_EQ(run.planned_steps, 30);
  EXPECT_EQ(run.tokens_per_s, 60.0);
  EXPECT_EQ(run.elapsed_s, 15.0);
  EXPECT_EQ(run.last_event, "resume");
  EXPECT_EQ(run.final_validation(), 3.5);
  EXPECT_TRUE(run.problems.empty()) << run.problems.front();
}

TEST(ReadRun, NotesUnreadableLinesAndGoesOn) {
  TemporaryDirectory tmp;
  const RunRecord run = read_run(
      make_run(tmp, "r", kConfig, "\xff\xfe garbage\n" + validation_row(10, 1000, "4.0") + "[1]\n\n"));
  ASSERT_EQ(run.problems.size(), 1u);
  EXPECT_NE(run.problems[0].find("metrics.jsonl: 2 unreadable lines are left out"), std::string::npos)
      << run.problems[0];
  EXPECT_EQ(run.validation.size(), 1u);
}

TEST(ReadRun, ARunThatWentBackHasNotDoneWhatItLeft) {
  TemporaryDirectory tmp;
  const RunRecord run = read_run(make_run(tmp, "r", kConfig,
                                          validation_row(10, 1000, "4.0") + validation_row(20, 2000, "1.0") +
                                              R"({"kind":"event","event":"resume","step":10})"
                                              "\n" +
                                              validation_row(15, 1500, "3.5")));
  EXPECT_EQ(run.steps, 15);
  EXPECT_EQ(run.tokens, 1500);
  EXPECT_EQ(run.best_validation(), 3.5);
  const Comparison comparison = compare_runs({run}, 0, 1.0);
  EXPECT_EQ(comparison.common_tokens, 1500);
  EXPECT_TRUE(comparison_json(comparison)["runs"][0]["tokens_to_target_loss"].is_null());
}

TEST(ReadRun, NonFiniteLossesAreKnownButNeverTheBest) {
  TemporaryDirectory tmp;
  const RunRecord run = read_run(
      make_run(tmp, "r", kConfig, validation_row(10, 1000, "4.0") + validation_row(20, 2000, "null")));
  EXPECT_EQ(run.final_validation(), std::nullopt);
  EXPECT_EQ(run.best_validation(), 4.0);
  EXPECT_EQ(run.steps, 20);
}

TEST(ReadRun, NeedsOneReadableFile) {
  TemporaryDirectory tmp;
  std::filesystem::create_directory(tmp / "empty");
  for (const char* name : {"empty", "missing"}) {
    try {
      read_run(tmp / name);
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit, Exit::data);
      EXPECT_NE(std::string(error.what()).find(name), std::string::npos);
    }
  }
  std::filesystem::create_directory(tmp / "metrics");
  put(tmp / "metrics" / "metrics.jsonl", validation_row(1, 10, "4"));
  const RunRecord run = read_run(tmp / "metrics/");
  EXPECT_EQ(run.name, "metrics");
  EXPECT_EQ(run.problems.size(), 1u);
}

TEST(ReadRun, CountsTheParametersOfItsConfig) {
  TemporaryDirectory tmp;
  const RunRecord run =
      read_run(make_run(tmp, "r", R"({"model": {"vocab_size": 10, "context": 8, "layers": 1, "width": 4,
      "heads": 2, "kv_heads": 2, "mlp_width": 6}, "data": {"train": "x.bin"}})",
                        ""));
  // Embedding and head, qkv, projection, gate and up, down, three norms.
  EXPECT_EQ(run.parameters, 2 * 10 * 4 + 3 * 4 * 4 + 4 * 4 + 2 * 6 * 4 + 4 * 6 + 3 * 4);
}

TEST(LossAt, InterpolatesBetweenPointsAndNeverExtrapolates) {
  const std::vector<Point> curve = {
      {1, 100, 1, 4.0}, {2, 200, 2, 3.0}, {3, 300, 3, std::nullopt}, {4, 400, 4, 2.0}};
  EXPECT_DOUBLE_EQ(loss_at(curve, 150)->loss, 3.5);
  EXPECT_FALSE(loss_at(curve, 150)->exact);
  EXPECT_TRUE(loss_at(curve, 200)->exact);
  EXPECT_EQ(loss_at(curve, 200)->loss, 3.0);
  EXPECT_FALSE(loss_at(curve, 99));
  EXPECT_FALSE(loss_at(curve, 401));
  EXPECT_FALSE(loss_at(curve, 300)) << "not finite there";
  EXPECT_FALSE(loss_at(curve, 250)) << "not finite behind it";
  EXPECT_FALSE(loss_at(curve, 350)) << "not finite before it";
  EXPECT_FALSE(loss_at({}, 1));
}

TEST(TokensToReach, FindsTheFirstCrossing) {
  const std::vector<Point> curve = {{1, 100, 1, 4.0}, {2, 200, 2, 3.0}, {3, 300, 4, 3.5}, {4, 400, 5, 2.0}};
  EXPECT_EQ(tokens_to_reach(curve, 3.5)->tokens, 150);
  EXPECT_FALSE(tokens_to_reach(curve, 3.5)->exact);
  EXPECT_EQ(tokens_to_reach(curve, 3.0)->tokens, 200);
  EXPECT_TRUE(tokens_to_reach(curve, 3.0)->exact);
  EXPECT_EQ(tokens_to_reach(curve, 9.0)->tokens, 100);
  EXPECT_FALSE(tokens_to_reach(curve, 1.9));
}

TEST(ConfigDifferences, NameOnlyTheKeysThatDiffer) {
  std::vector<RunRecord> runs(3);
  runs[0].config = parse_json(R"({"name": "a", "seed": 1, "model": {"layers": 2, "attention": "softmax"}})",
                              "a", Exit::data);
  runs[1].config = parse_json(
      R"({"name": "b", "seed": 1, "model": {"layers": 2, "attention": ["softmax", "ssmax"], "new": 1}})", "b",
      Exit::data);
  const auto differences = config_differences(runs);  // the third run has no config
  ASSERT_EQ(differences.size(), 2u);
  EXPECT_EQ(differences[0].key, "model.attention");
  EXPECT_EQ(differences[0].values,
            (std::vector<std::string>{R"("softmax")", R"(["softmax", "ssmax"])", "-"}));
  EXPECT_EQ(differences[1].key, "model.new");
  EXPECT_EQ(differences[1].values, (std::vector<std::string>{"-", "1", "-"}));
}

RunRecord run_with(const std::string& name, std::vector<Point> validation) {
  RunRecord run;
  run.name = name;
  run.path = "runs/" + name;
  run.validation = std::move(validation);
  run.steps = run.validation.back().step;
  run.tokens = run.validation.back().tokens;
  return run;
}

TEST(CompareRuns, MeetAtTheLargestCommonTokenCount) {
  const Comparison comparison = compare_runs({run_with("a", {{1, 100, 1, 4.0}, {2, 200, 2, 3.0}}),
                                              run_with("b", {{1, 100, 1, 3.5}, {3, 300, 3, 2.5}})},
                                             0, 3.2);
  EXPECT_EQ(comparison.common_tokens, 200);
  const std::string text = comparison_text(comparison, false);
  EXPECT_NE(text.find("at 200 tokens       3.0000   ~3.0000\n"), std::string::npos) << text;
  EXPECT_NE(text.find("  against baseline       -  ~+0.0000\n"), std::string::npos) << text;
  const Json json = comparison_json(comparison);
  EXPECT_EQ(json["runs"][1]["loss_at_common_tokens"], 3.0);
  EXPECT_EQ(json["runs"][1]["interpolated"], true);
  EXPECT_EQ(json["runs"][0]["interpolated"], false);
  EXPECT_EQ(json["runs"][0]["tokens_to_target_loss"], 180);
  EXPECT_EQ(json["baseline"], "a");
}

TEST(CompareRuns, FitsTheConsoleWithThreeRunsAndFoldsMore) {
  for (const int count : {1, 2, 3, 9}) {
    std::vector<RunRecord> runs;
    for (int i = 0; i < count; ++i) {
      runs.push_back(
          run_with(fmt::format("a-run-with-a-rather-long-name-{}", i), {{1, 1'000'000'000, 1e4, 4.0 - i}}));
      runs.back().config = parse_json(
          fmt::format(
              R"({{"schedule": {{"final_lr_fraction": {}}}, "model": {{"attention": ["softmax","ssmax","ssmax_bias",{}]}}}})",
              i * 0.123456789, i),
          "x", Exit::data);
    }
    const std::string text = comparison_text(compare_runs(runs, 0, 1.0), true);
    size_t finals = 0;
    for (size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) {
      const std::string_view line = std::string_view(text).substr(at, text.find('\n', at) - at);
      EXPECT_LE(display_width(line), kConsoleWidth) << line;
      finals += line.starts_with("final val. loss");
    }
    EXPECT_EQ(finals, count == 9 ? 3u : 1u) << text;
  }
}

TEST(CompareRuns, ForksNameTheirParent) {
  TemporaryDirectory tmp;
  const auto path = make_run(
      tmp, "fork", kConfig,
      R"({"kind":"event","event":"fork","step":0,"parent":"runs/softmax/checkpoints/step_00001000","parent_step":1000})"
      "\n" +
          validation_row(10, 1000, "4.0"));
  const Comparison comparison = compare_runs({read_run(path)}, 0, std::nullopt);
  const std::string text = comparison_text(comparison, false);
  EXPECT_NE(text.find("fork of           softmax\n"), std::string::npos) << text;
  EXPECT_NE(text.find("1,000\n"), std::string::npos) << text;
  EXPECT_EQ(comparison_json(comparison)["runs"][0]["parent_step"], 1000);
}

}  // namespace
}  // namespace keen
