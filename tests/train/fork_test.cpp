#include "train/fork.h"

#include <unistd.h>

#include <csignal>
#include <map>

#include "train/schedule.h"
#include "train/signals.h"
#include "train/tiny_run.h"

namespace keen {
namespace {

namespace fs = std::filesystem;
using testing::content_of;
using testing::Tensors;
using testing::TinyRun;
using testing::TinyTrainer;
using Kind = TensorFate::Kind;

constexpr const char* kNeutral = R"({"kind": "ssmax_bias", "s": 0, "b": 1})";

void no_warning(const std::string& text) { ADD_FAILURE() << text; }

class ForkTest : public ::testing::Test {
 protected:
  ForkTest() {
    run.config.evaluate.batches = 1;
    run.config.schedule.kind = ScheduleKind::linear;
  }

  // Ten of twenty steps.
  void train_parent(const char* attention) { run.attention(attention).train("parent", 10); }
  RunConfig child(const char* attention) const {
    RunConfig config = run.config;
    config.model.attention = parse_attention(attention, config.model.layers, config.model.context);
    config.init.from = run.path("parent").string();
    return config;
  }
  struct Forked {
    TinyTrainer tiny;
    ForkReport report;
    explicit Forked(const RunConfig& config) : tiny(config) {
      report = fork_run(tiny.trainer, config, *config.init.from, tiny.train, &*tiny.validation, no_warning);
    }
    Params& params() { return tiny.trainer.gpt.params; }
    std::map<std::string, TensorFate> of(Kind kind) const {
      std::map<std::string, TensorFate> found;
      for (const TensorFate& fate : report.tensors)
        if (fate.kind == kind) found[fate.name] = fate;
      return found;
    }
    int64_t updates(const std::string& name) {
      for (size_t i = 0; i < params().all().size(); ++i)
        if (params().all()[i].name == name) return tiny.trainer.state.updates[i];
      ADD_FAILURE() << name;
      return -1;
    }
  };
  // The parent as it stands, in a trainer.
  void resume_parent(TinyTrainer& tiny) {
    tiny.trainer.state =
        resume_checkpoint(verify_checkpoint(run.checkpoint("parent", 10)), tiny.trainer.gpt.params);
    tiny.trainer.weights_changed();
  }
  static std::string error_of(const RunConfig& config, Exit exit) {
    try {
      Forked forked(config);
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.exit), static_cast<int>(exit)) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "no error was raised";
    return "";
  }

