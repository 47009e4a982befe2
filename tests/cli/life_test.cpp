// The whole life of a model, each command fed with what the one before it wrote.
#include "core/console.h"
#include "tiny_run.h"

namespace keen::testing {
namespace {

std::string corpus() {
  constexpr const char* kWords[] = {"the", "river", "flows", "over", "stone",
                                    "and", "light", "falls", "on",   "water"};
  std::mt19937 random(1);
  std::string text;
  for (int document = 0; document < 200; ++document) {
    for (int word = 0; word < 30; ++word) text += std::string(kWords[random() % 10]) + " ";
    text += "\n\n";
  }
  return text;
}

// The columns of a CSV file, by the names in its first line.
std::map<std::string, std::vector<std::string>> csv(const std::string& text, std::string* header) {
  std::istringstream lines(text);
  std::getline(lines, *header);
  std::vector<std::string> names;
  std::istringstream cells(*header);
  for (std::string cell; std::getline(cells, cell, ',');) names.push_back(cell);
  std::map<std::string, std::vector<std::string>> columns;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream row(line + ",");
    for (const std::string& name : names) {
      std::string cell;
      std::getline(row, cell, ',');
      columns[name].push_back(cell);
    }
  }
  return columns;
}

double mean(const std::vector<std::string>& cells) {
  double sum = 0;
  for (const std::string& cell : cells) sum += std::stod(cell);
  return sum / static_cast<double>(cells.size());
}

TEST(Life, FromTextToText) {
  const TinyRun shell;
  put(shell / "text.txt", corpus());
  ASSERT_EQ(shell
                .keen({"tokenize", "vocab", "text.txt", "--documents", "blank-line", "--size", "280", "--out",
                       "v.model"})
                .exit,
            0);
  const Outcome encoded = shell.keen({"tokenize", "encode", "text.txt", "--documents", "blank-line",
                                      "--model", "v.model", "--out", "data", "--validation", "0.2"});
  ASSERT_EQ(encoded.exit, 0) << encoded.err;
  EXPECT_EQ(shell.names("data"), (std::vector<std::string>{"dataset.json", "tokenizer.model",
                                                           "train_000000.bin", "val_000000.bin"}));
  shell.configure({{"model", {{"vocab_size", 280}}},
                   {"schedule", {{"steps", 60}}},
                   {"data",
                    {{"train", "data/train_*.bin"},
                     {"validation", "data/val_*.bin"},
                     {"tokenizer", "data/tokenizer.model"}}}});
  const Outcome softmax = shell.train({"--run-dir", "a"});
  ASSERT_EQ(softmax.exit, 0) << softmax.err;
  const Outcome ssmax = shell.train({"--run-dir", "b", "--set", "model.attention=ssmax"});
  ASSERT_EQ(ssmax.exit, 0) << ssmax.err;

  const auto first = shell.rows("train", "", "a").front()["loss"].get<double>();
  const auto last = shell.rows("validation", "", "a").back()["loss"].get<double>();
  EXPECT_NEAR(first, std::log(280), 0.2) << "a new model knows nothing";
  EXPECT_LT(last, first - 1) << "it has learned something";

  const auto sample = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"sample", "a", "--prompt", "the river"};
    if (more.empty() || more[0] != "--tokens") more.insert(more.end(), {"--tokens", "12"});
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = shell.keen(arguments);
    EXPECT_EQ(outcome.exit, 0) << outcome.err;
    EXPECT_TRUE(outcome.out.starts_with("the river")) << outcome.out;
    EXPECT_TRUE(outcome.out.ends_with("\n"));
    return outcome.out;
  };
  EXPECT_EQ(sample({"--seed", "1"}), sample({"--seed", "1"}));
  EXPECT_NE(sample({"--seed", "1"}), sample({"--seed", "2"}));
  EXPECT_EQ(sample({"--temperature", "0", "--seed", "1"}), sample({"--temperature", "0", "--seed", "2"}));
  EXPECT_EQ(sample({"--top-k", "1", "--seed", "3"}), sample({"--temperature", "0"}))
      << "one choice is no choice";
  EXPECT_LT(sample({"--tokens", "1"}).size(), sample({}).size());

  const Outcome compared = shell.keen({"compare", "a", "b", "--json"});
  ASSERT_EQ(compared.exit, 0) << compared.err;
  const Json json = compared.json();
  EXPECT_NEAR(json["runs"][0]["final_validation_loss"].get<double>(), last, 1e-6);
  EXPECT_EQ(json["config_differences"].size(), 1u) << json["config_differences"];
  EXPECT_EQ(json["config_differences"]["model.attention"], Json::parse(R"(["softmax", "ssmax"])"));
  EXPECT_EQ(json["common_tokens"], 60 * 64);
}

