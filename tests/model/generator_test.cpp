#include "model/generator.h"

#include <limits>
#include <memory>
#include <numeric>

#include "model/tiny_gpt.h"

namespace keen {
namespace {

using testing::ssmax;
using testing::ssmax_bias;
using testing::ssmax_fixed;
using testing::tiny_config;
using testing::TinyGpt;

// A model bound for generation of B sequences, with the weights of `source`.
struct Decoder {
  Context ctx;
  Gpt gpt;
  Gpt::Arenas arenas{Device::cpu};
  std::unique_ptr<Generator> generator;

  Decoder(TinyGpt& source, int64_t capacity, int64_t B = 1) : gpt(source.gpt.config, source.gpt.dtype) {
    plan_and_allocate(
        ctx, arenas,
        [&] {
          gpt.bind(false, capacity, arenas);
          generator = std::make_unique<Generator>(ctx, gpt, B, capacity, arenas.activations);
        },
        [] {});
    fill_tables(gpt.config, gpt.tables);
    const Tensor from = source.gpt.params.master();
    std::copy(from.data, from.data + from.bytes(), gpt.params.master().data);
    gpt.params.round_values(ctx);
  }

  // The logits that follow `ids` when they are appended to one sequence.
  std::vector<double> feed(std::span<const int32_t> ids, int64_t sequence = 0) {
    generator->feed(std::vector<Generator::Feed>{{sequence, ids}});
    const auto logits = generator->logits(0);
    return {logits.begin(), logits.end()};
  }
};

std::vector<int32_t> random_ids(int64_t count, uint64_t key, int64_t vocab_size) {
  const Philox random(key);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i)
    ids.push_back(
        static_cast<int32_t>(random.uniform(static_cast<uint64_t>(i)) * static_cast<double>(vocab_size)));
  return ids;
}

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
        const auto logits = decoder.feed(ids.subspan(begin, end - begin));
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
  const auto logits = decoder.feed({full.ids.as<int32_t>(), static_cast<size_t>(T)});
  for (size_t v = 0; v < 19; ++v) EXPECT_NEAR(logits[v], want[static_cast<size_t>(T - 1) * 19 + v], 1e-11);
}

TEST(Generator, RefusesWhatDoesNotFit) {
  ModelConfig config = tiny_config();
  config.position = PositionKind::learned;
  TinyGpt full(config, DType::f64, 1, 9, Keep::nothing);
  EXPECT_THROW(Decoder(full, 10), Error) << "learned positions end at 9";
  Decoder decoder(full, 9);
  const std::vector<int32_t> ids(10, 1);
  EXPECT_THROW(decoder.feed(ids), Error);
  EXPECT_THROW(decoder.feed({}), Error);
  EXPECT_THROW(decoder.feed({ids.data(), 1}, 1), Error) << "there is no second sequence";
}

// Feeds the prompts together, then a token of each at a time, one of them left out in the last step; and each
// sequence alone, by a generator of its own.
void expect_together_as_alone(const ModelConfig& config, DType dtype, const std::vector<int64_t>& prompts,
                              int64_t capacity, const std::string& name) {
  const auto B = std::ssize(prompts);
  const int steps = 3;
  TinyGpt source(config, dtype, 1, 4, Keep::nothing);
  source.perturb(0.3);
  Decoder together(source, capacity, B);
  std::vector<std::vector<int32_t>> ids;
  for (int64_t b = 0; b < B; ++b)
    ids.push_back(
        random_ids(prompts[static_cast<size_t>(b)] + steps, static_cast<uint64_t>(b), config.vocab_size));
  std::vector<std::vector<std::vector<double>>> got(static_cast<size_t>(B));
  for (int step = 0; step <= steps; ++step) {
    std::vector<Generator::Feed> feeds;
    for (int64_t b = 0; b < B; ++b) {
      if (step == steps && b == 3) continue;
      const auto prompt = static_cast<size_t>(prompts[static_cast<size_t>(b)]);
      const std::span<const int32_t> all = ids[static_cast<size_t>(b)];
      feeds.push_back(
          {b, step == 0 ? all.first(prompt) : all.subspan(prompt + static_cast<size_t>(step) - 1, 1)});
    }
    together.generator->feed(feeds);
    for (size_t i = 0; i < feeds.size(); ++i) {
      const auto logits = together.generator->logits(i);
      got[static_cast<size_t>(feeds[i].sequence)].emplace_back(logits.begin(), logits.end());
    }
  }
  for (int64_t b = 0; b < B; ++b) {
    Decoder alone(source, capacity);
    const auto at = static_cast<size_t>(b), prompt = static_cast<size_t>(prompts[at]);
    std::vector<std::vector<double>> want = {alone.feed({ids[at].data(), prompt})};
    while (want.size() < got[at].size())
      want.push_back(alone.feed({ids[at].data() + prompt + want.size() - 1, 1}));
    EXPECT_EQ(got[at], want) << name << " " << name_of(dtype) << " sequence " << b;
  }
}

