// Whole training steps on CUDA, against the same steps on the CPU.
#include <cstdlib>
#include <limits>

#include "core/copy.h"
#include "cuda_test.h"
#include "environment.h"
#include "train/tiny_run.h"
#include "train/trainer.h"

namespace keen {
namespace {

using testing::CudaTest;
using testing::CudaTypeTest;
using testing::largest_difference;
using testing::TinyRun;
using testing::TinyTrainer;
using Outcome = StepResult::Outcome;

RunConfig on(Device device, RunConfig config) {
  config.device = device == Device::cuda ? DeviceChoice::cuda : DeviceChoice::cpu;
  return config;
}

double largest_relative_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double size = 1e-30;
  for (const double x : b) size = std::max(size, std::abs(x));
  return largest_difference(a, b) / size;
}

struct Variant {
  const char* name;
  std::function<void(RunConfig&)> change;
};
void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

const Variant kVariants[] = {
    {"llama", [](RunConfig&) {}},
    {"gpt2",
     [](RunConfig& c) {
       c.model.norm = NormKind::layernorm;
       c.model.mlp = MlpKind::gelu;
       c.model.position = PositionKind::learned;
       c.model.bias = c.model.tie_embeddings = true;
     }},
    {"grouped_heads_and_qk_norm",
     [](RunConfig& c) {
       c.model.heads = 4;
       c.model.kv_heads = 2;
       c.model.width = 32;
       c.model.qk_norm = true;
       c.model.rope_fraction = 0.5;
       c.recompute = Recompute::block;
     }},
    {"no_positions_odd_sizes",
     [](RunConfig& c) {
       c.model.position = PositionKind::none;
       c.model.width = 18;
       c.model.heads = c.model.kv_heads = 3;
       c.model.mlp_width = 27;
       c.model.vocab_size = 37;
     }},
};

class TrainerVariantCuda : public ::testing::TestWithParam<Variant> {
 protected:
  void SetUp() override {
    if (!testing::cuda_is_here()) GTEST_SKIP() << "this build or this machine has no CUDA device";
  }
};

// Two micro-batches a step: the first one of all runs as it is, the second is recorded, the others are
// replayed.
TEST_P(TrainerVariantCuda, FollowsTheCpu) {
  TinyRun run;
  GetParam().change(run.config);
  run.attention(R"(["softmax", "ssmax_bias"])");
  TinyTrainer cpu(on(Device::cpu, run.config)), cuda(on(Device::cuda, run.config));
  const Params &cpu_params = cpu.trainer.gpt.params, &cuda_params = cuda.trainer.gpt.params;
  EXPECT_EQ(to_doubles(cuda_params.master()), to_doubles(cpu_params.master()));
  for (int step = 0; step < 5; ++step) {
    const StepResult want = cpu.trainer.step(), got = cuda.trainer.step();
    EXPECT_EQ(got.outcome, Outcome::updated);
    EXPECT_NEAR(got.loss, want.loss, 1e-4 * want.loss);
    EXPECT_NEAR(got.grad_norm, want.grad_norm, 1e-4 * want.grad_norm);
    for (size_t i = 0; i < cpu_params.all().size(); ++i) {
      const Param &a = cuda_params.all()[i], &b = cpu_params.all()[i];
      if (!b.learned) continue;
      EXPECT_LT(largest_relative_difference(to_doubles(a.grad), to_doubles(b.grad)), 1e-3)
          << b.name << " in step " << step + 1;
    }
  }
  EXPECT_LT(largest_relative_difference(to_doubles(cuda_params.master()), to_doubles(cpu_params.master())),
            1e-3);
  EXPECT_EQ(cuda.trainer.state, cpu.trainer.state);
  EXPECT_NEAR(*cuda.trainer.validate(), *cpu.trainer.validate(), 1e-4);
}

// In one kernel with their products, or in kernels of their own: GELU, its slope, and the gradients of
// biases.
TEST_P(TrainerVariantCuda, FollowsTheCpuWithTimedProducts) {
  for (const int ahead_ms : {5, -5}) {
    const testing::FreshGemmChoices fresh(ahead_ms);
    TinyRun run;
    GetParam().change(run.config);
    TinyTrainer cpu(on(Device::cpu, run.config));
    run.config.time_gemms = true;
    TinyTrainer cuda(on(Device::cuda, run.config));
    const std::vector<double> want = cpu.losses(4), got = cuda.losses(4);
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-4 * want[i]) << ahead_ms;
  }
}
INSTANTIATE_TEST_SUITE_P(Models, TrainerVariantCuda, ::testing::ValuesIn(kVariants),
                         [](const auto& info) { return info.param.name; });

