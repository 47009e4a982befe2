// Several ranks from outside: the same losses, any number of them, and what happens when one fails.
#include <array>

#include "free_port.h"
#include "tiny_run.h"

namespace keen::testing {
namespace {

// Runs of `size` processes: connected over TCP as a launcher would, unless told to be MPI's.
class RankRun : public TinyRun {
 public:
  struct Job {
    std::vector<pid_t> ranks;
    std::vector<std::string> outputs;
  };

  // `faults` are KEEN_FAULT of the one rank `faulty`.
  Job start_ranks(int size, const std::vector<std::string>& more, int faulty = -1,
                  const std::string& faults = "") {
    const int port = free_port();
    Job job;
    for (int rank = 0; rank < size; ++rank) {
      const std::string name = "rank" + std::to_string(rank);
      output_to(name + ".out");
      errors_to(name + ".err");
      const std::string number = std::to_string(rank);
      job.ranks.push_back(
          start(train_command(more),
                {"RANK=" + number, "LOCAL_RANK=" + number, "WORLD_SIZE=" + std::to_string(size),
                 "MASTER_ADDR=127.0.0.1", "MASTER_PORT=" + std::to_string(port),
                 "KEEN_FAULT=" + (rank == faulty ? faults : "")}));
      job.outputs.push_back(name);
    }
    return job;
  }
  Outcome end_of(const Job& job, int rank) {
    const std::string& name = job.outputs[static_cast<size_t>(rank)];
    output_to(name + ".out");
    errors_to(name + ".err");
    return wait(job.ranks[static_cast<size_t>(rank)]);
  }
  std::vector<Outcome> end_of(const Job& job) {
    std::vector<Outcome> outcomes;
    for (int rank = 0; rank < static_cast<int>(job.ranks.size()); ++rank)
      outcomes.push_back(end_of(job, rank));
    return outcomes;
  }
  void train_ranks(int size, const std::string& run, std::vector<std::string> more = {}) {
    more.insert(more.end(), {"--run-dir", run});
    const std::vector<Outcome> outcomes = end_of(start_ranks(size, more));
    for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome.exit, 0) << outcome.err;
    for (size_t rank = 1; rank < outcomes.size(); ++rank)
      EXPECT_EQ(outcomes[rank].out + outcomes[rank].err, "") << "rank 0 speaks for all";
  }