  TinyRun run;
};

TEST_F(ForkTest, SoftmaxToSsmaxAddsExactlyS) {
  for (const Precision precision : {Precision::fp32, Precision::bf16}) {
    run.config.precision = precision;
    fs::remove_all(run.path("parent"));
    train_parent(R"("softmax")");
    TinyTrainer parent(run.config);
    resume_parent(parent);
    Forked forked(child(R"("ssmax")"));
    const auto fresh = forked.of(Kind::fresh);
    ASSERT_EQ(fresh.size(), 2U);
    for (const char* name : {"blocks.0.attn.s", "blocks.1.attn.s"}) {
      EXPECT_EQ(fresh.at(name).initial, fmt::format("{:#.6g}", auto_s(TinyRun::kContext)));
      for (const double s : Tensors::to_doubles(forked.params().find(name)->master))
        EXPECT_NEAR(s, auto_s(TinyRun::kContext), 1e-7);
    }
    EXPECT_EQ(forked.of(Kind::loaded).size(), forked.params().all().size() - 2);
    EXPECT_EQ(forked.of(Kind::dropped).size() + forked.of(Kind::mismatched).size(), 0U);
    for (const Param& p : parent.trainer.gpt.params.all())
      EXPECT_EQ(Tensors::to_doubles(forked.params().find(p.name)->master), Tensors::to_doubles(p.master))
          << p.name;
    EXPECT_EQ(forked.report.loss_before, parent.trainer.validate().value()) << name_of(precision);
    EXPECT_EQ(forked.report.loss_after, forked.tiny.trainer.validate().value()) << name_of(precision);
    EXPECT_NE(forked.report.loss_after, forked.report.loss_before);
    const std::string text = describe(forked.report);
    for (const std::string& part :
         {std::string("blocks.1.attn.s"), fresh.begin()->second.initial, std::string("new"),
          std::string("loaded"), fmt::format("{:.6f} before", forked.report.loss_before),
          fmt::format("{:.6f} after", forked.report.loss_after), forked.report.parent.hash})
      EXPECT_NE(text.find(part), std::string::npos) << part << " is not in\n" << text;
  }
}

TEST_F(ForkTest, TheNeutralScaleGivesTheParentsLossBitForBit) {
  for (const Precision precision : {Precision::fp32, Precision::bf16, Precision::fp64}) {
    run.config.precision = precision;
    fs::remove_all(run.path("parent"));
    train_parent(R"("softmax")");
    const Forked forked(child(kNeutral));
    EXPECT_EQ(forked.of(Kind::fresh).size(), 4U);
    EXPECT_EQ(forked.report.loss_after, forked.report.loss_before) << name_of(precision);
    EXPECT_GT(forked.report.loss_after, 0);
  }
}

TEST_F(ForkTest, SsmaxToSoftmaxDropsS) {
  train_parent(R"(["softmax", "ssmax"])");
  const Forked forked(child(R"("softmax")"));
  const auto dropped = forked.of(Kind::dropped);
  ASSERT_EQ(dropped.size(), 1U);
  EXPECT_EQ(dropped.at("blocks.1.attn.s").stored, Shape({2}));
  EXPECT_EQ(forked.of(Kind::fresh).size(), 0U);
  EXPECT_NE(describe(forked.report).find("dropped"), std::string::npos);
}

TEST_F(ForkTest, MatricesWithoutACounterpartAreWarnedOf) {
  train_parent(R"("ssmax")");
  std::vector<std::string> warnings;
  const auto plan_with_layers = [&](int64_t layers) {
    RunConfig config = run.config;
    config.model.layers = layers;
    config.model.attention = parse_attention("softmax", layers, config.model.context);
    config.init.from = run.path("parent").string();
    const TinyTrainer tiny(config);
    warnings.clear();
    plan_fork(tiny.trainer.gpt.params, config, *config.init.from, tiny.train,
              [&](const std::string& sentence) { warnings.push_back(sentence); });
  };
  plan_with_layers(1);
  ASSERT_EQ(warnings.size(), 1U);
  EXPECT_NE(warnings[0].find("no place for these matrices of the parent"), std::string::npos);
  EXPECT_NE(warnings[0].find("blocks.1.attn.qkv.weight, "), std::string::npos) << warnings[0];
  EXPECT_EQ(warnings[0].find("attn.s"), std::string::npos) << warnings[0];
  plan_with_layers(3);
  ASSERT_EQ(warnings.size(), 1U);
  EXPECT_NE(warnings[0].find("start from random values: blocks.2.attn.qkv.weight, "), std::string::npos)
      << warnings[0];
  plan_with_layers(2);
  EXPECT_TRUE(warnings.empty()) << "another attention alone is what forks are for";
}

TEST_F(ForkTest, ALearnedScaleIsTakenOver) {
  train_parent(R"("ssmax")");
  Forked forked(child(R"("ssmax")"));
  EXPECT_EQ(forked.of(Kind::loaded).size(), forked.params().all().size());
  EXPECT_EQ(forked.report.loss_after, forked.report.loss_before);
  EXPECT_EQ(forked.updates("blocks.0.attn.s"), 10);
  // "auto" is another number for another context, and means the same.
  RunConfig config = child(R"("ssmax")");
  config.model.context = 8;
  config.model.attention = parse_attention("ssmax", 2, 8);
  Forked shorter(config);
  EXPECT_EQ(Tensors::to_doubles(shorter.params().find("blocks.0.attn.s")->master),
            Tensors::to_doubles(forked.params().find("blocks.0.attn.s")->master));
}

TEST_F(ForkTest, AnExplicitScaleWinsOverTheParents) {
  train_parent(R"("ssmax_bias")");
  const auto expect_start = [](Forked& forked, const char* name, double value) {
    const auto fresh = forked.of(Kind::fresh);
    ASSERT_TRUE(fresh.contains(name)) << name;
    EXPECT_EQ(fresh.at(name).initial, fmt::format("{:#.6g}", value));
    const Param& param = *forked.params().find(name);
    for (const double x : Tensors::to_doubles(param.master)) EXPECT_NEAR(x, value, 1e-6) << name;
    if (param.learned) {
      EXPECT_EQ(Tensors::to_doubles(param.m), std::vector<double>(2)) << name;
    }
    EXPECT_EQ(forked.updates(name), 0);
  };
  Forked other(child(R"({"kind": "ssmax_bias", "s": 5})"));
  EXPECT_EQ(other.of(Kind::fresh).size(), 2U);  // b starts as the parent's did, and comes along
  expect_start(other, "blocks.1.attn.s", 5);
  EXPECT_EQ(other.updates("blocks.1.attn.b"), 10);
  EXPECT_NE(other.report.loss_after, other.report.loss_before);

  Forked biased(child(R"({"kind": "ssmax_bias", "b": 0.5})"));
  expect_start(biased, "blocks.0.attn.b", 0.5);
  EXPECT_EQ(biased.updates("blocks.0.attn.s"), 10);

  Forked fixed(child(R"("ssmax_fixed")"));
  expect_start(fixed, "blocks.0.attn.s", 1);
  EXPECT_EQ(fixed.of(Kind::dropped).size(), 2U);
  EXPECT_EQ(fixed.report.loss_after, fixed.tiny.trainer.validate().value());

  // No longer learned: the initial value, as the config says, not what the parent learned.
  Forked frozen(child(R"({"kind": "ssmax", "learn_s": false})"));
  expect_start(frozen, "blocks.0.attn.s", auto_s(TinyRun::kContext));

  // What neither learns is the same in both, and no change.
  fs::remove_all(run.path("parent"));
  train_parent(R"("ssmax_fixed")");
  Forked still(child(R"("ssmax_fixed")"));
  EXPECT_EQ(still.of(Kind::fresh).size(), 0U);
  EXPECT_EQ(still.report.loss_after, still.report.loss_before);
}

TEST_F(ForkTest, DryRunShowsWhatTheParentGives) {
  train_parent(R"("softmax")");
  const auto dry = [this](const RunConfig& config) {
    testing::Quiet quiet;
    run_training(config, {.config_path = "tiny.json", .run_dir = run.path("dry"), .dry_run = true});
    return quiet.text();
  };
  const auto refused = [&](const RunConfig& config) {
    try {
      dry(config);
    } catch (const Error& error) {
      return error.exit;
    }
    return Exit::done;
  };
  const std::string text = dry(child(R"("ssmax")"));
  for (const char* part : {"Fork of", "blocks.1.attn.s", "new", "tensors loaded"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " is not in\n" << text;
  EXPECT_EQ(text.find("before the swap"), std::string::npos) << text;
  RunConfig config = child(R"("ssmax")");
  config.model.mlp_width = 48;
  EXPECT_EQ(refused(config), Exit::checkpoint);
  config = child(R"("ssmax")");
  config.init.from = (run.directory / "nowhere").string();
  EXPECT_EQ(refused(config), Exit::checkpoint);
  EXPECT_FALSE(fs::exists(run.path("dry")));
}

// In a process of its own, which the signal stays with.
TEST_F(ForkTest, ASignalEndsThePreparation) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        train_parent(R"("softmax")");
        catch_stop_signals();
        raise(SIGTERM);
        fmt::print(stderr, "{}", error_of(child(R"("ssmax")"), Exit::stopped));
        _exit(HasFailure() ? 1 : 0);
      },
      ::testing::ExitedWithCode(0), "signal 15 while the fork was prepared");
}

