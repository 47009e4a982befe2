// Several ranks from outside: the same losses, any number of them, and what happens when one fails.
#include <array>

#include "rank_run.h"
#include "train/checkpoint.h"

namespace keen::testing {
namespace {

// As the log shows it, with nine digits; tests/train/ranks_test.cpp compares all numbers of ranks in full.
TEST(Ranks, ThreeTrainTheSameAsOne) {
  RankRun shell;
  for (const auto& [precision, tolerance] :
       {std::pair<std::string, double>{"fp64", 1e-8}, {"fp32", 1e-5}, {"bf16", 2e-2}}) {
    shell.configure(mixed(precision, precision == "fp32"));
    shell.train_ranks(1, "runs/" + precision);
    for (const std::string zero : {"0", "1"}) {
      const std::string run = "runs/" + precision + zero;
      shell.train_ranks(3, run, {"--set", "parallel.zero=" + zero});
      EXPECT_LT(shell.difference("runs/" + precision, run), tolerance) << run;
    }
  }
}

TEST(Ranks, TheSameNumberGivesTheSameBits) {
  RankRun shell;
  shell.configure(mixed("fp32", false));
  for (const char* run : {"runs/a", "runs/b"}) shell.train_ranks(3, run);
  expect_same_run(shell, "runs/a", "runs/b", 50);
}

TEST(Ranks, ARunGoesOnWithAnyNumber) {
  for (const std::string precision : {"fp64", "bf16"}) {
    RankRun shell;
    shell.configure(mixed(precision, false));
    shell.train_ranks(1, "runs/whole");
    int end = 0;
    for (const int ranks : {1, 2, 4, 3, 1}) {
      end += 10;
      shell.train_ranks(ranks, "runs/chain", {"--set", "schedule.stop_after=" + std::to_string(end)});
    }
    const auto whole = shell.rows("train", "", "runs/whole"), chain = shell.rows("train", "", "runs/chain");
    ASSERT_EQ(chain.size(), whole.size());
    for (size_t i = 0; i < whole.size(); ++i)
      EXPECT_NEAR(chain[i]["loss"].get<double>(), whole[i]["loss"].get<double>(),
                  precision == "fp64" ? 1e-8 : 2e-2)
          << i;
    if (precision != "fp64") continue;
    // The state is the same too, to the rounding of sums: 1e-10 of float64.
    const auto state = [&](const std::string& run) {
      return Json::parse(content_of(shell.checkpoint(50, run) / "state.json"));
    };
    EXPECT_EQ(state("runs/chain")["sequences"], state("runs/whole")["sequences"]);
    EXPECT_EQ(state("runs/chain")["updates"], state("runs/whole")["updates"]);
  }
}

TEST(Ranks, EachHoldsItsShareOfTheOptimizersState) {
  RankRun shell;
  std::map<int, double> moments, weights;
  for (const int ranks : {1, 2, 4}) {
    shell.configure({{"precision", "bf16"},
                     {"model", {{"width", 64}, {"mlp_width", 128}}},
                     {"schedule", {{"steps", 1}}},
                     {"batch", {{"micro_sequences", 1}}},
                     {"evaluate", {{"every", 0}}}});
    const std::string run = "runs/m" + std::to_string(ranks);
    shell.train_ranks(ranks, run);
    const Json memory = Json::parse(content_of(shell / (run + "/environment.json")))["memory_bytes"];
    moments[ranks] = memory["optimizer moments"];
    weights[ranks] = memory["weights"];
  }
  EXPECT_NEAR(moments[2] / moments[1], 1.0 / 2, 0.02);
  EXPECT_NEAR(moments[4] / moments[1], 1.0 / 4, 0.03);
  EXPECT_LT(weights[4], 0.6 * weights[1]) << "the masters of bf16 are shared out as well";
}

// The memory of a process that is its own and lies in the machine, in bytes.
double own_memory(pid_t process) {
  const std::string status = content_of("/proc/" + std::to_string(process) + "/status");
  const size_t at = status.find("RssAnon:");
  return at == std::string::npos ? 0 : 1024 * std::stod(status.substr(at + 8));
}

// What each rank takes from the system, of a model of 6 million parameters.
TEST(Ranks, EachProcessTakesItsShareOfTheOptimizersState) {
  RankRun shell;
  shell.configure({{"model", {{"width", 384}, {"mlp_width", 1536}, {"layers", 3}}},
                   {"schedule", {{"steps", 1000000}}},
                   {"batch", {{"micro_sequences", 1}}},
                   {"evaluate", {{"every", 0}}},
                   {"checkpoint", {{"every", 0}}}});
  const auto memory_of_ranks = [&](int ranks, int zero) {
    const std::string run = "runs/p" + std::to_string(ranks) + std::to_string(zero);
    const auto job =
        shell.start_ranks(ranks, {"--run-dir", run, "--set", "parallel.zero=" + std::to_string(zero)});
    EXPECT_TRUE(TinyRun::until([&] { return shell.rows("train", "", run).size() >= 3; }));
    std::vector<double> bytes;
    for (const pid_t rank : job.ranks) bytes.push_back(own_memory(rank));
    for (const pid_t rank : job.ranks) kill(rank, SIGKILL);
    shell.end_of(job);
    return bytes;
  };
  double moments = 0;
  for (const int ranks : {2, 4}) {
    const std::vector<double> whole = memory_of_ranks(ranks, 0), shared = memory_of_ranks(ranks, 1);
    const Json environment =
        Json::parse(content_of(shell / ("runs/p" + std::to_string(ranks) + "0/environment.json")));
    moments = environment["memory_bytes"]["optimizer moments"];
    ASSERT_GT(moments, 4e7);
    for (size_t rank = 0; rank < whole.size(); ++rank)
      EXPECT_NEAR((moments - (whole[rank] - shared[rank])) / moments, 1.0 / ranks, 0.04) << rank;
  }
}

// What a save takes is no reason to end a run, as long as rank 0 and all others are alive.
TEST(Ranks, ASaveMayTakeLongerThanTheLimit) {
  RankRun shell;
  const std::string pause = "KEEN_FAULT=fsync@optimizer.safetensors:pause";
  const std::vector<std::string> more = {
      "--set", "parallel.timeout_s=1", "--set", "batch.sequences=6",
      "--set", "evaluate.every=0",     "--set", "checkpoint.background=false"};
  std::vector<RankRun::Job> jobs;
  for (const std::string zero : {"0", "1"}) {
    auto arguments = more;
    arguments.insert(arguments.end(), {"--set", "parallel.zero=" + zero, "--run-dir", "runs/z" + zero});
    jobs.push_back(shell.start_ranks(3, arguments, {pause}));
  }
  for (const RankRun::Job& job : jobs) {
    const auto outcomes = shell.end_of(job);
    for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome.exit, 0) << outcome.err;
    EXPECT_TRUE(outcomes[0].says("saving the checkpoint of step 4 takes longer")) << outcomes[0].err;
    EXPECT_EQ(outcomes[1].err + outcomes[2].err, "");
  }
  // A stuck rank is found all the same.
  const auto job = shell.start_ranks(3, more, {pause});
  const std::string errors = job.outputs[0] + ".err";
  EXPECT_TRUE(TinyRun::until([&] {
    return shell.exists(errors) && content_of(shell / errors).find("takes longer") != std::string::npos;
  }));
  kill(job.ranks[1], SIGSTOP);
  std::string said;
  for (const int rank : {0, 2}) {
    const Outcome outcome = shell.end_of(job, rank);
    EXPECT_EQ(outcome.exit, 7) << outcome.err;
    said += outcome.err;
  }
  EXPECT_NE(said.find("rank 1 does not answer"), std::string::npos) << said;
  kill(job.ranks[1], SIGKILL);
  shell.end_of(job, 1);
}

TEST(Ranks, AForkIsTheSameForAnyNumber) {
  RankRun shell;
  shell.configure({{"precision", "fp64"}, {"model", {{"attention", "softmax"}}}});
  shell.train_ranks(2, "runs/parent");
  const std::vector<std::string> fork = {"--init-from",           "runs/parent", "--set",
                                         "model.attention=ssmax", "--set",       "batch.sequences=12"};
  shell.train_ranks(1, "runs/one", fork);
  for (const std::string zero : {"0", "1"}) {
    auto arguments = fork;
    arguments.insert(arguments.end(), {"--set", "parallel.zero=" + zero});
    const std::string run = "runs/three" + zero;
    shell.train_ranks(3, run, arguments);
    EXPECT_LT(shell.difference("runs/one", run), 1e-8) << run;
    const Json one = shell.rows("event", "fork", "runs/one").at(0),
               three = shell.rows("event", "fork", run).at(0);
    EXPECT_EQ(three["parent_hash"], one["parent_hash"]);
    for (const char* loss : {"loss_before", "loss_after"})
      EXPECT_NEAR(three[loss].get<double>(), one[loss].get<double>(), 1e-8);
    EXPECT_NE(one["loss_before"], one["loss_after"]);
  }
}

TEST(Ranks, BatchesAreLeftOutByAll) {
  RankRun shell;
  for (const std::string zero : {"0", "1"}) {
    const std::string run = "runs/z" + zero;
    const auto outcomes = shell.end_of(
        shell.start_ranks(3, {"--set", "optimizer.lr=1e38", "--set", "non_finite=skip", "--set",
                              "batch.sequences=6", "--set", "parallel.zero=" + zero, "--run-dir", run}));
    for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome.exit, 5) << outcome.err;
    EXPECT_TRUE(outcomes[0].says("the batch is left out (99 so far)")) << outcomes[0].err;
    EXPECT_EQ(outcomes[1].err + outcomes[2].err, "");
    EXPECT_EQ(shell.rows("event", "non_finite", run).size(), 100U);
  }
}

