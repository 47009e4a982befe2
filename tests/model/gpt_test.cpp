#include "model/gpt.h"

#include <functional>

#include "model/tiny_gpt.h"

namespace keen {
namespace {

using testing::ssmax;
using testing::ssmax_bias;
using testing::ssmax_fixed;
using testing::Tensors;
using testing::tiny_config;
using testing::TinyGpt;

struct Switch {
  const char* name;
  std::function<void(ModelConfig&)> apply;
};

// Every switch of the model config, and every kind of attention.
const std::vector<Switch> kSwitches = {
    {"llama", [](ModelConfig&) {}},
    {"gpt2",
     [](ModelConfig& c) {
       c.norm = NormKind::layernorm;
       c.mlp = MlpKind::gelu;
       c.position = PositionKind::learned;
       c.bias = c.tie_embeddings = true;
     }},
    {"layernorm", [](ModelConfig& c) { c.norm = NormKind::layernorm; }},
    {"gelu", [](ModelConfig& c) { c.mlp = MlpKind::gelu; }},
    {"learned_positions", [](ModelConfig& c) { c.position = PositionKind::learned; }},
    {"no_positions", [](ModelConfig& c) { c.position = PositionKind::none; }},
    {"half_of_the_pairs", [](ModelConfig& c) { c.rope_fraction = 0.5; }},
    {"theta", [](ModelConfig& c) { c.rope_theta = 17; }},
    {"bias", [](ModelConfig& c) { c.bias = true; }},
    {"tied", [](ModelConfig& c) { c.tie_embeddings = true; }},
    {"qk_norm", [](ModelConfig& c) { c.qk_norm = true; }},
    {"all_key_heads", [](ModelConfig& c) { c.kv_heads = 4; }},
    {"one_key_head", [](ModelConfig& c) { c.kv_heads = 1; }},
    {"eps", [](ModelConfig& c) { c.norm_eps = 0.1; }},
    {"ssmax",
     [](ModelConfig& c) {
       c.attention = {ssmax(), ssmax(0.7)};
     }},
    {"ssmax_fixed",
     [](ModelConfig& c) {
       c.attention = {ssmax_fixed(), ssmax_fixed()};
     }},
    {"ssmax_bias",
     [](ModelConfig& c) {
       c.attention = {ssmax_bias(), ssmax_bias(-0.2, 0)};
     }},
    {"mixed",
     [](ModelConfig& c) {
       c.attention = {LayerAttention{}, ssmax()};
     }},
    {"ssmax_zero",
     [](ModelConfig& c) {
       c.attention = {ssmax(0), ssmax(-0.3)};
     }},
    {"ssmax_qk_norm",
     [](ModelConfig& c) {
       c.attention = {ssmax(), ssmax_bias()};
       c.qk_norm = true;
     }},
    {"ssmax_learned_positions",
     [](ModelConfig& c) {
       c.attention = {ssmax(), ssmax_bias()};
       c.position = PositionKind::learned;
     }},
};

class GptSwitch : public ::testing::TestWithParam<Switch> {};

TEST_P(GptSwitch, GradientsEqualCentralDifferences) {
  ModelConfig config = tiny_config();
  GetParam().apply(config);
  TinyGpt tiny(config, DType::f64, 2, 9);
  tiny.perturb(0.2);
  tiny.loss_and_gradients();
  for (Param& p : tiny.gpt.params.all()) {
    if (!p.learned) {
      EXPECT_FALSE(p.grad) << p.name;
      continue;
    }
    EXPECT_LT(testing::gradient_error([&] { return tiny.loss(); }, p.master, p.grad, 12), 2e-7) << p.name;
  }
}

TEST_P(GptSwitch, GradientsAddAndRecomputeGivesTheSameBits) {
  ModelConfig config = tiny_config();
  GetParam().apply(config);
  TinyGpt kept(config, DType::f32, 2, 9, Keep::everything), again(config, DType::f32, 2, 9, Keep::inputs);
  kept.perturb(0.2);
  again.perturb(0.2);
  EXPECT_EQ(kept.loss_and_gradients(), again.loss_and_gradients());
  const auto once = Tensors::to_doubles(kept.gpt.params.grad());
  EXPECT_EQ(once, Tensors::to_doubles(again.gpt.params.grad()));
  EXPECT_LT(again.arenas.activations.peak(), kept.arenas.activations.peak());
  kept.loss_and_gradients();
  const auto twice = Tensors::to_doubles(kept.gpt.params.grad());
  for (size_t i = 0; i < once.size(); ++i) EXPECT_NEAR(twice[i], 2 * once[i], 1e-5 * (1 + std::abs(once[i])));
}

TEST_P(GptSwitch, Float32AndBfloat16FollowFloat64) {
  ModelConfig config = tiny_config();
  GetParam().apply(config);
  TinyGpt exact(config, DType::f64, 2, 9), single(config, DType::f32, 2, 9), half(config, DType::bf16, 2, 9);
  for (TinyGpt* tiny : {&exact, &single, &half}) tiny->perturb(0.2);
  const double want = exact.loss_and_gradients();
  EXPECT_NEAR(single.loss_and_gradients(), want, 1e-5);
  EXPECT_NEAR(half.loss_and_gradients(), want, 5e-2);
  for (Param& p : exact.gpt.params.all()) {
    if (!p.learned) continue;
    EXPECT_LT(testing::relative_error(single.gpt.params.find(p.name)->grad, p.grad, 1e-2), 1e-4) << p.name;
    EXPECT_LT(testing::relative_error(half.gpt.params.find(p.name)->grad, p.grad, 1e-2), 0.25) << p.name;
  }
}

TEST_P(GptSwitch, ForwardOnlyMemoryGivesTheSameLosses) {
  ModelConfig config = tiny_config();
  config.layers = 3;
  GetParam().apply(config);
  config.attention.resize(3, config.attention[0]);
  TinyGpt kept(config, DType::f64, 2, 9), forward(config, DType::f64, 2, 9, Keep::nothing);
  EXPECT_EQ(kept.loss(), forward.loss());
  EXPECT_LT(forward.arenas.activations.peak(), kept.arenas.activations.peak());
  EXPECT_EQ(forward.arenas.gradients.peak(), 0);
}

INSTANTIATE_TEST_SUITE_P(All, GptSwitch, ::testing::ValuesIn(kSwitches),
                         [](const auto& info) { return info.param.name; });

// Each switch moves the loss of one and the same initialization: none is read and then forgotten.
TEST(Gpt, EverySwitchChangesTheLoss) {
  const auto loss = [](const Switch& s) {
    ModelConfig config = tiny_config();
    s.apply(config);
    TinyGpt tiny(config, DType::f64, 2, 9);
    tiny.perturb(0.3);
    return tiny.loss();
  };
  std::map<double, const char*> seen;
  for (const Switch& s : kSwitches) {
    const auto [at, fresh] = seen.emplace(loss(s), s.name);
    EXPECT_TRUE(fresh) << s.name << " gives the loss of " << at->second;
  }
}

// Trap 8: the affine scale at s = 0, b = 1 is softmax to the last bit, in every precision.
TEST(Gpt, SsmaxBiasAtZeroAndOneIsSoftmaxBitForBit) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16})
    for (const PositionKind position : {PositionKind::rope, PositionKind::learned}) {
      ModelConfig plain = tiny_config();
      plain.position = position;
      ModelConfig scaled = plain;
      scaled.attention = {ssmax_bias(0, 1), ssmax_bias(0, 1)};
      TinyGpt a(plain, dtype, 2, 9), b(scaled, dtype, 2, 9);
      a.perturb(0.2);
      b.perturb(0.2);
      EXPECT_EQ(a.logits(), b.logits());
      EXPECT_EQ(a.loss_and_gradients(), b.loss_and_gradients());
      for (Param& p : a.gpt.params.all())
        EXPECT_EQ(Tensors::to_doubles(p.grad), Tensors::to_doubles(b.gpt.params.find(p.name)->grad))
            << p.name;
    }
}

