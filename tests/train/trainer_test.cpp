#include "train/trainer.h"

#include <malloc.h>

#include <limits>
#include <numeric>

#include "io/fault.h"
#include "train/tiny_run.h"

namespace keen {
namespace {

using testing::largest_difference;
using testing::Tensors;
using testing::TinyRun;
using testing::TinyTrainer;
using Outcome = StepResult::Outcome;

TEST(Trainer, AccumulationDoesNotChangeTheUpdate) {
  TinyRun run;
  run.config.batch.sequences = 8;
  for (const auto& [precision, tolerance] :
       {std::pair{Precision::fp64, 1e-12}, std::pair{Precision::fp32, 1e-5}}) {
    run.config.precision = precision;
    std::vector<std::vector<double>> losses;
    for (const int64_t micro : {8, 4, 2}) {
      run.config.batch.micro_sequences = micro;
      TinyTrainer tiny(run.config);
      losses.push_back(tiny.losses(5));
      EXPECT_EQ(tiny.trainer.state.step, 5);
      EXPECT_EQ(tiny.trainer.state.sequences, 40);
      EXPECT_EQ(tiny.trainer.state.tokens, 40 * TinyRun::kContext);
    }
    EXPECT_GT(losses[0][0] - losses[0][4], 1e-3);  // something was learned
    EXPECT_LT(largest_difference(losses[1], losses[0]), tolerance) << name_of(precision);
    EXPECT_LT(largest_difference(losses[2], losses[0]), tolerance) << name_of(precision);
  }
}

TEST(Trainer, SoftmaxAndSsmaxOfOneSeedSeeOneDataAndStartAlike) {
  TinyRun run;
  TinyTrainer softmax(run.attention(R"("softmax")").config), ssmax(run.attention(R"("ssmax_bias")").config);
  size_t shared = 0, own = 0;
  for (const Param& p : ssmax.trainer.gpt.params.all()) {
    const Param* other = softmax.trainer.gpt.params.find(p.name);
    if (other == nullptr) {
      ++own;
      continue;
    }
    ++shared;
    EXPECT_EQ(Tensors::to_doubles(p.master), Tensors::to_doubles(other->master)) << p.name;
  }
  EXPECT_EQ(shared, softmax.trainer.gpt.params.all().size());
  EXPECT_EQ(own, 4U);  // s and b of two layers
  // With the row scale at 1 the models compute the same, so equal losses say that they read the same batches:
  // at every step, as long as nothing is learned.
  run.attention(R"({"kind": "ssmax_bias", "s": 0, "b": 1})").config.optimizer.lr = 0;
  TinyTrainer neutral(run.config);
  run.attention(R"("softmax")");
  TinyTrainer still(run.config);
  const std::vector<double> losses = still.losses(12);
  EXPECT_EQ(neutral.losses(12), losses);
  EXPECT_EQ(neutral.trainer.state.sequences, still.trainer.state.sequences);
  for (size_t i = 1; i < losses.size(); ++i)
    EXPECT_NE(losses[i], losses[0]);  // batches differ from step to step
}

TEST(Trainer, AnotherSeedStartsElsewhere) {
  TinyRun run;
  TinyTrainer one(run.config);
  run.config.seed += 1;
  TinyTrainer other(run.config);
  EXPECT_TRUE(one.bytes() != other.bytes());
}

// --- What is not finite
// -------------------------------------------------------------------------------------------

// One NaN in the loss, or in one element of one gradient while everything else is finite.
TEST(Trainer, OneBadNumberChangesNothingButTheBatch) {
  TinyRun run;
  for (const Precision precision : {Precision::fp32, Precision::bf16, Precision::fp64})
    for (const char* point : {"loss", "gradients"}) {
      run.config.precision = precision;
      TinyTrainer tiny(run.config);
      tiny.losses(2);
      const std::string bytes = tiny.bytes();
      TrainState moved_on = tiny.trainer.state;
      moved_on.sequences += run.config.batch.sequences;
      fault::arm(fmt::format("{}:nan", point));
      const StepResult result = tiny.trainer.step();
      fault::arm("");
      EXPECT_EQ(result.outcome, Outcome::non_finite) << point;
      const bool in_loss = point == std::string("loss");
      EXPECT_EQ(std::isfinite(result.loss), !in_loss);
      EXPECT_EQ(result.first_bad.empty(), in_loss) << result.first_bad;
      EXPECT_TRUE(tiny.bytes() == bytes) << point;
      EXPECT_EQ(tiny.trainer.state, moved_on);
      EXPECT_EQ(tiny.trainer.step().outcome, Outcome::updated) << "the next batch is another one";
    }
}

TEST(Trainer, NonFiniteChangesNothingButTheBatch) {
  TinyRun run;
  for (const Precision precision : {Precision::fp32, Precision::bf16, Precision::fp64})
    for (const double bad :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
      run.config.precision = precision;
      TinyTrainer tiny(run.config);
      tiny.losses(2);
      Param& param = *tiny.trainer.gpt.params.find("blocks.1.mlp.down.weight");
      const double before = Tensors::to_doubles(param.master)[7];
      const auto set = [&](double value) {
        with_float_type(param.master.dtype,
                        [&]<class T>() { param.master.as<T>()[7] = T(static_cast<Wide<T>>(value)); });
        tiny.trainer.weights_changed();
      };
      set(bad);
      const std::string bytes = tiny.bytes();
      const TrainState state = tiny.trainer.state;
      const StepResult result = tiny.trainer.step();
      EXPECT_EQ(result.outcome, Outcome::non_finite);
      EXPECT_FALSE(std::isfinite(result.loss));
      EXPECT_FALSE(result.first_bad.empty());
      EXPECT_TRUE(tiny.bytes() == bytes);
      TrainState moved_on = state;
      moved_on.sequences += run.config.batch.sequences;
      EXPECT_EQ(tiny.trainer.state, moved_on);

      // Mended, it goes on as a trainer that was never shown the batch.
      set(before);
      const std::vector<double> losses = tiny.losses(3);
      TinyTrainer without(run.config);
      without.losses(2);
      without.trainer.state.sequences += run.config.batch.sequences;
      EXPECT_EQ(losses, without.losses(3));
      EXPECT_TRUE(tiny.bytes() == without.bytes());
    }
}

// A gradient can overflow where the loss is finite: the activations of the last MLP are huge but multiplied
// by zero, and what comes back through the head is large.
TEST(Trainer, NonFiniteNamesTheFirstBadParameterOfAFiniteLoss) {
  TinyRun run;
  TinyTrainer tiny(run.config);
  const auto fill = [&](const char* name, const std::function<double(int64_t)>& value) {
    Tensors::fill(tiny.trainer.gpt.params.find(name)->master, value);
  };
  fill("blocks.1.mlp.gate_up.weight", [](int64_t i) { return i % 3 == 0 ? 1e15 : -2e15; });
  fill("blocks.1.mlp.down.weight", [](int64_t) { return 0; });
  fill("head.weight", [](int64_t i) { return static_cast<double>(i % 7 - 3) * 1e10; });
  tiny.trainer.weights_changed();
  const std::string bytes = tiny.bytes();
  const StepResult result = tiny.trainer.step();
  EXPECT_TRUE(std::isfinite(result.loss)) << result.loss;
  EXPECT_EQ(result.outcome, Outcome::non_finite);
  EXPECT_EQ(result.first_bad, "blocks.1.mlp.down.weight");
  EXPECT_TRUE(tiny.bytes() == bytes);
}

// --- Clipping
// -------------------------------------------------------------------------------------------------------

// After one update from m = 0, m / (1 - beta1) is the clipped gradient.
TEST(Trainer, ClippedGradientHasTheLimitAsItsNorm) {
  TinyRun run;
  run.config.precision = Precision::fp64;
  const auto after_one_step = [&](double limit) {
    run.config.optimizer.grad_clip = limit;
    TinyTrainer tiny(run.config);
    const double norm = tiny.trainer.step().grad_norm;
    double sum = 0;
    for (const double m : Tensors::to_doubles(tiny.trainer.gpt.params.m())) sum += m * m;
    return std::pair{norm, std::sqrt(sum) / (1 - run.config.optimizer.beta1)};
  };
  const double norm = after_one_step(0).first;
  EXPECT_GT(norm, 0.01);
  for (const double limit : {0.01 * norm, 0.9 * norm}) {
    const auto [reported, clipped] = after_one_step(limit);
    EXPECT_EQ(reported, norm);  // before clipping
    EXPECT_NEAR(clipped, limit, 1e-12 * norm);
  }
  for (const double limit : {0.0, 1.1 * norm, 100 * norm})
    EXPECT_NEAR(after_one_step(limit).second, norm, 1e-12 * norm);
}

// --- Switches that must not change what is computed
// -----------------------------------------------------------------

TEST(Trainer, RecomputeIsBitForBitTheSame) {
  TinyRun run;
  run.config.model.layers = 3;
  run.attention(R"(["softmax", "ssmax", "ssmax_bias"])");
  for (const Precision precision : {Precision::fp32, Precision::bf16, Precision::fp64}) {
    run.config.precision = precision;
    run.config.recompute = Recompute::none;
    TinyTrainer kept(run.config);
    run.config.recompute = Recompute::block;
    TinyTrainer again(run.config);
    EXPECT_EQ(kept.losses(5), again.losses(5)) << name_of(precision);
    EXPECT_TRUE(kept.bytes() == again.bytes()) << name_of(precision);
    EXPECT_EQ(kept.trainer.validate(), again.trainer.validate()) << name_of(precision);
    const auto activations = [](const TinyTrainer& tiny) { return tiny.trainer.memory()[3].bytes; };
    EXPECT_LT(activations(again), activations(kept));
  }
}

TEST(Trainer, ReferenceAttentionAgreesWithFused) {
  TinyRun run;
  for (const auto& [precision, tolerance] :
       {std::pair{Precision::fp64, 1e-12}, std::pair{Precision::fp32, 1e-5},
        std::pair{Precision::bf16, 2e-2}}) {
    run.config.precision = precision;
    run.config.attention_path = AttentionPath::reference;
    TinyTrainer reference(run.config);
    run.config.attention_path = AttentionPath::automatic;
    TinyTrainer fused(run.config);
    EXPECT_LT(largest_difference(reference.losses(5), fused.losses(5)), tolerance) << name_of(precision);
    if (precision == Precision::fp32) {
      EXPECT_TRUE(reference.bytes() != fused.bytes());  // two paths, not one
    }
  }
}

TEST(Trainer, PrecisionsAgreeAsFarAsTheyGo) {
  TinyRun run;
  std::vector<std::vector<double>> losses;
  for (const Precision precision : {Precision::fp64, Precision::fp32, Precision::bf16}) {
    run.config.precision = precision;
    losses.push_back(TinyTrainer(run.config).losses(5));
  }
  EXPECT_LT(largest_difference(losses[1], losses[0]), 1e-5);
  EXPECT_LT(largest_difference(losses[2], losses[0]), 2e-2);
  EXPECT_NE(losses[1], losses[0]);
  EXPECT_NE(losses[2], losses[1]);
}

// --- Memory
// ---------------------------------------------------------------------------------------------------------

TEST(Trainer, ThePlanIsWhatIsAllocated) {
  TinyRun run;
  for (const Precision precision : {Precision::fp32, Precision::bf16, Precision::fp64})
    for (const Recompute recompute : {Recompute::none, Recompute::block})
      for (const AttentionPath path : {AttentionPath::automatic, AttentionPath::reference}) {
        run.config.precision = precision;
        run.config.recompute = recompute;
        run.config.attention_path = path;
        const TinyTrainer planned(run.config, true), real(run.config);
        const auto plan = planned.trainer.memory(), memory = real.trainer.memory();
        ASSERT_EQ(plan.size(), memory.size());
        for (size_t i = 0; i < plan.size(); ++i) {
          EXPECT_EQ(plan[i].category, memory[i].category);
          EXPECT_EQ(plan[i].bytes, memory[i].bytes) << plan[i].category;
          EXPECT_GT(plan[i].bytes, 0) << plan[i].category;
        }
        EXPECT_EQ(planned.trainer.gpt.params.master().data, nullptr);
        // float32 or float64: one array of gradients, two of moments.
        EXPECT_EQ(memory[1].bytes, real.trainer.gpt.params.grad().bytes());
        EXPECT_EQ(memory[2].bytes, 2 * memory[1].bytes);
      }
}

TEST(Trainer, StepsAllocateNothingThatStays) {
  TinyRun run;
  TinyTrainer tiny(run.config);
  tiny.losses(3);  // libraries make their kernels
  tiny.trainer.validate();
  const size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
  for (int i = 0; i < 10; ++i) {
    tiny.trainer.step();
    tiny.trainer.validate();
  }
  const size_t after = mallinfo2().uordblks + mallinfo2().hblkhd;
  EXPECT_LE(after, before + 256);
}

// --- Validation
// -----------------------------------------------------------------------------------------------------

// Each window alone: trained on as a batch of one, at a learning rate of zero. By window.
std::vector<double> losses_of_windows(TinyTrainer& tiny, RunConfig config) {
  config.batch = {.sequences = 1, .micro_sequences = 1};
  config.optimizer.lr = 0;
  config.data.train = *config.data.validation;
  TinyTrainer alone(config);
  const Tensor from = tiny.trainer.gpt.params.master(), to = alone.trainer.gpt.params.master();
  std::copy_n(from.data, from.bytes(), to.data);
  alone.trainer.weights_changed();
  const Loader loader(alone.train, config.model.context, static_cast<uint64_t>(config.seed));
  std::vector<double> losses(static_cast<size_t>(loader.windows()));
  for (int64_t i = 0; i < loader.windows(); ++i)
    losses[static_cast<size_t>(loader.sample_id(i))] = alone.trainer.step().loss;
  return losses;
}

TEST(Trainer, ValidationIsTheMeanOverWindows) {
  TinyRun run;
  run.config.precision = Precision::fp64;
  // Five windows are there. Groups of 2: one group; two; three, the last one partial; more than there are.
  for (const auto& [micro, batches, windows] : std::vector<std::array<int64_t, 3>>{
           {2, 1, 2}, {2, 2, 4}, {2, 3, 5}, {2, 100, 5}, {1, 3, 3}, {4, 1, 4}, {4, 2, 5}}) {
    run.config.batch = {.sequences = 4, .micro_sequences = micro};
    run.config.evaluate.batches = batches;
    TinyTrainer tiny(run.config);
    tiny.losses(3);
    const std::string bytes = tiny.bytes();
    const double loss = tiny.trainer.validate().value();
    const std::vector<double> losses = losses_of_windows(tiny, run.config);
    ASSERT_EQ(losses.size(), 5U);
    const double mean =
        std::accumulate(losses.begin(), losses.begin() + windows, 0.0) / static_cast<double>(windows);
    EXPECT_NEAR(loss, mean, 1e-12) << micro << " x " << batches;
    EXPECT_TRUE(tiny.bytes() == bytes);
  }
}

TEST(Trainer, ValidationInBetweenDoesNotDisturbTraining) {
  TinyRun run;
  TinyTrainer evaluated(run.config), plain(run.config);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(evaluated.losses(1), plain.losses(1));
    evaluated.trainer.validate();
  }
  EXPECT_TRUE(evaluated.bytes() == plain.bytes());
  run.config.data.validation.reset();
  TinyTrainer without(run.config);
  EXPECT_FALSE(without.trainer.has_validation());
  EXPECT_TRUE(plain.trainer.has_validation());
}

// --- Learning
// -------------------------------------------------------------------------------------------------------

// A sequence of 32 tokens over and over, where the one before does not say what follows: 8 tokens, each with
// 4 followers, so a model without attention stays above ln 4 at the best of times.
TEST(Trainer, ATinyModelLearnsAPatternThatNeedsAttention) {
  TinyRun run;
  std::vector<int32_t> pattern, tokens;
  for (int32_t i = 0; i < 32; ++i) pattern.push_back(i % 2 == 0 ? i / 8 : 4 + (i / 2) % 4);
  for (int32_t i = 0; i < 32 * 64; ++i) tokens.push_back(pattern[static_cast<size_t>(i % 32)]);
  testing::write_shard(run.directory / "pattern.bin", tokens);
  run.config.data.train = run.config.data.validation.emplace((run.directory / "pattern.bin").string());
  run.config.batch = {.sequences = 16, .micro_sequences = 16};
  run.config.optimizer.lr = 1e-2;
  run.config.schedule.steps = 200;
  for (const char* attention : {R"("softmax")", R"("ssmax")"}) {
    TinyTrainer tiny(run.attention(attention).config);
    const std::vector<double> losses = tiny.losses(200);
    EXPECT_NEAR(losses.front(), std::log(32.0), 0.1) << attention;
    EXPECT_LT(losses.back(), 0.5) << attention;
    EXPECT_LT(tiny.trainer.validate().value(), 0.5) << attention;
  }
}

}  // namespace
}  // namespace keen
