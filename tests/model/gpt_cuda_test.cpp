// A whole model on CUDA, against the same model on the CPU.
#include <memory>

#include "cuda_test.h"
#include "model/generator.h"
#include "model/tiny_gpt.h"

namespace keen {
namespace {

using testing::CudaTest;
using testing::ssmax_bias;
using testing::tiny_config;

// A model bound for generation of two sequences.
struct Decoder {
  Context ctx;
  Gpt gpt;
  Gpt::Arenas arenas;
  std::unique_ptr<Generator> generator;

  Decoder(const ModelConfig& config, Device device, int64_t capacity)
      : ctx(device), gpt(config, DType::f32), arenas(device) {
    plan_and_allocate(
        ctx, arenas,
        [&] {
          gpt.bind(false, capacity, arenas);
          generator = std::make_unique<Generator>(ctx, gpt, 2, capacity, arenas.activations);
        },
        [] {});
    fill_tables(gpt.config, gpt.tables);
    gpt.params.initialize(11);
    gpt.params.round_values(ctx);
  }
};

using GptCuda = CudaTest;

TEST_F(GptCuda, TablesAndWeightsAreTheCpusBitForBit) {
  ModelConfig config = tiny_config();
  config.attention[1] = ssmax_bias();
  Decoder cpu(config, Device::cpu, 9), cuda(config, Device::cuda, 9);
  EXPECT_EQ(to_doubles(cuda.gpt.tables.rotation), to_doubles(cpu.gpt.tables.rotation));
  EXPECT_EQ(to_doubles(cuda.gpt.tables.log_n), to_doubles(cpu.gpt.tables.log_n));
  EXPECT_EQ(to_doubles(cuda.gpt.params.master()), to_doubles(cpu.gpt.params.master()));
}

// Prompts of unequal lengths, then token by token with cached keys: the same logits, so the same text.
TEST_F(GptCuda, DecodesAsTheCpuDoes) {
  ModelConfig config = tiny_config();
  config.attention[1] = ssmax_bias();
  Decoder cpu(config, Device::cpu, 20), cuda(config, Device::cuda, 20);
  std::vector<int32_t> first = {3, 1, 4, 1, 5, 9, 2}, second = {6};
  for (int turn = 0; turn < 6; ++turn) {
    const std::vector<Generator::Feed> feeds = {{0, first}, {1, second}};
    cpu.generator->feed(feeds);
    cuda.generator->feed(feeds);
    for (const size_t i : {0, 1}) {
      const auto want = cpu.generator->logits(i), got = cuda.generator->logits(i);
      for (size_t v = 0; v < want.size(); ++v) EXPECT_NEAR(got[v], want[v], 1e-4) << "turn " << turn;
      EXPECT_EQ(choose_token(got, {.temperature = 0}, 0).id, choose_token(want, {.temperature = 0}, 0).id);
    }
    first = {choose_token(cpu.generator->logits(0), {.temperature = 0}, 0).id};
    second = {choose_token(cpu.generator->logits(1), {.temperature = 0}, 0).id};
  }
}

}  // namespace
}  // namespace keen
