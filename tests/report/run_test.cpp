#include "report/run.h"

#include "run_files.h"

namespace keen {
namespace {

using testing::event_row;
using testing::kConfig;
using testing::make_run;
using testing::put;
using testing::TemporaryDirectory;
using testing::train_row;
using testing::validation_row;

TEST(ReadRun, TakesTheLastRowOfAStepAndLeavesOutATornLine) {
  TemporaryDirectory tmp;
  const RunRecord run = read_run(make_run(
      tmp / "r", kConfig,
      validation_row(10, 1000, "4.0") + train_row(10, "3.5", 5, 50) + validation_row(20, 2000, "3.9") +
          event_row("resume", R"("step":10)") + validation_row(20, 2000, "3.5") +
          train_row(20, "3.5", 5, 70) + train_row(30) + R"({"kind":"validation","step":30,"tok)"));
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
      make_run(tmp / "r", kConfig, "\xff\xfe garbage\n" + validation_row(10, 1000, "4.0") + "[1]\n\n"));
  ASSERT_EQ(run.problems.size(), 1u);
  EXPECT_NE(run.problems[0].find("metrics.jsonl: 2 unreadable lines are left out"), std::string::npos)
      << run.problems[0];
  EXPECT_EQ(run.validation.size(), 1u);
}

TEST(ReadRun, ARunThatWentBackHasNotDoneWhatItLeft) {
  TemporaryDirectory tmp;
  const RunRecord run =
      read_run(make_run(tmp / "r", kConfig,
                        validation_row(10, 1000, "4.0") + validation_row(20, 2000, "1.0") +
                            event_row("resume", R"("step":10)") + validation_row(15, 1500, "3.5")));
  EXPECT_EQ(run.steps, 15);
  EXPECT_EQ(run.tokens, 1500);
  EXPECT_EQ(run.best_validation(), 3.5);
}

TEST(ReadRun, NonFiniteLossesAreKnownButNeverTheBest) {
  TemporaryDirectory tmp;
  const RunRecord run = read_run(
      make_run(tmp / "r", kConfig, validation_row(10, 1000, "4.0") + validation_row(20, 2000, "null")));
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

constexpr const char* kTinyModel = R"({"model": {"vocab_size": 10, "context": 8, "layers": 1, "width": 4,
      "heads": 2, "kv_heads": 2, "mlp_width": 6}, "data": {"train": "x.bin"}})";

TEST(ReadRun, CountsTheParametersAndFlopsOfItsConfig) {
  TemporaryDirectory tmp;
  const RunRecord run = read_run(make_run(tmp / "r", kTinyModel, ""));
  // Embedding and head, qkv, projection, gate and up, down, three norms.
  EXPECT_EQ(run.parameters, 2 * 10 * 4 + 3 * 4 * 4 + 4 * 4 + 2 * 6 * 4 + 4 * 6 + 3 * 4);
  // 6 n + 6 L C T, n all of them but the embedding.
  EXPECT_EQ(run.flops_per_token, 6.0 * static_cast<double>(*run.parameters - 10 * 4) + 6 * 4 * 8);
}

TEST(ReadRun, TheEnvironmentTellsWhatTheConfigCannot) {
  TemporaryDirectory tmp;
  make_run(tmp / "r", R"({"model": {"of": "a later version"}})", train_row(1));
  put(tmp / "r/environment.json",
      R"({"parameters": 7, "flops_per_token": 42, "data": {"train": {"fingerprint": "ab"}, "validation": null}})");
  const RunRecord run = read_run(tmp / "r");
  EXPECT_EQ(run.parameters, 7);
  EXPECT_EQ(run.flops_per_token, 42);
  EXPECT_EQ(run.train_fingerprint, "ab");
  EXPECT_EQ(run.validation_fingerprint, std::nullopt);
  EXPECT_TRUE(run.problems.empty());
  put(tmp / "r/environment.json", "{");
  EXPECT_EQ(read_run(tmp / "r").problems.size(), 1u) << "a torn one is told, and stops nothing";
}

TEST(ReadRun, SecondsAreThoseOfTraining) {
  TemporaryDirectory tmp;
  const RunRecord run = read_run(make_run(tmp / "r", kConfig,
                                          event_row("start", R"("step":0)") + validation_row(0, 0, "9") +
                                              train_row(1, "3", 100) + train_row(2, "3", 200) +
                                              train_row(4, "3", 300) + validation_row(3, 300, "4") +
                                              validation_row(4, 400, "3") + train_row(5, "null", 50)));
  ASSERT_EQ(run.train.size(), 4u);
  EXPECT_DOUBLE_EQ(run.train[0].seconds, 0.1);
  EXPECT_DOUBLE_EQ(run.train[1].seconds, 0.3);
  EXPECT_DOUBLE_EQ(run.train[2].seconds, 0.9) << "the lost row of step 3 counts as long as that of step 4";
  EXPECT_EQ(run.train[3].loss, std::nullopt);
  EXPECT_EQ(run.train[0].grad_norm, 1.5);
  EXPECT_EQ(run.train[0].lr, 0.001);
  EXPECT_DOUBLE_EQ(*run.training_s, 0.95);
  EXPECT_EQ(run.validation[0].seconds, 0);
  EXPECT_DOUBLE_EQ(run.validation[1].seconds, 0.3);
  EXPECT_DOUBLE_EQ(run.validation[2].seconds, 0.9);
}

