#include <cmath>
#include <limits>

#include "tiny_run.h"

namespace keen::testing {
namespace {

constexpr const char* kConfig = R"({
  // A small model.
  "model": {"vocab_size": 32, "context": 8, "layers": 2, "width": 8, "heads": 2, "mlp_width": 16, "attention": "ssmax"},
  "data": {"train": "train.bin"}, "batch": {"sequences": 4, "micro_sequences": 2}, "schedule": {"steps": 10}
})";

// At most 80 columns in every line, counted in bytes of ASCII text.
void expect_narrow(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto columns = std::count_if(line.begin(), line.end(),
                                       [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
    EXPECT_LE(columns, 80) << line;
  }
}
// Text without its wraps: every run of white space is one space.
std::string on_one_line(const std::string& text) {
  std::istringstream words(text);
  std::string line;
  for (std::string word; words >> word;) line += (line.empty() ? "" : " ") + word;
  return line;
}
int64_t lines_in(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

// A file of float32 tensors by the published format.
std::string tensor_file(const std::map<std::string, std::vector<float>>& tensors) {
  Json header = Json::object();
  std::string data;
  for (const auto& [name, values] : tensors) {
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(values.data()), 4 * values.size());
    header[name] = {{"dtype", "F32"}, {"shape", {values.size()}}, {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + text + data;
}

TEST(Inspect, AConfigTellsItsModel) {
  const Shell shell;
  put(shell / "c.json", kConfig);
  const Outcome people = shell.keen({"inspect", "c.json"});
  EXPECT_EQ(people.exit, 0) << people.err;
  EXPECT_NE(people.out.find("2 layers x 8"), std::string::npos) << people.out;
  const Outcome program = shell.keen({"inspect", "c.json", "--json"});
  EXPECT_EQ(program.err, "");
  EXPECT_EQ(program.json()["kind"], "config");
  EXPECT_EQ(program.json()["config"]["model"]["width"], 8);
  EXPECT_GT(program.json()["parameters"], 1000);
  EXPECT_EQ(people.out.find("\"ssmax"), std::string::npos) << "no JSON: " << people.out;
  // The data is not there, and that is told; everything that does not need it is too.
  EXPECT_EQ(program.json()["ready"], false);
  EXPECT_NE(people.out.find("data.train  "), std::string::npos) << people.out;
  EXPECT_EQ(program.json()["tokens"], 10 * 4 * 8);
  expect_narrow(people.out);
}

TEST(Inspect, AConfigTellsWhatARunNeeds) {
  const TinyRun shell;
  const Json json = shell.keen({"inspect", "c.json", "--json"}).json();
  EXPECT_EQ(json["ready"], true) << json["missing"];
  EXPECT_EQ(json["data"]["train"]["tokens"], 5000);
  EXPECT_EQ(json["data"]["validation"]["windows"], 24);
  EXPECT_DOUBLE_EQ(json["flops"].get<double>(), 12.0 * 4 * 16 * json["flops_per_token"].get<double>());
  EXPECT_NEAR(json["seconds_at_full_mfu"].get<double>(),
              json["flops"].get<double>() / json["gemm_flops_per_s"].get<double>(), 1e-9);
  // The memory is what a run plans.
  const Outcome plan = shell.train({"--dry-run"});
  int64_t total = 0;
  for (const auto& [category, bytes] : json["memory_bytes"].items()) total += bytes.get<int64_t>();
  std::string commas = std::to_string(total);
  for (size_t at = commas.size(); at > 3; at -= 3) commas.insert(at - 3, 1, ',');
  EXPECT_NE(plan.out.find(commas), std::string::npos) << commas << " is not in " << plan.out;
  // The disk is what the run takes: three checkpoints, and about the log.
  ASSERT_EQ(shell.train().exit, 0);
  int64_t tensors = 0, log = static_cast<int64_t>(std::filesystem::file_size(shell / "runs/c/metrics.jsonl"));
  for (const char* file : {"model.safetensors", "optimizer.safetensors"})
    tensors += static_cast<int64_t>(std::filesystem::file_size(shell.checkpoint(12) / file));
  EXPECT_EQ(json["checkpoint_bytes"], tensors);
  EXPECT_GT(json["disk_bytes"].get<int64_t>(), 3 * tensors + log / 2);
  EXPECT_LT(json["disk_bytes"].get<int64_t>(), 3 * tensors + log * 2);

  shell.configure({{"init", {{"from", "runs/none"}}}, {"data", {{"tokenizer", "none.model"}}}});
  const Outcome lacking = shell.keen({"inspect", "c.json"});
  EXPECT_EQ(lacking.exit, 0) << "the config itself is valid";
  for (const char* what : {"init.from ", "runs/none", "data.tokenizer ", "none.model"})
    EXPECT_NE(lacking.out.find(what), std::string::npos) << lacking.out;
}

TEST(Inspect, ARunTellsWhereItStandsAndWhatItDid) {
  const TinyRun shell;
  ASSERT_EQ(shell.train({"--set", "schedule.stop_after=6"}).exit, 0);
  EXPECT_EQ(shell.keen({"inspect", "runs/c", "--json"}).json()["state"],
            "stopped where stop_after said; the schedule goes on");
  ASSERT_EQ(shell.train({"--set", "log.every=7"}).exit, 0);
  const Outcome people = shell.keen({"inspect", "runs/c"});
  EXPECT_EQ(people.exit, 0) << people.err;
  for (const char* part : {"finished", "12 of 12", "  started\n", "saved 2 times, after steps 4 and 6",
                           "ended after step 6", "resumed after step 6; changed", "log.every 5 -> 7",
                           "ended after step 12", "step_00000012", "whole", "softmax"})
    EXPECT_NE(people.out.find(part), std::string::npos) << part << " is not in: " << people.out;
  expect_narrow(people.out);
  const Json json = shell.keen({"inspect", "runs/c", "--json"}).json();
  EXPECT_EQ(json["steps"], 12);
  EXPECT_EQ(json["last"]["loss"], shell.rows("train").back()["loss"]);
  EXPECT_EQ(json["final_validation_loss"], shell.rows("validation").back()["loss"]);
  EXPECT_EQ(json["events"].size(), shell.rows("event").size());
  EXPECT_EQ(json["checkpoints"].size(), 3u);

  ASSERT_EQ(
      shell.train({"--run-dir", "runs/f", "--init-from", "runs/c", "--set", "model.attention=ssmax"}).exit,
      0);
  const Outcome fork = shell.keen({"inspect", "runs/f"});
  EXPECT_NE(on_one_line(fork.out).find("forked from runs/c/checkpoints/step_00000012, step 12"),
            std::string::npos)
      << fork.out;
  expect_narrow(fork.out);

  flip_byte(shell.checkpoint(8) / "model.safetensors", 3000);
  const Outcome damaged = shell.keen({"inspect", "runs/c", "--json"});
  expect_error(Outcome{damaged.exit, "", damaged.err}, 4, {"step_00000008", "model.safetensors"});
  EXPECT_EQ(damaged.json()["whole"], false);
  EXPECT_EQ(damaged.json()["checkpoints"][1]["whole"], false);
  EXPECT_EQ(damaged.json()["checkpoints"][2]["whole"], true);
}

TEST(Inspect, ADirectoryOfRunsIsATableOfThem) {
  const TinyRun shell;
  ASSERT_EQ(shell.train({"--run-dir", "runs/a"}).exit, 0);
  ASSERT_EQ(shell.train({"--run-dir", "runs/b", "--set", "schedule.stop_after=6"}).exit, 0);
  const Outcome people = shell.keen({"inspect", "runs"});
  EXPECT_EQ(people.exit, 0) << people.err;
  const std::string text = on_one_line(people.out);
  for (const char* part :
       {"runs: a directory of 2 runs", "a finished 12 of 12", "b stopped where stop_after said 6 of 12"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " is not in: " << text;
  expect_narrow(people.out);
  const Json json = shell.keen({"inspect", "runs", "--json"}).json();
  ASSERT_EQ(json["runs"].size(), 2u);
  EXPECT_EQ(json["runs"][1], shell.keen({"inspect", "runs/b", "--json"}).json())
      << "the same as of the run alone";

  flip_byte(shell.checkpoint(6, "runs/b") / "model.safetensors", 3000);
  const Outcome damaged = shell.keen({"inspect", "runs"});
  expect_error(Outcome{damaged.exit, "", damaged.err}, 4, {"runs/b", "step_00000006"});
  EXPECT_NE(on_one_line(damaged.out).find("1 of 2 whole"), std::string::npos) << damaged.out;
  expect_error(shell.keen({"inspect", "runs/b/checkpoints"}), 2, {"without a run inside"});
}

TEST(Inspect, ARunThatTrainsAndOneThatWasKilledAreTold) {
  TinyRun shell;
  shell.output_to("train.out");  // the child goes on writing there
  const pid_t child = shell.start(TinyRun::train_command({"--set", "schedule.steps=1000000"}));
  shell.output_to(".out");
  EXPECT_TRUE(TinyRun::until([&] { return shell.rows("train").size() > 3; }));
  EXPECT_EQ(shell.keen({"inspect", "runs/c", "--json"}).json()["state"], "training now");
  kill(child, SIGKILL);
  shell.wait(child);
  const std::string state = shell.keen({"inspect", "runs/c", "--json"}).json()["state"];
  EXPECT_NE(state.find("killed"), std::string::npos) << state;
}

TEST(Inspect, TensorsAreToldInNumbers) {
  const Shell shell;
  put(shell / "m.safetensors",
      tensor_file(
          {{"norm.weight", {3, -4, 0}}, {"blocks.0.attn.s", {0.25, 0.5}}, {"blocks.10.attn.s", {1, -1}}}));
  const Outcome people = shell.keen({"inspect", "m.safetensors", "--all"});
  EXPECT_EQ(people.exit, 0) << people.err;
  EXPECT_NE(people.out.find("norm.weight"), std::string::npos);
  EXPECT_NE(people.out.find("-1.000"), std::string::npos) << people.out;
  const Json json = shell.keen({"inspect", "m.safetensors", "--json"}).json();
  const Json& norm = json["tensors"][2];
  EXPECT_EQ(norm["name"], "norm.weight");
  EXPECT_DOUBLE_EQ(norm["norm"].get<double>(), 5);
  EXPECT_DOUBLE_EQ(norm["rms"].get<double>(), std::sqrt(25.0 / 3));
  EXPECT_EQ(norm["min"], -4.0);
  EXPECT_EQ(norm["max"], 3.0);
  EXPECT_EQ(json["s"]["10"], Json({1.0, -1.0}));

  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinity = std::numeric_limits<float>::infinity();
  put(shell / "bad.safetensors", tensor_file({{"a", {1, 2}}, {"b", {nan, 5, -infinity}}}));
  const Outcome bad = shell.keen({"inspect", "bad.safetensors", "--json"});
  expect_error(Outcome{bad.exit, "", bad.err}, 4, {"bad.safetensors", "2 of 5", "in b"});
  EXPECT_EQ(bad.json()["not_finite"], 2);
  EXPECT_EQ(bad.json()["tensors"][1]["max"], 5.0);
  EXPECT_NE(shell.keen({"inspect", "bad.safetensors"}).out.find("not finite"), std::string::npos);
}

TEST(Inspect, ADeepModelIsSummedUp) {
  const TinyRun shell;
  shell.configure({{"model", {{"layers", 48}, {"width", 48}, {"heads", 12}, {"attention", "ssmax_bias"}}},
                   {"schedule", {{"steps", 1}}},
                   {"evaluate", {{"every", 0}}}});
  ASSERT_EQ(shell.train().exit, 0);
  const std::string path = "runs/c/checkpoints/step_00000001";
  const Outcome brief = shell.keen({"inspect", path}), all = shell.keen({"inspect", path, "--all"});
  EXPECT_EQ(brief.exit, 0) << brief.err;
  EXPECT_LT(lines_in(brief.out), 140) << brief.out;
  EXPECT_GT(lines_in(all.out), 500);
  expect_narrow(brief.out);
  expect_narrow(all.out);
  EXPECT_NE(brief.out.find("blocks.*.attn.qkv.weight"), std::string::npos);
  EXPECT_NE(all.out.find("blocks.47.attn.qkv.weight"), std::string::npos);
  const Json json = shell.keen({"inspect", path, "--json"}).json();
  EXPECT_EQ(json["tensors"].size(), static_cast<size_t>(48 * 8 + 3));
  EXPECT_EQ(json["b"].size(), 48u);
  EXPECT_EQ(json["optimizer"]["not_finite"], 0);
}

TEST(Inspect, DataIsShownAsText) {
  const Shell shell;
  std::string text;
  for (int i = 0; i < 300; ++i) text += "Water runs down the hill.\nThe hill\tis green.\n\n";
  put(shell / "t.txt", text);
  ASSERT_EQ(shell.keen({"tokenize", "vocab", "t.txt", "--size", "300", "--out", "t.model"}).exit, 0);
  ASSERT_EQ(shell
                .keen({"tokenize", "encode", "t.txt", "--documents", "blank-line", "--model", "t.model",
                       "--out", "d", "--validation", "0.1", "--shard-tokens", "300"})
                .exit,
            0);
  const Outcome shard = shell.keen({"inspect", "d/val_000000.bin"});
  EXPECT_NE(shard.out.find("\"Water runs down the hill.\\nThe hill\\tis green."), std::string::npos)
      << shard.out;
  EXPECT_NE(shard.out.find("as dataset.json records"), std::string::npos) << shard.out;
  int64_t documents = 0;
  for (const char* part : {"d/val_000000.bin", "d/val_000001.bin"})
    documents += shell.keen({"inspect", part, "--json"}).json()["documents"].get<int64_t>();
  EXPECT_EQ(documents, 30);
  const Outcome dataset = shell.keen({"inspect", "d"});
  EXPECT_NE(dataset.out.find("\"Water runs"), std::string::npos) << dataset.out;
  EXPECT_NE(dataset.out.find("(--all shows them)"), std::string::npos) << dataset.out;
  EXPECT_EQ(shell.keen({"inspect", "d", "--all"}).out.find("(--all shows them)"), std::string::npos);
  const Outcome tokenizer = shell.keen({"inspect", "d/tokenizer.model"});
  EXPECT_NE(tokenizer.out.find("\" hill\""), std::string::npos) << tokenizer.out;
  for (const Outcome* outcome : {&shard, &dataset, &tokenizer}) expect_narrow(outcome->out);

  // Another shard under its name is whole by itself, and not what was encoded.
  put(shell / "d/val_000000.bin", shard_bytes(100, 50));
  expect_error(Outcome{shell.keen({"inspect", "d/val_000000.bin"}).exit, "",
                       shell.keen({"inspect", "d/val_000000.bin"}).err},
               3, {"val_000000.bin", "dataset.json records"});
  // Without its tokenizer the tokens are shown.
  std::filesystem::remove(shell / "d/tokenizer.model");
  EXPECT_NE(shell.keen({"inspect", "d/train_000000.bin"}).out.find("begins"), std::string::npos);
}

TEST(Inspect, EveryErrorOfAConfigIsListedAtOnce) {
  const Shell shell;
  put(shell / "c.json",
      R"({"model": {"widht": 8, "layers": -1, "heads": "two"}, "data": {"train": "x"}, "sede": 1})");
  expect_error(
      shell.keen({"inspect", "c.json"}), 2,
      {"c.json", "model.widht", "model.width", "model.layers", "-1", "model.heads", "two", "sede", "seed"});
  put(shell / "c.json", "{\"model\": ");
  expect_error(shell.keen({"inspect", "c.json"}), 2, {"c.json:1"});
}

TEST(Inspect, AWholeShard) {
  const Shell shell;
  put(shell / "a.bin", shard_bytes(1000, 50));
  const auto json = shell.keen({"inspect", "a.bin", "--json"}).json();
  EXPECT_EQ(json["tokens"], 1000);
  EXPECT_EQ(json["max_id"], 49);
  EXPECT_EQ(json["whole"], true);
}

TEST(Inspect, DamagedShardsExitWithThreeAndNameTheFile) {
  const Shell shell;
  const std::string good = shard_bytes(1000, 50);
  std::string magic = good;
  magic[0] = 7;
  for (const std::string& bad :
       {magic, good.substr(0, good.size() - 1), good + "x", good.substr(0, 500), std::string()}) {
    put(shell / "bad.bin", bad);
    const Outcome outcome = shell.keen({"inspect", "bad.bin", "--json"});
    expect_error(outcome, 3, {"bad.bin"});
    EXPECT_EQ(outcome.json()["whole"], false);
  }
}

TEST(Inspect, WhatIsNothingItKnows) {
  const Shell shell;
  put(shell / "notes.txt", "hello");
  std::filesystem::create_directory(shell / "empty");
  expect_error(shell.keen({"inspect", "notes.txt"}), 2, {"notes.txt"});
  expect_error(shell.keen({"inspect", "empty"}), 2, {"empty", "manifest.json"});
  expect_error(shell.keen({"inspect", "missing"}), 2, {"missing", "no such file"});
}

TEST(Inspect, ACheckpointWithoutManifestIsDamaged) {
  const Shell shell;
  std::filesystem::create_directory(shell / "step_00000010");
  expect_error(shell.keen({"inspect", "step_00000010"}), 4, {"step_00000010", "manifest.json"});
  put(shell / "step_00000010" / "manifest.json", "{}");
  expect_error(shell.keen({"inspect", "step_00000010/"}), 4, {"manifest.json"});
}

TEST(Inspect, DamagedTensorsExitWithFour) {
  const Shell shell;
  put(shell / "m.safetensors", "short");
  expect_error(shell.keen({"inspect", "m.safetensors"}), 4, {"m.safetensors"});
}

}  // namespace
}  // namespace keen::testing