// Traps 4 and 5: sequences of unequal lengths that go through the model together have, bit for bit, the
// logits that each has alone, whatever they are: n counts a sequence's own keys.
TEST(Generator, SequencesTogetherEqualEachAlone) {
  const int64_t capacity = Generator::kPiece + 60;
  for (const auto& [name, attention] : std::vector<std::pair<const char*, LayerAttention>>{
           {"softmax", LayerAttention{}}, {"ssmax", ssmax()}, {"ssmax_bias", ssmax_bias()}})
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16})
      for (const PositionKind position : {PositionKind::rope, PositionKind::learned}) {
        ModelConfig config = tiny_config();
        config.attention.assign(2, attention);
        config.position = position;
        config.context = capacity;
        expect_together_as_alone(config, dtype, {5, 1, Generator::kPiece + 40, 17, 5, 64, 5}, capacity, name);
      }
}

// More sequences than go together in one pass; prompts around the number of rows where they stop to, and
// around a piece; no width that is a whole number of vectors; and fewer tokens in all than one pass takes.
TEST(Generator, ManySequencesTogetherEqualEachAlone) {
  ModelConfig config = tiny_config();
  config.attention.assign(2, ssmax());
  config.mlp = MlpKind::gelu;
  config.mlp_width = 21;
  const int64_t piece = Generator::kPiece;
  std::vector<int64_t> prompts = {15, 16, 17, piece, piece + 1, piece + 4, 1, 33, 24, 23};
  for (int64_t b = 0; b < 30; ++b) prompts.push_back(1 + b % 19);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    expect_together_as_alone(config, dtype, prompts, piece + 8, "many");
    expect_together_as_alone(config, dtype, {40, 3, 16, 17, 1}, 50, "shorter than a piece");
    expect_together_as_alone(config, dtype, {1, 1, 1}, 4, "at most 12 tokens");
  }
}

// And those are the logits of the full forward pass of each sequence.
TEST(Generator, UnequalSequencesEqualTheFullForward) {
  for (const LayerAttention& attention : {LayerAttention{}, ssmax(), ssmax_bias()}) {
    ModelConfig config = tiny_config();
    config.attention.assign(2, attention);
    std::vector<std::unique_ptr<TinyGpt>> full;
    std::vector<Generator::Feed> feeds;
    for (const int64_t T : {7, 23, 2}) {
      full.push_back(std::make_unique<TinyGpt>(config, DType::f64, 1, T, Keep::nothing));
      full.back()->perturb(0.3);
      feeds.push_back({std::ssize(feeds), {full.back()->ids.as<int32_t>(), static_cast<size_t>(T)}});
    }
    Decoder decoder(*full[0], 23, 3);
    decoder.generator->feed(feeds);
    for (size_t i = 0; i < full.size(); ++i) {
      const auto want = full[i]->logits();
      for (size_t v = 0; v < 19; ++v)
        EXPECT_NEAR(decoder.generator->logits(i)[v], want[want.size() - 19 + v], 1e-11) << i;
    }
  }
}

