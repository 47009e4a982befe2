#include "train/run_config.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "core/philox.h"
#include "io/fields.h"
#include "io/file.h"

namespace keen {
namespace {

const std::filesystem::path kConfigs = std::filesystem::path(KEEN_FIXTURES) / ".." / ".." / "configs";
constexpr const char* kLeast = R"({"data": {"train": "data/train_*.bin"}})";

std::vector<std::filesystem::path> shipped_configs() {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(kConfigs))
    if (entry.path().extension() == ".json") paths.push_back(entry.path());
  return paths;
}

RunConfig parse(const std::string& text, const std::vector<std::string>& sets = {}) {
  return parse_run_config(text, "c.json", sets);
}
std::string error_of(const std::string& text, const std::vector<std::string>& sets = {}) {
  try {
    parse(text, sets);
  } catch (const Error& error) {
    EXPECT_EQ(error.exit, Exit::usage);
    return error.what();
  }
  return "";
}

// Every key of the effective config, dotted. The keys inside of attention belong to its value.
void collect_keys(const Json& object, const std::string& prefix, std::vector<std::string>& out) {
  for (auto item = object.begin(); item != object.end(); ++item) {
    if (item->is_object() && item.key() != "attention")
      collect_keys(*item, prefix + item.key() + '.', out);
    else
      out.push_back(prefix + item.key());
  }
}
std::vector<std::string> all_keys() {
  std::vector<std::string> keys;
  collect_keys(to_json(parse(kLeast)), "", keys);
  return keys;
}

TEST(RunConfig, AShortConfigHasTheDefaultsOfTheStruct) {
  RunConfig plain;
  plain.data.train = "data/train_*.bin";
  EXPECT_EQ(to_json(parse(kLeast)), to_json(plain));
}

TEST(RunConfig, ReadsEveryKey) {
  const RunConfig config = parse(R"({
    "name": "n", "seed": 7, "device": "cpu", "precision": "fp64",
    "model": {"vocab_size": 300, "context": 64, "layers": 2, "width": 48, "heads": 4, "kv_heads": 2, "mlp_width": 100,
              "norm": "layernorm", "mlp": "gelu", "position": "learned", "rope_theta": 500, "rope_fraction": 0.5,
              "bias": true, "tie_embeddings": true, "qk_norm": true, "norm_eps": 1e-6, "attention": ["softmax", "ssmax"]},
    "data": {"train": "a", "validation": "b", "tokenizer": "c"},
    "batch": {"sequences": 8, "micro_sequences": 4},
    "optimizer": {"lr": 1, "beta1": 0.8, "beta2": 0.9, "eps": 1e-9, "weight_decay": 0, "grad_clip": 0},
    "schedule": {"kind": "wsd", "steps": 9, "warmup_steps": 3, "final_lr_fraction": 0, "decay_fraction": 1, "stop_after": 5},
    "evaluate": {"every": 0, "batches": 3}, "checkpoint": {"every": 0, "keep": 1, "keep_steps": [4, 5],
    "background": false},
    "log": {"every": 1, "tensorboard": true}, "init": {"from": "runs/p", "optimizer": "reset", "step": "keep"},
    "parallel": {"zero": 0, "timeout_s": 5},
    "non_finite": "skip", "deterministic": true, "recompute": "block", "attention_path": "reference",
    "time_gemms": true})");
  EXPECT_EQ(config.seed, 7);
  EXPECT_EQ(config.precision, Precision::fp64);
  EXPECT_EQ(config.model.attention[1].kind, "ssmax");
  EXPECT_EQ(config.schedule.kind, ScheduleKind::wsd);
  EXPECT_EQ(config.schedule.stop_after, 5);
  EXPECT_EQ(config.checkpoint.keep_steps, (std::vector<int64_t>{4, 5}));
  EXPECT_EQ(config.init.from, "runs/p");
  EXPECT_EQ(config.init.step, KeepOrReset::keep);
  EXPECT_EQ(config.non_finite, NonFinite::skip);
  EXPECT_EQ(config.recompute, Recompute::block);
  EXPECT_EQ(config.attention_path, AttentionPath::reference);
  // No key was left at its default, so that none can be read into the wrong place unseen.
  for (const std::string& key : all_keys()) {
    const auto found = differences(parse(kLeast), config);
    EXPECT_TRUE(std::any_of(found.begin(), found.end(), [&](const Difference& d) { return d.key == key; }))
        << key;
  }
}