// Nothing is to be saved yet; rank 2 never comes.
TEST(Ranks, ASignalIsHeardWhileTheyConnect) {
  RankRun shell;
  for (const int signalled : {0, 1}) {
    const auto job = shell.start_ranks(3, {}, {}, 2);
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    kill(job.ranks[static_cast<size_t>(signalled)], SIGTERM);
    for (const Outcome& outcome : shell.end_of(job)) {
      EXPECT_EQ(outcome.exit, 75) << outcome.err;
      EXPECT_TRUE(outcome.says("rank " + std::to_string(signalled) + " was stopped by a signal"))
          << outcome.err;
    }
  }
}

TEST(Ranks, ASignalToAnyOfThemSavesAndStopsAll) {
  RankRun shell;
  for (const int signalled : {0, 2}) {
    const auto job = shell.start_ranks(3, {"--set", "schedule.steps=1000000", "--set", "batch.sequences=6"});
    const size_t before = shell.rows("train").size();
    EXPECT_TRUE(TinyRun::until([&] { return shell.rows("train").size() > before + 3; }));
    kill(job.ranks[static_cast<size_t>(signalled)], SIGUSR1);
    for (const Outcome& outcome : shell.end_of(job)) EXPECT_EQ(outcome.exit, 75) << outcome.err;
    const int64_t last = shell.rows("train").back()["step"];
    EXPECT_EQ(shell.rows("event", "stop").back()["step"], last);
    EXPECT_TRUE(std::filesystem::exists(shell.checkpoint(static_cast<int>(last))));
  }
}