TEST_F(ForkTest, AParentMayBeSpelledAnotherWay) {
  train_parent(R"("softmax")");
  RunConfig config = child(R"("ssmax")");
  config.schedule.stop_after = 3;
  run.train("child", config);
  config.schedule.stop_after = 5;
  config.init.from = fs::relative(run.path("parent")).string() + "/../parent/";
  run.train("child", config);
  EXPECT_EQ(run.metrics("child").train.size(), 5U);
  config.init.from = run.path("child").string();
  EXPECT_NE(run.error_of("child", config, Exit::usage).find("init.from"), std::string::npos);
}

TEST_F(ForkTest, OtherShapesAreRefusedByName) {
  train_parent(R"("softmax")");
  RunConfig config = child(R"("ssmax")");
  config.model.mlp_width = 48;
  const std::string error = error_of(config, Exit::checkpoint);
  for (const char* part : {"blocks.0.mlp.gate_up.weight", "blocks.1.mlp.gate_up.weight",
                           "blocks.0.mlp.down.weight", "blocks.1.mlp.down.weight", "(16, 32)", "(16, 48)"})
    EXPECT_NE(error.find(part), std::string::npos) << part << " is not in " << error;
  EXPECT_EQ(error.find("attn"), std::string::npos) << error;

  // What was refused has not taken the directory: mended, the same command forks.
  run.error_of("child", config, Exit::checkpoint);
  config.model.mlp_width = run.config.model.mlp_width;
  run.train("child", config);
  EXPECT_EQ(run.events("child", "fork").size(), 1U);
  config.init.from = (run.directory / "nowhere").string();
  run.error_of("orphan", config, Exit::checkpoint);
}