TEST(RunConfig, EveryShippedConfigReadsAndItsEffectiveConfigReadsBack) {
  const auto paths = shipped_configs();
  EXPECT_GE(paths.size(), 11u);
  for (const auto& path : paths) {
    const RunConfig config = load_run_config(path);
    EXPECT_EQ(config.name, path.stem().string());
    const std::string text = effective_config(config);
    const RunConfig back = parse_run_config(text, "effective");
    EXPECT_TRUE(differences(config, back).empty()) << path;
    EXPECT_EQ(back.model, config.model) << path;
    EXPECT_EQ(effective_config(back), text) << path;
    EXPECT_EQ(accumulation(config, 1) * config.batch.micro_sequences, config.batch.sequences);
  }
}

TEST(RunConfig, ThePaperConfigsDifferAsTheVariantsDo) {
  const auto load = [](const char* name) { return load_run_config(kConfigs / name); };
  const RunConfig a = load("paper-162m-a.json");
  for (const auto& [name, kind] : std::map<const char*, const char*>{{"paper-162m-b.json", "ssmax"},
                                                                     {"paper-162m-c.json", "ssmax_fixed"},
                                                                     {"paper-162m-d.json", "ssmax_bias"},
                                                                     {"paper-162m-f.json", "ssmax"}}) {
    const auto found = differences(a, load(name));
    for (const Difference& d : found)
      EXPECT_TRUE(d.key == "name" || d.key == "model.attention" || d.key == "checkpoint.keep_steps" ||
                  d.key.starts_with("init."))
          << d.key;
    EXPECT_EQ(load(name).model.attention[11].kind, kind);
  }
  const RunConfig f = load("paper-162m-f.json");
  EXPECT_EQ(f.init.step, KeepOrReset::keep);
  EXPECT_TRUE(f.init.from->ends_with(fmt::format("step_{:08}", a.checkpoint.keep_steps.at(0))));
  EXPECT_EQ(a.batch.sequences * a.model.context, 2'097'152);
}

TEST(RunConfig, TheNameOfTheFileIsTheDefaultName) {
  EXPECT_EQ(parse_run_config(kLeast, "x/small.json", {}, "small").name, "small");
  EXPECT_NE(error_of(kLeast, {"name=a/b"}).find("--set name=a/b: should be a name for a directory"),
            std::string::npos);
  EXPECT_NE(error_of(kLeast, {"name=.."}), "");
  EXPECT_NE(error_of(kLeast, {"name="}), "");
}

TEST(RunConfig, ErrorsAreListedAtOnceWithFileOrFlag) {
  const std::string error = error_of(
      R"({"lr": 1e-3, "seed": -1, "model": {"layres": 4, "width": 100, "heads": 12, "attention": "ssmx"},
          "schedule": {"kind": "cosin", "steps": "many"}, "batch": {"sequences": 12, "micro_sequences": 8}})",
      {"optimizer.beta1=1", "dataset=x"});
  EXPECT_EQ(
      error,
      "c.json: lr = 0.001: unknown key here; did you mean optimizer.lr?\n"
      "c.json: seed = -1: should be an integer, at least 0\n"
      "c.json: model.layres = 4: unknown key; the nearest known key is model.layers\n"
      "c.json: schedule.kind = \"cosin\": should be one of constant, cosine, linear, wsd; the nearest is "
      "cosine\n"
      "c.json: schedule.steps = \"many\": should be an integer from 1 to 1000000000\n"
      "--set optimizer.beta1=1: should be a number, at least 0, below 1\n"
      "--set dataset=x: unknown key; the nearest known key is data\n"
      "c.json: data.train: missing; should be a path or glob\n"
      "c.json: model.attention = \"ssmx\": should be one of softmax, ssmax, ssmax_fixed, ssmax_bias; the "
      "nearest "
      "is ssmax\n"
      "c.json: model.width = 100: width (100) should be a multiple of heads (12)\n"
      "c.json: batch.micro_sequences = 8: sequences (12) should be a multiple of micro_sequences (8): valid "
      "micro_sequences are 1, 2, 3, 4, 6, 12; or sequences 8 or 16");
}