// Softmax and SSMax runs of one seed start from the same shared weights.
TEST(Gpt, SharedWeightsDoNotDependOnTheAttention) {
  ModelConfig config = tiny_config();
  TinyGpt plain(config, DType::f32, 1, 4);
  config.attention = {ssmax(), ssmax_bias()};
  TinyGpt scaled(config, DType::f32, 1, 4);
  for (Param& p : plain.gpt.params.all())
    EXPECT_EQ(Tensors::to_doubles(p.master), Tensors::to_doubles(scaled.gpt.params.find(p.name)->master))
        << p.name;
  EXPECT_EQ(scaled.gpt.params.all().size(), plain.gpt.params.all().size() + 3);
}

TEST(Gpt, InitializationIsGpt2s) {
  ModelConfig config = tiny_config();
  config.width = 96;
  config.heads = config.kv_heads = 4;
  config.mlp_width = 256;
  TinyGpt tiny(config, DType::f32, 1, 4);
  const auto stddev = [&](const char* name) {
    double sum = 0;
    const auto values = Tensors::to_doubles(tiny.gpt.params.find(name)->master);
    for (const double v : values) sum += v * v;
    return std::sqrt(sum / static_cast<double>(values.size()));
  };
  EXPECT_NEAR(stddev("blocks.0.attn.qkv.weight"), 0.02, 5e-4);
  EXPECT_NEAR(stddev("blocks.1.mlp.gate_up.weight"), 0.02, 5e-4);
  EXPECT_NEAR(stddev("embed.tokens.weight"), 0.02, 1e-3);
  EXPECT_NEAR(stddev("blocks.0.attn.proj.weight"), 0.02 / std::sqrt(4.0), 5e-4);
  EXPECT_NEAR(stddev("blocks.1.mlp.down.weight"), 0.02 / std::sqrt(4.0), 5e-4);
  EXPECT_EQ(stddev("norm.weight"), 1);
}

