// Saves while training goes on: what they hold up, what they may not lose, and what they take.
#include "train/saver.h"

#include <fmt/format.h>

#include "io/fault.h"
#include "train/tiny_run.h"

namespace keen {
namespace {

namespace fs = std::filesystem;
using testing::content_of;
using testing::TinyRun;
using testing::TinyTrainer;

class SaverTest : public ::testing::Test {
 protected:
  SaverTest() {
    run.config.schedule.steps = 12;
    run.config.checkpoint.every = 4;
    run.config.checkpoint.keep = 10;
    run.config.evaluate.every = 0;
  }
  ~SaverTest() override { fault::arm(""); }

  // "train 4", "save 4", in the order of the file.
  std::vector<std::string> rows(const std::string& name) const {
    std::vector<std::string> found;
    std::istringstream lines(content_of(run.path(name) / "metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const Json row = Json::parse(line);
      const std::string kind = row["kind"];
      found.push_back(fmt::format("{} {}", kind == "event" ? row["event"].get<std::string>() : kind,
                                  row["step"].get<int64_t>()));
    }
    return found;
  }
  bool comes_before(const std::string& name, const std::string& one, const std::string& other) const {
    const auto all = rows(name);
    const auto first = std::find(all.begin(), all.end(), one),
               second = std::find(all.begin(), all.end(), other);
    EXPECT_NE(first, all.end()) << one;
    EXPECT_NE(second, all.end()) << other;
    return first < second;
  }

  TinyRun run;
};

// Six files and directories are synced by a save.
constexpr const char* kSlowDisk = "fsync@.tmp-:slow:1+";

TEST_F(SaverTest, TrainingGoesOnWhileASaveIsWritten) {
  run.train("quick");
  fault::arm(kSlowDisk);
  run.train("background");
  EXPECT_TRUE(comes_before("background", "train 5", "save 4"));
  EXPECT_TRUE(comes_before("background", "train 8", "save 4")) << "not to the next save, though";
  EXPECT_TRUE(comes_before("background", "save 4", "train 9"));
  const auto saves = run.events("background", "save");
  ASSERT_EQ(saves.size(), 3u);
  EXPECT_GT(saves[0]["save_ms"].get<double>(), 500);
  EXPECT_LT(saves[0]["save_stall_ms"].get<double>(), saves[0]["save_ms"].get<double>() / 2)
      << "the copy alone";
  EXPECT_GT(saves[1]["save_stall_ms"].get<double>(), 300) << "which waited for the one before";
  EXPECT_EQ(saves[2]["save_stall_ms"], saves[2]["save_ms"]) << "the run waits for the last one";

  fault::arm(kSlowDisk);
  run.config.checkpoint.background = false;
  run.train("waiting");
  EXPECT_TRUE(comes_before("waiting", "save 4", "train 5"));
  EXPECT_GT(run.events("waiting", "save")[0]["save_stall_ms"].get<double>(), 500);
  for (const int64_t step : {4, 8, 12})
    for (const char* file : {"model.safetensors", "optimizer.safetensors"})
      for (const char* name : {"background", "waiting"})
        EXPECT_TRUE(content_of(run.checkpoint(name, step) / file) ==
                    content_of(run.checkpoint("quick", step) / file))
            << name << " " << step << " " << file;
}

// The weights have changed by the time they are written: what is written is the copy.
TEST_F(SaverTest, ACheckpointHoldsItsStepWhateverTrainingDoesMeanwhile) {
  run.config.precision = Precision::bf16;  // masters and values are apart
  fault::arm("write@model.safetensors:slow:1,write@optimizer.safetensors:slow:1,fsync@config.json:slow:1");
  run.train("run");
  ASSERT_TRUE(comes_before("run", "train 7", "save 4"));
  fault::arm("");
  TinyTrainer tiny(run.config);
  tiny.losses(4);
  const std::string bytes = tiny.bytes();
  const TrainState state = tiny.trainer.state;
  TinyTrainer loaded(run.config);
  TrainState read = resume_checkpoint(verify_checkpoint(run.checkpoint("run", 4)), loaded.trainer.gpt.params);
  EXPECT_TRUE(loaded.bytes() == bytes);
  EXPECT_EQ(read.sequences, state.sequences);
  EXPECT_EQ(read.tokens, state.tokens);
  EXPECT_EQ(read.updates, state.updates);
}

TEST_F(SaverTest, AFailureMeanwhileIsCountedAndTold) {
  fault::arm("fsync@.step_00000004:slow:1,fsync@.step_00000004:EIO:2");
  run.train("run");
  EXPECT_FALSE(fs::exists(run.checkpoint("run", 4)));
  EXPECT_TRUE(fs::exists(run.checkpoint("run", 8)));
  ASSERT_EQ(run.events("run", "save_failed").size(), 1u);
  EXPECT_EQ(run.events("run", "save_failed")[0]["step"], 4);
  EXPECT_TRUE(comes_before("run", "train 5", "save_failed 4"));
  EXPECT_EQ(run.state("run", 8)["failed_saves"], 1);
  EXPECT_EQ(run.events("run", "save").size(), 2u);
}

// A run that ends by an error ends its save first.
TEST_F(SaverTest, AnErrorOfTrainingDoesNotCostTheSave) {
  fault::arm(fmt::format("{},gradients:nan:6", kSlowDisk));
  run.error_of("run", run.config, Exit::non_finite);
  fault::arm("");
  EXPECT_EQ(verify_checkpoint(run.checkpoint("run", 4)).step, 4);
  EXPECT_EQ(rows("run").back(), "save 4");
}

TEST_F(SaverTest, WhatCannotBeReadBackGetsNoName) {
  // The file is opened to be written, and then to be read.
  fault::arm("open@.step_00000004.tmp-:EIO:7");
  run.train("run");
  EXPECT_FALSE(fs::exists(run.checkpoint("run", 4)));
  const std::string reason = run.events("run", "save_failed").at(0).at("reason");
  EXPECT_NE(reason.find("does not read back"), std::string::npos) << reason;
}

TEST_F(SaverTest, TheSnapshotIsPlannedAndTakenOnlyWhereItIsOfUse) {
  const auto snapshot = [&] {
    TinyTrainer plan(run.config, true), real(run.config);
    EXPECT_FALSE(plan.trainer.snapshot);
    int64_t bytes = 0;
    for (const MemoryUse& use : plan.trainer.memory()) bytes += use.category == "snapshot" ? use.bytes : 0;
    EXPECT_EQ(real.trainer.snapshot.has_value(), bytes > 0);
    // Weights and both averages, all learned here.
    if (bytes > 0) {
      EXPECT_EQ(bytes, 12 * real.trainer.gpt.params.count());
    }
    return bytes > 0;
  };
  EXPECT_TRUE(snapshot());
  run.config.checkpoint.background = false;
  EXPECT_FALSE(snapshot());
  run.config.checkpoint.background = true;
  run.config.checkpoint.every = 0;
  EXPECT_FALSE(snapshot()) << "the only save is the last, and nothing goes on beside it";
  run.config.checkpoint.keep_steps = {3};
  EXPECT_TRUE(snapshot());
}

// Of a model of 6.3 million parameters, on a disk: the figures of the README.
TEST(SlowSaver, HowLongTrainingStandsStill) {
  TinyRun run;
  run.config.model.width = 256;
  run.config.model.mlp_width = 1024;
  run.config.model.layers = 6;
  run.attention(R"(["softmax", "ssmax"])");
  run.config.schedule.steps = 31;
  run.config.checkpoint.every = 10;
  run.config.evaluate.every = 0;
  const testing::TemporaryDirectory disk(testing::Medium::disk);
  for (const bool background : {false, true}) {
    run.config.checkpoint.background = background;
    const fs::path path = disk / (background ? "background" : "waiting");
    testing::Quiet quiet;
    run_training(run.config, {.config_path = "tiny.json", .run_dir = path});
    double stall_ms = 0, save_ms = 0;
    int64_t bytes = 0;
    for (const Json& event : read_metrics(path / "metrics.jsonl").events) {
      if (event.at("event") != "save" || event.at("step") == 31) continue;
      stall_ms = std::max(stall_ms, event.at("save_stall_ms").get<double>());
      save_ms = std::max(save_ms, event.at("save_ms").get<double>());
    }
    for (const CheckpointFile& file : verify_checkpoint(path / "checkpoints/step_00000030").files)
      bytes += file.size_bytes;
    EXPECT_GT(save_ms, 0);
    if (background)
      EXPECT_LT(stall_ms, save_ms);
    else
      EXPECT_EQ(stall_ms, save_ms);
    fmt::print(stderr,
               "saves of {:.1f} MiB {}: the longest took {:.0f} ms and held training up for {:.0f} ms\n",
               static_cast<double>(bytes) / (1 << 20),
               background ? "in the background" : "one after the other", save_ms, stall_ms);
  }
}

}  // namespace
}  // namespace keen
