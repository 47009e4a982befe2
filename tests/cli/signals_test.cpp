// Runs that are stopped and killed: the same command goes on, and ends with the same bits. Kills at random
// times are in crash_test.cpp.
#include "tiny_run.h"

namespace keen::testing {
namespace {

// Steps of some milliseconds, so that a signal comes in the middle of one.
Json slower() {
  return {{"model", {{"context", 64}, {"width", 32}, {"attention", "ssmax"}}},
          {"batch", {{"sequences", 32}, {"micro_sequences", 1}}},
          {"schedule", {{"steps", 40}}},
          {"evaluate", {{"every", 10}}},
          {"checkpoint", {{"every", 1000}}}};
}

TEST(Signals, SaveExitAndGoOnWithTheSameBits) {
  const TinyRun shell(Medium::memory);
  shell.configure(slower());
  ASSERT_EQ(shell.train({"--run-dir", "whole"}).exit, 0);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
    const std::string run = "run-" + std::to_string(signal);
    const auto command = TinyRun::train_command({"--run-dir", run});
    const pid_t child = shell.start(command);
    ASSERT_TRUE(TinyRun::until([&] { return shell.rows("train", "", run).size() >= 3; }));
    kill(child, signal);
    const auto sent = std::chrono::steady_clock::now();
    const Outcome outcome = shell.wait(child);
    EXPECT_LT(std::chrono::steady_clock::now() - sent, std::chrono::seconds(10));
    expect_polite(outcome);
    EXPECT_EQ(outcome.exit, 75) << outcome.err;
    EXPECT_TRUE(outcome.says("signal " + std::to_string(signal))) << outcome.err;
    const int step = static_cast<int>(shell.rows("train", "", run).size());
    ASSERT_LT(step, 40) << "the signal came too late to test anything";
    EXPECT_TRUE(std::filesystem::exists(shell.checkpoint(step, run)));
    const Json stop = shell.rows("event", "stop", run).at(0);
    EXPECT_EQ(stop["step"], step);
    EXPECT_EQ(stop["reason"], "signal");

    const Outcome resumed = shell.keen(command);
    EXPECT_EQ(resumed.exit, 0) << resumed.err;
    EXPECT_EQ(shell.rows("event", "resume", run).at(0)["step"], step);
    expect_same_run(shell, "whole", run, 40);
  }
}

TEST(Signals, BeforeTheFirstStep) {
  const TinyRun shell(Medium::memory);
  shell.configure(slower());
  std::mt19937 random(3);
  for (int i = 0; i < 8; ++i) {
    const std::string run = "run-" + std::to_string(i);
    const pid_t child = shell.start(TinyRun::train_command({"--run-dir", run}));
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 30'000));
    kill(child, SIGTERM);
    const Outcome outcome = shell.wait(child);
    // Until the program has asked for the signal, the system ends it.
    EXPECT_TRUE(outcome.exit == 75 || outcome.exit == 128 + SIGTERM) << outcome.exit << outcome.err;
    EXPECT_EQ(shell.train({"--run-dir", run, "--set", "schedule.stop_after=1"}).exit, 0) << "no manual step";
  }
}

// A signal in this phase: what is done is saved, the exit code is 75, and the same command goes on.
struct Phase {
  const char* faults;
  int saved;  // the step after which it stopped, or -1: nothing was written yet
};

TEST(Signals, InEveryPhase) {
  const TinyRun shell(Medium::memory);
  shell.configure({{"batch", {{"micro_sequences", 1}}}});  // 4 micro-batches a step
  ASSERT_EQ(shell.train({"--run-dir", "whole"}).exit, 0);
  // Were there another forward pass of the same step, the second fault of a plan would kill the process.
  constexpr Phase kPhases[] = {{"start:SIGTERM", -1},
                               {"plan:SIGTERM", 0},
                               {"data:SIGTERM:22,forward:kill:23", 5},
                               {"forward:SIGINT:22,forward:kill:23", 5},
                               {"backward:SIGUSR1:22,forward:kill:23", 5},
                               {"sum:SIGTERM:6,forward:kill:25", 6},
                               {"update:SIGTERM:6,forward:kill:25", 6},
                               {"log:SIGTERM:6,forward:kill:25", 6},
                               {"evaluate:SIGTERM:2,forward:kill:33", 8},
                               // While the save of step 4 is written training goes on; it completes first.
                               {"save:SIGTERM,fsync@.step_00000004:slow:1+", 5},
                               {"manifest:SIGTERM", 5},
                               {"publish:SIGTERM", 5},
                               {"published:SIGTERM", 5},
                               {"snapshot:SIGTERM,forward:kill:17", 4}};
  for (const auto& [faults, saved] : kPhases) {
    SCOPED_TRACE(faults);
    std::filesystem::remove_all(shell / "runs");
    const Outcome outcome = shell.train({}, {std::string("KEEN_FAULT=") + faults});
    expect_polite(outcome);
    EXPECT_EQ(outcome.exit, 75) << outcome.err;
    EXPECT_TRUE(outcome.says("signal")) << outcome.err;
    if (saved < 0) {
      EXPECT_FALSE(shell.exists("runs"));
    } else {
      const Json stop = shell.rows("event", "stop").at(0);
      const int step = stop["step"];
      EXPECT_EQ(stop["reason"], "signal");
      // Where another thread writes, training stands a little further by the time that the signal is seen.
      const bool meanwhile = saved == 5 && std::string(faults).find("forward") == std::string::npos;
      EXPECT_GE(step, meanwhile ? 4 : saved);
      EXPECT_LE(step, meanwhile ? 8 : saved);
      EXPECT_TRUE(std::filesystem::exists(shell.checkpoint(step)));
      if (meanwhile) {
        EXPECT_EQ(shell.rows("event", "save").at(0)["step"], 4) << "that one first";
        EXPECT_TRUE(std::filesystem::exists(shell.checkpoint(4)));
      }
      EXPECT_EQ(shell.keen({"inspect", "runs/c"}).exit, 0);
    }
    const Outcome again = shell.train();
    EXPECT_EQ(again.exit, 0) << again.err;
    expect_same_run(shell, "whole", "runs/c", 12);
  }
}

TEST(Signals, WhileTheLastCheckpointIsWrittenTheRunIsDone) {
  const TinyRun shell(Medium::memory);
  const Outcome outcome = shell.train({}, {"KEEN_FAULT=save:SIGTERM:3"});
  EXPECT_EQ(outcome.exit, 0) << "nothing is left to do: " << outcome.err;
  EXPECT_TRUE(std::filesystem::exists(shell.checkpoint(12)));
  EXPECT_EQ(shell.rows("event", "stop").at(0)["reason"], "done");
}

TEST(Signals, WhileAForkIsPrepared) {
  const TinyRun shell(Medium::memory);
  ASSERT_EQ(shell.train({"--run-dir", "parent"}).exit, 0);
  const std::vector<std::string> fork = {"--init-from", "parent", "--set", "model.attention=ssmax"};
  const Outcome outcome = shell.train(fork, {"KEEN_FAULT=fork:SIGTERM"});
  expect_polite(outcome);
  EXPECT_EQ(outcome.exit, 75);
  EXPECT_TRUE(outcome.says("while the fork was prepared")) << outcome.err;
  EXPECT_FALSE(shell.exists("runs/c")) << "nothing is written yet, and no empty directory is left";
  EXPECT_EQ(shell.train(fork).exit, 0);
  EXPECT_EQ(shell.rows("event", "fork").size(), 1u);
}

TEST(Signals, ASecondOneEndsAtOnce) {
  const TinyRun shell(Medium::memory);
  ASSERT_EQ(shell.train({"--run-dir", "whole"}).exit, 0);
  for (const auto& [faults, exit] : {std::pair{"backward:SIGTERM:11,backward:SIGINT:12", 75},
                                     {"backward:SIGTERM:11,save:SIGINT:2", 128 + SIGINT},
                                     {"data:SIGTERM:11,backward:SIGINT:11", 128 + SIGINT},
                                     {"forward:SIGUSR1:11,backward:SIGUSR1:11", 128 + SIGUSR1},
                                     {"evaluate:SIGINT,save:SIGTERM", 128 + SIGTERM}}) {
    std::filesystem::remove_all(shell / "runs");
    const Outcome outcome = shell.train({}, {std::string("KEEN_FAULT=") + faults});
    EXPECT_EQ(outcome.exit, exit) << faults << outcome.err;
    EXPECT_EQ(shell.train().exit, 0);
    expect_same_run(shell, "whole", "runs/c", 12);
  }
}

// A checkpoint has no name before the log up to its step is on the disk.
TEST(Kill, BeforeTheLogIsSyncedThereIsNoCheckpoint) {
  const TinyRun shell(Medium::memory);
  ASSERT_EQ(shell.train({}, {"KEEN_FAULT=fsync@metrics.jsonl:kill:2"}).exit, 128 + SIGKILL);
  EXPECT_EQ(shell.names("runs/c/checkpoints"), (std::vector<std::string>{"step_00000004"}));
}

TEST(Kill, AtEveryMomentOfASave) {
  const TinyRun shell(Medium::memory);
  shell.configure({{"checkpoint", {{"keep", 1}}}});
  ASSERT_EQ(shell.train({"--run-dir", "whole"}).exit, 0);
  for (const char* fault :
       {"snapshot:kill:2", "save:kill:2", "manifest:kill:2", "verify:kill:2", "publish:kill:2",
        "published:kill:2", "prune:kill", "rename@step_00000008:kill", "write@optimizer.safetensors:tear",
        "fsync@step_00000004:kill:3", "fsync@metrics.jsonl:kill:2", "write@metrics.jsonl:tear:4",
        "write@config.json:kill", "mkdir@checkpoints:kill"}) {
    std::filesystem::remove_all(shell / "runs");
    ASSERT_EQ(shell.train({}, {std::string("KEEN_FAULT=") + fault}).exit, 128 + SIGKILL) << fault;
    const Outcome outcome = shell.train();
    EXPECT_EQ(outcome.exit, 0) << fault << ": " << outcome.err;
    EXPECT_EQ(outcome.err, "") << fault;
    expect_same_run(shell, "whole", "runs/c", 12);
    EXPECT_EQ(shell.names("runs/c"), shell.names("whole")) << fault;
    EXPECT_EQ(shell.names("runs/c/checkpoints"), shell.names("whole/checkpoints")) << fault;
  }
}

}  // namespace
}  // namespace keen::testing