  // The largest difference of loss or gradient norm between two runs, which have the same steps.
  double difference(const std::string& a, const std::string& b) const {
    const auto left = rows("train", "", a), right = rows("train", "", b);
    EXPECT_EQ(left.size(), right.size());
    double largest = left.empty() ? 1e9 : 0;
    for (size_t i = 0; i < std::min(left.size(), right.size()); ++i)
      for (const char* key : {"loss", "grad_norm"})
        largest = std::max(largest, std::abs(left[i].at(key).get<double>() - right[i].at(key).get<double>()));
    const auto v = rows("validation", "", a), w = rows("validation", "", b);
    EXPECT_EQ(v.size(), w.size());
    for (size_t i = 0; i < std::min(v.size(), w.size()); ++i)
      largest = std::max(largest, std::abs(v[i].at("loss").get<double>() - w[i].at("loss").get<double>()));
    return largest;
  }
};

// 50 steps of a mixed model with accumulation and clipping.
Json mixed(const std::string& precision, bool tied) {
  return {{"precision", precision},
          {"model", {{"attention", {"softmax", "ssmax_bias"}}, {"tie_embeddings", tied}}},
          {"batch", {{"sequences", 12}, {"micro_sequences", 1}}},
          {"optimizer", {{"grad_clip", 0.5}}},
          {"schedule", {{"steps", 50}}},
          {"evaluate", {{"every", 25}, {"batches", 5}}},
          {"checkpoint", {{"every", 0}}}};
}

TEST(Ranks, AnyNumberOfThemTrainsTheSame) {
  RankRun shell;
  for (const auto& [precision, tolerance] :
       {std::pair<std::string, double>{"fp64", 1e-10}, {"fp32", 1e-5}, {"bf16", 2e-2}})
    for (const bool tied : {true, false}) {
      shell.configure(mixed(precision, tied));
      const std::string base = "runs/" + precision + (tied ? "t" : "u");
      shell.train_ranks(1, base);
      for (const int ranks : {2, 3, 4})
        for (const int zero : {0, 1}) {
          if (precision != "fp64" && (ranks == 4 || tied)) continue;
          const std::string run = base + std::to_string(ranks) + std::to_string(zero);
          shell.train_ranks(ranks, run, {"--set", "parallel.zero=" + std::to_string(zero)});
          // The log has 9 digits.
          EXPECT_LT(shell.difference(base, run), std::max(tolerance, 1e-8)) << run;
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

// Each rank may be stopped or killed at any moment; the run goes on by the same command every time.
TEST(SlowRanks, AnyOfThemMayDieAtAnyTime) {
  RankRun shell;
  const std::vector<std::string> more = {"--set", "schedule.steps=1000000", "--set", "batch.sequences=6",
                                         "--set", "parallel.timeout_s=1",   "--set", "evaluate.every=0"};
  std::mt19937 random(20);
  int64_t reached = 0;
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
    const int64_t now = shell.rows("train").back()["step"];
    EXPECT_GT(now, reached - 4) << "at most the steps since the last save are lost";
    reached = now;
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

// One rank alone computes a NaN: no rank updates, all stop, and the run goes on as if it had not been.
TEST(Ranks, ANanOfOneRankReachesNoWeights) {
  RankRun shell;
  shell.train_ranks(2, "runs/whole");
  for (const int faulty : {0, 1})
    for (const char* point : {"loss", "gradients"}) {
      SCOPED_TRACE(std::string(point) + " of rank " + std::to_string(faulty));
      std::filesystem::remove_all(shell / "runs/c");
      const std::string faults = std::string(point) + ":nan:6";
      const auto outcomes = shell.end_of(shell.start_ranks(2, {}, faulty, faults));
      for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome.exit, 5) << outcome.err;
      EXPECT_TRUE(outcomes[0].says("step 6")) << outcomes[0].err;
      EXPECT_EQ(shell.rows("train").size(), 5u);
      EXPECT_EQ(shell.names("runs/c/checkpoints"), std::vector<std::string>{"step_00000004"});
      shell.train_ranks(2, "runs/c");
      expect_same_run(shell, "runs/whole", "runs/c", 12);

      std::filesystem::remove_all(shell / "runs/c");
      for (const Outcome& outcome :
           shell.end_of(shell.start_ranks(2, {"--set", "non_finite=skip"}, faulty, faults)))
        EXPECT_EQ(outcome.exit, 0) << outcome.err;
      EXPECT_EQ(shell.rows("train").size(), 12u);
      EXPECT_EQ(shell.rows("event", "non_finite").size(), 1u);
      EXPECT_EQ(Json::parse(content_of(shell.checkpoint(12) / "state.json"))["skipped_steps"], 1);
      EXPECT_EQ(shell.keen({"inspect", "runs/c/checkpoints/step_00000012", "--json"}).json()["not_finite"],
                0);
    }
}

#ifdef KEEN_MPIRUN
TEST(Ranks, MpiTrainsTheSame) {
  RankRun shell;
  shell.configure(mixed("fp64", false));
  shell.train_ranks(1, "runs/one");
  // What the MPI library never frees is not ours to find.
  const std::string command = std::string("cd ") + shell.tmp().path().string() +
                              " && ASAN_OPTIONS=detect_leaks=0 OMPI_ALLOW_RUN_AS_ROOT=1 "
                              "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 " +
                              KEEN_MPIRUN + " --oversubscribe --bind-to none -n 3 " + KEEN_PROGRAM +
                              " train c.json --run-dir runs/mpi > mpi.out 2>&1";
  ASSERT_EQ(std::system(command.c_str()), 0) << content_of(shell / "mpi.out");
  EXPECT_LT(shell.difference("runs/one", "runs/mpi"), 1e-8);
}
#endif

}  // namespace
}  // namespace keen::testing
