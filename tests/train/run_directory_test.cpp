#include "train/run_directory.h"

#include <sys/wait.h>

#include <nlohmann/json.hpp>

#include "core/check.h"
#include "io/fault.h"
#include "temporary_directory.h"

namespace keen {
namespace {

namespace fs = std::filesystem;
using testing::content_of;
using testing::put;
using testing::TemporaryDirectory;

std::string refusal(const fs::path& path, Exit exit = Exit::usage) {
  try {
    RunDirectory run(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.exit, exit) << error.what();
    return error.what();
  }
  return "";
}

TEST(RunDirectory, IsCreatedAndReopened) {
  TemporaryDirectory directory;
  const fs::path path = directory / "runs" / "a";
  {
    RunDirectory run(path);
    EXPECT_TRUE(run.is_new());
    run.write_config("{}\n");
    run.write_environment({{"device", "cpu"}});
    EXPECT_FALSE(run.is_new());
  }
  RunDirectory run(path);
  EXPECT_FALSE(run.is_new());
  EXPECT_EQ(content_of(run.config()), "{}\n");
  EXPECT_NE(content_of(run.environment()).find("\"device\": \"cpu\""), std::string::npos);
  EXPECT_EQ(run.metrics(), path / "metrics.jsonl");
  EXPECT_EQ(run.checkpoints(), path / "checkpoints");
}

TEST(RunDirectory, HasOneWriter) {
  TemporaryDirectory directory;
  const fs::path path = directory / "run";
  int ready[2], release[2];
  ASSERT_EQ(pipe(ready) | pipe(release), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(release[1]);
    RunDirectory run(path);
    run.write_config("{}");
    char byte = 0;
    if (write(ready[1], &byte, 1) != 1) _exit(1);
    (void)!read(release[0], &byte, 1);
    _exit(0);  // without destructors, as a killed process
  }
  char byte;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_NE(refusal(path).find(fmt::format("process {} is writing", child)), std::string::npos)
      << refusal(path);
  close(release[1]);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(refusal(path), "");
  RunDirectory held(path);
  EXPECT_NE(refusal(path).find(fmt::format("process {}", getpid())), std::string::npos);
}

TEST(RunDirectory, RefusesWhatIsNoRun) {
  TemporaryDirectory directory;
  put(directory / "file", "x");
  EXPECT_NE(refusal(directory / "file").find("is a file"), std::string::npos);
  EXPECT_NE(refusal(directory.path()).find("holds file but no config.json"), std::string::npos)
      << refusal(directory.path());
  EXPECT_EQ(content_of(directory / "file"), "x");
  EXPECT_EQ(std::distance(fs::directory_iterator(directory.path()), {}), 1);
  fs::create_directories(directory / "empty");
  EXPECT_EQ(refusal(directory / "empty"), "");
  fault::arm("mkdir:ENOSPC");
  EXPECT_NE(refusal(directory / "new", Exit::storage).find("No space left"), std::string::npos);
  fault::arm("");
}

TEST(RunDirectory, AStartKilledAnywhereCanBeRepeated) {
  TemporaryDirectory directory;
  const fs::path path = directory / "run";
  for (const char* plan :
       {"mkdir:kill", "open:kill", "write:kill", "write:tear", "fsync:kill", "rename:kill"}) {
    const pid_t child = fork();
    if (child == 0) {
      fault::arm(plan);
      RunDirectory run(path);
      run.write_config("{}");
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status)) << plan;
    RunDirectory run(path);
    EXPECT_TRUE(run.is_new()) << plan;
    for (const auto& entry : fs::directory_iterator(path))
      EXPECT_EQ(entry.path().filename(), ".lock") << plan;
    fs::remove_all(path);
  }
}

}  // namespace
}  // namespace keen
