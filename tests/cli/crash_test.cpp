// Kills a real run over and over; the same command goes on every time (R1, R2 and R11 of the promises).
// scripts/crash_test.sh runs this for longer. Of the environment:
//   KEEN_CRASH_KILLS  how many kills; 20 without it
//   KEEN_CRASH_SEED   of their moments; 1 without it
#include <fmt/format.h>

#include <numeric>
#include <set>
#include <span>

#include "tiny_run.h"
#include "train/checkpoint.h"

namespace keen::testing {
namespace {

constexpr int kSteps = 300, kEvery = 3, kKeep = 2;
// A save is written while training goes on to the next one, and not further.
constexpr int kMostLost = 2 * kEvery;

uint64_t number_of(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

// A fault of KEEN_FAULT that kills, without its number, which is drawn up to `most`.
struct Place {
  const char* fault;
  uint64_t most;
};

constexpr Place kInSave[] = {{"snapshot:kill", 9},
                             {"save:kill", 9},
                             {"mkdir@.tmp-:kill", 9},
                             {"write@.tmp-:kill", 400},
                             {"write@.tmp-:tear", 400},
                             {"close@.tmp-:kill", 40},
                             {"fsync@.tmp-:kill", 50},
                             {"manifest:kill", 9},
                             {"verify:kill", 9},
                             {"open@.tmp-:kill", 90},
                             {"publish:kill", 9},
                             {"rename@step_:kill", 9},
                             {"fsync@checkpoints:kill", 60},
                             {"published:kill", 9},
                             {"rename@.pruned-:kill", 6},
                             {"prune:kill", 6},
                             {"remove@.pruned-:kill", 40},
                             {"fsync@metrics.jsonl:kill", 9}};
constexpr Place kInStart[] = {{"start:kill", 1},
                              {"plan:kill", 1},
                              {"resume:kill", 1},
                              {"open:kill", 12},
                              {"write@config.json:kill", 1},
                              {"rename@config.json:kill", 1},
                              {"write@environment.json:tear", 1},
                              {"rename@environment.json:kill", 1}};
constexpr Place kInStep[] = {{"data:kill", 80},   {"forward:kill", 80}, {"backward:kill", 80},
                             {"sum:kill", 40},    {"update:kill", 40},  {"log:kill", 40},
                             {"evaluate:kill", 3}};

enum Kind { in_save_by_place, in_save_by_clock, in_start, in_cut, in_step, at_random, kKinds };

class SlowCrashTest : public ::testing::Test {
 protected:
  SlowCrashTest() : shell(Medium::memory), random(number_of("KEEN_CRASH_SEED", 1)) {
    shell.configure({{"model", {{"attention", "ssmax"}}},
                     {"schedule", {{"steps", kSteps}}},
                     {"evaluate", {{"every", 10}}},
                     {"checkpoint", {{"every", kEvery}, {"keep", kKeep}}}});
  }

  uint64_t below(uint64_t n) { return random() % n; }

  std::string drawn(std::span<const Place> places) {
    const Place& place = places[below(places.size())];
    return fmt::format("KEEN_FAULT={}:{}", place.fault, 1 + below(place.most));
  }

  // The kind of the next kill: of every three one is inside a save.
  Kind next_kind() {
    if (torn_) return in_cut;
    const int inside = killed[in_save_by_place] + killed[in_save_by_clock];
    if (3 * inside <= kills())
      return killed[in_save_by_place] > killed[in_save_by_clock] ? in_save_by_clock : in_save_by_place;
    constexpr Kind others[] = {at_random, in_step, at_random, in_start, at_random, in_cut};
    return others[turn_++ % 6];
  }

  int kills() const { return std::accumulate(std::begin(killed), std::end(killed), 0); }

  // Waits for some moment of a save in the run directory, or for the run's end.
  void wait_for_save(pid_t child) {
    const uint64_t after = below(4);
    std::set<std::string> seen;
    for (siginfo_t ended = {}; ended.si_pid == 0;) {
      waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOHANG | WNOWAIT);
      for (const std::string& name : unfinished()) seen.insert(name);
      std::this_thread::sleep_for(std::chrono::microseconds(seen.size() > after ? below(2000) : 50));
      if (seen.size() > after && !unfinished().empty()) return;
    }
  }

  // What only a save in progress has there.
  std::vector<std::string> unfinished() const {
    std::vector<std::string> found;
    std::error_code error;
    for (std::filesystem::directory_iterator at(shell / "runs/c/checkpoints", error), end;
         !error && at != end; at.increment(error))
      if (const std::string name = at->path().filename().string(); name.starts_with(".step_"))
        found.push_back(name);
    return found;
  }

  // Starts the run once, to be killed; false where it came to its end instead.
  bool kill_once() {
    Kind kind = next_kind();
    std::vector<std::string> environment;
    if (kind == in_save_by_place) environment = {drawn(kInSave)};
    if (kind == in_start) environment = {drawn(kInStart)};
    if (kind == in_step) environment = {drawn(kInStep)};
    if (kind == in_cut)
      environment = {torn_ ? "KEEN_FAULT=truncate@metrics.jsonl:kill"
                           : fmt::format("KEEN_FAULT=write@metrics.jsonl:tear:{}", 2 + below(40))};
    const pid_t child = shell.start(TinyRun::train_command(), environment);
    if (kind == in_save_by_clock) wait_for_save(child);
    if (kind == at_random) std::this_thread::sleep_for(std::chrono::microseconds(below(longest_us_)));
    if (environment.empty()) kill(child, SIGKILL);
    const Outcome outcome = shell.wait(child);
    const std::string what = environment.empty() ? "by the clock" : environment[0];
    SCOPED_TRACE(what + "\n" + outcome.err);
    EXPECT_TRUE(outcome.exit == 128 + SIGKILL || outcome.exit == 0) << outcome.exit;
    EXPECT_EQ(outcome.err, "") << "nothing to warn of";
    check_new_rows();
    if (outcome.exit == 0) return false;
    if (kind == in_save_by_clock && unfinished().empty()) kind = at_random;
    if (kind == in_cut && !torn_) kind = in_step;  // the torn line is there now
    ++killed[kind];
    torn_ = kind == in_step && what.find("tear") != std::string::npos;
    check_state();
    return true;
  }

  // Rows that this start added: they begin behind the newest checkpoint that was there, and repeat the
  // uninterrupted run bit for bit.
  void check_new_rows() {
    if (!shell.exists("runs/c/metrics.jsonl")) return;
    const std::string text = content_of(shell / "runs/c/metrics.jsonl");
    const size_t end = text.rfind('\n') + 1;
    ASSERT_LE(read_, end) << "whole lines stay";
    std::istringstream lines(text.substr(read_, end - read_));
    read_ = end;
    int next = -1;
    for (std::string line; std::getline(lines, line);) {
      const Json row = Json::parse(line);
      if (row["kind"] == "event") {
        const std::string event = row["event"];
        if (event == "start" || event == "resume") {
          EXPECT_EQ(event, newest_ < 0 ? "start" : "resume");
          EXPECT_EQ(row["step"], std::max(newest_, 0)) << "it goes on from the newest complete checkpoint";
          next = row["step"].get<int>() + 1;
        }
        if (event == "save") reported_ = row["step"];
      }
      if (row["kind"] != "train") continue;
      const int step = row["step"];
      EXPECT_EQ(step, next++);
      EXPECT_EQ(row["loss"].dump() + " " + row["grad_norm"].dump(), reference[step]);
      if (step <= highest_) ++repeated;
      highest_ = std::max(highest_, step);
    }
  }

  // What lies on the disk after a kill.
  void check_state() {
    const auto newest = newest_checkpoint(shell / "runs/c/checkpoints",
                                          [](const std::string& sentence) { ADD_FAILURE() << sentence; });
    const int step = newest ? static_cast<int>(newest->step) : -1;
    EXPECT_GE(step, newest_) << "a complete checkpoint is never lost";
    EXPECT_GE(step, reported_) << "what was reported as saved is there";
    newest_ = step;
    const int lost = std::max(highest_ - std::max(step, 0), 0);
    EXPECT_LE(lost, kMostLost);
    most_lost = std::max(most_lost, lost);
    if (!newest) return;
    const Checkpoint whole = read_checkpoint(shell.checkpoint(step, "whole"));
    for (const size_t file : {0, 1})
      EXPECT_EQ(newest->files[file].hash, whole.files[file].hash)
          << newest->files[file].name << " of step " << step;
  }

  // The end of a run that was killed many times.
  void check_end() {
    expect_same_run(shell, "whole", "runs/c", kSteps);
    // A kill between the last checkpoint's name and the pruning leaves one more.
    const auto names = shell.names("runs/c/checkpoints");
    EXPECT_TRUE(names.size() == kKeep || names.size() == kKeep + 1) << names.size();
    for (const std::string& name : names) EXPECT_TRUE(name.starts_with("step_")) << name << " is left behind";
    EXPECT_EQ(shell.names("runs/c"), shell.names("whole"));
    ++finished;
  }

  void begin_again() {
    std::filesystem::remove_all(shell / "runs");
    newest_ = reported_ = -1;
    highest_ = 0;
    read_ = 0;
    torn_ = false;
  }

  TinyRun shell;
  std::mt19937_64 random;
  std::map<int, std::string> reference;
  int killed[kKinds] = {};
  int finished = 0, most_lost = 0;
  int64_t repeated = 0;
  uint64_t longest_us_ = 0;

 private:
  int newest_ = -1, reported_ = -1,
      highest_ = 0;    // steps: of the newest checkpoint, reported as saved, logged
  size_t read_ = 0;    // bytes of the log
  int turn_ = 0;       // among the kinds that are not inside a save
  bool torn_ = false;  // the log ends in the middle of a line
};

TEST_F(SlowCrashTest, TheSameCommandGoesOnAfterEveryKill) {
  const auto start = std::chrono::steady_clock::now();
  ASSERT_EQ(shell.train({"--run-dir", "whole", "--set", "checkpoint.keep=1000"}).exit, 0);
  const auto whole = std::chrono::steady_clock::now() - start;
  longest_us_ =
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(whole).count()) / 3;
  reference = losses(shell, "whole");