// A stopped rank is named, and a dead one; the run goes on by the same command.
TEST(Ranks, AStuckOrDeadRankEndsTheRunAndIsNamed) {
  RankRun shell;
  const std::vector<std::string> more = {"--set", "schedule.steps=1000000", "--set", "batch.sequences=6",
                                         "--set", "parallel.timeout_s=1"};
  for (const auto& [victim, signal] : {std::pair{1, SIGSTOP}, {0, SIGSTOP}, {2, SIGKILL}, {0, SIGKILL}}) {
    const auto job = shell.start_ranks(3, more);
    const size_t before = shell.rows("train").size();
    EXPECT_TRUE(TinyRun::until([&] { return shell.rows("train").size() > before + 6; }));
    kill(job.ranks[static_cast<size_t>(victim)], signal);
    std::string said;
    for (int rank = 0; rank < 3; ++rank) {
      if (rank == victim) continue;
      const Outcome outcome = shell.end_of(job, rank);
      EXPECT_EQ(outcome.exit, 7) << rank;
      said += outcome.err;
    }
    kill(job.ranks[static_cast<size_t>(victim)], SIGKILL);
    shell.end_of(job, victim);
    EXPECT_NE(said.find("rank " + std::to_string(victim)), std::string::npos) << said;
    EXPECT_NE(said.find("step "), std::string::npos) << said;
    if (signal == SIGSTOP) {
      EXPECT_NE(said.find("does not answer"), std::string::npos) << said;
    }
  }
}

// Each rank may be stopped or killed at any moment; the same command goes on from the newest complete
// checkpoint every time. A save is written while training goes on to the next one, and not further.
TEST(SlowRanks, AnyOfThemMayDieAtAnyTime) {
  RankRun shell;
  const std::vector<std::string> more = {"--set", "schedule.steps=1000000", "--set", "batch.sequences=6",
                                         "--set", "parallel.timeout_s=1",   "--set", "evaluate.every=0"};
  const int64_t every = tiny_config()["checkpoint"]["every"];
  std::mt19937 random(20);
  int64_t saved = 0;
  for (int turn = 0; turn < 40; ++turn) {
    const int signal = turn % 2 == 0 ? SIGKILL : SIGSTOP, victim = static_cast<int>(random() % 3);
    const auto job = shell.start_ranks(3, more);
    const size_t before = shell.rows("train").size(), steps = 2 + random() % 40;
    ASSERT_TRUE(TinyRun::until([&] { return shell.rows("train").size() > before + steps; }));
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 5000));
    kill(job.ranks[static_cast<size_t>(victim)], signal);
    std::string said;
    for (int rank = 0; rank < 3; ++rank) {
      if (rank == victim) continue;
      const Outcome outcome = shell.end_of(job, rank);
      EXPECT_EQ(outcome.exit, 7) << rank << ": " << outcome.err;
      said += outcome.err;
    }
    kill(job.ranks[static_cast<size_t>(victim)], SIGKILL);
    shell.end_of(job, victim);
    EXPECT_NE(said.find("rank " + std::to_string(victim)), std::string::npos) << said;
    const auto begun = shell.rows("event", saved == 0 ? "start" : "resume");
    ASSERT_FALSE(begun.empty());
    EXPECT_EQ(begun.back()["step"], saved);
    const auto newest = newest_checkpoint(shell / "runs/c/checkpoints",
                                          [](const std::string& sentence) { ADD_FAILURE() << sentence; });
    const int64_t now = newest ? newest->step : 0;
    EXPECT_GE(now, saved) << "a complete checkpoint is never lost";
    const int64_t lost = shell.rows("train").back()["step"].get<int64_t>() - now;
    EXPECT_LE(lost, 2 * every);
    saved = now;
  }
}