using TrainerTypeCuda = CudaTypeTest;

TEST_P(TrainerTypeCuda, RepeatsBitForBit) {
  TinyRun run;
  run.config.precision = GetParam() == DType::bf16 ? Precision::bf16 : Precision::fp32;
  TinyTrainer one(on(Device::cuda, run.config)), other(on(Device::cuda, run.config));
  EXPECT_EQ(one.losses(4), other.losses(4));
  EXPECT_TRUE(one.bytes() == other.bytes());
}

TEST_P(TrainerTypeCuda, NonFiniteChangesNothingButTheBatch) {
  TinyRun run;
  run.config.precision = GetParam() == DType::bf16 ? Precision::bf16 : Precision::fp32;
  run.config = on(Device::cuda, run.config);
  TinyTrainer tiny(run.config);
  tiny.losses(2);
  const Tensor value =
      tiny.trainer.gpt.params.find("blocks.1.mlp.down.weight")->master.reshape({16 * 32}).rows(7, 8);
  const std::vector<float> before = {static_cast<float>(to_doubles(value)[0])};
  const std::vector<float> bad = {std::numeric_limits<float>::infinity()};
  const auto set = [&](const std::vector<float>& number) {
    copy_now(value, view_of(std::span(number)));
    tiny.trainer.weights_changed();
  };
  set(bad);
  const std::string bytes = tiny.bytes();
  const StepResult result = tiny.trainer.step();
  EXPECT_EQ(result.outcome, Outcome::non_finite);
  EXPECT_FALSE(result.first_bad.empty());
  EXPECT_TRUE(tiny.bytes() == bytes);
  EXPECT_EQ(tiny.trainer.state.step, 2);

  // Mended, it goes on as a trainer that was never shown the batch.
  set(before);
  const std::vector<double> losses = tiny.losses(2);
  TinyTrainer without(run.config);
  without.losses(2);
  without.trainer.state.sequences += run.config.batch.sequences;
  EXPECT_EQ(losses, without.losses(2));
  EXPECT_TRUE(tiny.bytes() == without.bytes());
}
INSTANTIATE_TEST_SUITE_P(Types, TrainerTypeCuda, testing::kCudaTypes, testing::type_name);

