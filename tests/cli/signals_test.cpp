// Runs that are stopped and killed: the same command goes on, and ends with the same bits.
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

TEST(Kill, AtRandomTimes) {
  const TinyRun shell(Medium::memory);
  auto config = slower();
  config["checkpoint"] = {{"every", 2}, {"keep", 2}};
  config["batch"]["sequences"] = 16;
  shell.configure(config);
  const auto start = std::chrono::steady_clock::now();
  ASSERT_EQ(shell.train({"--run-dir", "whole"}).exit, 0);
  const auto whole_us =
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start).count();

  std::mt19937_64 random(4);
  int killed = 0, last_step = 0;
  for (int i = 0; killed < 20; ++i) {
    ASSERT_LT(i, 200);
    const pid_t child = shell.start(TinyRun::train_command());
    std::this_thread::sleep_for(std::chrono::microseconds(random() % static_cast<uint64_t>(whole_us / 2)));
    kill(child, SIGKILL);
    const Outcome outcome = shell.wait(child);
    if (outcome.exit == 128 + SIGKILL) {
      ++killed;
    } else {
      ASSERT_EQ(outcome.exit, 0) << outcome.err;  // it was done before the signal came: begin again
      expect_same_run(shell, "whole", "runs/c", 40);
      std::filesystem::remove_all(shell / "runs");
      last_step = 0;
      continue;
    }
    if (!shell.exists("runs/c/checkpoints")) continue;
    int newest = 0;
    for (const std::string& name : shell.names("runs/c/checkpoints"))
      if (name.starts_with("step_")) newest = std::max(newest, std::stoi(name.substr(5)));
    EXPECT_GE(newest, last_step) << "a completed save is never lost";
    last_step = newest;
  }
  const Outcome outcome = shell.train();
  ASSERT_EQ(outcome.exit, 0) << outcome.err;
  expect_same_run(shell, "whole", "runs/c", 40);
  for (const std::string& name : shell.names("runs/c/checkpoints"))
    EXPECT_TRUE(name.starts_with("step_")) << name << " was left behind";
}

TEST(Kill, AtEveryMomentOfASave) {
  const TinyRun shell(Medium::memory);
  shell.configure({{"checkpoint", {{"keep", 1}}}});
  ASSERT_EQ(shell.train({"--run-dir", "whole"}).exit, 0);
  for (const char* fault :
       {"save:kill:2", "manifest:kill:2", "publish:kill:2", "published:kill:2", "prune:kill",
        "rename@step_00000008:kill", "write@optimizer.safetensors:tear", "fsync@step_00000004:kill:3",
        "write@metrics.jsonl:tear:4", "write@config.json:kill", "mkdir@checkpoints:kill"}) {
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
