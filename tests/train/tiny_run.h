// A whole run small enough for a test: a model of a few thousand parameters, shards of a few hundred tokens,
// and a directory that holds them both.
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/philox.h"
#include "core/staging.h"
#include "op_test.h"
#include "temporary_directory.h"
#include "train/metrics.h"
#include "train/run.h"
#include "train/trainer.h"

namespace keen::testing {

// A shard of 16-bit tokens, byte by byte.
inline void write_shard(const std::filesystem::path& path, std::span<const int32_t> tokens) {
  std::string bytes;
  const auto number = [&](uint32_t value, int width) {
    for (int i = 0; i < width; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
  };
  for (int i = 0; i < 256; ++i)
    number(i == 0 ? 20240520u : i == 1 ? 1u : i == 2 ? static_cast<uint32_t>(tokens.size()) : 0u, 4);
  for (const int32_t token : tokens) number(static_cast<uint32_t>(token), 2);
  put(path, bytes);
}

// Text that can be learned in part: three times in four the next token follows from the last one.
inline std::vector<int32_t> learnable_tokens(int64_t count, uint64_t seed) {
  const Philox random(seed);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  int32_t last = 1;
  for (int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<uint64_t>(i);
    last = random.uniform(2 * at) < 0.75 ? (last * 5 + 3) % 32
                                         : static_cast<int32_t>(random.uniform(2 * at + 1) * 32);
    tokens[static_cast<size_t>(i)] = last;
  }
  return tokens;
}

// What a run wrote to standard output; also where it ends by an exception.
class Quiet {
 public:
  Quiet() { ::testing::internal::CaptureStdout(); }
  ~Quiet() {
    if (!told_) ::testing::internal::GetCapturedStdout();
  }
  std::string text() {
    told_ = true;
    return ::testing::internal::GetCapturedStdout();
  }

 private:
  bool told_ = false;
};

class TinyRun {
 public:
  static constexpr int64_t kContext = 16, kVocabulary = 32;

  // `windows`: how many of them the training shards hold, one number a shard. Every shard has a few tokens
  // more than its windows need. The validation shard holds 5 windows.
  explicit TinyRun(const std::vector<int64_t>& windows = {21, 4, 15}) {
    for (size_t i = 0; i < windows.size(); ++i)
      write_shard(directory / fmt::format("train_{}.bin", i),
                  learnable_tokens(windows[i] * kContext + 1 + 3 * static_cast<int64_t>(i), i));
    write_shard(directory / "val_0.bin", learnable_tokens(5 * kContext + 1, 99));
    config.name = "tiny";
    config.device = DeviceChoice::cpu;
    config.precision = Precision::fp32;
    config.model.vocab_size = kVocabulary;
    config.model.context = kContext;
    config.model.layers = 2;
    config.model.width = 16;
    config.model.heads = config.model.kv_heads = 2;
    config.model.mlp_width = 32;
    attention(R"(["softmax", "ssmax"])");
    config.data.train = (directory / "train_*.bin").string();
    config.data.validation = (directory / "val_*.bin").string();
    config.batch = {.sequences = 4, .micro_sequences = 2};
    config.optimizer.lr = 3e-3;
    config.schedule.steps = 20;
    config.schedule.warmup_steps = 4;
    config.evaluate = {.every = 10, .batches = 2};
    config.checkpoint.every = 0;
    config.log.every = 1000;
  }

  TinyRun& attention(const std::string& json) {
    config.model.attention = parse_attention(json, config.model.layers, config.model.context);
    return *this;
  }

  TemporaryDirectory directory{Medium::memory};
  RunConfig config;

  std::filesystem::path path(const std::string& run) const { return directory / run; }
  std::filesystem::path checkpoint(const std::string& run, int64_t step) const {
    return path(run) / "checkpoints" / checkpoint_name(step);
  }
  // Trains `with` into the run directory of this name; returns what was printed.
  std::string train(const std::string& run, const RunConfig& with) const {
    Quiet quiet;
    run_training(with, {.config_path = "tiny.json", .run_dir = path(run)});
    return quiet.text();
  }
  std::string train(const std::string& run, std::optional<int64_t> stop_after = std::nullopt) const {
    RunConfig with = config;
    with.schedule.stop_after = stop_after;
    return train(run, with);
  }
  // The message of the error of this kind that `train` must end with.
  std::string error_of(const std::string& run, const RunConfig& with, Exit exit) const {
    try {
      train(run, with);
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.exit), static_cast<int>(exit)) << error.what();
      return error.what();
    }
    ADD_FAILURE() << run << ": no error was raised";
    return "";
  }
  Metrics metrics(const std::string& run) const { return read_metrics(path(run) / "metrics.jsonl"); }
  // The events of this name, in order.
  std::vector<Json> events(const std::string& run, const std::string& name) const {
    std::vector<Json> found;
    for (const Json& event : metrics(run).events)
      if (event.at("event") == name) found.push_back(event);
    return found;
  }
  Json state(const std::string& run, int64_t step) const {
    return Json::parse(content_of(checkpoint(run, step) / "state.json"));
  }
};

// A trainer with what it needs around it, for tests that take steps themselves.
struct TinyTrainer {
  explicit TinyTrainer(const RunConfig& config, bool plan_only = false)
      : train(config.data.train, config.model.vocab_size),
        comm(make_one_rank()),
        trainer(config, train, with_validation(config), *comm, plan_only) {}

  Dataset train;
  std::optional<Dataset> validation;
  std::unique_ptr<Communicator> comm;
  Trainer trainer;

  // Losses of the next steps, all of which must update.
  std::vector<double> losses(int64_t steps) {
    std::vector<double> list;
    for (int64_t i = 0; i < steps; ++i) {
      const StepResult result = trainer.step();
      EXPECT_EQ(result.outcome, StepResult::Outcome::updated);
      list.push_back(result.loss);
    }
    return list;
  }
  // Masters and averages, byte by byte.
  std::string bytes() const {
    std::string all;
    const Params& params = trainer.gpt.params;
    HostAccess host(params.master().device);
    for (const Tensor& x : {params.master(), params.m(), params.v()})
      host.read(x, [&](ConstTensor piece, int64_t) {
        all.append(reinterpret_cast<const char*>(piece.data), static_cast<size_t>(piece.bytes()));
      });
    return all;
  }

 private:
  const Dataset* with_validation(const RunConfig& config) {
    if (config.data.validation) validation.emplace(*config.data.validation, config.model.vocab_size);
    return validation ? &*validation : nullptr;
  }
};

inline double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    if (!(std::abs(a[i] - b[i]) <= worst)) worst = std::abs(a[i] - b[i]);
  return worst;
}

}  // namespace keen::testing
