// Wrong input of every kind: the exit code, a message that names the place and the remedy, and nothing lost.
#include "tiny_run.h"

namespace keen::testing {
namespace {

TEST(BadConfig, EveryErrorAtOnceWithItsRemedy) {
  const TinyRun shell;
  shell.configure({{"modle", {{"layers", 2}}},
                   {"optimizer", {{"learning_rate", 1}, {"beta1", 1.5}}},
                   {"log", {{"every", "often"}}}});
  expect_error(shell.train(), 2,
               {"c.json", "modle", "model", "optimizer.learning_rate", "optimizer.beta1", "1.5", "log.every",
                "often"});
  shell.configure({{"model", {{"widht", 16}}}});
  expect_error(shell.train(), 2, {"c.json", "model.widht", "model.width"});
  expect_error(shell.train({"--set", "scheduel.steps=3"}), 2, {"scheduel.steps", "schedule.steps"});
  put(shell / "c.json", "{\"model\": {\"layers\": }}");
  expect_error(shell.train(), 2, {"c.json:1"});
  expect_error(shell.keen({"train", "missing.json"}), 2, {"missing.json", "No such file"});
  expect_error(shell.keen({"train"}), 2, {"CONFIG"});
  EXPECT_FALSE(shell.exists("runs"));
}

TEST(BadConfig, ImpossibleSizes) {
  const TinyRun shell;
  expect_error(shell.train({"--set", "model.heads=3"}), 2, {"model.heads", "width (16)", "heads (3)"});
  expect_error(shell.train({"--set", "model.kv_heads=3"}), 2, {"model.kv_heads", "3"});
  expect_error(shell.train({"--set", "model.context=0"}), 2, {"model.context", "0"});
  expect_error(shell.train({"--set", "model.layers=-1"}), 2, {"model.layers", "-1"});
  expect_error(shell.train({"--set", "batch.micro_sequences=3"}), 2,
               {"batch.micro_sequences", "(4)", "1, 2, 4"});
  expect_error(shell.train({"--set", "model.attention=[\"softmax\",\"sssmax\"]"}), 2,
               {"model.attention", "sssmax", "ssmax"});
  expect_error(shell.train({"--set", "model.layers"}), 2, {"model.layers"});
  EXPECT_FALSE(shell.exists("runs"));
}

TEST(BadConfig, DevicesThatAreNotThere) {
  const TinyRun shell;
  expect_error(shell.train({"--set", "device=cuda", "--set", "precision=fp64"}), 2,
               {"precision", "fp64", "bf16"});
  expect_error(shell.train({"--set", "attention_path=cudnn"}), 2, {"attention_path", "cudnn", "flash"});
  expect_error(shell.train({"--set", "device=gpu"}), 2, {"device", "gpu", "cuda"});
  if (shell.keen({"--version"}).out.find("CUDA no") == std::string::npos) return;
  expect_error(shell.train({"--set", "device=cuda"}), 6, {"device", "no CUDA", "\"cpu\""});
  ASSERT_EQ(shell.train().exit, 0);
  expect_error(shell.keen({"eval", "runs/c", "--data", "val.bin", "--device", "cuda"}), 6, {"no CUDA"});
}

TEST(BadData, IsFoundBeforeTheFirstStep) {
  const TinyRun shell;
  const std::string good = shard_bytes(5000, 299);
  std::string magic = good, id = good;
  magic[0] = 7;
  const uint16_t beyond = 300;
  std::memcpy(id.data() + 1024 + 2 * 100, &beyond, 2);
  const std::vector<std::tuple<std::string, std::string, std::vector<std::string>>> cases = {
      {"magic.bin", magic, {"magic", "offset 0"}},
      {"short.bin", good.substr(0, good.size() - 3), {"ends early", "11021"}},
      {"long.bin", good + "xx", {"11026"}},
      {"ids.bin", id, {"300", "offset 1224", "vocab_size"}},
      {"tiny.bin", shard_bytes(16, 16), {"17 tokens", "context"}},
      {"empty.bin", "", {"empty.bin"}}};
  for (const auto& [file, bytes, words] : cases) {
    put(shell / file, bytes);
    for (const char* key : {"train", "validation"}) {
      const Outcome outcome = shell.train({"--set", std::string("data.") + key + "=" + file});
      expect_error(outcome, 3, words);
      EXPECT_TRUE(outcome.says(file)) << outcome.err;
    }
  }
  expect_error(shell.train({"--set", "data.train=none_*.bin"}), 3, {"none_*.bin", "keen tokenize encode"});
  EXPECT_TRUE(shell.rows("train").empty());
  EXPECT_EQ(shell.train().exit, 0) << "the directory is still free";
}

TEST(BadData, AShardThatWasReplacedBetweenTwoStarts) {
  const TinyRun shell;
  ASSERT_EQ(shell.train({"--set", "schedule.stop_after=4"}).exit, 0);
  const std::string before = content_of(shell / "train.bin");
  put(shell / "train.bin", shard_bytes(5000, 298));
  expect_error(shell.train(), 3, {"data.train", "train.bin", "--init-from"});
  put(shell / "elsewhere.bin", before);
  const Outcome outcome = shell.train({"--set", "data.train=elsewhere.bin"});
  EXPECT_EQ(outcome.exit, 0) << "the path may change when the content does not: " << outcome.err;
  EXPECT_EQ(shell.rows("train").size(), 12u);
}

TEST(BadCheckpoint, TheOneBeforeADamagedOneIsUsed) {
  const TinyRun shell;
  ASSERT_EQ(shell.train({"--run-dir", "whole"}).exit, 0);
  ASSERT_EQ(shell.train({"--set", "schedule.stop_after=8"}).exit, 0);
  flip_byte(shell.checkpoint(8) / "model.safetensors", 30'000);
  const Outcome outcome = shell.train();
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  for (const char* words : {"warning", "step_00000008", "model.safetensors"})
    EXPECT_TRUE(outcome.says(words)) << outcome.err;
  EXPECT_EQ(shell.rows("event", "resume").at(0)["step"], 4);
  expect_same_run(shell, "whole", "runs/c", 12);
  EXPECT_TRUE(shell.exists("runs/c/checkpoints/.damaged-step_00000008-1")) << "nothing is thrown away";

  for (int step : {4, 8, 12}) flip_byte(shell.checkpoint(step) / "state.json", 20);
  const Outcome refused = shell.train();
  expect_error(refused, 4, {"no checkpoint is whole", "runs/c"});
  for (const char* name : {"step_00000004", "step_00000008", "step_00000012"})
    EXPECT_TRUE(refused.says(name)) << refused.err;
  expect_error(shell.keen({"eval", "runs/c", "--data", "val.bin"}), 4, {"runs/c", "no whole checkpoint"});
  expect_error(shell.keen({"eval", "runs/c/checkpoints/step_00000012", "--data", "val.bin"}), 4,
               {"state.json"});
  EXPECT_EQ(shell.names("runs/c/checkpoints").size(), 4u) << "and nothing was lost by looking";
}

TEST(BadCheckpoint, PathsThatAreNone) {
  const TinyRun shell;
  ASSERT_EQ(shell.train({"--set", "schedule.stop_after=1"}).exit, 0);
  expect_error(shell.keen({"eval", "nowhere", "--data", "val.bin"}), 4, {"nowhere"});
  expect_error(shell.keen({"sample", "runs/c/checkpoints/step_00000099"}), 4, {"step_00000099"});
  expect_error(shell.train({"--init-from", "nowhere", "--run-dir", "fork"}), 4, {"nowhere"});
  std::filesystem::create_directory(shell / "empty");
  expect_error(shell.keen({"eval", "empty", "--data", "val.bin"}), 4, {"empty", "run directory"});
}

TEST(BadResume, AFixedKeyThatChangedIsAFork) {
  const TinyRun shell;
  ASSERT_EQ(shell.train({"--set", "schedule.stop_after=4"}).exit, 0);
  const std::string before = content_of(shell / "runs/c/config.json");
  const Outcome outcome = shell.train({"--set", "model.attention=ssmax", "--set", "optimizer.lr=0.5"});
  expect_error(outcome, 2, {"model.attention", "softmax", "ssmax", "optimizer.lr", "0.003", "0.5"});
  EXPECT_TRUE(
      outcome.says("keen train c.json --set 'model.attention=ssmax' --set 'optimizer.lr=0.5' --run-dir"))
      << "the command that would do it: " << outcome.err;
  EXPECT_TRUE(outcome.says("--init-from runs/c")) << outcome.err;
  for (const char* change : {"seed=8", "batch.sequences=8", "schedule.warmup_steps=3", "schedule.kind=linear",
                             "optimizer.beta2=0.9", "model.layers=3"})
    expect_error(shell.train({"--set", change}), 2,
                 {std::string(change).substr(0, std::string(change).find('='))});
  EXPECT_EQ(content_of(shell / "runs/c/config.json"), before);
  EXPECT_EQ(shell.rows("train").size(), 4u);
}

TEST(BadResume, FreeKeysMayChangeAndAreRecorded) {
  const TinyRun shell;
  ASSERT_EQ(shell.train({"--set", "schedule.stop_after=4"}).exit, 0);
  const Outcome outcome =
      shell.train({"--set", "batch.micro_sequences=4", "--set", "precision=fp64", "--set", "log.every=1",
                   "--set", "schedule.steps=14", "--set", "evaluate.every=7", "--set", "recompute=block"});
  ASSERT_EQ(outcome.exit, 0) << outcome.err;
  const Json changed = shell.rows("event", "resume").at(0)["changed"];
  for (const char* key : {"batch.micro_sequences", "precision", "log.every", "schedule.steps",
                          "evaluate.every", "recompute", "schedule.stop_after"})
    EXPECT_TRUE(changed.contains(key)) << key << " in " << changed;
  EXPECT_EQ(changed.size(), 7u) << changed;
  EXPECT_EQ(shell.rows("train").back()["step"], 14);
}

TEST(BadRunDirectory, OneWriterAtATime) {
  TinyRun shell;
  shell.configure({{"schedule", {{"steps", 100'000'000}}}});
  shell.output_to("first.out");
  shell.errors_to("first.err");
  const pid_t first = shell.start(TinyRun::train_command());
  ASSERT_TRUE(TinyRun::until([&] { return !shell.rows("train").empty(); }));
  shell.output_to("second.out");
  shell.errors_to("second.err");
  expect_error(shell.train(), 2, {"runs/c", "process " + std::to_string(first), "--run-dir"});
  kill(first, SIGTERM);
  EXPECT_EQ(shell.wait(first).exit, 75) << "the first one was not disturbed";
}

TEST(BadRunDirectory, ForeignOnesAreLeftAlone) {
  const TinyRun shell;
  std::filesystem::create_directory(shell / "mine");
  put(shell / "mine/notes.txt", "hello");
  expect_error(shell.train({"--run-dir", "mine"}), 2, {"mine", "notes.txt", "--run-dir"});
  EXPECT_EQ(content_of(shell / "mine/notes.txt"), "hello");
  expect_error(shell.train({"--run-dir", "c.json"}), 2, {"c.json", "is a file"});
}

TEST(BadFork, MismatchedShapesAreAllNamed) {
  const TinyRun shell;
  ASSERT_EQ(shell.train({"--set", "schedule.stop_after=1"}).exit, 0);
  const std::vector<std::string> fork = {"--run-dir", "fork", "--init-from", "runs/c"};
  auto wider = fork;
  wider.insert(wider.end(), {"--set", "model.mlp_width=64"});
  expect_error(shell.train(wider), 4,
               {"blocks.0.mlp.gate_up.weight", "(64, 16)", "(128, 16)", "blocks.1.mlp.down.weight"});
  EXPECT_EQ(shell.train(fork).exit, 0) << "the directory is still free";
  auto kept = fork;
  kept[1] = "kept";
  kept.insert(kept.end(), {"--set", "init.step=keep", "--set", "batch.sequences=8"});
  expect_error(shell.train(kept), 2, {"init.step", "batch.sequences", "reset"});
}

TEST(BadEval, WhatCannotBeEvaluated) {
  const TinyRun shell;
  shell.configure({{"model", {{"position", "learned"}}}});
  ASSERT_EQ(shell.train({"--set", "schedule.stop_after=1"}).exit, 0);
  expect_error(shell.keen({"eval", "runs/c", "--data", "val.bin", "--context", "17"}), 2,
               {"17", "16", "learned"});
  expect_error(shell.keen({"eval", "runs/c", "--data", "val.bin", "--context", "0"}), 2,
               {"--context", "from 1"});
  put(shell / "few.bin", shard_bytes(16, 16));
  expect_error(shell.keen({"eval", "runs/c", "--data", "few.bin"}), 3, {"few.bin", "17 tokens"});
  expect_error(shell.keen({"eval", "runs/c", "--data", "none*"}), 3, {"none*"});
  put(shell / "ids.bin", shard_bytes(400, 301));
  expect_error(shell.keen({"eval", "runs/c", "--data", "ids.bin"}), 3, {"ids.bin", "300", "offset"});
  expect_error(shell.keen({"eval", "runs/c", "--data", "val.bin", "--set", "model.width=32"}), 2,
               {"model.width"});
  expect_error(shell.keen({"eval", "runs/c", "--data", "val.bin", "--set", "model.attention=hardmax"}), 2,
               {"model.attention", "hardmax"});
  expect_error(shell.keen({"eval", "runs/c", "--data", "val.bin", "--per-position", "no/where.csv"}), 2,
               {"no/where.csv", "directory no"});
  expect_error(shell.keen({"eval", "runs/c"}), 2, {"--data"});
}

TEST(BadSample, WithoutATokenizer) {
  const TinyRun shell;
  ASSERT_EQ(shell.train({"--set", "schedule.stop_after=1"}).exit, 0);
  expect_error(shell.keen({"sample", "runs/c", "--prompt", "x"}), 3, {"data.tokenizer", "--tokenizer"});
  expect_error(shell.keen({"sample", "runs/c", "--prompt", "x", "--tokenizer", "none.model"}), 3,
               {"none.model"});
  expect_error(shell.keen({"sample", "runs/c", "--tokens", "0"}), 2, {"--tokens"});
  expect_error(shell.keen({"sample", "runs/c", "--temperature", "-1"}), 2, {"--temperature"});
}

}  // namespace
}  // namespace keen::testing