// The paper's model has 162,148,608 parameters (arXiv 2501.19399), GPT-2 small 124,439,808.
TEST(Gpt, CountsTheParametersOfKnownModels) {
  ModelConfig paper;
  EXPECT_EQ(Gpt(paper, DType::f32).params.count(), 162148608);
  ModelConfig ssmax_paper;
  ssmax_paper.attention.assign(12, ssmax());
  EXPECT_EQ(Gpt(ssmax_paper, DType::f32).params.count(), 162148608 + 144);
  ModelConfig gpt2;
  gpt2.norm = NormKind::layernorm;
  gpt2.mlp = MlpKind::gelu;
  gpt2.mlp_width = 3072;
  gpt2.position = PositionKind::learned;
  gpt2.bias = gpt2.tie_embeddings = true;
  EXPECT_EQ(Gpt(gpt2, DType::f32).params.count(), 124439808);
}

TEST(Gpt, CallsEveryBucketOnceFromTheHeadDown) {
  TinyGpt tiny(tiny_config(), DType::f32, 1, 5);
  std::vector<int64_t> order;
  gpt_forward(tiny.ctx, tiny.gpt, tiny.pass, tiny.acts, tiny.ids);
  gpt_backward(tiny.ctx, tiny.gpt, tiny.pass, tiny.acts, tiny.ids, tiny.targets, 1,
               [&](int64_t bucket) { order.push_back(bucket); });
  EXPECT_EQ(order, (std::vector<int64_t>{3, 2, 1, 0}));
}

// A planned step takes what a real one takes: nothing is left, nothing is missing.
TEST(Gpt, PlansForCudaWithoutADevice) {
  Context ctx(Device::cuda);
  Gpt::Arenas arenas(Device::cuda);
  Gpt gpt(tiny_config(), DType::bf16);
  const Pass pass{.B = 2, .T = 9, .tables = &gpt.tables};
  GptActs acts;
  Tensor ids;
  plan_and_allocate(
      ctx, arenas,
      [&] {
        gpt.bind(true, 9, arenas);
        acts = take_gpt_acts(gpt, pass, Keep::everything, arenas.activations);
        ids = arenas.activations.take({pass.N()}, DType::i32);
      },
      [&] {
        gpt_forward(ctx, gpt, pass, acts, ids);
        gpt_backward(ctx, gpt, pass, acts, ids, ids, 1);
      },
      false);
  EXPECT_GT(arenas.activations.peak(), 0);
  EXPECT_GT(arenas.weights.peak(), gpt.params.count() * 6);
}

}  // namespace
}  // namespace keen