TEST(Ranks, OneErrorIsSaidOnceAndEndsAll) {
  RankRun shell;
  shell.configure({{"batch", {{"sequences", 4}, {"micro_sequences", 2}}}});
  const auto outcomes = shell.end_of(shell.start_ranks(3, {}));
  EXPECT_EQ(outcomes[0].exit, 2);
  EXPECT_NE(outcomes[0].err.find("micro_sequences"), std::string::npos) << outcomes[0].err;
  for (size_t rank = 1; rank < 3; ++rank) EXPECT_NE(outcomes[rank].exit, 0);
}

TEST(Ranks, ANonFiniteLossStopsAllWithTheirExitCode) {
  RankRun shell;
  const auto outcomes = shell.end_of(shell.start_ranks(2, {"--set", "optimizer.lr=1e38"}));
  for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome.exit, 5) << outcome.err;
  EXPECT_EQ(outcomes[1].err, "");
}

// A run that ends by an error completes the save in progress, however long that takes.
TEST(Ranks, AnErrorWaitsForTheSaveInProgress) {
  RankRun shell;
  const std::string faults = "KEEN_FAULT=fsync@step_00000004.tmp:pause:2,gradients:nan:6";
  const auto outcomes = shell.end_of(shell.start_ranks(2, {"--set", "parallel.timeout_s=1"}, {faults}));
  for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome.exit, 5) << outcome.err;
  EXPECT_TRUE(outcomes[0].says("step 6")) << outcomes[0].err;
  EXPECT_EQ(shell.names("runs/c/checkpoints"), std::vector<std::string>{"step_00000004"});
  EXPECT_EQ(shell.keen({"inspect", "runs/c"}).exit, 0);
}

// One rank alone computes a NaN: no rank updates, all stop, and the run goes on as if it had not been.
TEST(Ranks, ANanOfOneRankReachesNoWeights) {
  RankRun shell;
  shell.train_ranks(2, "runs/whole");
  for (const int faulty : {0, 1})
    for (const char* point : {"loss", "gradients"}) {
      SCOPED_TRACE(std::string(point) + " of rank " + std::to_string(faulty));
      std::filesystem::remove_all(shell / "runs/c");
      const std::vector<std::string> faults = {"KEEN_FAULT=" + std::string(point) + ":nan:6"};
      const auto outcomes = shell.end_of(shell.start_ranks(2, {}, faults, 2, faulty));
      for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome.exit, 5) << outcome.err;
      EXPECT_TRUE(outcomes[0].says("step 6")) << outcomes[0].err;
      EXPECT_EQ(shell.rows("train").size(), 5u);
      EXPECT_EQ(shell.names("runs/c/checkpoints"), std::vector<std::string>{"step_00000004"});
      shell.train_ranks(2, "runs/c");
      expect_same_run(shell, "runs/whole", "runs/c", 12);

      std::filesystem::remove_all(shell / "runs/c");
      for (const Outcome& outcome :
           shell.end_of(shell.start_ranks(2, {"--set", "non_finite=skip"}, faults, 2, faulty)))
        EXPECT_EQ(outcome.exit, 0) << outcome.err;
      EXPECT_EQ(shell.rows("train").size(), 12u);
      EXPECT_EQ(shell.rows("event", "non_finite").size(), 1u);
      EXPECT_EQ(Json::parse(content_of(shell.checkpoint(12) / "state.json"))["skipped_steps"], 1);
      EXPECT_EQ(shell.keen({"inspect", "runs/c/checkpoints/step_00000012", "--json"}).json()["not_finite"],
                0);
    }
}

}  // namespace
}  // namespace keen::testing