TEST(Life, StoppingAndGoingOnChangesNothing) {
  const TinyRun shell;
  shell.configure({{"model", {{"attention", "ssmax"}}}, {"batch", {{"micro_sequences", 1}}}});
  ASSERT_EQ(shell.train({"--run-dir", "whole"}).exit, 0);
  for (const char* step : {"3", "4", "9"}) {
    const Outcome outcome =
        shell.train({"--run-dir", "parts", "--set", std::string("schedule.stop_after=") + step});
    ASSERT_EQ(outcome.exit, 0) << outcome.err;
    EXPECT_TRUE(std::filesystem::exists(shell.checkpoint(std::stoi(step), "parts"))) << step;
    EXPECT_EQ(shell.rows("train", "", "parts").back()["step"], std::stoi(step));
  }
  const Outcome outcome = shell.train({"--run-dir", "parts"});
  ASSERT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("after step 9"), std::string::npos) << outcome.out;
  expect_same_run(shell, "whole", "parts", 12);
  EXPECT_EQ(shell.rows("event", "resume", "parts").size(), 3u);

  const Outcome again = shell.train({"--run-dir", "parts"});
  EXPECT_EQ(again.exit, 0) << "a finished run is no error";
  EXPECT_NE(again.out.find("finished"), std::string::npos) << again.out;
  expect_same_run(shell, "whole", "parts", 12);
}

TEST(Life, AForkTellsWhatItLoadedAndGoesOn) {
  const TinyRun shell;
  ASSERT_EQ(shell.train().exit, 0);
  const std::vector<std::string> fork = {"--run-dir", "fork",  "--init-from",
                                         "runs/c",    "--set", "model.attention=ssmax"};
  std::vector<std::string> short_fork = fork;
  short_fork.insert(short_fork.end(), {"--set", "schedule.stop_after=6"});
  const Outcome outcome = shell.train(short_fork);
  ASSERT_EQ(outcome.exit, 0) << outcome.err;
  for (const char* words :
       {"blocks.0.attn.s", "blocks.1.attn.s", "new", "loaded", "0.52", "before the swap", "step 12"})
    EXPECT_NE(outcome.out.find(words), std::string::npos) << "no \"" << words << "\" in: " << outcome.out;
  EXPECT_TRUE(std::filesystem::exists(shell.checkpoint(0, "fork"))) << "the state at the start of the fork";
  EXPECT_EQ(shell.rows("train", "", "fork").front()["step"], 1) << "a fork's metrics hold its own steps only";

  const Json event = shell.rows("event", "fork", "fork").at(0);
  EXPECT_EQ(event["parent_step"], 12);
  EXPECT_NE(event["parent"].get<std::string>().find("step_00000012"), std::string::npos);
  const Json manifest = shell.keen({"inspect", "runs/c/checkpoints/step_00000012", "--json"}).json();
  EXPECT_EQ(event["parent_hash"], manifest["hash"]);
  EXPECT_GT(event["loss_before"].get<double>(), 0);
  EXPECT_NE(event["loss_before"], event["loss_after"])
      << "SSMax with s ln n near 1 is close to softmax, not the same";
  EXPECT_NEAR(event["loss_before"].get<double>(), event["loss_after"].get<double>(), 0.1);

  const Outcome resumed = shell.train(fork);
  ASSERT_EQ(resumed.exit, 0) << resumed.err;
  EXPECT_EQ(shell.rows("event", "fork", "fork").size(), 1u) << "the same command continues the fork";
  EXPECT_EQ(shell.rows("event", "resume", "fork").at(0)["step"], 6);
  EXPECT_EQ(shell.rows("train", "", "fork").back()["step"], 12);

  // Variant f of the paper: schedule and data order go on where the parent stood.
  const Outcome kept = shell.train(
      {"--run-dir", "kept", "--init-from", "runs/c/checkpoints/step_00000004", "--set", "init.step=keep"});
  ASSERT_EQ(kept.exit, 0) << kept.err;
  EXPECT_EQ(shell.rows("train", "", "kept").front()["step"], 5);
  EXPECT_EQ(content_of(shell.checkpoint(12, "kept") / "model.safetensors"),
            content_of(shell.checkpoint(12) / "model.safetensors"))
      << "a fork that changes nothing ends where its parent does";
}

