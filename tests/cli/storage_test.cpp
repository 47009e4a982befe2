// Disks that are full: injected at a chosen write (io/fault.h), and real ones.
#include <sys/mount.h>

#include <cerrno>

#include "tiny_run.h"

namespace keen::testing {
namespace {

TEST(FullDisk, AFailedSaveIsAWarningWhileTrainingGoesOn) {
  const TinyRun shell;
  ASSERT_EQ(shell.train({"--run-dir", "whole"}).exit, 0);
  for (const char* fault : {"write@model.safetensors:ENOSPC:2", "fsync@.tmp:EIO:7",
                            "rename@step_00000008:ENOSPC", "open@step_00000008:EACCES"}) {
    std::filesystem::remove_all(shell / "runs");
    const Outcome outcome = shell.train({}, {std::string("KEEN_FAULT=") + fault});
    EXPECT_EQ(outcome.exit, 0) << fault << ": " << outcome.err;
    const auto failed = shell.rows("event", "save_failed");
    ASSERT_EQ(failed.size(), 1u) << fault;
    for (const char* words : {"warning", "not saved", "training goes on"})
      EXPECT_TRUE(outcome.says(words)) << outcome.err;
    EXPECT_TRUE(outcome.says("failed saves so far: 1")) << outcome.err;
    EXPECT_FALSE(std::filesystem::exists(shell.checkpoint(failed[0]["step"].get<int>()))) << fault;
    expect_same_run(shell, "whole", "runs/c", 12);
    EXPECT_EQ(shell.keen({"inspect", "runs/c"}).exit, 0) << "what is there is whole";
    EXPECT_EQ(Json::parse(content_of(shell.checkpoint(12) / "state.json"))["failed_saves"], 1);
  }
}

TEST(FullDisk, TheLastSaveMustSucceed) {
  const TinyRun shell;
  const Outcome outcome = shell.train({}, {"KEEN_FAULT=write@step_00000012:ENOSPC:1+"});
  expect_error(outcome, 8, {"step 12", "step_00000012", "No space left", "bytes", "free"});
  EXPECT_EQ(shell.names("runs/c/checkpoints"), (std::vector<std::string>{"step_00000004", "step_00000008"}));
  const Outcome again = shell.train();
  EXPECT_EQ(again.exit, 0) << again.err;
  ASSERT_EQ(shell.train({"--run-dir", "whole"}).exit, 0);
  expect_same_run(shell, "whole", "runs/c", 12);
}

TEST(FullDisk, UnderTheLogTrainingGoesOn) {
  const TinyRun shell;
  const Outcome outcome = shell.train({}, {"KEEN_FAULT=write@metrics.jsonl:ENOSPC:5+"});
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_TRUE(outcome.says("metrics are being lost")) << outcome.err;
  EXPECT_TRUE(std::filesystem::exists(shell.checkpoint(12)));
}

TEST(FullDisk, AtTheStartIsAnErrorOfStorage) {
  const TinyRun shell;
  expect_error(shell.train({}, {"KEEN_FAULT=mkdir@runs:ENOSPC"}), 8, {"runs", "No space left"});
  expect_error(shell.train({}, {"KEEN_FAULT=write@config.json:ENOSPC"}), 8, {"config.json", "No space left"});
  EXPECT_EQ(shell.train().exit, 0) << "and leaves nothing in the way";
  expect_error(shell.train({"--run-dir", "x"}, {"KEEN_FAULT=nonsense"}), 2, {"KEEN_FAULT", "nonsense"});
}

// A file system in memory, as large as asked, for as long as this lives.
class SmallDisk {
 public:
  SmallDisk(const std::filesystem::path& path, const char* size) : path_(path) {
    std::filesystem::create_directory(path);
    mounted_ = mount("keen-test", path.c_str(), "tmpfs", 0, (std::string("size=") + size).c_str()) == 0;
  }
  ~SmallDisk() {
    if (mounted_) umount2(path_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }
  bool resize(const char* size) const { return remount(0, std::string("size=") + size); }
  bool make_read_only() const { return remount(MS_RDONLY, ""); }

 private:
  bool remount(unsigned long flags, const std::string& options) const {
    return mount("keen-test", path_.c_str(), "tmpfs", MS_REMOUNT | flags, options.c_str()) == 0;
  }

  std::filesystem::path path_;
  bool mounted_ = false;
};

// A checkpoint of the tiny model takes about 180 KiB: one fits, two do not.
TEST(FullDisk, ARealOne) {
  const TinyRun shell;
  const SmallDisk disk(shell / "disk", "300k");
  if (!disk.mounted()) GTEST_SKIP() << "may not mount a file system: " << std::strerror(errno);
  const std::vector<std::string> arguments = {"--run-dir", "disk/run", "--set", "checkpoint.keep=1"};
  const Outcome full = shell.train(arguments);
  expect_error(full, 8, {"disk/run/checkpoints", "step 12", "No space left", "needs", "free"});
  EXPECT_TRUE(full.says("failed saves so far: 1")) << full.err;
  EXPECT_EQ(shell.names("disk/run/checkpoints"), (std::vector<std::string>{"step_00000004"}));
  EXPECT_EQ(shell.keen({"inspect", "disk/run"}).exit, 0) << "the good checkpoint is as it was";

  ASSERT_TRUE(disk.resize("2m"));
  const Outcome again = shell.train(arguments);
  EXPECT_EQ(again.exit, 0) << again.err;
  EXPECT_EQ(shell.rows("event", "resume", "disk/run").at(0)["step"], 4);
  ASSERT_EQ(shell.train({"--run-dir", "whole"}).exit, 0);
  expect_same_run(shell, "whole", "disk/run", 12);
}

// One checkpoint of the tiny model takes about 180 KiB.
TEST(FullDisk, TooLittleRoomIsSaidBeforeTheFirstStep) {
  const TinyRun shell;
  const SmallDisk disk(shell / "disk", "100k");
  if (!disk.mounted()) GTEST_SKIP() << "may not mount a file system: " << std::strerror(errno);
  const std::vector<std::string> arguments = {"--run-dir", "disk/run"};
  const Outcome none = shell.train(arguments);
  expect_error(none, 8, {"disk/run", "no room for a checkpoint", "bytes", "free", "--run-dir"});
  EXPECT_EQ(shell.rows("train", "", "disk/run").size(), 0u);
  std::vector<std::string> dry = arguments;
  dry.push_back("--dry-run");
  const Outcome planned = shell.train(dry);
  EXPECT_EQ(planned.exit, 0) << "a plan is no less true for that";
  EXPECT_TRUE(planned.says("no room for a checkpoint")) << planned.err;
  EXPECT_NE(planned.out.find("disk that is free"), std::string::npos) << planned.out;

  // One fits, and so do two, but not the three that are kept.
  ASSERT_TRUE(disk.resize("450k"));
  const Outcome few = shell.train(arguments);
  for (const char* words : {"warning", "3 checkpoints", "free", "checkpoint.keep"})
    EXPECT_TRUE(few.says(words)) << words << " is not in " << few.err;
  EXPECT_EQ(shell.rows("train", "", "disk/run").size(), 12u) << "training begins all the same";
  EXPECT_TRUE(shell.train(dry).says("no room for a checkpoint")) << "for one more";

  ASSERT_TRUE(disk.resize("2m"));
  std::filesystem::remove_all(shell / "disk/run");
  const Outcome enough = shell.train(arguments);
  EXPECT_EQ(enough.exit, 0);
  EXPECT_EQ(enough.err, "");
  EXPECT_EQ(shell.train(arguments).exit, 0) << "a finished run needs no room";
  // What is there already needs no more room: 12 more steps keep as many checkpoints.
  const Outcome more = shell.train({"--run-dir", "disk/run", "--set", "schedule.steps=24"});
  EXPECT_EQ(more.exit, 0);
  EXPECT_EQ(more.err, "");
}

TEST(FullDisk, ADirectoryThatCannotBeWrittenIsAnErrorOfStorage) {
  const TinyRun shell;
  const SmallDisk disk(shell / "disk", "2m");
  if (!disk.mounted()) GTEST_SKIP() << "may not mount a file system: " << std::strerror(errno);
  ASSERT_EQ(shell.train({"--run-dir", "disk/run", "--set", "schedule.stop_after=4"}).exit, 0);
  const auto before = shell.names("disk/run");
  ASSERT_TRUE(disk.make_read_only());
  expect_error(shell.train({"--run-dir", "disk/run"}), 8, {"disk/run", "Read-only file system"});
  expect_error(shell.train({"--run-dir", "disk/new"}), 8, {"disk/new", "Read-only file system"});
  EXPECT_EQ(shell.names("disk/run"), before);
  EXPECT_EQ(shell.keen({"inspect", "disk/run"}).exit, 0) << "reading needs no writing";
}

// While it trains the disk becomes read-only, as it does when the kernel finds it damaged.
TEST(FullDisk, ADiskThatBecomesReadOnlyCostsTheLaterSaves) {
  const TinyRun shell;
  const Outcome outcome =
      shell.train({}, {"KEEN_FAULT=mkdir@step_00000008:EROFS:1+,mkdir@step_00000012:EROFS:1+"});
  expect_error(outcome, 8, {"step 12", "Read-only file system"});
  EXPECT_TRUE(outcome.says("failed saves so far: 1")) << outcome.err;
  EXPECT_EQ(shell.names("runs/c/checkpoints"), (std::vector<std::string>{"step_00000004"}));
}

}  // namespace
}  // namespace keen::testing
