#include "program.h"

namespace keen::testing {
namespace {

constexpr const char* kConfig = R"({
  // A small model.
  "model": {"vocab_size": 32, "context": 8, "layers": 2, "width": 8, "heads": 2, "mlp_width": 16, "attention": "ssmax"},
  "data": {"train": "train.bin"}, "batch": {"sequences": 4, "micro_sequences": 2}, "schedule": {"steps": 10}
})";

TEST(Inspect, AConfigTellsItsModel) {
  const Shell shell;
  put(shell / "c.json", kConfig);
  const Outcome people = shell.keen({"inspect", "c.json"});
  EXPECT_EQ(people.exit, 0) << people.err;
  EXPECT_NE(people.out.find("2 layers, width 8"), std::string::npos) << people.out;
  const Outcome program = shell.keen({"inspect", "c.json", "--json"});
  EXPECT_EQ(program.err, "");
  EXPECT_EQ(program.json()["kind"], "config");
  EXPECT_EQ(program.json()["config"]["model"]["width"], 8);
  EXPECT_GT(program.json()["parameters"], 1000);
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
