// What a run leaves on disk: names, fields, tensors.

#include "tiny_run.h"

namespace keen::testing {
namespace {

using Names = std::vector<std::string>;
using Shapes = std::map<std::string, std::vector<int64_t>>;

Names keys(const Json& object) {
  Names names;
  for (const auto& [key, value] : object.items()) names.push_back(key);
  std::sort(names.begin(), names.end());
  return names;
}

TEST(RunFiles, TheDirectoryHoldsWhatTheContractNames) {
  const TinyRun shell;
  ASSERT_EQ(shell.train().exit, 0);
  EXPECT_EQ(shell.names("runs/c"),
            (Names{"checkpoints", "config.json", "environment.json", "metrics.jsonl"}));
  EXPECT_EQ(shell.names("runs/c/checkpoints"), (Names{"step_00000004", "step_00000008", "step_00000012"}));
  const Names files = {"config.json", "manifest.json", "model.safetensors", "optimizer.safetensors",
                       "state.json"};
  EXPECT_EQ(shell.names("runs/c/checkpoints/step_00000012"), files);
  EXPECT_EQ(content_of(shell / "runs/c/config.json"), content_of(shell.checkpoint(12) / "config.json"));

  const Json environment = Json::parse(content_of(shell / "runs/c/environment.json"));
  for (const char* key : {"keen", "device", "precision", "ranks", "onednn", "compiler", "data"})
    EXPECT_TRUE(environment.contains(key)) << key;
  EXPECT_EQ(environment["ranks"], 1);
  EXPECT_EQ(environment["data"]["train"]["tokens"], 5000);
  const Json state = Json::parse(content_of(shell.checkpoint(12) / "state.json"));
  EXPECT_EQ(environment["data"]["train"]["fingerprint"], state["data_fingerprint"]);

  const Json manifest = Json::parse(content_of(shell.checkpoint(12) / "manifest.json"));
  const std::string text = manifest.dump();
  for (const std::string& file : files) {
    if (file == "manifest.json") continue;
    EXPECT_NE(text.find(file), std::string::npos) << file;
  }
}

TEST(RunFiles, OldCheckpointsArePruned) {
  const TinyRun shell;
  shell.configure(
      {{"schedule", {{"steps", 10}}}, {"checkpoint", {{"every", 2}, {"keep", 2}, {"keep_steps", {3, 4}}}}});
  ASSERT_EQ(shell.train().exit, 0);
  EXPECT_EQ(shell.names("runs/c/checkpoints"),
            (Names{"step_00000003", "step_00000004", "step_00000008", "step_00000010"}));
}

TEST(RunFiles, EveryRowHasExactlyItsFields) {
  const TinyRun shell;
  shell.configure({{"model", {{"attention", {"softmax", "ssmax_bias"}}}}});
  ASSERT_EQ(shell.train().exit, 0);
  const auto train = shell.rows("train");
  ASSERT_EQ(train.size(), 12u);
  for (size_t i = 0; i < train.size(); ++i) {
    EXPECT_EQ(keys(train[i]), (Names{"elapsed_s", "grad_norm", "kind", "loss", "lr", "mfu", "step", "step_ms",
                                     "tokens", "tokens_per_s"}));
    EXPECT_EQ(train[i]["step"], i + 1) << "the first row is of step 1";
    EXPECT_EQ(train[i]["tokens"], 64 * (i + 1));
  }
  EXPECT_NEAR(train[0]["lr"].get<double>(), 0.0015, 1e-9) << "half of the warm-up";
  EXPECT_NEAR(train[11]["lr"].get<double>(), 0.0003, 1e-9) << "final_lr_fraction is reached";
  const auto validation = shell.rows("validation");
  ASSERT_EQ(validation.size(), 3u);
  for (const Json& row : validation) {
    EXPECT_EQ(keys(row), (Names{"kind", "loss", "perplexity", "step", "tokens"}));
    EXPECT_NEAR(row["perplexity"].get<double>(), std::exp(row["loss"].get<double>()),
                1e-5 * row["perplexity"].get<double>());
  }
  const auto attention = shell.rows("attention");
  ASSERT_EQ(attention.size(), 3u);
  for (const Json& row : attention) {
    EXPECT_EQ(keys(row), (Names{"kind", "layers", "step"}));
    ASSERT_EQ(row["layers"].size(), 1u) << "softmax layers have no s";
    EXPECT_EQ(row["layers"][0]["layer"], 1);
    EXPECT_EQ(row["layers"][0]["s"].size(), 2u) << "one a head";
    EXPECT_EQ(row["layers"][0]["b"].size(), 2u);
  }
  const auto events = shell.rows("event");
  Names order;
  for (const Json& row : events) order.push_back(row["event"].get<std::string>() + " " + row["step"].dump());
  EXPECT_EQ(order, (Names{"start 0", "save 4", "save 8", "save 12", "stop 12"}));
}

TEST(RunFiles, FloatsHaveNineDigits) {
  const TinyRun shell;
  ASSERT_EQ(shell.train().exit, 0);
  const std::string text = content_of(shell / "runs/c/metrics.jsonl");
  constexpr std::string_view kOfNumbers = "0123456789.e-+";
  int seen = 0, full = 0;
  for (size_t begin = 0, end = 0; (begin = text.find_first_of(kOfNumbers, end)) != text.npos;) {
    end = std::min(text.find_first_not_of(kOfNumbers, begin), text.size());
    const std::string number = text.substr(begin, end - begin);
    if (number.find_first_of("0123456789") == number.npos || number.find('.') == number.npos) continue;
    ++seen;
    std::string digits = number.substr(0, number.find('e'));
    std::erase_if(digits, [](char c) { return c == '.' || c == '-' || c == '+'; });
    digits.erase(0, digits.find_first_not_of('0'));
    EXPECT_LE(digits.size(), 9u) << number;
    full += digits.size() == 9 ? 1 : 0;
  }
  EXPECT_GT(seen, 50);
  EXPECT_GT(full, seen / 2) << "the digits are there";
  EXPECT_EQ(text.find("nan"), std::string::npos);
}

TEST(RunFiles, TheEffectiveConfigReadsBack) {
  const TinyRun shell;
  shell.configure(
      {{"model",
        {{"attention",
          Json::parse(
              R"([{"kind": "ssmax", "s": 0.5, "layers": "1"}, {"kind": "softmax", "layers": "0"}])")}}}});
  ASSERT_EQ(shell.train({"--set", "optimizer.lr=1e-4", "--set", "schedule.kind=wsd"}).exit, 0);
  const std::string effective = content_of(shell / "runs/c/config.json");
  EXPECT_EQ(shell.keen({"train", "runs/c/config.json", "--print-config"}).out, effective);
  EXPECT_EQ(Json::parse(effective)["optimizer"]["lr"], 1e-4);
  const Outcome again = shell.keen({"train", "runs/c/config.json", "--run-dir", "again"});
  ASSERT_EQ(again.exit, 0) << again.err;
  EXPECT_EQ(content_of(shell / "again/config.json"), effective);
  expect_same_run(shell, "runs/c", "again", 12);
}

// The tensors of two layers, V = 300, T = 16, C = 16, F = 32, and what their values start as.
TEST(RunFiles, TensorsOfTheLlamaFamily) {
  const TinyRun shell;
  shell.configure({{"model", {{"heads", 4}, {"kv_heads", 2}, {"qk_norm", true}, {"attention", Json::parse(R"([
                      {"kind": "ssmax_fixed", "layers": "0"}, {"kind": "ssmax", "s": 0.4, "b": 0.25, "layers": "1"}])")}}}});
  ASSERT_EQ(shell.train({"--set", "schedule.stop_after=1"}).exit, 0);
  Shapes expected = {{"embed.tokens.weight", {300, 16}}, {"norm.weight", {16}}, {"head.weight", {300, 16}}};
  for (const std::string block : {"blocks.0.", "blocks.1."}) {
    expected[block + "norm1.weight"] = expected[block + "norm2.weight"] = {16};
    expected[block + "attn.qkv.weight"] = {(4 + 2 * 2) * 4, 16};
    expected[block + "attn.q_norm.weight"] = expected[block + "attn.k_norm.weight"] = {4};
    expected[block + "attn.s"] = {4};
    expected[block + "attn.proj.weight"] = {16, 16};
    expected[block + "mlp.gate_up.weight"] = {64, 16};
    expected[block + "mlp.down.weight"] = {16, 32};
  }
  expected["blocks.1.attn.b"] = {4};
  const TensorFile model(shell.checkpoint(1) / "model.safetensors");
  EXPECT_EQ(model.shapes, expected);
  EXPECT_EQ(model.values.at("blocks.0.attn.s"), std::vector<float>(4, 1))
      << "stored though it is not learned";
  EXPECT_EQ(model.values.at("blocks.1.attn.b"), std::vector<float>(4, 0.25))
      << "stored, since it is not zero";
  for (const float s : model.values.at("blocks.1.attn.s")) EXPECT_NEAR(s, 0.4, 0.01);
  EXPECT_FALSE(model.header.contains("__metadata__"));

  // m and v of everything that is learned, and of nothing else.
  const TensorFile optimizer(shell.checkpoint(1) / "optimizer.safetensors");
  Shapes averages;
  for (const auto& [name, shape] : expected)
    if (name != "blocks.0.attn.s" && name != "blocks.1.attn.b")
      averages["m." + name] = averages["v." + name] = shape;
  EXPECT_EQ(optimizer.shapes, averages);
}

TEST(RunFiles, TensorsOfTheGptTwoFamily) {
  const TinyRun shell;
  shell.configure({{"model",
                    {{"norm", "layernorm"},
                     {"mlp", "gelu"},
                     {"position", "learned"},
                     {"bias", true},
                     {"tie_embeddings", true},
                     {"attention", {"softmax", "ssmax_bias"}}}}});
  ASSERT_EQ(shell.train({"--set", "schedule.stop_after=1"}).exit, 0);
  Shapes expected = {{"embed.tokens.weight", {300, 16}},
                     {"embed.positions.weight", {16, 16}},
                     {"norm.weight", {16}},
                     {"norm.bias", {16}}};
  for (const std::string block : {"blocks.0.", "blocks.1."}) {
    for (const char* norm : {"norm1", "norm2"})
      expected[block + norm + ".weight"] = expected[block + norm + ".bias"] = {16};
    expected[block + "attn.qkv.weight"] = {48, 16};
    expected[block + "attn.qkv.bias"] = {48};
    expected[block + "attn.proj.weight"] = {16, 16};
    expected[block + "attn.proj.bias"] = {16};
    expected[block + "mlp.up.weight"] = {32, 16};
    expected[block + "mlp.up.bias"] = {32};
    expected[block + "mlp.down.weight"] = {16, 32};
    expected[block + "mlp.down.bias"] = {16};
  }
  expected["blocks.1.attn.s"] = expected["blocks.1.attn.b"] = {2};
  EXPECT_EQ(TensorFile(shell.checkpoint(1) / "model.safetensors").shapes, expected);
}

TEST(RunFiles, TensorsLieSortedByName) {
  const TinyRun shell;
  ASSERT_EQ(shell.train({"--set", "schedule.stop_after=1"}).exit, 0);
  for (const char* file : {"model.safetensors", "optimizer.safetensors"}) {
    const TensorFile tensors(shell.checkpoint(1) / file);
    size_t end = 0;
    for (const auto& [name, shape] : tensors.shapes) {  // a map is sorted
      EXPECT_EQ(tensors.header[name]["data_offsets"][0], end) << name;
      end = tensors.header[name]["data_offsets"][1];
    }
  }
}

}  // namespace
}  // namespace keen::testing