TEST(RunConfig, KeysOfOtherTrainersAreTranslated) {
  for (const auto& [key, meant] : std::vector<std::pair<std::string, std::string>>{
           {"learning_rate", "optimizer.lr"},
           {"optimizer.learning_rate", "optimizer.lr"},
           {"n_layer", "model.layers"},
           {"model.hidden_size", "model.width"},
           {"block_size", "model.context"},
           {"batch_size", "batch.sequences or batch.micro_sequences"},
           {"max_steps", "schedule.steps"}})
    EXPECT_EQ(error_of(kLeast, {key + "=1"}),
              fmt::format("--set {}=1: unknown key; did you mean {}?", key, meant));
}

// What others call a key is no key of ours, or it would never be looked up.
TEST(RunConfig, NoSynonymIsAKey) {
  RunConfig config;
  Fields fields;
  config.fields(fields);
  for (const Fields::Field& field : fields.list())
    for (const std::string_view synonym : field.synonyms)
      for (const Fields::Field& other : fields.list())
        EXPECT_NE(other.key.substr(other.key.rfind('.') + 1), synonym) << field.key;
}

TEST(RunConfig, AKeyAtAnotherLevelIsFound) {
  EXPECT_NE(error_of(R"({"every": 1})").find("did you mean evaluate.every or checkpoint.every or log.every?"),
            std::string::npos);
  EXPECT_NE(error_of(R"({"model": {"grad_clip": 1}})").find("did you mean optimizer.grad_clip?"),
            std::string::npos);
  EXPECT_NE(error_of(R"({"optimizer": {"seed": 1}})").find("did you mean seed?"), std::string::npos);
}

TEST(RunConfig, SetForms) {
  const RunConfig config =
      parse(kLeast, {"model.layers=4", R"(model.attention=["softmax","ssmax"])", "device=cpu",
                     "schedule.stop_after=null", "optimizer.lr=1", "data.validation=v_*.bin",
                     R"(batch={"sequences": 6, "micro_sequences": 3})"});
  EXPECT_EQ(config.model.layers, 4);
  EXPECT_EQ(config.model.attention.size(), 4u);
  EXPECT_EQ(config.model.attention[3].kind, "ssmax");
  EXPECT_EQ(config.device, DeviceChoice::cpu);
  EXPECT_EQ(config.data.validation, "v_*.bin");
  EXPECT_EQ(config.batch.micro_sequences, 3);
  EXPECT_EQ(parse(kLeast, {"model.attention=ssmax_bias"}).model.attention[0].kind, "ssmax_bias");
  // A flag changes what follows from it, and is named where that cannot be.
  EXPECT_EQ(parse(kLeast, {"model.context=64", "model.attention=ssmax"}).model.attention[0].s, auto_s(64));
  EXPECT_TRUE(error_of(kLeast, {"model.heads=5"})
                  .starts_with("--set model.heads=5: width (768) should be a multiple"));
  EXPECT_TRUE(error_of(kLeast, {"model.attention=[\"ssmax\",\"x\"]"})
                  .starts_with("--set model.attention=[\"ssmax\",\"x\"]: model.attention[1] = \"x\":"));
}

TEST(RunConfig, WhatTheDeviceCannotDo) {
  EXPECT_NE(error_of(kLeast, {"device=cpu", "attention_path=cudnn"}).find("needs a CUDA device"),
            std::string::npos);
  EXPECT_EQ(error_of(kLeast, {"device=cuda", "attention_path=cudnn"}), "");
  EXPECT_NE(error_of(kLeast, {"device=cuda", "precision=fp64"}).find("runs on the CPU only"),
            std::string::npos);
  EXPECT_EQ(error_of(kLeast, {"device=cpu", "precision=fp64"}), "");
}

