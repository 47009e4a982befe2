// Prefill and decoding with cached keys and values, as sampling, needles and recall use them: tokens a
// second, behind 256 to 4,096 tokens, one text or up to 64 together. `weights/s` are the bytes of weights
// that decoding reads a second: at one text it can be no faster than memory gives them.
//
//   keen_generate_bench --benchmark_filter=decode.*bf16
#include <benchmark/benchmark.h>

#include "bench/shapes.h"
#include "model/generator.h"
#include "train/run_config.h"

namespace keen {
namespace {

struct Model {
  Context ctx;
  Gpt gpt;
  Gpt::Arenas arenas{Device::cpu};
  std::unique_ptr<Generator> generator;

  Model(const BenchShape& shape, DType dtype, const char* attention, int64_t B, int64_t capacity)
      : gpt(parse_run_config(
                fmt::format(
                    R"({{"data": {{"train": "none"}}, "model": {{"vocab_size": {}, "context": {}, {}, "attention": "{}"}}}})",
                    shape.vocab_size, shape.T, shape.model, attention),
                "bench")
                .model,
            dtype) {
    plan_and_allocate(
        ctx, arenas,
        [&] {
          gpt.bind(false, capacity, arenas);
          generator = std::make_unique<Generator>(ctx, gpt, B, capacity, arenas.activations);
        },
        [] {});
    fill_tables(gpt.config, gpt.tables);
    gpt.params.initialize(1);
    gpt.params.round_values(ctx);
  }

  // `tokens` more for each of B texts.
  void feed(int64_t B, int64_t tokens) {
    const std::vector<int32_t> ids(static_cast<size_t>(tokens), 7);
    std::vector<Generator::Feed> feeds;
    for (int64_t b = 0; b < B; ++b) feeds.push_back({b, ids});
    generator->feed(feeds);
  }
  void truncate(int64_t B, int64_t tokens) {
    for (int64_t b = 0; b < B; ++b) generator->truncate(b, tokens);
  }
};

void count(benchmark::State& state, int64_t tokens) {
  state.counters["tokens/s"] =
      benchmark::Counter(static_cast<double>(tokens), benchmark::Counter::kIsIterationInvariantRate);
}

void prefill(benchmark::State& state, const BenchShape& shape, DType dtype, const char* attention) {
  const int64_t tokens = state.range(0), B = state.range(1);
  Model model(shape, dtype, attention, B, tokens);
  for (auto _ : state) {
    model.truncate(B, 0);
    model.feed(B, tokens);
  }
  count(state, B * tokens);
}

void decode(benchmark::State& state, const BenchShape& shape, DType dtype, const char* attention) {
  const int64_t past = state.range(0), B = state.range(1);
  Model model(shape, dtype, attention, B, past + 1);
  model.feed(B, past);
  for (auto _ : state) {
    model.feed(B, 1);
    model.truncate(B, past);
  }
  count(state, B);
  const int64_t read = model.gpt.params.count() - model.gpt.tokens->count();  // of these, a row for a token
  state.counters["weights/s"] =
      benchmark::Counter(static_cast<double>(read * size_of(dtype)),
                         benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

void add_benchmarks() {
  static constexpr BenchShape kShapes[] = {{"quickstart", kQuickstart, 2048, 1, 256},
                                           {"rope162m", kRope64, 50257, 1, 1024}};
  for (const BenchShape& shape : kShapes)
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const char* attention : {"softmax", "ssmax"}) {
        const std::string name = fmt::format("{}/{}/{}", shape.name, name_of(dtype), attention);
        benchmark::RegisterBenchmark(
            ("prefill/" + name).c_str(),
            [&shape, dtype, attention](benchmark::State& state) { prefill(state, shape, dtype, attention); })
            ->ArgNames({"tokens", "texts"})
            ->Args({256, 1})
            ->Args({1024, 1})
            ->Args({4096, 1})
            ->Args({24, 16})
            ->Unit(benchmark::kMillisecond)
            ->UseRealTime();
        benchmark::RegisterBenchmark(
            ("decode/" + name).c_str(),
            [&shape, dtype, attention](benchmark::State& state) { decode(state, shape, dtype, attention); })
            ->ArgNames({"past", "texts"})
            ->Args({256, 1})
            ->Args({1024, 1})
            ->Args({4096, 1})
            ->Args({1024, 16})
            ->Args({256, 64})
            ->Unit(benchmark::kMillisecond)
            ->UseRealTime();
      }
}

}  // namespace
}  // namespace keen

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  keen::add_benchmarks();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
