#include "train/run.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <limits>
#include <sstream>
#include <thread>

#include "io/fault.h"
#include "train/signals.h"
#include "train/spikes.h"
#include "train/tiny_run.h"

namespace keen {
namespace {

namespace fs = std::filesystem;
using testing::content_of;
using testing::TinyRun;
using testing::TinyTrainer;

constexpr const char* kTensorFiles[] = {"model.safetensors", "optimizer.safetensors"};

// Equal to the last bit at `step`: weights, averages, state; and every row up to it.
void expect_same(const TinyRun& run, const std::string& one, const std::string& other, int64_t step) {
  for (const char* file : kTensorFiles)
    EXPECT_TRUE(content_of(run.checkpoint(one, step) / file) ==
                content_of(run.checkpoint(other, step) / file))
        << file << " of " << other;
  Json left = run.state(one, step), right = run.state(other, step);
  left.erase("elapsed_s");
  right.erase("elapsed_s");
  EXPECT_EQ(left, right);
  const Metrics a = run.metrics(one), b = run.metrics(other);
  EXPECT_EQ(a.train.size(), static_cast<size_t>(step));
  ASSERT_EQ(a.train.size(), b.train.size());
  for (size_t i = 0; i < a.train.size(); ++i) {
    EXPECT_EQ(a.train[i].step, static_cast<int64_t>(i) + 1);
    EXPECT_EQ(b.train[i].step, a.train[i].step);
    EXPECT_EQ(b.train[i].tokens, a.train[i].tokens);
    EXPECT_EQ(b.train[i].loss, a.train[i].loss) << "step " << i + 1;
    EXPECT_EQ(b.train[i].grad_norm, a.train[i].grad_norm) << "step " << i + 1;
    EXPECT_EQ(b.train[i].lr, a.train[i].lr);
  }
  // A run that stopped also evaluated where it stopped.
  for (const ValidationRow& row : a.validation)
    EXPECT_EQ(std::count_if(
                  b.validation.begin(), b.validation.end(),
                  [&](const ValidationRow& same) { return same.step == row.step && same.loss == row.loss; }),
              1)
        << "step " << row.step;
}

// --- Resumed = uninterrupted (R2)
// -----------------------------------------------------------------------------------

TEST(Run, ResumedIsUninterruptedBitForBit) {
  // Three unequal shards of 40 windows: 20 steps of 4 sequences are two epochs, and step 10 ends the first.
  TinyRun run({21, 4, 15});
  for (const Precision precision : {Precision::fp32, Precision::bf16}) {
    run.config.precision = precision;
    const std::string tag(name_of(precision));
    run.train("straight" + tag);
    int case_number = 0;
    for (const std::vector<int64_t>& stops :
         std::vector<std::vector<int64_t>>{{8}, {10}, {3, 13}, {1, 2, 19}}) {
      const std::string name = fmt::format("resumed{}{}", tag, case_number++);
      for (const int64_t stop : stops) run.train(name, stop);
      run.train(name);
      expect_same(run, "straight" + tag, name, 20);
      EXPECT_EQ(run.events(name, "resume").size(), stops.size());
      EXPECT_EQ(run.events(name, "resume").back().at("step"), stops.back());
    }
  }
}

TEST(Run, ResumedWhereABatchStraddlesEpochs) {
  TinyRun run({3, 15, 1});  // 19 windows: epochs end inside of batches
  run.config.model.layers = 3;
  run.attention(R"(["ssmax_bias", "softmax", "ssmax_fixed"])").config.batch = {.sequences = 6,
                                                                               .micro_sequences = 2};
  run.train("straight");
  for (const int64_t stop : {3, 6, 9}) {
    const std::string name = fmt::format("stopped{}", stop);
    run.train(name, stop);
    run.train(name);
    expect_same(run, "straight", name, 20);
  }
}

// A crash loses the steps since the last checkpoint; they are repeated exactly.
TEST(Run, RepeatsLostStepsExactly) {
  TinyRun run;
  run.config.checkpoint.every = 6;
  run.config.checkpoint.keep = 10;
  run.train("straight");
  run.train("crashed");
  for (const int64_t step : {12, 18, 20}) fs::remove_all(run.checkpoint("crashed", step));
  std::ofstream(run.path("crashed") / "metrics.jsonl", std::ios::app) << R"({"kind": "train", "st)";
  run.train("crashed");
  expect_same(run, "straight", "crashed", 20);
  EXPECT_EQ(run.metrics("crashed").unreadable_lines, 0);
  EXPECT_EQ(run.events("crashed", "resume").at(0).at("step"), 6);
}

TEST(Run, ADamagedCheckpointIsPassedOver) {
  TinyRun run;
  run.config.checkpoint.every = 6;
  run.config.checkpoint.keep = 10;
  run.train("straight");
  run.train("damaged", 12);
  std::string bytes = content_of(run.checkpoint("damaged", 12) / "optimizer.safetensors");
  bytes[bytes.size() / 2] ^= 4;
  testing::put(run.checkpoint("damaged", 12) / "optimizer.safetensors", bytes);
  run.train("damaged");
  expect_same(run, "straight", "damaged", 20);
  EXPECT_EQ(run.events("damaged", "resume").at(0).at("step"), 6);

  for (const int64_t step : {6, 12, 18, 20}) fs::remove(run.checkpoint("damaged", step) / "manifest.json");
  const std::string error = run.error_of("damaged", run.config, Exit::checkpoint);
  EXPECT_NE(error.find("no checkpoint is whole"), std::string::npos) << error;
}

// --- What a run leaves
// ----------------------------------------------------------------------------------------------

TEST(Run, RowsEventsAndCheckpointsComeWhenTheyShould) {
  TinyRun run;
  run.config.evaluate.every = 6;
  run.config.checkpoint = {.every = 5, .keep = 1, .keep_steps = {3, 10}};
  run.train("run", 17);
  const Metrics metrics = run.metrics("run");
  EXPECT_EQ(metrics.train.size(), 17U);
  std::vector<int64_t> validated, scaled;
  for (const ValidationRow& row : metrics.validation) {
    validated.push_back(row.step);
    EXPECT_EQ(row.tokens, row.step * 64);
    EXPECT_NEAR(row.perplexity, std::exp(row.loss), 1e-6);
  }
  for (const AttentionRow& row : metrics.attention) {
    scaled.push_back(row.step);
    ASSERT_EQ(row.layers.size(), 1U);  // the softmax layer has no scale
    EXPECT_EQ(row.layers[0].layer, 1);
    EXPECT_EQ(row.layers[0].s.size(), 2U);
    EXPECT_TRUE(row.layers[0].b.empty());
  }
  EXPECT_EQ(validated, (std::vector<int64_t>{6, 12, 17}));
  EXPECT_EQ(scaled, validated);
  std::vector<std::string> events;
  for (const Json& event : metrics.events) events.push_back(event.at("event"));
  EXPECT_EQ(events, (std::vector<std::string>{"start", "save", "save", "save", "save", "save", "stop"}));
  std::vector<int64_t> kept;
  for (const auto& entry : fs::directory_iterator(run.path("run") / "checkpoints"))
    kept.push_back(step_of_name(entry.path().filename().string()));
  std::sort(kept.begin(), kept.end());
  EXPECT_EQ(kept, (std::vector<int64_t>{3, 10, 17}));
  for (const TrainRow& row : metrics.train) {
    EXPECT_EQ(row.tokens, row.step * 64);
    EXPECT_TRUE(std::isfinite(row.mfu) && row.mfu > 0 && row.step_ms > 0 && row.elapsed_s > 0);
  }
  RunConfig without_stop = load_run_config(run.path("run") / "config.json");
  EXPECT_EQ(without_stop.schedule.stop_after, 17);
  EXPECT_TRUE(fs::exists(run.path("run") / "environment.json"));
}

TEST(Run, AFinishedRunSaysSoAndStays) {
  TinyRun run;
  run.config.schedule.steps = 3;
  run.train("run");
  const std::string metrics = content_of(run.path("run") / "metrics.jsonl");
  EXPECT_NE(run.train("run").find("finished"), std::string::npos);
  EXPECT_EQ(content_of(run.path("run") / "metrics.jsonl"), metrics);
  // More steps are free: it goes on, and says what changed.
  run.config.schedule.steps = 5;
  run.train("run");
  EXPECT_EQ(run.metrics("run").train.size(), 5U);
  EXPECT_EQ(run.events("run", "resume").at(0).at("changed").at("schedule.steps"),
            Json::parse(R"(["3", "5"])"));
}

// What a signal during the evaluation of a step leaves: the step is saved, its validation row is not there.
TEST(Run, AnEvaluationThatASignalCutIsMadeUpFor) {
  TinyRun run;
  run.train("straight");
  const auto cut = [&](int64_t step) {
    run.train("cut", step);
    const fs::path path = run.path("cut") / "metrics.jsonl";
    std::istringstream lines(content_of(path));
    std::string kept;
    for (std::string line; std::getline(lines, line);) {
      const Json row = Json::parse(line);
      const bool lost =
          (row.at("kind") == "validation" || row.at("kind") == "attention") && row.at("step") == step;
      if (!lost) kept += line + "\n";
    }
    EXPECT_NE(kept, content_of(path));
    testing::put(path, kept);
  };
  cut(10);
  cut(20);
  EXPECT_EQ(run.train("cut").find("finished"), std::string::npos);
  expect_same(run, "straight", "cut", 20);
  EXPECT_EQ(run.metrics("cut").attention.size(), 2U);
  EXPECT_NE(run.train("cut").find("finished"), std::string::npos);
}

TEST(Run, RefusesAnotherConfigAndOtherData) {
  TinyRun run;
  run.train("run", 2);
  const auto refused = [&](const char* key, auto change) {
    RunConfig other = run.config;
    change(other);
    const std::string error = run.error_of("run", other, Exit::usage);
    EXPECT_NE(error.find(key), std::string::npos) << error;
    EXPECT_NE(error.find("--init-from " + run.path("run").string()), std::string::npos) << error;
  };
  refused("seed", [](RunConfig& c) { c.seed = 5; });
  refused("optimizer.lr", [](RunConfig& c) { c.optimizer.lr *= 2; });
  refused("batch.sequences", [](RunConfig& c) { c.batch.sequences = 8; });
  refused("schedule.warmup_steps", [](RunConfig& c) { c.schedule.warmup_steps = 5; });
  refused("model.attention", [](RunConfig& c) { c.model.attention.assign(2, LayerAttention{}); });
  refused("init.from", [](RunConfig& c) { c.init.from = "elsewhere"; });
  const std::string config = content_of(run.path("run") / "config.json");

  const fs::path shard = run.directory / "train_1.bin";
  const std::string bytes = content_of(shard);
  std::string changed = bytes;
  changed[changed.size() - 2] = static_cast<char>(changed[changed.size() - 2] ^ 1);
  testing::put(shard, changed);
  const std::string error = run.error_of("run", run.config, Exit::data);
  EXPECT_NE(error.find("data.train"), std::string::npos) << error;
  EXPECT_EQ(content_of(run.path("run") / "config.json"), config);
  testing::put(shard, bytes);
  run.train("run", 3);  // none of these refusals did any harm
  EXPECT_EQ(run.metrics("run").train.size(), 3U);
}

TEST(Run, DryRunWritesNothing) {
  TinyRun run;
  testing::Quiet quiet;
  run_training(run.config, {.config_path = "tiny.json", .run_dir = run.path("dry"), .dry_run = true});
  const std::string text = quiet.text();
  for (const char* part : {"optimizer moments", "scratch", "blocks.*.attn.qkv.weight", "tokens a step"})
    EXPECT_NE(text.find(part), std::string::npos) << part << text;
  EXPECT_FALSE(fs::exists(run.path("dry")));
}

// A save that fails costs a warning; where it is the last one, an error. What is there stays.
TEST(Run, AFullDiskDoesNotEndTraining) {
  TinyRun run;
  run.config.checkpoint.every = 4;
  fault::arm("write@step_00000008:ENOSPC:2");
  run.train("run", 12);
  fault::arm("");
  EXPECT_FALSE(fs::exists(run.checkpoint("run", 8)));
  EXPECT_EQ(run.events("run", "save_failed").size(), 1U);
  EXPECT_EQ(run.events("run", "save_failed")[0].at("step"), 8);
  EXPECT_EQ(run.state("run", 12).at("failed_saves"), 1);
  fault::arm("write@model.safetensors:ENOSPC:1+");
  run.error_of("run", run.config, Exit::storage);
  fault::arm("");
  EXPECT_TRUE(fs::exists(run.checkpoint("run", 12)));
  EXPECT_FALSE(fs::exists(run.checkpoint("run", 20)));
}

// --- What is not finite (R6)
// ----------------------------------------------------------------------------------------

// A run of two steps whose checkpoint is then given a NaN in the embedding of token 31. Only the last shard
// holds it.
class PoisonedRun : public ::testing::Test {
 protected:
  PoisonedRun() {
    run.config.evaluate.every = 0;
    run.config.checkpoint.keep = 10;
    run.config.optimizer.weight_decay = 0;
    for (int shard = 0; shard < 3; ++shard) {
      std::vector<int32_t> tokens =
          testing::learnable_tokens(8 * TinyRun::kContext + 1, 7 + static_cast<uint64_t>(shard));
      for (int32_t& token : tokens) token %= 31;
      if (shard == 2) tokens[3 * TinyRun::kContext + 5] = 31;
      testing::write_shard(run.directory / fmt::format("train_{}.bin", shard), tokens);
    }
  }
  // One window of 24 is bad.
  static constexpr int64_t kBadWindow = 2 * 8 + 3;