  const auto wanted = static_cast<int>(number_of("KEEN_CRASH_KILLS", 20));
  for (int starts = 0; kills() < wanted && !HasFailure(); ++starts) {
    ASSERT_LT(starts, 20 * wanted) << "too few of the starts can be killed";
    if (kill_once()) continue;
    check_end();
    begin_again();
  }
  const Outcome outcome = shell.train();
  ASSERT_EQ(outcome.exit, 0) << outcome.err;
  check_new_rows();
  check_end();
  const int inside = killed[in_save_by_place] + killed[in_save_by_clock];
  EXPECT_GE(3 * inside, kills());
  fmt::print(
      "crash test: seed {}: {} kills survived: {} inside a save ({} at a call or moment of it, {} by the "
      "clock), {} "
      "while starting, {} while a torn line was cut off, {} in a phase of a step, {} at random times; {} "
      "runs "
      "finished, every logged loss, weights and moments equal bit for bit; {} steps repeated, at most {} at "
      "a restart "
      "({} allowed)\n",
      number_of("KEEN_CRASH_SEED", 1), kills(), inside, killed[in_save_by_place], killed[in_save_by_clock],
      killed[in_start], killed[in_cut], killed[in_step], killed[at_random], finished, repeated, most_lost,
      kMostLost);
}

}  // namespace
}  // namespace keen::testing