TEST(ReadRun, BatchesThatWereLeftOutTookTime) {
  TemporaryDirectory tmp;
  const std::string skip = event_row("non_finite", R"("step":2,"first_bad":"")"),
                    first = event_row("start", R"("step":0)") + train_row(1, "3", 100) +
                            event_row("save", R"("step":1)");
  const auto seconds = [&](const std::string& rest) {
    return *read_run(make_run(tmp / "r", kConfig, first + rest)).training_s;
  };
  EXPECT_DOUBLE_EQ(seconds(train_row(2, "3", 200)), 0.3);
  EXPECT_DOUBLE_EQ(seconds(skip + skip + train_row(2, "3", 200)), 0.1 + 3 * 0.2);
  EXPECT_DOUBLE_EQ(seconds(skip + train_row(4, "3", 200)), 0.1 + 4 * 0.2) << "beside two rows that are lost";
  EXPECT_DOUBLE_EQ(seconds(skip + event_row("resume", R"("step":1)") + train_row(2, "3", 200)), 0.3)
      << "what a resume undid is no part of the run";
}

std::vector<int64_t> batches_of(const RunRecord& run) {
  std::vector<int64_t> batches;
  for (const TrainPoint& point : run.train) batches.push_back(point.batch);
  return batches;
}

TEST(ReadRun, BatchesThatWereLeftOutShiftThoseBehindThem) {
  TemporaryDirectory tmp;
  const std::string start = event_row("start", R"("step":0)") + train_row(1),
                    skip = event_row("non_finite", R"("step":2,"first_bad":"")"),
                    save = event_row("save", R"("step":1)"), resume = event_row("resume", R"("step":1)"),
                    rest = train_row(2) + train_row(3);
  const auto batches = [&](const std::string& metrics) {
    return batches_of(read_run(make_run(tmp / "r", kConfig, metrics)));
  };
  EXPECT_EQ(batches(start + rest), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(batches(start + skip + skip + rest), (std::vector<int64_t>{0, 3, 4}));
  // A resume tries again what came after its checkpoint, and nothing else.
  EXPECT_EQ(batches(start + save + skip + resume + rest), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(batches(start + save + skip + resume + skip + rest), (std::vector<int64_t>{0, 2, 3}));
  EXPECT_EQ(batches(start + skip + save + resume + rest), (std::vector<int64_t>{0, 2, 3}));
}

// --- forks ---

std::string fork_row(const std::string& parent, int64_t parent_step, int64_t step = 0) {
  return event_row("fork",
                   fmt::format(R"("step":{},"parent":"{}","parent_step":{})", step, parent, parent_step));
}

TEST(ReadRun, AForkKnowsWhatItsAncestorsHaveDone) {
  TemporaryDirectory tmp;
  make_run(tmp / "earlier/base", kTinyModel,
           train_row(1, "3", 1000) + train_row(2, "3", 1000) + train_row(3));
  make_run(tmp / "runs/fork", kTinyModel,
           fork_row("earlier/base/checkpoints/step_00000002", 2) + train_row(1, "3", 500) + train_row(2));
  make_run(tmp / "runs/again", kTinyModel, fork_row("runs/fork/checkpoints/step_00000001", 1) + train_row(1));
  // The parent's path was relative to the directory above `runs`.
  const RunRecord fork = read_run(tmp / "runs/fork");
  EXPECT_EQ(fork.parent_directory, tmp / "earlier/base");
  EXPECT_EQ(fork.parent_name(), "base");
  EXPECT_EQ(fork.origin.step, 2);
  EXPECT_EQ(fork.origin.tokens, 200);
  EXPECT_DOUBLE_EQ(fork.origin.seconds, 2);
  EXPECT_DOUBLE_EQ(fork.origin.flops, 200 * *fork.flops_per_token);
  EXPECT_TRUE(fork.origin.known);
  const RunRecord again = read_run(tmp / "runs/again");
  EXPECT_EQ(again.origin.step, 3);
  EXPECT_EQ(again.origin.tokens, 300);
  EXPECT_DOUBLE_EQ(again.origin.seconds, 2.5);
  EXPECT_DOUBLE_EQ(again.origin.flops, 300 * *fork.flops_per_token);
  EXPECT_EQ(batches_of(again), (std::vector<int64_t>{0})) << "its data start anew";
  EXPECT_EQ(read_run(tmp / "earlier/base").origin.tokens, 0);
  // Runs that were moved together are found beside each other.
  std::filesystem::create_directory(tmp / "moved");
  std::filesystem::rename(tmp / "runs", tmp / "moved/elsewhere");
  EXPECT_EQ(read_run(tmp / "moved/elsewhere/again").origin.tokens, 300);
}

TEST(ReadRun, AForkThatCountsOnStartsOnlyItsTimeAnew) {
  TemporaryDirectory tmp;
  std::string config = kTinyModel;
  config.insert(config.size() - 1,
                R"(, "init": {"step": "keep"}, "batch": {"sequences": 4, "micro_sequences": 1})");
  make_run(tmp / "base", kTinyModel,
           train_row(1, "3", 1000) + event_row("non_finite", R"("step":2)") + train_row(2, "3", 1000));
  make_run(tmp / "fork", config,
           fork_row("base/checkpoints/step_00000002", 2, 2) + train_row(3) + train_row(4));
  const RunRecord fork = read_run(tmp / "fork");
  EXPECT_EQ(fork.origin.step, 0);
  EXPECT_EQ(fork.origin.tokens, 0);
  EXPECT_EQ(fork.origin.flops, 0);
  EXPECT_DOUBLE_EQ(fork.origin.seconds, 3) << "the batch that its parent left out took time";
  EXPECT_EQ(batches_of(fork), (std::vector<int64_t>{3, 4})) << "the batch that its parent left out counts";
  // What counts on from a fork has that fork's origin.
  make_run(tmp / "second", config, fork_row("first/checkpoints/step_00000001", 1, 1) + train_row(2));
  make_run(tmp / "first", kTinyModel, fork_row("base/checkpoints/step_00000002", 2) + train_row(1, "3", 250));
  EXPECT_EQ(read_run(tmp / "second").origin.step, 2);
  EXPECT_EQ(read_run(tmp / "second").origin.tokens, 200);
  EXPECT_DOUBLE_EQ(read_run(tmp / "second").origin.seconds, 3.25);
  // The checkpoint knows best how many sequences were read before it.
  std::filesystem::create_directories(tmp / "base/checkpoints/step_00000002");
  put(tmp / "base/checkpoints/step_00000002/state.json", R"({"step": 2, "tokens": 200, "sequences": 20})");
  EXPECT_EQ(batches_of(read_run(tmp / "fork")), (std::vector<int64_t>{5, 6}));
}

TEST(ReadRun, ACheckpointThatLiesAloneTellsWhatItKnows) {
  TemporaryDirectory tmp;
  std::filesystem::create_directories(tmp / "weights");
  put(tmp / "weights/state.json", R"({"step": 5, "tokens": 777, "sequences": 20, "elapsed_s": 12.5})");
  put(tmp / "weights/config.json", kTinyModel);
  make_run(tmp / "fork", kTinyModel, fork_row((tmp / "weights").string(), 5) + train_row(1));
  const RunRecord fork = read_run(tmp / "fork");
  EXPECT_EQ(fork.parent_name(), "weights");
  EXPECT_TRUE(fork.parent_directory.empty());
  EXPECT_EQ(fork.origin.tokens, 777);
  EXPECT_EQ(fork.origin.seconds, 12.5);
  EXPECT_DOUBLE_EQ(fork.origin.flops, 777 * *fork.flops_per_token);
  std::filesystem::remove_all(tmp / "weights");
  const RunRecord lost = read_run(tmp / "fork");
  EXPECT_FALSE(lost.origin.known);
  EXPECT_EQ(lost.origin.step, 5) << "the fork itself knows that";
  EXPECT_EQ(lost.origin.tokens, 0);
}

TEST(ReadRun, ARunThatIsItsOwnAncestorEnds) {
  TemporaryDirectory tmp;
  make_run(tmp / "a", kConfig, fork_row("b/checkpoints/step_00000001", 1) + train_row(1));
  make_run(tmp / "b", kConfig, fork_row("a/checkpoints/step_00000001", 1) + train_row(1));
  EXPECT_EQ(read_run(tmp / "a").origin.step, 2);
  make_run(tmp / "self", kConfig, fork_row("self/checkpoints/step_00000001", 1) + train_row(1));
  EXPECT_EQ(read_run(tmp / "self").origin.step, 1);
}

// --- curves ---

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

TEST(TokensToReach, FindsTheFirstCrossingAndItsTime) {
  const std::vector<Point> curve = {{1, 100, 1, 4.0}, {2, 200, 3, 3.0}, {3, 300, 4, 3.5}, {4, 400, 5, 2.0}};
  EXPECT_EQ(tokens_to_reach(curve, 3.5)->tokens, 150);
  EXPECT_DOUBLE_EQ(tokens_to_reach(curve, 3.5)->seconds, 2);
  EXPECT_FALSE(tokens_to_reach(curve, 3.5)->exact);
  EXPECT_EQ(tokens_to_reach(curve, 3.0)->tokens, 200);
  EXPECT_EQ(tokens_to_reach(curve, 3.0)->seconds, 3);
  EXPECT_TRUE(tokens_to_reach(curve, 3.0)->exact);
  EXPECT_EQ(tokens_to_reach(curve, 9.0)->tokens, 100);
  EXPECT_FALSE(tokens_to_reach(curve, 1.9));
}

}  // namespace
}  // namespace keen
