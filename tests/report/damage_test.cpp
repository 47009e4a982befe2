// What keen inspect says of a run directory in which something is not as it was written.
#include "io/fault.h"
#include "report/inspect.h"
#include "train/tiny_run.h"

namespace keen {
namespace {

namespace fs = std::filesystem;
using testing::content_of;
using testing::put;
using testing::TinyRun;

class DamageTest : public ::testing::Test {
 protected:
  DamageTest() {
    run.config.model.width = 8;
    run.config.schedule.steps = 6;
    run.config.checkpoint.every = 2;
    run.config.evaluate.every = 3;
    run.train("run");
  }

  // What inspect finds wrong; raised, or told beside the rest. Always with exit code 4.
  static std::string problem_of(const fs::path& path) {
    std::optional<Error> problem;
    try {
      Inspection inspection = inspect(path);
      problem = inspection.problem;
      EXPECT_EQ(inspection.json["whole"], !problem.has_value());
    } catch (const Error& error) {
      problem = error;
    }
    if (!problem) return "";
    EXPECT_EQ(static_cast<int>(problem->exit), 4) << problem->what();
    return problem->what();
  }
  static std::string damage(const fs::path& checkpoint) {
    try {
      verify_checkpoint(checkpoint);
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.exit), 4);
      return error.what();
    }
    return "";
  }

  TinyRun run;
  fs::path directory = run.path("run"), checkpoint = run.checkpoint("run", 4);
};

// Each of 1,000 flipped bits, over all files of a checkpoint, is found by load and by inspect, of the
// checkpoint and of the run that it belongs to, and the file is named.
TEST_F(DamageTest, EveryFlippedBitIsFoundByLoadAndByInspect) {
  ASSERT_EQ(problem_of(directory), "");
  std::vector<std::pair<fs::path, std::string>> files;
  size_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(checkpoint)) {
    files.emplace_back(entry.path(), content_of(entry.path()));
    bytes += files.back().second.size();
  }
  ASSERT_EQ(files.size(), 5u);
  const Philox random(2, "flips");
  int by_load = 0, by_inspect = 0, by_run = 0;
  constexpr int kFlips = 1000;
  for (uint64_t flip = 0; flip < kFlips; ++flip) {
    // Half of the flips are spread over all bytes, and half over the files, however small they are.
    const auto draw = random.bits(flip);
    size_t file = draw[0] % files.size(), at = draw[1] % files[file].second.size();
    if (flip % 2 == 0) {
      at = draw[1] % bytes;
      for (file = 0; at >= files[file].second.size(); ++file) at -= files[file].second.size();
    }
    const auto& [path, whole] = files[file];
    const std::string name = checkpoint.filename() / path.filename();
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << draw[2] % 8));
    put(path, flipped);
    const auto names_it = [&](const std::string& problem) { return problem.find(name) != std::string::npos; };
    by_load += names_it(damage(checkpoint)) ? 1 : 0;
    by_inspect += names_it(problem_of(checkpoint)) ? 1 : 0;
    by_run += names_it(problem_of(directory)) ? 1 : 0;
    put(path, whole);
  }
  EXPECT_EQ(by_load, kFlips);
  EXPECT_EQ(by_inspect, kFlips);
  EXPECT_EQ(by_run, kFlips);
  EXPECT_EQ(problem_of(directory), "");
  fmt::print("bit flips: {} of {} found by load, {} by inspect of the checkpoint, {} by inspect of the run\n",
             by_load, kFlips, by_inspect, by_run);
}

// The same of files that are too short, gone, or another step's; and the run goes on from the one before.
TEST_F(DamageTest, TruncatedMissingAndForeignFilesAreFoundAndTheOneBeforeIsUsed) {
  run.train("whole");
  const fs::path newest = run.checkpoint("run", 6);
  const auto whole = [&](const char* file) { return content_of(run.checkpoint("whole", 6) / file); };
  for (const char* file :
       {"model.safetensors", "optimizer.safetensors", "state.json", "config.json", "manifest.json"})
    for (const char* harm : {"half", "empty", "gone", "other"}) {
      SCOPED_TRACE(fmt::format("{} {}", file, harm));
      const bool same_in_both = harm == std::string("other") && file == std::string("config.json");
      if (same_in_both) continue;
      const std::string before = content_of(newest / file);
      if (harm == std::string("half")) put(newest / file, before.substr(0, before.size() / 2));
      if (harm == std::string("empty")) put(newest / file, "");
      if (harm == std::string("gone")) fs::remove(newest / file);
      if (harm == std::string("other")) put(newest / file, content_of(checkpoint / file));
      const std::string problem = problem_of(directory);
      EXPECT_NE(problem.find(newest.filename()), std::string::npos) << problem;
      ::testing::internal::CaptureStderr();
      run.train("run");
      const std::string warning = ::testing::internal::GetCapturedStderr();
      EXPECT_NE(warning.find("step_00000006 is not whole and is left out"), std::string::npos) << warning;
      EXPECT_EQ(run.events("run", "resume").back()["step"], 4);
      for (const char* tensors : {"model.safetensors", "optimizer.safetensors"})
        EXPECT_TRUE(content_of(newest / tensors) == whole(tensors));
      for (const auto& entry : fs::directory_iterator(directory / "checkpoints"))
        if (entry.path().filename().string().starts_with(".damaged")) fs::remove_all(entry.path());
      EXPECT_EQ(problem_of(directory), "");
    }
}

// The files beside the checkpoints.
TEST_F(DamageTest, TheWholeRunDirectoryIsRead) {
  const auto with = [&](const char* file, const std::string& content) {
    const std::string before = content_of(directory / file);
    put(directory / file, content);
    const std::string problem = problem_of(directory);
    put(directory / file, before);
    EXPECT_EQ(problem_of(directory), "");
    return problem;
  };
  const std::string metrics = content_of(directory / "metrics.jsonl");
  EXPECT_NE(with("config.json", "{\"model\": ").find("config.json"), std::string::npos);
  EXPECT_NE(with("config.json", "{\"modle\": {}}").find("config.json"), std::string::npos);
  EXPECT_NE(with("environment.json", "nothing").find("environment.json"), std::string::npos);
  EXPECT_NE(with("metrics.jsonl", "x" + metrics).find("metrics.jsonl"), std::string::npos);
  EXPECT_EQ(with("metrics.jsonl", metrics + "{\"kind\": \"tr"), "") << "what a killed run leaves";
  fs::rename(directory / "metrics.jsonl", directory / "lost");
  EXPECT_NE(problem_of(directory).find("metrics.jsonl"), std::string::npos);
  fs::rename(directory / "lost", directory / "metrics.jsonl");
  EXPECT_EQ(problem_of(directory), "");
}

}  // namespace
}  // namespace keen