TEST_F(ForkTest, OptimizerIsKeptOrReset) {
  train_parent(R"("softmax")");
  TinyTrainer parent(run.config);
  resume_parent(parent);
  RunConfig config = child(R"("ssmax")");
  Forked kept(config);
  config.init.optimizer = KeepOrReset::reset;
  Forked reset(config);
  for (const Param& p : kept.params().all()) {
    const Param* before = parent.trainer.gpt.params.find(p.name);
    const Param& other = *reset.params().find(p.name);
    const std::vector<double> zeros(static_cast<size_t>(p.count()));
    EXPECT_EQ(Tensors::to_doubles(p.m), before ? Tensors::to_doubles(before->m) : zeros) << p.name;
    EXPECT_EQ(Tensors::to_doubles(p.v), before ? Tensors::to_doubles(before->v) : zeros) << p.name;
    EXPECT_EQ(Tensors::to_doubles(other.m), zeros) << p.name;
    EXPECT_EQ(Tensors::to_doubles(other.v), zeros) << p.name;
    EXPECT_EQ(kept.updates(p.name), before ? 10 : 0) << p.name;
    EXPECT_EQ(reset.updates(p.name), 0) << p.name;
  }
  EXPECT_NE(Tensors::to_doubles(kept.params().m()),
            std::vector<double>(static_cast<size_t>(kept.params().m().count())));
}

// Bias correction counts from a tensor's birth: its first update is of size lr, whatever the parent's step.
TEST_F(ForkTest, NewTensorsCountFromTheirBirth) {
  run.config.precision = Precision::fp64;
  train_parent(R"("softmax")");
  for (const KeepOrReset step : {KeepOrReset::keep, KeepOrReset::reset}) {
    RunConfig config = child(R"("ssmax")");
    config.init.step = step;
    Forked forked(config);
    Param& s = *forked.params().find("blocks.1.attn.s");
    const std::vector<double> before = Tensors::to_doubles(s.master);
    const StepResult result = forked.tiny.trainer.step();
    EXPECT_EQ(result.lr,
              learning_rate(config.schedule, config.optimizer.lr, step == KeepOrReset::keep ? 11 : 1));
    const std::vector<double> after = Tensors::to_doubles(s.master);
    for (size_t h = 0; h < before.size(); ++h) {
      EXPECT_GT(std::abs(after[h] - before[h]), 0.9 * result.lr);
      EXPECT_LE(std::abs(after[h] - before[h]), 1.0001 * result.lr);
    }
    EXPECT_EQ(forked.updates("blocks.1.attn.s"), 1);
    EXPECT_EQ(forked.updates("norm.weight"), 11);
  }
}

// --- Runs
// -----------------------------------------------------------------------------------------------------------

// With everything kept and nothing swapped, a fork is its parent's own continuation.
TEST_F(ForkTest, StepKeepContinuesSequenceAndSchedule) {
  train_parent(R"(["softmax", "ssmax"])");
  RunConfig config = child(R"(["softmax", "ssmax"])");
  config.init.step = KeepOrReset::keep;
  run.train("child", config);
  run.train("parent");
  EXPECT_TRUE(fs::exists(run.checkpoint("child", 10)));
  for (const char* file : {"model.safetensors", "optimizer.safetensors"})
    EXPECT_TRUE(content_of(run.checkpoint("child", 20) / file) ==
                content_of(run.checkpoint("parent", 20) / file))
        << file;
  const Metrics child_rows = run.metrics("child"), parent_rows = run.metrics("parent");
  ASSERT_EQ(child_rows.train.size(), 10U);  // its own steps only
  for (size_t i = 0; i < 10; ++i) {
    const TrainRow &row = child_rows.train[i], &same = parent_rows.train[10 + i];
    EXPECT_EQ(row.step, same.step);
    EXPECT_EQ(row.tokens, same.tokens);
    EXPECT_EQ(row.loss, same.loss);
    EXPECT_EQ(row.lr, same.lr);
  }
}