TEST(Eval, OneDocumentForPrograms) {
  const TinyRun shell;
  ASSERT_EQ(shell.train().exit, 0);
  const Outcome outcome =
      shell.keen({"eval", "runs/c", "--data", "val.bin", "--json", "--per-position", "p.csv"});
  ASSERT_EQ(outcome.exit, 0) << outcome.err;
  const Json json = outcome.json();
  EXPECT_EQ(json["tokens"], 399 / 16 * 16) << "a window is context + 1 tokens, the stride is context";
  EXPECT_EQ(json["step"], 12);
  const double loss = json["loss"];
  EXPECT_NEAR(json["perplexity"].get<double>(), std::exp(loss), 1e-6);

  std::string header;
  const auto columns = csv(content_of(shell / "p.csv"), &header);
  EXPECT_EQ(header, "position,loss,stderr,windows");
  ASSERT_EQ(columns.at("position").size(), 16u);
  EXPECT_EQ(columns.at("position").front(), "1");
  EXPECT_EQ(columns.at("position").back(), "16");
  EXPECT_EQ(columns.at("windows").front(), "24");
  EXPECT_NEAR(mean(columns.at("loss")), loss, 1e-6);
  for (const std::string& error : columns.at("stderr")) EXPECT_GT(std::stod(error), 0);

  const Outcome grouped = shell.keen({"eval", "runs/c", "--data", "val.bin", "--json", "--batches", "2"});
  EXPECT_EQ(grouped.json()["tokens"], 2 * 2 * 16) << "two groups of micro_sequences windows";
  EXPECT_EQ(
      shell.keen({"eval", "runs/c", "--data", "val.bin", "--json", "--batches", "1000"}).json()["tokens"],
      24 * 16)
      << "fewer windows than asked is no error";
  const Json validation = shell.rows("validation").back();
  EXPECT_NEAR(grouped.json()["loss"].get<double>(), validation["loss"].get<double>(), 1e-5)
      << "training evaluates the same windows";
}

TEST(Eval, BeyondTheTrainingContextAndWithSsmaxSwappedIn) {
  const TinyRun shell;
  ASSERT_EQ(shell.train().exit, 0);
  const auto loss = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"eval", "runs/c", "--data", "val.bin", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = shell.keen(arguments);
    EXPECT_EQ(outcome.exit, 0) << outcome.err;
    return outcome.json()["loss"].get<double>();
  };
  const double trained = loss({});
  EXPECT_NE(loss({"--rope-theta", "50"}), trained);
  EXPECT_EQ(loss({"--rope-theta", "10000"}), trained) << "the one it was trained with";
  EXPECT_NE(loss({"--set", "model.attention=ssmax"}), trained);
  EXPECT_EQ(loss({"--set", "model.attention=softmax"}), trained);
  EXPECT_NEAR(loss({"--precision", "fp64"}), trained, 1e-5);
  EXPECT_NEAR(loss({"--precision", "bf16"}), trained, 0.05);
  EXPECT_NEAR(loss({"--set", "attention_path=reference"}), trained, 1e-5);

  const Outcome wide = shell.keen(
      {"eval", "runs/c", "--data", "val.bin", "--json", "--context", "399", "--per-position", "p.csv"});
  ASSERT_EQ(wide.exit, 0) << wide.err;
  EXPECT_EQ(wide.json()["tokens"], 399);
  EXPECT_EQ(wide.json()["context"], 399);
  std::string header;
  const auto columns = csv(content_of(shell / "p.csv"), &header);
  ASSERT_EQ(columns.at("position").size(), 399u);
  for (const std::string& error : columns.at("stderr")) EXPECT_EQ(error, "") << "one window has no spread";
}

TEST(Eval, SeveralCheckpointsGiveOneFile) {
  const TinyRun shell;
  ASSERT_EQ(shell.train().exit, 0);
  const std::string first = "runs/c/checkpoints/step_00000004";
  const Outcome outcome =
      shell.keen({"eval", first, "runs/c", "--data", "val.bin", "--json", "--per-position", "p.csv"});
  ASSERT_EQ(outcome.exit, 0) << outcome.err;
  const Json json = outcome.json();
  ASSERT_EQ(json.size(), 2u);
  EXPECT_EQ(json[0]["step"], 4);
  EXPECT_EQ(json[1]["step"], 12);
  EXPECT_GT(json[0]["loss"], json[1]["loss"]);
  std::string header;
  const auto columns = csv(content_of(shell / "p.csv"), &header);
  EXPECT_EQ(header, "checkpoint,position,loss,stderr,windows");
  ASSERT_EQ(columns.at("checkpoint").size(), 32u);
  EXPECT_EQ(columns.at("checkpoint")[0], first);
  EXPECT_EQ(columns.at("checkpoint")[31], "runs/c");
  const Outcome people = shell.keen({"eval", first, "runs/c", "--data", "val.bin"});
  EXPECT_NE(people.out.find("perplexity"), std::string::npos) << people.out;
}

