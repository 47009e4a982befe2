#include "report/compare.h"

#include <algorithm>
#include <cmath>

#include "core/console.h"
#include "run_files.h"

namespace keen {
namespace {

Json json_of(const std::string& text) { return parse_json(text, "test", Exit::data); }

// A run that validated: {step, tokens, seconds, loss}.
RunRecord run_with(const std::string& name, std::vector<Point> validation) {
  RunRecord run;
  run.name = name;
  run.path = "runs/" + name;
  run.validation = std::move(validation);
  if (run.validation.empty()) return run;
  run.steps = run.validation.back().step;
  run.tokens = run.validation.back().tokens;
  run.train.resize(1);
  return run;
}

// A run that trained on these losses, one a step.
RunRecord trained(const std::string& name, const std::vector<double>& losses, int64_t seed = 1) {
  RunRecord run;
  run.name = name;
  run.path = "runs/" + name;
  run.config = json_of(fmt::format(
      R"({{"name": "{}", "seed": {}, "model": {{"context": 8}}, "batch": {{"sequences": 4}}}})", name, seed));
  run.train_fingerprint = "data";
  for (const double loss : losses) {
    TrainPoint point;
    point.step = std::ssize(run.train) + 1;
    point.tokens = 32 * point.step;
    point.seconds = static_cast<double>(point.step);
    point.loss = loss;
    point.batch = point.step - 1;
    run.train.push_back(point);
  }
  run.steps = std::ssize(run.train);
  return run;
}

// The cell texts of one row of the table; empty when there is no such row.
std::vector<std::string> row(const Comparison& comparison, const std::string& key) {
  std::vector<std::string> texts;
  for (const CellRow& candidate : comparison_table(comparison).rows)
    if (candidate.key == key)
      for (const Cell& cell : candidate.cells) texts.push_back(cell.text);
  return texts;
}
using Texts = std::vector<std::string>;

// --- differences of configs ---

TEST(ConfigDifferences, NameOnlyTheKeysThatDiffer) {
  std::vector<RunRecord> runs(3);
  runs[0].config = json_of(R"({"name": "a", "seed": 1, "model": {"layers": 2, "attention": "softmax"}})");
  runs[1].config = json_of(
      R"({"name": "b", "seed": 1, "model": {"layers": 2, "attention": ["softmax", "ssmax"], "new": 1}})");
  const auto differences = config_differences(runs);  // the third run has no config
  ASSERT_EQ(differences.size(), 2u);
  EXPECT_EQ(differences[0].key, "model.attention");
  EXPECT_EQ(differences[0].values, (std::vector<std::optional<std::string>>{
                                       R"("softmax")", R"(["softmax", "ssmax"])", std::nullopt}));
  EXPECT_EQ(differences[1].key, "model.new");
  EXPECT_EQ(differences[1].values,
            (std::vector<std::optional<std::string>>{std::nullopt, "1", std::nullopt}));
  const Comparison comparison = compare_runs(std::move(runs), 0, std::nullopt);
  const CellTable table = config_table(comparison);
  EXPECT_EQ(table.rows[1].cells[0].text, "absent");
  EXPECT_EQ(table.rows[1].cells[2].text, "unknown") << "nobody knows what a run without a config had";
  EXPECT_TRUE(comparison_json(comparison)["config_differences"]["model.new"][0].is_null());
}

TEST(ConfigDifferences, ReachWhatTheConfigLeavesToTheMachine) {
  std::vector<RunRecord> runs(2);
  runs[0].environment = json_of(
      R"({"precision": "bf16", "threads": 2, "gemm_flops_per_s": 1, "data": {"train": {"pattern": "a", "fingerprint": "x"}}})");
  runs[1].environment = json_of(
      R"({"precision": "fp32", "threads": 2, "gemm_flops_per_s": 2, "data": {"train": {"pattern": "b", "fingerprint": "y"}}})");
  const auto differences = config_differences(runs);
  ASSERT_EQ(differences.size(), 2u);
  EXPECT_EQ(differences[0].key, "environment.precision");
  EXPECT_EQ(differences[1].key, "environment.data.train.fingerprint");
}

// --- validation losses ---

TEST(CompareRuns, MeetAtTheLargestCommonTokenCount) {
  const Comparison comparison = compare_runs({run_with("a", {{1, 100, 1, 4.0}, {2, 200, 2, 3.0}}),
                                              run_with("b", {{1, 100, 1, 3.5}, {3, 300, 3, 2.5}})},
                                             0, 3.2);
  EXPECT_EQ(comparison.common_tokens, 200);
  const std::string text = comparison_text(comparison, false);
  EXPECT_NE(text.find("val. at 200 tokens       3.0000     ~3.0000\n"), std::string::npos) << text;
  EXPECT_NE(text.find("  minus baseline       baseline    ~+0.0000\n"), std::string::npos) << text;
  const Json json = comparison_json(comparison);
  EXPECT_EQ(json["runs"][1]["loss_at_common_tokens"], 3.0);
  EXPECT_EQ(json["runs"][1]["difference_at_common_tokens"], 0.0);
  EXPECT_EQ(json["runs"][1]["interpolated"], (Json{"loss_at_common_tokens", "difference_at_common_tokens",
                                                   "tokens_to_target_loss", "seconds_to_target_loss"}));
  EXPECT_EQ(json["runs"][0]["interpolated"], (Json{"tokens_to_target_loss", "seconds_to_target_loss"}));
  EXPECT_EQ(json["runs"][0]["tokens_to_target_loss"], 180);
  EXPECT_DOUBLE_EQ(json["runs"][0]["seconds_to_target_loss"].get<double>(), 1.8);
  EXPECT_EQ(json["baseline"], "a");
  EXPECT_EQ(json["common_tokens"], 200);
  EXPECT_EQ(json["target_loss"], 3.2);
}

TEST(CompareRuns, OneShortRunDoesNotTakeTheOthersTheirComparison) {
  const std::vector<RunRecord> runs = {run_with("a", {{1, 1000, 1, 4.0}, {4, 4000, 4, 3.0}}),
                                       run_with("b", {{1, 1000, 1, 4.0}, {4, 4000, 4, 2.9}}),
                                       run_with("fork", {{1, 100, 1, 2.95}, {4, 400, 4, 2.8}}),
                                       run_with("none", {})};
  const Comparison comparison = compare_runs(runs, 0, std::nullopt);
  EXPECT_EQ(comparison.common_tokens, 4000);
  EXPECT_EQ(row(comparison, "loss_at_common_tokens"), (Texts{"3.0000", "2.9000", "ends at 400", "none"}));
  EXPECT_EQ(row(comparison, "difference_at_common_tokens"),
            (Texts{"baseline", "-0.1000", "ends at 400", "none"}));
  // The baseline's final loss, which the fork has from its first point on.
  EXPECT_EQ(row(comparison, "tokens_to_target_loss"), (Texts{"4k", "~3.73k", "100", "none"}));
  EXPECT_EQ(comparison_json(comparison)["runs"][2]["missing"]["loss_at_common_tokens"], "ends at 400");
  const Comparison other = compare_runs(runs, 2, std::nullopt);
  EXPECT_EQ(other.common_tokens, 400) << "a comparison without its baseline is none";
  EXPECT_EQ(row(other, "loss_at_common_tokens"), (Texts{"from 1k on", "from 1k on", "2.8000", "none"}));
  EXPECT_EQ(row(other, "tokens_to_target_loss"), (Texts{"not reached", "not reached", "400", "none"}));
}

TEST(CompareRuns, AreAsFarAsTheSlowestWhenAllHaveValidated) {
  const std::vector<RunRecord> runs = {run_with("a", {{1, 100, 1, 4.0}, {2, 200, 2, 3.0}, {3, 300, 3, 2.0}}),
                                       run_with("live", {{1, 100, 1, 4.0}}),
                                       run_with("c", {{1, 100, 1, 4.0}, {2, 200, 2, 3.0}})};
  EXPECT_EQ(compare_runs(runs, 0, std::nullopt).common_tokens, 100);
}

TEST(CompareRuns, MeetWhereMostOfThemAreAndThenAsFarAsPossible) {
  const RunRecord base = run_with("base", {{1, 100, 1, 4.0}, {4, 4000, 4, 3.0}}),
                  late = run_with("late", {{1, 1000, 1, 4.0}, {4, 4000, 4, 3.0}}),
                  fork = run_with("fork", {{1, 100, 1, 3.0}, {4, 400, 4, 2.9}});
  EXPECT_EQ(compare_runs({base, late, fork}, 0, std::nullopt).common_tokens, 4000);
  EXPECT_EQ(compare_runs({base, late, fork, fork}, 0, std::nullopt).common_tokens, 400);
}

TEST(CompareRuns, SayWhyThereIsNoLoss) {
  RunRecord never = run_with("never", {}), not_yet = run_with("not-yet", {}),
            bad = run_with("bad", {{1, 100, 1, std::nullopt}});
  never.config = json_of(R"({"data": {"validation": null}, "evaluate": {"every": 5}})");
  not_yet.config = json_of(R"({"data": {"validation": "val.bin"}, "evaluate": {"every": 5}})");
  const Comparison comparison =
      compare_runs({run_with("a", {{1, 100, 1, 4.0}}), never, not_yet, bad}, 0, std::nullopt);
  EXPECT_EQ(row(comparison, "final_validation_loss"),
            (Texts{"4.0000", "not measured", "none yet", "not finite"}));
  EXPECT_EQ(row(comparison, "seconds_to_target_loss"),
            (Texts{"1.0 s", "not measured", "none yet", "not finite"}));
  const Json run = comparison_json(comparison)["runs"][3];
  EXPECT_TRUE(run["best_validation_loss"].is_null());
  EXPECT_EQ(run["missing"]["best_validation_loss"], "not finite");
  for (const CellRow& line : comparison_table(comparison).rows)
    for (const Cell& cell : line.cells) EXPECT_NE(cell.text, "-") << line.label;
}

TEST(CompareRuns, WarnWhereLossesAreNotTheSameMeasure) {
  RunRecord a = run_with("a", {{1, 100, 1, 4.0}}), b = run_with("b", {{1, 100, 1, 4.0}});
  EXPECT_TRUE(compare_runs({a, b}, 0, std::nullopt).cautions.empty());
  a.validation_fingerprint = "x";
  b.validation_fingerprint = "y";
  a.config = json_of(R"({"model": {"vocab_size": 10, "context": 8}})");
  b.config = json_of(R"({"model": {"vocab_size": 11, "context": 16}})");
  EXPECT_EQ(compare_runs({a, b}, 0, std::nullopt).cautions.size(), 3u);
  b.validation.clear();
  EXPECT_TRUE(compare_runs({a, b}, 0, std::nullopt).cautions.empty()) << "there is nothing to compare";
}

TEST(CompareRuns, TheLossOfTrainingIsTheMeanOfTheLastFiniteOnes) {
  std::vector<double> losses(60, 9.0);
  std::fill(losses.end() - 51, losses.end(), 3.0);
  RunRecord run = trained("a", losses);
  run.train.back().loss.reset();
  run.train[run.train.size() - 2].loss = 4.0;
  EXPECT_DOUBLE_EQ(*compare_runs({run}, 0, std::nullopt).summaries[0][Quantity::train_loss].value,
                   (4.0 + 49 * 3.0) / 50);
}

// --- seeds ---

TEST(CompareRuns, RunsOfSeveralSeedsAreOneColumn) {
  std::vector<RunRecord> runs;
  const auto add = [&](const std::string& name, int seed, double loss, const char* more = "") {
    runs.push_back(run_with(name, {{1, 100, 1, loss + 1}, {2, 200, 3, loss}}));
    runs.back().config = json_of(
        fmt::format(R"({{"name": "{}", "seed": {}, "log": {{"every": {}}}{}}})", name, seed, seed, more));
  };
  add("tiny-s1", 1, 3.0);
  add("other", 1, 2.5, R"(, "precision": "fp32")");
  add("tiny-s2", 2, 3.25);
  add("again", 1, 3.0);
  add("tiny-s3", 3, 3.5);
  const Comparison comparison = compare_runs(runs, 0, std::nullopt);
  ASSERT_EQ(comparison.columns.size(), 3u);
  EXPECT_EQ(comparison.columns[0].members, (std::vector<size_t>{0, 2, 4}));
  EXPECT_EQ(comparison.columns[0].label, "tiny-s*");
  EXPECT_EQ(comparison.columns[2].label, "again") << "the same seed again is no other sample";
  const Spread& loss = comparison.columns[0][Quantity::final_validation_loss];
  EXPECT_EQ(*loss.mean, 3.25);
  EXPECT_EQ(*loss.deviation, 0.25);
  EXPECT_EQ(loss.n, 3);
  EXPECT_EQ(row(comparison, "final_validation_loss")[0], "3.2500 ± 0.2500");
  EXPECT_EQ(row(comparison, "steps")[0], "2");
  // The target is the mean, 3.25, which one reaches at 175 tokens, one at 200, and one never.
  EXPECT_EQ(row(comparison, "tokens_to_target_loss")[0], "~188 (2 of 3)");
  EXPECT_EQ(row(comparison, "difference_at_common_tokens"), (Texts{"baseline", "-0.7500", "-0.2500"}));
  const Json json = comparison_json(comparison);
  EXPECT_EQ(json["runs"].size(), 5u);
  ASSERT_EQ(json["groups"].size(), 1u);
  EXPECT_EQ(json["groups"][0]["runs"], (Json{"tiny-s1", "tiny-s2", "tiny-s3"}));
  EXPECT_EQ(json["groups"][0]["seeds"], (Json{1, 2, 3}));
  EXPECT_EQ(json["groups"][0]["final_validation_loss"]["deviation"], 0.25);
  EXPECT_EQ(config_table(comparison).rows[0].cells[0].text, "1, 2, 3");
  EXPECT_EQ(compare_runs(runs, 0, std::nullopt, false).columns.size(), 5u);
}

// --- the same batches ---

// A difference of 0.01 k in block k of 8 steps, on top of noise that both share.
std::vector<double> noisy(bool plus_blocks) {
  std::vector<double> losses;
  for (int i = 0; i < 64; ++i) losses.push_back(3 + std::sin(7.0 * i) + (plus_blocks ? 0.01 * (i / 8) : 0));
  return losses;
}

TEST(PairedDifference, IsTheMeanOverBlocksWithTheirError) {
  const Paired paired = paired_difference(trained("b", noisy(true)), trained("a", noisy(false)));
  ASSERT_TRUE(paired.mean) << paired.why;
  EXPECT_NEAR(*paired.mean, 0.035, 1e-12);
  // The squares of 0..7 around 3.5 add up to 42: sqrt(42 / 7) / sqrt(8) hundredths.
  EXPECT_NEAR(*paired.standard_error, 0.01 * std::sqrt(42.0 / 7 / 8), 1e-12);
  EXPECT_EQ(paired.pairs, 64);
  EXPECT_EQ(paired.blocks, 8);
  EXPECT_EQ(paired.first_step, 1);
  EXPECT_EQ(paired.last_step, 64);
}

TEST(PairedDifference, LooksAtTheLastQuarter) {
  std::vector<double> a(400, 3.0), b(400, 4.0);
  std::fill(b.end() - 100, b.end(), 3.25);
  const Paired paired = paired_difference(trained("b", b), trained("a", a));
  EXPECT_EQ(*paired.mean, 0.25);
  EXPECT_EQ(paired.pairs, 100);
  EXPECT_EQ(paired.first_step, 301);
  EXPECT_EQ(*paired.standard_error, 0);
  // A run that is still under way is compared where it stands.
  b.resize(200);
  EXPECT_EQ(paired_difference(trained("b", b), trained("a", a)).last_step, 200);
  EXPECT_EQ(*paired_difference(trained("b", b), trained("a", a)).mean, 1);
}

TEST(PairedDifference, PairsByThePlaceInTheDataAndLeavesOutWhatIsNotFinite) {
  RunRecord a = trained("a", {1, 2, 3, 4, 5}), b = trained("b", {1, 3, 4, 5});
  for (size_t i = 1; i < b.train.size(); ++i) ++b.train[i].batch;  // it left the second batch out
  EXPECT_EQ(*paired_difference(b, a).mean, 0);
  EXPECT_EQ(*paired_difference(a, b).mean, 0);
  b.train[2].loss.reset();
  b.train[3].loss = 9;
  const Paired paired = paired_difference(b, a);
  EXPECT_NEAR(*paired.mean, 4.0 / 3, 1e-12);
  EXPECT_EQ(paired.pairs, 3);
  EXPECT_FALSE(paired.standard_error) << "three pairs say nothing of their error";
}

TEST(PairedDifference, NeedsTheSameBatches) {
  const RunRecord a = trained("a", noisy(false));
  const auto why = [&](auto change) {
    RunRecord b = trained("b", noisy(true));
    change(b);
    return paired_difference(b, a).why;
  };
  EXPECT_EQ(why([](RunRecord& b) { b.train_fingerprint = "x"; }), "other data");
  EXPECT_EQ(why([](RunRecord& b) { b.train_fingerprint.reset(); }), "data unknown");
  EXPECT_EQ(why([](RunRecord& b) { b.config["seed"] = 2; }), "other seed");
  EXPECT_EQ(why([](RunRecord& b) { b.config["model"]["context"] = 16; }), "other context");
  EXPECT_EQ(why([](RunRecord& b) { b.config["batch"]["sequences"] = 8; }), "other batches");
  EXPECT_EQ(why([](RunRecord& b) { b.origin.step = 100; }), "other start");
  EXPECT_EQ(why([](RunRecord& b) { b.config = nullptr; }), "no config");
  EXPECT_EQ(why([](RunRecord& b) { b.train.clear(); }), "none yet");
  EXPECT_EQ(why([](RunRecord& b) {
              for (TrainPoint& p : b.train) p.batch += 64;
            }),
            "no same batch");
}

// --- what else may have made it ---

RunRecord with_recipe(const std::string& name, const std::string& attention) {
  RunRecord run = trained(name, noisy(name != "a"));
  run.config["model"].update(
      Json{{"attention", attention}, {"position", "rope"}, {"rope_theta", 10000}, {"layers", 4}});
  run.config["batch"]["micro_sequences"] = 2;
  run.config["optimizer"] = {{"lr", 0.002}, {"beta2", 0.95}};
  run.config["schedule"] = json_of(
      R"({"kind": "cosine", "steps": 64, "warmup_steps": 4, "decay_fraction": 0.2, "stop_after": null})");
  run.config["init"] = json_of(R"({"from": null, "optimizer": "keep"})");
  run.config["log"] = {{"every", 1}};
  run.environment = {{"precision", "fp32"}};
  return run;
}

TEST(PairedDifference, SaysWhatElseDiffersThanAttention) {
  const RunRecord a = with_recipe("a", "softmax");
  const auto also = [&](auto change) {
    RunRecord b = with_recipe("b", "ssmax");
    change(b);
    const Paired paired = paired_difference(b, a);
    EXPECT_TRUE(paired.mean && paired.attention_differs) << paired.why;
    return paired.differs_also;
  };
  EXPECT_EQ(also([](RunRecord&) {}), Texts{});
  EXPECT_EQ(also([](RunRecord& b) {
              b.config["schedule"]["warmup_steps"] = 8;
              b.config["schedule"]["steps"] = 128;
              b.config["optimizer"]["lr"] = 0.001;
            }),
            (Texts{"optimizer.lr", "schedule.steps", "schedule.warmup_steps"}));
  EXPECT_EQ(also([](RunRecord& b) { b.config["model"]["layers"] = 5; }), Texts{"model.layers"});
  EXPECT_EQ(also([](RunRecord& b) { b.environment["precision"] = "bf16"; }), Texts{"precision"});
  EXPECT_EQ(also([](RunRecord& b) { b.config["schedule"]["kind"] = "constant"; }), Texts{"schedule.kind"});
  EXPECT_EQ(also([](RunRecord& b) {
              b.parent = "runs/x/checkpoints/step_1";
              b.config["init"]["from"] = "runs/x";
            }),
            Texts{"init.from"});
  EXPECT_EQ(also([](RunRecord& b) {
              b.config["schedule"]["decay_fraction"] = 0.3;  // of wsd alone
              b.config["schedule"]["stop_after"] = 60;
              b.config["batch"]["micro_sequences"] = 4;
              b.config["log"]["every"] = 7;
            }),
            Texts{})
      << "none of these changes the training";
}

TEST(PairedDifference, CarriesWhatElseDiffersToItsNote) {
  RunRecord warm = with_recipe("warm", "ssmax"), same = with_recipe("same", "softmax");
  warm.config["schedule"]["warmup_steps"] = 8;
  warm.config["optimizer"]["lr"] = 0.001;
  same.config["optimizer"]["lr"] = 0.001;
  RunRecord same_too = same;
  same_too.name = "same too";
  const Comparison comparison = compare_runs(
      {with_recipe("a", "softmax"), with_recipe("b", "ssmax"), warm, same, same_too}, 0, std::nullopt);
  EXPECT_EQ(row(comparison, "paired_difference"), (Texts{"baseline", "+0.0350 ± 0.0087", "+0.0350 ± 0.0087 †",
                                                         "+0.0350 ± 0.0087 †", "+0.0350 ± 0.0087 †"}));
  const Texts notes = comparison_notes(comparison);
  const auto has = [&](const std::string& note) { return std::ranges::count(notes, note); };
  EXPECT_EQ(has("† warm: not of attention alone: optimizer.lr, schedule.warmup_steps differ too."), 1);
  EXPECT_EQ(has("† same, same too: not of attention, which is the same: optimizer.lr differs."), 1);
  const Json json = comparison_json(comparison);
  EXPECT_EQ(json["runs"][2]["paired_difference"]["differs_also"],
            (Json{"optimizer.lr", "schedule.warmup_steps"}));
  EXPECT_EQ(json["runs"][1]["paired_difference"]["differs_also"], Json::array());
}

TEST(PairedDifference, OfSeedsIsTakenSeedBySeed) {
  const std::vector<double> low(64, 3.0), high(64, 5.0);
  const auto plus = [](std::vector<double> losses, double by) {
    for (double& loss : losses) loss += by;
    return losses;
  };
  std::vector<RunRecord> runs = {trained("a1", low, 1), trained("a2", high, 2),
                                 trained("b1", plus(low, 0.1), 1), trained("b2", plus(high, 0.3), 2),
                                 trained("b3", plus(high, 0.3), 3)};
  for (size_t i = 2; i < 5; ++i) runs[i].config["model"]["norm"] = "layernorm";
  const Comparison comparison = compare_runs(runs, 0, std::nullopt);
  ASSERT_EQ(comparison.columns.size(), 2u);
  const Spread& paired = comparison.columns[1].paired;
  EXPECT_NEAR(*paired.mean, 0.2, 1e-12);
  // The deviation of 0.1 and 0.3 is 0.1414; over sqrt(2).
  EXPECT_NEAR(*paired.deviation, 0.1, 1e-12);
  EXPECT_EQ(paired.n, 2);
  EXPECT_EQ(row(comparison, "paired_difference"), (Texts{"baseline", "+0.2000 ± 0.1000 (2 of 3)"}));
  EXPECT_EQ(comparison.summaries[3].paired.partner, 1u);
  const Json json = comparison_json(comparison);
  EXPECT_EQ(json["runs"][3]["paired_difference"]["with"], "a2");
  EXPECT_EQ(json["runs"][4]["missing"]["paired_difference"], "other seed");
  EXPECT_NEAR(json["groups"][1]["paired_difference"]["standard_error"].get<double>(), 0.1, 1e-12);
}

// --- forks ---

TEST(CompareRuns, ForksNameTheirParent) {
  RunRecord fork = run_with("fork", {{10, 1000, 1, 4.0}});
  fork.parent = "runs/softmax/checkpoints/step_00001000";
  fork.parent_step = 1000;
  const Comparison comparison = compare_runs({fork, run_with("a", {{10, 1000, 1, 4.0}})}, 0, std::nullopt);
  EXPECT_EQ(row(comparison, "parent"), (Texts{"softmax", "no fork"}));
  EXPECT_EQ(row(comparison, "parent_step"), (Texts{"1,000", ""}));
  EXPECT_EQ(comparison_json(comparison)["runs"][0]["parent_step"], 1000);
  EXPECT_TRUE(comparison_json(comparison)["runs"][1]["origin"].is_null());
}

// --- the text ---

TEST(ComparisonText, FitsTheConsoleWithThreeRunsAndFoldsMore) {
  for (const int count : {1, 2, 3, 9}) {
    std::vector<RunRecord> runs;
    for (int i = 0; i < count; ++i) {
      runs.push_back(trained(fmt::format("a-run-with-a-rather-long-name-that-ends-in-{}", i), noisy(i > 0)));
      runs.back().validation = {{1, 1'000'000'000, 1e4, 4.0 - i}};
      runs.back().config.update(json_of(fmt::format(
          R"({{"schedule": {{"final_lr_fraction": {}}}, "data": {{"train": "data/a-directory-with-a-long-name/train_{}_*.bin"}}}})",
          i * 0.123456789, i)));
    }
    const std::string text = comparison_text(compare_runs(runs, 0, 1.0), true);
    size_t finals = 0;
    for (size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) {
      const std::string_view line = std::string_view(text).substr(at, text.find('\n', at) - at);
      EXPECT_LE(display_width(line), kConsoleWidth) << line;
      finals += line.starts_with("final val. loss");
    }
    EXPECT_EQ(finals, count == 9 ? 3u : 1u) << text;
    // What differs is what is seen of long names and values, and numbers are whole.
    for (int i = 0; i < count && count > 1; ++i) {
      EXPECT_NE(text.find(fmt::format("ends-in-{}", i)), std::string::npos) << text;
      EXPECT_NE(text.find(fmt::format("train_{}_", i)), std::string::npos) << text;
    }
    EXPECT_EQ(text.find("± 0…"), std::string::npos) << text;
  }
}

// What is compared is what must be seen as a whole.
TEST(ComparisonText, WrapsLongValuesOfTheConfig) {
  const std::string list =
      R"([{"kind": "ssmax", "layers": "0-3", "s": 0.43, "learn_s": true}, {"kind": "softmax", "layers": "4-7", "s": 1}])";
  std::vector<RunRecord> runs = {trained("a", {1, 2}), trained("b", {1, 2}), trained("c", {1, 2})};
  runs[0].config["model"]["attention"] = "softmax";
  runs[1].config["model"]["attention"] = json_of(list);
  runs[2].config["data"]["train"] = "data/" + std::string(70, 'w') + "/train_*.bin";
  const std::string text = comparison_text(compare_runs(runs, 0, std::nullopt), false);
  const std::string config = text.substr(0, text.find("\n\n"));
  EXPECT_EQ(config.find("…"), std::string::npos) << config;
  std::vector<std::string> columns(3);
  size_t second = config.find(" b") + 1, third = config.find(" c") + 1;
  for (size_t at = 0; at < config.size(); at = std::min(config.find('\n', at), config.size() - 1) + 1) {
    std::string line = config.substr(at, config.find('\n', at) - at);
    EXPECT_LE(display_width(line), kConsoleWidth) << line;
    line.resize(kConsoleWidth, ' ');
    columns[1] += line.substr(second, third - second);
    columns[2] += line.substr(third);
  }
  for (std::string& column : columns) std::erase(column, ' ');
  std::string bare = json_line(json_of(list));
  std::erase(bare, ' ');
  EXPECT_NE(columns[1].find(bare), std::string::npos) << config;
  EXPECT_NE(columns[2].find("data/" + std::string(70, 'w') + "/train_*.bin"), std::string::npos) << config;
}

TEST(ComparisonText, NamesThatLookAlikeWhereTheyAreCutAreWrapped) {
  std::vector<RunRecord> runs;
  for (const char* name :
       {"a", "quickstart-softmax-again", "quickstart-ssmax-again", "quickstart-fork-again"})
    runs.push_back(trained(name, {1, 2}));
  for (size_t i = 0; i < runs.size(); ++i) runs[i].config["schedule"]["final_lr_fraction"] = 0.1 * double(i);
  const std::string text = comparison_text(compare_runs(runs, 0, std::nullopt), false);
  EXPECT_NE(text.find("softmax-again    ssmax-again     fork-again\n"), std::string::npos) << text;
  EXPECT_EQ(text.find("…"), std::string::npos) << text;
}

TEST(ComparisonText, DivergedLossesAreShort) {
  RunRecord a = trained("a", std::vector<double>(64, 3.0)), b = trained("b", std::vector<double>(64, 1e308));
  a.validation = {{1, 100, 1, 4.0}, {2, 200, 2, 3.0}};
  b.validation = {{1, 100, 1, 123456.0}, {2, 200, 2, 1e308}};
  const Comparison comparison = compare_runs({a, b}, 0, std::nullopt);
  EXPECT_EQ(row(comparison, "train_loss"), (Texts{"3.0000", "1e+308"}));
  EXPECT_EQ(row(comparison, "final_validation_loss"), (Texts{"3.0000", "1e+308"}));
  EXPECT_EQ(row(comparison, "best_validation_loss"), (Texts{"3.0000", "1.235e+05"}));
  EXPECT_EQ(row(comparison, "difference_at_common_tokens"), (Texts{"baseline", "+1e+308"}));
  const std::string reversed = comparison_text(compare_runs({b, a}, 0, std::nullopt), false);
  EXPECT_NE(reversed.find("tokens to 1e+308"), std::string::npos) << reversed;
  EXPECT_EQ(reversed.find("00000000"), std::string::npos) << reversed;
  EXPECT_EQ(reversed.find("inf"), std::string::npos) << reversed;
}

TEST(ComparisonText, SaysThatTimeIsTheMachines) {
  const auto says = [](const std::vector<RunRecord>& runs) {
    return std::ranges::count(comparison_notes(compare_runs(runs, 0, std::nullopt)),
                              "Time and tokens/s depend on what else the machine did meanwhile.");
  };
  EXPECT_EQ(says({trained("a", {3}), trained("b", {3})}), 1);
  EXPECT_EQ(says({trained("a", {3})}), 0) << "there is nothing to compare";
}

TEST(ComparisonText, HasNoEscapesWithoutColour) {
  const Comparison comparison =
      compare_runs({run_with("a", {{1, 100, 1, 4.0}}), run_with("b", {})}, 0, std::nullopt);
  EXPECT_EQ(comparison_text(comparison, false).find('\033'), std::string::npos);
  EXPECT_NE(comparison_text(comparison, true).find('\033'), std::string::npos);
}

TEST(ComparisonText, SameNamesAndSamePathsStayApart) {
  std::vector<RunRecord> runs(4, run_with("r", {{1, 100, 1, 4.0}}));
  runs[1].path = "old/r";
  runs[3] = run_with("s", {{1, 100, 1, 4.0}});
  const Comparison comparison = compare_runs(runs, 0, std::nullopt);
  EXPECT_EQ(comparison_table(comparison).header, (Texts{"runs/r", "old/r", "runs/r (2)", "s"}));
}

// --- equality ---

TEST(CompareLosses, NamesTheFirstDifferenceOfTheFirstRunThatDiffers) {
  RunRecord a = trained("a", {5, 4, 3, 2}), b = trained("b", {5, 4, 3, 2}),
            c = trained("c", {5, 4, 3.5, 2.25});
  a.validation = b.validation = c.validation = {{2, 64, 2, 4.5}, {4, 128, 4, 3.5}};
  c.validation[0].loss = 4.25;
  Comparison comparison = compare_runs({a, b, c}, 0, std::nullopt);
  EXPECT_FALSE(comparison_json(comparison).contains("equality"));
  comparison.equality = compare_losses({a, b}, 0, 0);
  EXPECT_FALSE(comparison.equality->difference);
  EXPECT_EQ(comparison.equality->train, 4);
  EXPECT_EQ(comparison.equality->validation, 2);
  EXPECT_EQ(comparison_json(comparison)["equality"]["equal"], true);

  comparison.equality = compare_losses(comparison.runs, 0, 0);
  const Equality& equality = *comparison.equality;
  ASSERT_TRUE(equality.difference);
  EXPECT_EQ(equality.difference->run, 2u);
  EXPECT_EQ(equality.difference->kind, "validation");
  EXPECT_EQ(equality.difference->step, 2);
  EXPECT_EQ(equality.largest, 0.5);
  EXPECT_EQ(equality_text(comparison),
            "c differs from a at step 2: validation loss 4.25, 4.5 in the baseline (-0.25); the largest "
            "difference of all is 0.5");
  EXPECT_EQ(comparison_json(comparison)["equality"]["first_difference"]["loss"], 4.25);
  EXPECT_EQ(compare_losses(comparison.runs, 0, 0.25).difference->kind, "train");
  EXPECT_EQ(compare_losses(comparison.runs, 0, 0.25).difference->step, 3);
  EXPECT_FALSE(compare_losses(comparison.runs, 0, 0.5).difference);
}

TEST(CompareLosses, OfOneStepTheTrainingLossIsNamed) {
  RunRecord a = trained("a", {5}), b = trained("b", {4});
  a.validation = {{1, 32, 1, 5}};
  b.validation = {{1, 32, 1, 4}};
  EXPECT_EQ(compare_losses({a, b}, 0, 0).difference->kind, "train");
}

TEST(CompareLosses, WhatOnlyOneRunLoggedDiffers) {
  const RunRecord a = trained("a", {5, 4, 3}), shorter = trained("b", {5, 4});
  EXPECT_EQ(compare_losses({a, shorter}, 0, 9).difference->step, 3);
  EXPECT_FALSE(compare_losses({a, shorter}, 0, 9).difference->in_run);
  EXPECT_FALSE(compare_losses({a, shorter}, 1, 9).difference->in_baseline);
  RunRecord hole = a;
  hole.train.erase(hole.train.begin() + 1);
  EXPECT_EQ(compare_losses({a, hole}, 0, 9).difference->step, 2);
  RunRecord bad = a;
  bad.train[1].loss.reset();
  EXPECT_EQ(compare_losses({a, bad}, 0, 9).difference->step, 2);
  EXPECT_FALSE(compare_losses({bad, bad}, 0, 0).difference) << "both are not finite there";
  const RunRecord empty;
  EXPECT_TRUE(compare_losses({empty, empty}, 0, 0).difference)
      << "nothing is equal to nothing only by chance";
}

}  // namespace
}  // namespace keen