TEST_F(ForkTest, StepKeepNeedsTheParentsOrder) {
  train_parent(R"("softmax")");
  TinyRun other({5, 6});
  const auto attempt = [&](const char* part, Exit exit, auto change) {
    RunConfig config = child(R"("ssmax")");
    change(config);
    config.init.step = KeepOrReset::keep;
    const std::string error = error_of(config, exit);
    EXPECT_NE(error.find(part), std::string::npos) << error;
    EXPECT_NE(error.find("reset"), std::string::npos) << error;
    // A fork that starts anew may differ in all of these.
    config.init.step = KeepOrReset::reset;
    Forked forked(config);
    EXPECT_EQ(forked.tiny.trainer.state.step, 0);
    EXPECT_EQ(forked.tiny.trainer.state.sequences, 0);
    EXPECT_EQ(forked.tiny.trainer.state.tokens, 0);
  };
  attempt("model.context", Exit::usage, [](RunConfig& c) { c.model.context = 8; });
  attempt("batch.sequences", Exit::usage, [](RunConfig& c) { c.batch.sequences = 8; });
  attempt("seed", Exit::usage, [](RunConfig& c) { c.seed = 4; });
  attempt("data.train", Exit::data, [&](RunConfig& c) { c.data.train = other.config.data.train; });
}

TEST_F(ForkTest, AForkIsARunThatKnowsItsParent) {
  train_parent(R"("softmax")");
  const RunConfig config = child(R"("ssmax")");
  RunConfig stopped = config;
  stopped.schedule.stop_after = 5;
  const Checkpoint parent = verify_checkpoint(run.checkpoint("parent", 10));

  const std::string text = run.train("straight", config);
  EXPECT_NE(text.find("Loss on one same batch"), std::string::npos) << text;
  run.train("child", stopped);
  EXPECT_EQ(run.train("child", config).find("Loss on one same batch"), std::string::npos);
  for (const char* file : {"model.safetensors", "optimizer.safetensors"})
    EXPECT_TRUE(content_of(run.checkpoint("child", 20) / file) ==
                content_of(run.checkpoint("straight", 20) / file))
        << file;
  EXPECT_EQ(run.metrics("child").train.size(), 20U);

  EXPECT_EQ(verify_checkpoint(run.checkpoint("child", 0)).step, 0);  // the fork's start
  ASSERT_EQ(run.events("child", "fork").size(), 1U);
  const Json event = run.events("child", "fork")[0];
  EXPECT_EQ(event.at("parent"), parent.directory.string());
  EXPECT_EQ(event.at("parent_step"), 10);
  EXPECT_EQ(event.at("parent_hash"), parent.hash);
  EXPECT_TRUE(event.at("loss_before").is_number_float() && event.at("loss_after").is_number_float());
  EXPECT_EQ(run.events("child", "resume").size(), 1U);
  for (const int64_t step : {0, 5, 20}) {
    const Json recorded = run.state("child", step).at("parent");
    EXPECT_EQ(recorded.at("step"), 10);
    EXPECT_EQ(recorded.at("hash"), parent.hash);
    EXPECT_EQ(recorded.at("path"), parent.directory.string());
  }
}

// The directory remembers the parent, also for a command that does not name it, and when the fork was killed
// before its first checkpoint.
TEST_F(ForkTest, TheDirectoryNeverForgetsItsParent) {
  train_parent(R"("softmax")");
  const RunConfig config = child(R"("ssmax")");
  RunConfig unnamed = config, stopped = config;
  unnamed.init = {};
  stopped.schedule.stop_after = 5;
  run.train("straight", config);
  run.train("child", stopped);
  unnamed.schedule.stop_after = 8;
  run.train("child", unnamed);
  unnamed.schedule.stop_after.reset();
  run.train("child", config);  // names the parent again, and is no other run for that
  EXPECT_TRUE(content_of(run.checkpoint("child", 20) / "model.safetensors") ==
              content_of(run.checkpoint("straight", 20) / "model.safetensors"));

  run.train("killed", stopped);
  fs::remove_all(run.path("killed") / "checkpoints");
  run.train("killed", unnamed);
  EXPECT_EQ(run.events("killed", "fork").size(), 2U);
  EXPECT_TRUE(content_of(run.checkpoint("killed", 20) / "model.safetensors") ==
              content_of(run.checkpoint("straight", 20) / "model.safetensors"));
}

// Without validation data the losses are those of training windows.
TEST_F(ForkTest, LossesWithoutValidationData) {
  run.config.data.validation.reset();
  train_parent(R"("softmax")");
  const RunConfig config = child(kNeutral);
  TinyTrainer tiny(config);
  const ForkReport report =
      fork_run(tiny.trainer, config, *config.init.from, tiny.train, nullptr, no_warning);
  EXPECT_EQ(report.loss_before, report.loss_after);
  EXPECT_GT(report.loss_before, 0.5);
  EXPECT_LT(report.loss_before, std::log(32.0) + 0.1);
}

}  // namespace
}  // namespace keen
