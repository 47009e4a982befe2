// Ranks that mpirun starts: what its users see of losses, errors, signals and stuck ranks.
#include <fstream>

#include "rank_run.h"

#ifdef KEEN_MPIRUN

namespace keen::testing {
namespace {

namespace fs = std::filesystem;

class MpiRun : public RankRun {
 public:
  // mpirun as the README has it; `programs` follow, as "-n 3 keen train ...".
  pid_t start_mpirun(const std::vector<std::string>& programs) const {
    std::vector<std::string> arguments = {"--oversubscribe",           "--bind-to", "none", "--mca",
                                          "odls_base_sigkill_timeout", "2"};
    arguments.insert(arguments.end(), programs.begin(), programs.end());
    // What the MPI library never frees is not ours to find.
    return start_program(KEEN_MPIRUN, arguments,
                         {"OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                          "ASAN_OPTIONS=detect_leaks=0", "TERM=xterm"});
  }
  static std::vector<std::string> ranks(int count, const std::vector<std::string>& more) {
    std::vector<std::string> programs = {"-n", std::to_string(count), KEEN_PROGRAM, "train", "c.json"};
    programs.insert(programs.end(), more.begin(), more.end());
    return programs;
  }
  Outcome mpirun(const std::vector<std::string>& programs) const { return wait(start_mpirun(programs)); }

  // The process that is this rank of an mpirun; 0 where there is none.
  static pid_t process_of(pid_t mpirun, int rank) {
    const std::string parent = "\nPPid:\t" + std::to_string(mpirun) + "\n";
    const std::string entry = '\0' + ("OMPI_COMM_WORLD_RANK=" + std::to_string(rank)) + '\0';
    for (const auto& process : fs::directory_iterator("/proc")) {
      const std::string name = process.path().filename();
      if (name.find_first_not_of("0123456789") != name.npos) continue;
      if (has(process.path() / "status", parent) && has(process.path() / "environ", entry))
        return std::stoi(name);
    }
    return 0;
  }
  // Starts a run that does not end by itself, and sends the signal to a rank of it in the middle of its
  // steps.
  Outcome signalled(int victim, int signal) const {
    const size_t before = rows("train").size();
    const pid_t job = start_mpirun(ranks(3, {"--set", "schedule.steps=1000000", "--set", "batch.sequences=6",
                                             "--set", "parallel.timeout_s=1"}));
    EXPECT_TRUE(until([&] { return rows("train").size() > before + 6; }));
    const pid_t rank = process_of(job, victim);
    EXPECT_GT(rank, 0);
    if (rank > 0) kill(rank, signal);
    return wait(job);
  }

 private:
  // False too where the process has ended meanwhile.
  static bool has(const fs::path& path, const std::string& text) {
    std::ifstream file(path);
    const std::string content{std::istreambuf_iterator<char>(file), {}};
    return content.find(text) != std::string::npos;
  }
};

TEST(Mpi, TrainsTheSame) {
  for (const auto& [precision, tolerance] : {std::pair<std::string, double>{"fp64", 1e-8}, {"bf16", 2e-2}}) {
    MpiRun shell;
    shell.configure(mixed(precision, false));
    shell.train_ranks(1, "runs/one");
    for (const std::string zero : {"0", "1"}) {
      const std::string run = "runs/mpi" + zero;
      const Outcome outcome =
          shell.mpirun(MpiRun::ranks(3, {"--run-dir", run, "--set", "parallel.zero=" + zero}));
      ASSERT_EQ(outcome.exit, 0) << outcome.err;
      EXPECT_LT(shell.difference("runs/one", run), tolerance);
      // mpirun gives its ranks a terminal, though this is a file.
      EXPECT_NE(outcome.out.find("50/50"), std::string::npos) << outcome.out;
      EXPECT_EQ((outcome.out + outcome.err).find('\033'), std::string::npos) << outcome.out;
    }
  }
}

TEST(Mpi, ASignalToAnyOfThemSavesAndStopsAll) {
  MpiRun shell;
  for (const int signalled : {0, 2}) {
    const Outcome outcome = shell.signalled(signalled, SIGUSR1);
    EXPECT_EQ(outcome.exit, 75) << outcome.err;
    const int64_t last = shell.rows("train").back()["step"];
    EXPECT_EQ(shell.rows("event", "stop").back()["step"], last);
    EXPECT_TRUE(fs::exists(shell.checkpoint(static_cast<int>(last))));
  }
}

TEST(SlowMpi, AStuckOrDeadRankEndsTheRun) {
  MpiRun shell;
  for (const int victim : {0, 1}) {
    const Outcome stuck = shell.signalled(victim, SIGSTOP);
    EXPECT_EQ(stuck.exit, 7) << stuck.err;
    EXPECT_TRUE(stuck.says("rank " + std::to_string(victim) + " does not answer")) << stuck.err;
    EXPECT_TRUE(stuck.says("step ")) << stuck.err;
  }
  for (const int victim : {0, 2}) {
    const Outcome dead = shell.signalled(victim, SIGKILL);
    EXPECT_EQ(dead.exit, 128 + SIGKILL) << dead.err;
  }
  // The same command goes on.
  EXPECT_EQ(shell.signalled(1, SIGUSR1).exit, 75);
}

TEST(Mpi, AnErrorOfOneRankEndsAllWithItsExitCode) {
  MpiRun shell;
  auto programs = MpiRun::ranks(1, {});
  programs.push_back(":");
  for (const std::string& word : MpiRun::ranks(1, {"--set", "seed=8"})) programs.push_back(word);
  const Outcome other_config = shell.mpirun(programs);
  EXPECT_EQ(other_config.exit, 2) << other_config.err;
  EXPECT_TRUE(other_config.says("rank 1 has another config")) << other_config.err;

  auto full = MpiRun::ranks(3, {"--set", "batch.sequences=6"});
  full.insert(full.begin(), {"-x", "KEEN_FAULT=write@model.safetensors:ENOSPC:1+"});
  const Outcome outcome = shell.mpirun(full);
  EXPECT_EQ(outcome.exit, 8) << outcome.err;
  EXPECT_TRUE(outcome.says("checkpoint of step 12 not saved")) << outcome.err;
}

// Rank 1 never reaches MPI_Init, in which rank 0 waits for it.
TEST(Mpi, ASignalIsHeardWhileTheRanksConnect) {
  MpiRun shell;
  auto programs = MpiRun::ranks(1, {});
  for (const char* word : {":", "-n", "1", "sleep", "1000"}) programs.push_back(word);
  const pid_t job = shell.start_mpirun(programs);
  pid_t rank = 0;
  EXPECT_TRUE(TinyRun::until([&] { return (rank = MpiRun::process_of(job, 0)) > 0; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  kill(rank, SIGTERM);
  const Outcome outcome = shell.wait(job);
  EXPECT_EQ(outcome.exit, 75) << outcome.err;
  EXPECT_TRUE(outcome.says("stopped by a signal while the ranks connected")) << outcome.err;
}

}  // namespace
}  // namespace keen::testing

#endif
