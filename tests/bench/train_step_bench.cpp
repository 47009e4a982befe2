// Whole training steps: tokens a second, and the share of the machine's own GEMM rate that they reach (6 n +
// 6 L C T FLOPs a token). Four shapes, softmax and SSMax, fp32 and bf16; random tokens, so no data is needed.
//
//   keen_train_step_bench --benchmark_filter=124m.*bf16 --benchmark_repetitions=3
#include <benchmark/benchmark.h>
#include <sys/resource.h>

#include <filesystem>

#include "core/philox.h"
#include "data/shard.h"
#include "train/gemm_rate.h"
#include "train/trainer.h"

namespace keen {
namespace {

struct BenchShape {
  const char* name;
  const char* model;  // the "model" object without its attention
  int64_t vocab_size, B, T;
};

// scripts/bench_pytorch.py times the same shapes.
const BenchShape kShapes[] = {
    {"quickstart", R"("layers": 4, "width": 128, "heads": 4, "mlp_width": 384)", 2048, 16, 256},
    {"6x384", R"("layers": 6, "width": 384, "heads": 6, "mlp_width": 1536, "norm": "layernorm", "mlp": "gelu",
      "position": "learned", "bias": true, "tie_embeddings": true)",
     8192, 8, 256},
    {"124m_b4_t64",
     R"("layers": 12, "width": 768, "heads": 12, "mlp_width": 3072, "norm": "layernorm", "mlp": "gelu",
      "position": "learned", "bias": true, "tie_embeddings": true)",
     50257, 4, 64},
    {"124m_b1_t1024", R"("layers": 12, "width": 768, "heads": 12, "mlp_width": 3072, "norm": "layernorm",
      "mlp": "gelu", "position": "learned", "bias": true, "tie_embeddings": true)",
     50257, 1, 1024},
};

// A dataset of uniformly random tokens, written for this process and removed with it.
class RandomData {
 public:
  explicit RandomData(int64_t vocab_size) {
    std::string name = (std::filesystem::temp_directory_path() / "keen-bench-XXXXXX").string();
    check(mkdtemp(name.data()) != nullptr, "bench: a temporary directory");
    directory_ = name;
    std::vector<int32_t> ids(1 << 18);
    const Philox random(1);
    for (size_t i = 0; i < ids.size(); ++i)
      ids[i] = static_cast<int32_t>(random.uniform(i) * static_cast<double>(vocab_size));
    ShardWriter writer(directory_, "train", "train", TokenWidth::narrow, 1 << 20);
    writer.write(ids);
    writer.finish();
    writer.publish("train");
  }
  ~RandomData() { std::filesystem::remove_all(directory_); }
  std::string pattern() const { return (directory_ / "train_*.bin").string(); }

 private:
  std::filesystem::path directory_;
};

double peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024;
}

void train_step(benchmark::State& state, const BenchShape& shape, const char* attention,
                const char* precision) {
  const RandomData data(shape.vocab_size);
  const std::string text = fmt::format(
      R"({{"precision": "{}", "model": {{"vocab_size": {}, "context": {}, {}, "attention": "{}"}},
          "data": {{"train": "{}"}}, "batch": {{"sequences": {}, "micro_sequences": {}}}}})",
      precision, shape.vocab_size, shape.T, shape.model, attention, data.pattern(), shape.B, shape.B);
  const RunConfig config = parse_run_config(text, "bench");
  const Dataset train(config.data.train, config.model.vocab_size);
  const std::unique_ptr<Communicator> comm = make_communicator();
  Trainer trainer(config, train, nullptr, *comm);
  trainer.step();  // the library compiles its kernels
  trainer.step();
  for (auto _ : state) benchmark::DoNotOptimize(trainer.step().loss);

  const auto tokens = static_cast<double>(trainer.tokens_per_step());
  const double gemm_rate = measure_gemm_flops_per_s(trainer.device(), trainer.gpt.dtype);
  state.counters["tokens/s"] = benchmark::Counter(tokens, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["of_gemm_rate"] =
      benchmark::Counter(tokens * trainer.gpt.flops_per_token(shape.T) / gemm_rate,
                         benchmark::Counter::kIsIterationInvariantRate);
  state.counters["gemm_gflops"] = gemm_rate / 1e9;
  state.counters["peak_MiB"] =
      peak_memory_bytes() / (1 << 20);  // of the process so far: run one benchmark alone
}

const bool kRegistered = [] {
  for (const BenchShape& shape : kShapes)
    for (const char* precision : {"fp32", "bf16"})
      for (const char* attention : {"softmax", "ssmax"})
        benchmark::RegisterBenchmark(fmt::format("{}/{}/{}", shape.name, precision, attention).c_str(),
                                     [&shape, attention, precision](benchmark::State& state) {
                                       train_step(state, shape, attention, precision);
                                     })
            ->Unit(benchmark::kMillisecond)
            ->UseRealTime()
            ->MinTime(shape.vocab_size > 10000 ? 6 : 2);
  return true;
}();

}  // namespace
}  // namespace keen