TEST(Generator, ACopiedPrefixIsAsGoodAsAFedOne) {
  ModelConfig config = tiny_config();
  config.attention = {ssmax(), LayerAttention{}};
  TinyGpt source(config, DType::f32, 1, 4, Keep::nothing);
  source.perturb(0.3);
  Decoder decoder(source, 30, 3);
  const std::vector<int32_t> ids = random_ids(20, 1, 19), other = random_ids(9, 2, 19);
  decoder.feed({ids.data(), 17}, 0);
  decoder.feed({ids.data() + 17, 2}, 0);  // two tokens more than the prefix
  decoder.feed(other, 2);
  decoder.generator->copy_prefix(0, 2, 17);
  EXPECT_EQ(decoder.generator->length(2), 17);
  const auto copied = decoder.feed({ids.data() + 17, 3}, 2);
  decoder.feed({ids.data(), 17}, 1);
  EXPECT_EQ(copied, decoder.feed({ids.data() + 17, 3}, 1));
  decoder.generator->truncate(0, 17);
  EXPECT_EQ(copied, decoder.feed({ids.data() + 17, 3}, 0));
  EXPECT_THROW(decoder.generator->copy_prefix(0, 1, 21), Error);
  EXPECT_THROW(decoder.generator->truncate(0, 21), Error);
}

TEST(ChooseToken, FollowsTheSettings) {
  const std::vector<double> logits = {1, 3, 2, 3, -1};
  EXPECT_EQ(choose_token(logits, {.temperature = 0}, 0.9).id, 1) << "the first of equals";
  EXPECT_EQ(choose_token(logits, {.top_k = 1}, 0.99).id, 1);
  EXPECT_EQ(choose_token(logits, {.top_k = 2}, 0.99).id, 3);
  EXPECT_EQ(choose_token(logits, {.top_p = 0.1}, 0.99).id, 1);
  EXPECT_EQ(choose_token(logits, {}, 0.9999999).id, 4);
  EXPECT_EQ(choose_token(logits, {}, 0).id, 1);
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
    ++count[static_cast<size_t>(choose_token(logits, {.temperature = temperature}, (i + 0.5) / draws).id)];
  for (size_t v = 0; v < 3; ++v)
    EXPECT_NEAR(count[v] / draws, std::exp(logits[v] / temperature) / total, 1e-3);
}

// The definition, word by word, with everything sorted; the vocabulary is larger than what is ranked at once.
TEST(ChooseToken, EqualsTheDefinitionOnALargeVocabulary) {
  const Philox random(3);
  std::vector<double> logits;
  for (uint64_t i = 0; i < 3000; ++i) logits.push_back(std::round(4 * random.normal(i)) / 2);  // many equals
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  for (const Sampling& sampling : std::vector<Sampling>{{},
                                                        {.temperature = 0.5},
                                                        {.temperature = 3, .top_k = 500},
                                                        {.temperature = 2, .top_p = 0.7},
                                                        {.top_k = 100, .top_p = 0.9}}) {
    std::vector<double> sums;  // of the weights, up to each rank
    for (const int32_t id : order)
      sums.push_back((sums.empty() ? 0 : sums.back()) +
                     std::exp(logits[static_cast<size_t>(id)] / sampling.temperature));
    if (sampling.top_k > 0) sums.resize(static_cast<size_t>(sampling.top_k));
    const double enough = sampling.top_p * sums.back() - 1e-9;
    sums.resize(static_cast<size_t>(
        std::min(std::lower_bound(sums.begin(), sums.end(), enough) - sums.begin() + 1, std::ssize(sums))));
    for (int i = 0; i < 200; ++i) {
      const double uniform = (i + 0.5) / 200;
      const auto rank = std::lower_bound(sums.begin(), sums.end(), uniform * sums.back()) - sums.begin();
      EXPECT_EQ(choose_token(logits, sampling, uniform).id, order[static_cast<size_t>(rank)]);
    }
  }
}

TEST(ChooseToken, TellsTheProbabilityUnderTheModelAsItIs) {
  const std::vector<double> logits = {1000, 1001, 1003};
  const double sum = std::exp(-3.0) + std::exp(-2.0) + 1;
  EXPECT_NEAR(choose_token(logits, {.temperature = 0}, 0).logprob, -std::log(sum), 1e-12);
  EXPECT_NEAR(choose_token(logits, {.temperature = 50}, 0.999).logprob, -3 - std::log(sum), 1e-12);
}

TEST(ChooseToken, RefusesLogitsThatAreNotFinite) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double bad : {infinity, std::nan("")})
    for (const size_t place : {0, 1, 2}) {
      std::vector<double> logits = {1, 2, 3};
      logits[place] = bad;
      EXPECT_THROW(choose_token(logits, {}, 0.5), Error) << bad << " at " << place;
    }
}

}  // namespace
}  // namespace keen