// A second run, of micro-batches of 4 instead of 2.
TEST(Eval, SeveralCheckpointsReadTheSameWindows) {
  const TinyRun shell;
  ASSERT_EQ(shell.train({"--set", "schedule.stop_after=1"}).exit, 0);
  ASSERT_EQ(
      shell.train({"--run-dir", "wide", "--set", "schedule.stop_after=1", "--set", "batch.micro_sequences=4"})
          .exit,
      0);
  const auto windows = [&](const std::string& a, const std::string& b, std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"eval", a, b, "--data", "val.bin", "--batches", "2", "--json"});
    const Outcome outcome = shell.keen(more);
    EXPECT_EQ(outcome.exit, 0) << outcome.err;
    const Json json = outcome.json();
    return std::pair(json[0]["windows"].get<int>(), json[1]["windows"].get<int>());
  };
  EXPECT_EQ(windows("runs/c", "wide"), (std::pair(4, 4)));
  EXPECT_EQ(windows("wide", "runs/c"), (std::pair(8, 8)));
  EXPECT_EQ(windows("wide", "runs/c", {"--set", "batch.micro_sequences=1"}), (std::pair(2, 2)));
}

// The second cannot read that far, the third has too few ids: both are told before the first is evaluated.
TEST(Eval, ChecksAllCheckpointsFirstAndEachOnce) {
  const TinyRun shell;
  put(shell / "few.bin", shard_bytes(400, 36));
  ASSERT_EQ(shell.train().exit, 0);
  for (const auto& [run, change] :
       {std::pair{"learned", "model.position=learned"}, {"few", "model.vocab_size=36"}})
    ASSERT_EQ(shell
                  .train({"--run-dir", run, "--set", change, "--set", "data.train=few.bin", "--set",
                          "data.validation=null", "--set", "schedule.stop_after=1"})
                  .exit,
              0)
        << run;
  const Outcome learned = shell.keen({"eval", "runs/c", "learned", "--data", "val.bin", "--context", "20"});
  expect_error(learned, 2, {"context 20", "learned has learned positions for 16"});
  EXPECT_FALSE(learned.says("evaluating")) << learned.err;
  const Outcome few = shell.keen({"eval", "runs/c", "few", "--data", "val.bin"});
  expect_error(few, 3, {"val.bin", "36"});
  EXPECT_FALSE(few.says("evaluating")) << few.err;

  flip_byte(shell.checkpoint(12) / "model.safetensors", 5000);
  const Outcome outcome = shell.keen({"eval", "runs/c", "--data", "val.bin"});
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  const size_t first = outcome.err.find("warning");
  EXPECT_NE(first, std::string::npos) << outcome.err;
  EXPECT_EQ(outcome.err.find("warning", first + 1), std::string::npos)
      << "what is damaged is found once: " << outcome.err;
}

TEST(Inspect, WhatTrainingWrote) {
  const TinyRun shell;
  shell.configure({{"model", {{"attention", "ssmax"}}}});
  ASSERT_EQ(shell.train().exit, 0);
  const auto kind = [&](const std::string& path) {
    const Outcome people = shell.keen({"inspect", path});
    EXPECT_EQ(people.exit, 0) << people.err;
    EXPECT_FALSE(people.out.empty());
    const Outcome program = shell.keen({"inspect", path, "--json"});
    EXPECT_EQ(program.exit, 0) << program.err;
    EXPECT_EQ(program.json()["whole"], true);
    return program.json();
  };
  EXPECT_EQ(kind("runs/c/config.json")["kind"], "config");
  const Json run = kind("runs/c");
  EXPECT_EQ(run["kind"], "run");
  EXPECT_EQ(run["steps"], 12);
  EXPECT_EQ(run["checkpoints"].size(), 3u);
  const Json checkpoint = kind("runs/c/checkpoints/step_00000008");
  EXPECT_EQ(checkpoint["kind"], "checkpoint");
  EXPECT_EQ(checkpoint["step"], 8);
  EXPECT_EQ(checkpoint["state"]["tokens"], 8 * 64);
  const std::vector<double> logged = shell.rows("attention").at(1)["layers"][0]["s"];
  const std::vector<double> stored = checkpoint["s"]["0"];
  ASSERT_EQ(stored.size(), 2u);
  EXPECT_NEAR(stored[0], logged[0], 1e-7);
  EXPECT_EQ(kind("runs/c/checkpoints/step_00000008/model.safetensors")["kind"], "tensors");

  flip_byte(shell.checkpoint(8) / "optimizer.safetensors", 20'000);
  expect_error(shell.keen({"inspect", "runs/c/checkpoints/step_00000008"}), 4,
               {"step_00000008", "optimizer.safetensors"});
  const Outcome damaged = shell.keen({"inspect", "runs/c", "--json"});
  expect_error(damaged, 4, {"step_00000008", "optimizer.safetensors"});
  EXPECT_EQ(damaged.json()["whole"], false);
  EXPECT_EQ(damaged.json()["checkpoints"][0]["whole"], true);
  EXPECT_EQ(damaged.json()["checkpoints"][1]["whole"], false);
}

}  // namespace
}  // namespace keen::testing