using TrainerCuda = CudaTest;

}  // namespace
}  // namespace keen
namespace cuda_emulator {
int64_t idle_waits();  // tests/cuda_emulator/cuda_runtime.h, which a build for a GPU does not have
}
namespace keen {
namespace {

// The host lets the device become idle once a step, where it reads the result; not for tokens, for tables, or
// between micro-batches.
TEST_F(TrainerCuda, WaitsForTheDeviceOnceAStep) {
  if constexpr (!kCudaEmulated) {
    GTEST_SKIP() << "only the emulator counts";
  } else {
    TinyRun run;
    run.config.batch.sequences = 4 * run.config.batch.micro_sequences;
    TinyTrainer tiny(on(Device::cuda, run.config));
    tiny.losses(2);  // libraries plan in the first micro-batch, and the second is recorded
    for (int step = 0; step < 3; ++step) {
      const int64_t before = cuda_emulator::idle_waits();
      tiny.losses(1);
      EXPECT_EQ(cuda_emulator::idle_waits() - before, 1);
    }
  }
}

TEST_F(TrainerCuda, Bf16StaysCloseToTheCpu) {
  TinyRun run;
  TinyTrainer cpu(on(Device::cpu, run.config));
  run.config.precision = Precision::bf16;
  TinyTrainer cuda(on(Device::cuda, run.config));
  EXPECT_LT(largest_difference(cuda.losses(6), cpu.losses(6)), 2e-2);
}

// A run may move between devices: the losses go on, and on one device a resumed run is an uninterrupted one.
TEST_F(TrainerCuda, RunsMoveBetweenDevices) {
  TinyRun run;
  run.config.schedule.steps = 8;
  const auto losses_of = [&](const char* name) {
    std::vector<double> losses;
    for (const TrainRow& row : run.metrics(name).train) losses.push_back(row.loss);
    return losses;
  };
  const auto train = [&](const char* name, Device first, Device then) {
    RunConfig config = on(first, run.config);
    config.schedule.stop_after = 4;
    run.train(name, config);
    run.train(name, on(then, run.config));
    EXPECT_EQ(run.events(name, "resume").size(), 1U);
    return losses_of(name);
  };
  run.train("whole", on(Device::cuda, run.config));
  const std::vector<double> whole = losses_of("whole");
  run.train("cpu", on(Device::cpu, run.config));
  EXPECT_EQ(whole.size(), 8U);
  EXPECT_LT(largest_difference(losses_of("cpu"), whole), 1e-4 * whole[0]);
  EXPECT_EQ(train("resumed", Device::cuda, Device::cuda), whole);
  EXPECT_LT(largest_difference(train("to_cuda", Device::cpu, Device::cuda), whole), 1e-4 * whole[0]);
  EXPECT_LT(largest_difference(train("to_cpu", Device::cuda, Device::cpu), whole), 1e-4 * whole[0]);
  const auto model_of = [&](const char* name) {
    return testing::content_of(run.checkpoint(name, 8) / "model.safetensors");
  };
  EXPECT_TRUE(model_of("resumed") == model_of("whole"));
}

TEST_F(TrainerCuda, ForksOnTheDevice) {
  TinyRun run;
  run.config.schedule.steps = 3;
  run.attention(R"("softmax")");
  run.train("parent", on(Device::cpu, run.config));
  run.attention(R"({"kind": "ssmax_bias", "s": 0, "b": 1})");
  run.config.init.from = run.path("parent").string();
  run.train("child", on(Device::cuda, run.config));
  const Json fork = run.events("child", "fork").at(0);
  EXPECT_EQ(fork.at("loss_before"), fork.at("loss_after"));  // c = 0 ln n + 1 is no change at all
  EXPECT_EQ(run.metrics("child").train.size(), 3U);
}

// The plan of a run is what it then allocates, on the device as well.
TEST_F(TrainerCuda, PlanIsWhatIsAllocated) {
  TinyRun run;
  run.config = on(Device::cuda, run.config);
  TinyTrainer plan(run.config, true), real(run.config);
  real.losses(1);
  const auto planned = plan.trainer.memory(), taken = real.trainer.memory();
  ASSERT_EQ(planned.size(), taken.size());
  for (size_t i = 0; i < planned.size(); ++i) {
    EXPECT_GT(taken[i].bytes, 0);
    EXPECT_EQ(planned[i].bytes, taken[i].bytes) << taken[i].category;
  }
}

TEST(Trainer, PlansForCudaOnAnyMachine) {
  TinyRun run;
  for (const Precision precision : {Precision::fp32, Precision::bf16}) {
    run.config.precision = precision;
    TinyTrainer plan(on(Device::cuda, run.config), true);
    for (const MemoryUse& use : plan.trainer.memory()) EXPECT_GT(use.bytes, 0) << use.category;
  }
}

// The message names what each category needs, the sum and what is free.
TEST_F(TrainerCuda, OutOfMemorySaysWhatNeedsHowMuch) {
  if (!kCudaEmulated) GTEST_SKIP() << "only the emulator's memory can be made small";
  setenv("KEEN_EMULATOR_MEMORY_MIB", "2", 1);
  TinyRun run;
  run.config.model.mlp_width = 4096;
  const std::string message = run.error_of("run", on(Device::cuda, run.config), Exit::device);
  unsetenv("KEEN_EMULATOR_MEMORY_MIB");
  for (const char* part : {"out of device memory: ", " of 2 MiB are free: weights ", ", gradients ",
                           ", optimizer moments ", ", activations ", ", scratch ", "batch.micro_sequences"})
    EXPECT_NE(message.find(part), std::string::npos) << part << " in " << message;
}

}  // namespace
}  // namespace keen