  void poison(const std::string& name) {
    run.train(name, 2);
    TinyTrainer tiny(run.config);
    load(tiny, name, 2);
    tiny.trainer.gpt.tokens->master.as<float>()[31 * 16 + 3] = std::numeric_limits<float>::quiet_NaN();
    save_checkpoint(run.path(name) / "checkpoints",
                    {.params = tiny.trainer.gpt.params,
                     .state = tiny.trainer.state,
                     .config = effective_config(run.config)},
                    [](const std::string& text) { ADD_FAILURE() << text; });
  }
  void load(TinyTrainer& tiny, const std::string& name, int64_t step) {
    tiny.trainer.state =
        resume_checkpoint(verify_checkpoint(run.checkpoint(name, step)), tiny.trainer.gpt.params);
    tiny.trainer.weights_changed();
  }

  TinyRun run;
};

TEST_F(PoisonedRun, StopsWithoutANewCheckpoint) {
  poison("run");
  run.config.checkpoint.every = 1;
  const Checkpoint before = verify_checkpoint(run.checkpoint("run", 2));
  const std::string error = run.error_of("run", run.config, Exit::non_finite);
  const Json event = run.events("run", "non_finite").at(0);
  const int64_t step = event.at("step");
  EXPECT_NE(error.find(fmt::format("step {}:", step)), std::string::npos) << error;
  EXPECT_NE(error.find(event.at("first_bad").get<std::string>()), std::string::npos) << error;
  EXPECT_TRUE(event.at("loss").is_null());
  EXPECT_FALSE(fs::exists(run.checkpoint("run", step)));
  EXPECT_EQ(run.metrics("run").train.size(), static_cast<size_t>(step) - 1);
  EXPECT_EQ(verify_checkpoint(run.checkpoint("run", 2)).hash, before.hash);
}

TEST_F(PoisonedRun, SkipsCountAndFeedNothing) {
  run.config.non_finite = NonFinite::skip;
  poison("run");
  poison("again");
  run.train("run");
  for (const int64_t stop : {7, 12}) run.train("again", stop);
  run.train("again");
  expect_same(run, "run", "again", 20);

  // The same by hand: the batches with the bad window are passed over.
  TinyTrainer tiny(run.config);
  load(tiny, "again", 2);
  const Loader loader(tiny.train, run.config.model.context, static_cast<uint64_t>(run.config.seed));
  int64_t skipped = 0;
  while (tiny.trainer.state.step < 20) {
    bool bad = false;
    for (int64_t i = 0; i < run.config.batch.sequences; ++i)
      bad = bad || loader.sample_id(tiny.trainer.state.sequences + i) == kBadWindow;
    skipped += bad ? 1 : 0;
    if (bad) {
      tiny.trainer.state.sequences += run.config.batch.sequences;
    } else {
      EXPECT_EQ(tiny.trainer.step().outcome, StepResult::Outcome::updated);
    }
  }
  EXPECT_GE(skipped, 2);
  EXPECT_EQ(run.state("run", 20).at("skipped_steps"), skipped);
  EXPECT_EQ(run.state("run", 20).at("sequences"), (20 + skipped) * 4);
  EXPECT_EQ(run.state("run", 20).at("tokens"), 20 * 64);  // trained on
  EXPECT_EQ(run.events("run", "non_finite").size(), static_cast<size_t>(skipped));
  TinyTrainer other(run.config);
  load(other, "run", 20);
  EXPECT_TRUE(other.bytes() == tiny.bytes());
}

TEST_F(PoisonedRun, SkippingEverythingEndsTheRun) {
  for (int shard = 0; shard < 3; ++shard)
    testing::write_shard(run.directory / fmt::format("train_{}.bin", shard), std::vector<int32_t>(200, 31));
  run.config.non_finite = NonFinite::skip;
  poison("run");
  run.error_of("run", run.config, Exit::non_finite);
  EXPECT_EQ(run.events("run", "non_finite").size(), 100U);
  EXPECT_FALSE(fs::exists(run.checkpoint("run", 3)));
}

// --- Spikes of the loss
// ---------------------------------------------------------------------------------------------------------

// One window of 120 is unlike the others: its loss is a spike, whatever happened to the run before.
TEST(Run, ASpikeIsAnEventAndAResumedRunFindsTheSame) {
  TinyRun run({60, 60});
  std::vector<int32_t> tokens;
  for (int shard = 0; shard < 2; ++shard) {
    tokens.assign(60 * TinyRun::kContext + 1, 3);
    if (shard == 1)
      for (int64_t i = 0; i < TinyRun::kContext; ++i)
        tokens[static_cast<size_t>(40 * TinyRun::kContext + 1 + i)] = static_cast<int32_t>(8 + i);
    testing::write_shard(run.directory / fmt::format("train_{}.bin", shard), tokens);
  }
  run.config.batch = {.sequences = 1, .micro_sequences = 1};
  run.config.schedule.steps = 240;
  run.config.evaluate.every = 0;
  run.config.non_finite = NonFinite::skip;
  run.train("straight");
  const auto spikes = run.events("straight", "loss_spike");
  ASSERT_GE(spikes.size(), 1U);
  for (const Json& spike : spikes) {
    EXPECT_GT(spike.at("z").get<double>(), kSpikeDeviations);
    EXPECT_NEAR(spike.at("z").get<double>(),
                (spike.at("loss").get<double>() - spike.at("median").get<double>()) /
                    spike.at("deviation").get<double>(),
                1e-3);
    const Metrics metrics = run.metrics("straight");
    EXPECT_EQ(metrics.train.at(spike.at("step").get<size_t>() - 1).loss, spike.at("loss").get<double>());
  }
  const int64_t first = spikes[0].at("step").get<int64_t>();
  for (const int64_t stop : {first - 1, first}) {
    const std::string name = fmt::format("stopped{}", stop);
    run.train(name, stop);
    run.train(name);
    const auto same = run.events(name, "loss_spike");
    ASSERT_EQ(same.size(), spikes.size()) << stop;
    for (size_t i = 0; i < spikes.size(); ++i) {
      EXPECT_EQ(same[i].at("step"), spikes[i].at("step"));
      // The window comes from the log, to its digits.
      for (const char* key : {"loss", "median", "deviation", "z"})
        EXPECT_NEAR(same[i].at(key).get<double>(), spikes[i].at(key).get<double>(), 1e-6) << key;
    }
  }
  // Batches that are left out take no part.
  fault::arm("loss:nan:30,loss:nan:31,gradients:nan:33");
  run.train("skipping");
  fault::arm("");
  EXPECT_EQ(run.events("skipping", "non_finite").size(), 3U);
  EXPECT_GE(run.events("skipping", "loss_spike").size(), 1U);
}

// --- Signals
// --------------------------------------------------------------------------------------------------------

// In a process of its own: a signal that came stays.
TEST(RunDeathTest, ASignalSavesAndStops) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto signalled = [](int signal) {
    int code = 1;
    {
      TinyRun run;
      run.train("run", 2);
      catch_stop_signals();
      RunConfig endless = run.config;
      endless.schedule.steps = 1'000'000;
      std::thread sender([&] {
        while (!fs::exists(run.path("new") / "config.json")) std::this_thread::yield();
        raise(signal);
      });
      Exit exit = Exit::done;
      try {
        run.train("new", endless);
      } catch (const Error& error) {
        exit = error.exit;
      }
      sender.join();
      const bool saved =
          newest_checkpoint(run.path("new") / "checkpoints", [](const std::string&) {}).has_value();
      TinyTrainer tiny(run.config);
      const std::string bytes = tiny.bytes();
      const TrainState state = tiny.trainer.state;
      const bool unchanged = tiny.trainer.step().outcome == StepResult::Outcome::interrupted &&
                             tiny.bytes() == bytes && tiny.trainer.state == state && !tiny.trainer.validate();
      if (unchanged && saved) code = static_cast<int>(exit);
    }
    _exit(code);
  };
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1})
    EXPECT_EXIT(signalled(signal), ::testing::ExitedWithCode(75), "");
}

TEST(RunDeathTest, ASignalWhileShardsAreReadStopsBeforeAnythingIsWritten) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto stopped = [] {
    TinyRun run;
    catch_stop_signals();
    raise(SIGTERM);
    const std::string message = run.error_of("run", run.config, Exit::stopped);
    const bool written = fs::exists(run.path("run"));
    fmt::print(stderr, "{}{}", written ? "written " : "", message);
    _exit(::testing::Test::HasFailure() || written ? 1 : 0);
  };
  EXPECT_EXIT(stopped(), ::testing::ExitedWithCode(0), "stopped by a signal while the shards were checked");
}

TEST(RunDeathTest, ASecondSignalEndsAtOnce) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto twice = [] {
    catch_stop_signals();
    raise(SIGTERM);
    raise(SIGINT);
    _exit(1);
  };
  EXPECT_EXIT(twice(), ::testing::ExitedWithCode(128 + SIGINT), "");
}

}  // namespace
}  // namespace keen