TEST(RunConfig, BatchIsAMultipleOfMicroSequencesTimesRanks) {
  const RunConfig config = parse(kLeast, {"batch.sequences=24", "batch.micro_sequences=4"});
  EXPECT_EQ(accumulation(config, 1), 6);
  EXPECT_EQ(accumulation(config, 3), 2);
  const auto error = [&](int64_t ranks) {
    try {
      check_batch(config, ranks);
    } catch (const Error& error) {
      EXPECT_EQ(error.exit, Exit::usage);
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(error(6), "");
  EXPECT_EQ(error(4),
            "batch.sequences = 24: should be a multiple of batch.micro_sequences x ranks = 4 x 4; set "
            "batch.sequences to "
            "16 or 32, or batch.micro_sequences to one of 1, 2, 3, 6");
  EXPECT_EQ(error(5),
            "batch.sequences = 24: should be a multiple of batch.micro_sequences x ranks = 4 x 5; set "
            "batch.sequences to "
            "20 or 40, or the number of ranks to one of 1, 2, 3, 6");
  EXPECT_NE(
      error_of(kLeast, {"batch.sequences=8"}).find("valid micro_sequences are 1, 2, 4, 8; or sequences 32"),
      std::string::npos);
}

// A value for every key that differs from its default, and whether a run may continue with it.
TEST(RunConfig, FixedAndFreeKeys) {
  const std::map<std::string, std::pair<const char*, bool>> table = {
      {"name", {"other", false}},
      {"seed", {"1", true}},
      {"device", {"cpu", false}},
      {"precision", {"fp32", false}},
      {"model.vocab_size", {"300", true}},
      {"model.context", {"64", true}},
      {"model.layers", {"2", true}},
      {"model.width", {"96", true}},
      {"model.heads", {"6", true}},
      {"model.kv_heads", {"6", true}},
      {"model.mlp_width", {"100", true}},
      {"model.norm", {"layernorm", true}},
      {"model.mlp", {"gelu", true}},
      {"model.position", {"none", true}},
      {"model.rope_theta", {"5", true}},
      {"model.rope_fraction", {"0.5", true}},
      {"model.bias", {"true", true}},
      {"model.tie_embeddings", {"true", true}},
      {"model.qk_norm", {"true", true}},
      {"model.norm_eps", {"1", true}},
      {"model.attention", {"ssmax", true}},
      {"data.train", {"x", false}},
      {"data.validation", {"x", false}},
      {"data.tokenizer", {"x", false}},
      {"batch.sequences", {"32", true}},
      {"batch.micro_sequences", {"8", false}},
      {"optimizer.lr", {"1", true}},
      {"optimizer.beta1", {"0", true}},
      {"optimizer.beta2", {"0", true}},
      {"optimizer.eps", {"1", true}},
      {"optimizer.weight_decay", {"0", true}},
      {"optimizer.grad_clip", {"0", true}},
      {"schedule.kind", {"wsd", true}},
      {"schedule.steps", {"7", false}},
      {"schedule.warmup_steps", {"0", true}},
      {"schedule.final_lr_fraction", {"0", true}},
      {"schedule.decay_fraction", {"0.5", true}},
      {"schedule.stop_after", {"3", false}},
      {"evaluate.every", {"1", false}},
      {"evaluate.batches", {"1", false}},
      {"checkpoint.every", {"1", false}},
      {"checkpoint.keep", {"1", false}},
      {"checkpoint.keep_steps", {"[1]", false}},
      {"checkpoint.background", {"false", false}},
      {"log.every", {"1", false}},
      {"log.tensorboard", {"true", false}},
      {"init.from", {"runs/x", true}},
      {"init.optimizer", {"reset", false}},
      {"init.step", {"keep", false}},
      {"parallel.zero", {"0", false}},
      {"parallel.timeout_s", {"1", false}},
      {"non_finite", {"skip", false}},
      {"deterministic", {"true", false}},
      {"recompute", {"block", false}},
      {"attention_path", {"flash", false}},
      {"time_gemms", {"true", false}}};
  const RunConfig before = parse(kLeast);
  for (const std::string& key : all_keys()) {
    ASSERT_TRUE(table.contains(key)) << key;
    const auto [value, fixed] = table.at(key);
    const RunConfig now = parse(kLeast, {key + "=" + value});
    const auto all = differences(before, now), forbidden = fixed_differences(before, now);
    const auto names = [&](const std::vector<Difference>& list) {
      return std::any_of(list.begin(), list.end(), [&](const Difference& d) { return d.key == key; });
    };
    EXPECT_TRUE(names(all)) << key;
    EXPECT_EQ(names(forbidden), fixed) << key;
    EXPECT_EQ(forbidden.empty(), !fixed) << key;
  }
  EXPECT_EQ(table.size(), all_keys().size());
}

TEST(RunConfig, AForkContinuesWithoutNamingItsParent) {
  const RunConfig fork = parse(kLeast, {"init.from=runs/p"}), plain = parse(kLeast),
                  other = parse(kLeast, {"init.from=runs/q"});
  EXPECT_TRUE(fixed_differences(fork, fork).empty());
  EXPECT_TRUE(fixed_differences(fork, plain).empty());
  ASSERT_EQ(fixed_differences(fork, other).size(), 1u);
  EXPECT_EQ(fixed_differences(fork, other)[0].left, "\"runs/p\"");
  EXPECT_EQ(fixed_differences(plain, fork)[0].right, "\"runs/p\"");
}

TEST(RunConfig, DifferencesAreOfMeaningNotOfSpelling) {
  const RunConfig a = parse(kLeast, {"model.attention=ssmax", "optimizer.lr=1"});
  const RunConfig b = parse(kLeast, {R"(model.attention=[{"kind":"ssmax","s":"auto","layers":"0-11"}])",
                                     "optimizer.lr=1.0", "model.kv_heads=12"});
  EXPECT_TRUE(differences(a, b).empty());
  const auto found = differences(a, parse(kLeast, {"optimizer.lr=1"}));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].key, "model.attention");
  EXPECT_EQ(found[0].left, "\"ssmax\"");
  EXPECT_EQ(found[0].right, "\"softmax\"");
}

