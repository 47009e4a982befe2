#include "model/generator.h"

#include <memory>

#include "model/tiny_gpt.h"

namespace keen {
namespace {

using testing::ssmax;
using testing::ssmax_bias;
using testing::ssmax_fixed;
using testing::tiny_config;
using testing::TinyGpt;

// A model bound for generation, with the weights of `source`.
struct Decoder {
  Context ctx;
  Gpt gpt;
  Gpt::Arenas arenas{Device::cpu};
  std::unique_ptr<Generator> generator;

  Decoder(TinyGpt& source, int64_t capacity) : gpt(source.gpt.config, source.gpt.dtype) {
    plan_and_allocate(
        ctx, arenas,
        [&] {
          gpt.bind(false, capacity, arenas);
          generator = std::make_unique<Generator>(ctx, gpt, capacity, arenas.activations);
        },
        [] {});
    fill_tables(gpt.config, gpt.tables);
    const Tensor from = source.gpt.params.master();
    std::copy(from.data, from.data + from.bytes(), gpt.params.master().data);
    gpt.params.round_values(ctx);
  }
};

// Trap 5: decoding with cached keys gives the logits of the full forward pass, for every kind of attention
// and every way of cutting the text into pieces, also beyond the training context.
TEST(Generator, CachedDecodingEqualsTheFullForward) {
  const int64_t T = 23;
  std::vector<std::pair<const char*, ModelConfig>> configs;
  for (const auto& [name, attention] : std::vector<std::pair<const char*, std::vector<LayerAttention>>>{
           {"softmax", {LayerAttention{}, LayerAttention{}}},
           {"ssmax", {ssmax(), ssmax(0.9)}},
           {"ssmax_fixed", {ssmax_fixed(), ssmax_fixed()}},
           {"mixed", {ssmax_bias(), LayerAttention{}}}}) {
    ModelConfig config = tiny_config();
    config.attention = attention;
    configs.emplace_back(name, config);
    config.qk_norm = true;
    config.position = PositionKind::none;
    configs.emplace_back(name, config);
    config.position = PositionKind::learned;
    config.context = T;
    configs.emplace_back(name, config);
  }
  for (const auto& [name, config] : configs) {
    TinyGpt full(config, DType::f64, 1, T, Keep::nothing);
    full.perturb(0.3);
    const auto want = full.logits();
    const auto V = static_cast<size_t>(config.vocab_size);
    const std::span<const int32_t> ids(full.ids.as<int32_t>(), static_cast<size_t>(T));
    for (const size_t piece : {1, 2, 7, 23}) {
      Decoder decoder(full, T);
      for (size_t begin = 0; begin < ids.size(); begin += piece) {
        const size_t end = std::min(begin + piece, ids.size());
        const auto logits = decoder.generator->feed(ids.subspan(begin, end - begin));
        for (size_t v = 0; v < V; ++v)
          EXPECT_NEAR(logits[v], want[(end - 1) * V + v], 1e-11) << name << " " << piece;
      }
    }
  }
}

TEST(Generator, FeedsPromptsLongerThanOnePiece) {
  const int64_t T = Generator::kPiece + 37;
  ModelConfig config = tiny_config();
  config.attention = {ssmax(), LayerAttention{}};
  TinyGpt full(config, DType::f64, 1, T, Keep::nothing);
  full.perturb(0.3);
  const auto want = full.logits();
  Decoder decoder(full, T);
  const auto logits =
      decoder.generator->feed(std::span<const int32_t>(full.ids.as<int32_t>(), static_cast<size_t>(T)));
  for (size_t v = 0; v < 19; ++v) EXPECT_NEAR(logits[v], want[static_cast<size_t>(T - 1) * 19 + v], 1e-11);
}

TEST(Generator, RefusesWhatDoesNotFit) {
  ModelConfig config = tiny_config();
  config.position = PositionKind::learned;
  TinyGpt full(config, DType::f64, 1, 9, Keep::nothing);
  EXPECT_THROW(Decoder(full, 10), Error) << "learned positions end at 9";
  Decoder decoder(full, 9);
  const std::vector<int32_t> ids(10, 1);
  EXPECT_THROW(decoder.generator->feed(ids), Error);
}

TEST(ChooseToken, FollowsTheSettings) {
  const std::vector<double> logits = {1, 3, 2, 3, -1};
  EXPECT_EQ(choose_token(logits, {.temperature = 0}, 0.9), 1) << "the first of equals";
  EXPECT_EQ(choose_token(logits, {.top_k = 1}, 0.99), 1);
  EXPECT_EQ(choose_token(logits, {.top_k = 2}, 0.99), 3);
  EXPECT_EQ(choose_token(logits, {.top_p = 0.1}, 0.99), 1);
  EXPECT_EQ(choose_token(logits, {}, 0.9999999), 4);
  EXPECT_EQ(choose_token(logits, {}, 0), 1);
}

// The share of each token over many draws is its probability at that temperature.
TEST(ChooseToken, DrawsInProportion) {
  const std::vector<double> logits = {0.5, 1.5, -0.5};
  const double temperature = 0.7;
  double total = 0;
  std::vector<double> count(3);
  for (const double x : logits) total += std::exp(x / temperature);
  const int draws = 20000;
  for (int i = 0; i < draws; ++i)
    ++count[static_cast<size_t>(choose_token(logits, {.temperature = temperature}, (i + 0.5) / draws))];
  for (size_t v = 0; v < 3; ++v)
    EXPECT_NEAR(count[v] / draws, std::exp(logits[v] / temperature) / total, 1e-3);
}

}  // namespace
}  // namespace keen