TEST(HelpConfig, ListsEveryKeyOnceWithItsDefault) {
  const std::string help = "\n" + help_config();
  const auto keys = all_keys();
  for (const std::string& key : keys) {
    const size_t at = help.find("\n" + key + " = ");
    ASSERT_NE(at, std::string::npos) << key;
    EXPECT_EQ(help.find("\n" + key + " = ", at + 1), std::string::npos) << key;
  }
  EXPECT_EQ(static_cast<size_t>(std::count(help.begin(), help.end(), '\n')), 2 * keys.size() + 1);
  EXPECT_NE(help.find("\noptimizer.lr = 0.0006\n    peak learning rate of AdamW (a number, at least 0; fixed "
                      "for a run)\n"),
            std::string::npos);
  EXPECT_NE(help.find("\nmodel.kv_heads = heads\n"), std::string::npos);
}

TEST(EffectiveConfig, IsCompleteAndReadable) {
  const std::string text = effective_config(parse(kLeast, {"model.attention=ssmax"}));
  EXPECT_NE(text.find("  \"batch\": {\"sequences\": 512, \"micro_sequences\": 32},\n"), std::string::npos)
      << text;
  EXPECT_NE(text.find("\"attention\": \"ssmax\""), std::string::npos);
  EXPECT_EQ(text.back(), '\n');
}

// Whatever the bytes, the outcome is a config or one Error for the user.
TEST(Garbage, NeverCrashes) {
  const std::string valid = effective_config(parse(
      kLeast,
      {R"(model.attention=[{"kind":"ssmax","s":0.4,"layers":"0-5"},{"kind":"softmax","layers":"6-11"}])"}));
  const Philox random(20250131);
  int read = 0, refused = 0;
  for (uint64_t round = 0; round < 4000; ++round) {
    std::string text = valid;
    uint64_t lane = 0;
    const auto pick = [&](size_t below) {
      return static_cast<size_t>(random.uniform(round, lane++) * static_cast<double>(below));
    };
    for (size_t edits = 1 + pick(4); edits > 0 && !text.empty(); --edits) {
      const size_t at = pick(text.size());
      switch (pick(5)) {
        case 0:
          text[at] = static_cast<char>(pick(256));
          break;
        case 1:
          text.erase(at, 1 + pick(20));
          break;
        case 2:
          text.insert(at, text.substr(pick(text.size()), pick(40)));
          break;
        case 3:
          text[at] = "{}[]\",:0123456789-+.eE/\\ "[pick(25)];
          break;
        case 4:
          text.resize(at + 1);
          break;
      }
    }
    try {
      parse_run_config(text, "garbage");
      ++read;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit, Exit::usage) << error.what() << "\n" << text;
      ++refused;
    }
    try {
      parse_run_config(kLeast, "c.json",
                       {text.substr(0, 200), "model.attention=" + text.substr(pick(text.size()), 60)});
    } catch (const Error& error) {
      EXPECT_EQ(error.exit, Exit::usage) << error.what();
    }
  }
  EXPECT_GT(read, 10);
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace keen
