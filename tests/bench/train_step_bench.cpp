// Whole training steps: tokens a second, and the share of the machine's own GEMM rate that they reach (6 n +
// 6 L C T FLOPs a token). Five shapes on the CPU, softmax and SSMax, fp32 and bf16; larger ones, named
// cuda/..., where there is a CUDA device. Random tokens, so no data is needed.
//
//   keen_train_step_bench --benchmark_min_time=4
//   keen_train_step_bench --benchmark_filter=^124m.*bf16 --benchmark_repetitions=3
//   keen_train_step_bench --benchmark_filter=_cost --benchmark_min_time=20
//   keen_train_step_bench --benchmark_filter=^cuda/1558m
#include <benchmark/benchmark.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>

#include "bench/scratch_directory.h"
#include "bench/shapes.h"
#include "core/cuda.h"
#include "core/philox.h"
#include "data/shard.h"
#include "train/gemm_rate.h"
#include "train/trainer.h"

namespace keen {
namespace {

// What is measured of a shape: values of config keys.
struct Choice {
  const char *device, *precision, *attention;
  const char* path = "auto";
  bool deterministic = false;
  bool time_gemms = true;  // on CUDA
};

// A dataset of uniformly random tokens.
class RandomData {
 public:
  explicit RandomData(int64_t vocab_size) {
    std::vector<int32_t> ids(1 << 18);
    const Philox random(1);
    for (size_t i = 0; i < ids.size(); ++i)
      ids[i] = static_cast<int32_t>(random.uniform(i) * static_cast<double>(vocab_size));
    ShardWriter writer(directory_.path(), "train", "train", TokenWidth::narrow, 1 << 20);
    writer.write(ids);
    writer.finish();
    writer.publish("train");
  }
  std::string pattern() const { return (directory_.path() / "train_*.bin").string(); }

 private:
  ScratchDirectory directory_;
};

double peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024;
}

RunConfig config_of(const BenchShape& shape, const Choice& choice, const std::string& data) {
  const std::string text = fmt::format(
      R"({{"device": "{}", "precision": "{}", "attention_path": "{}", "deterministic": {},
          "time_gemms": {}, "model": {{"vocab_size": {}, "context": {}, {}, "attention": "{}"}},
          "data": {{"train": "{}"}}, "batch": {{"sequences": {}, "micro_sequences": {}}},
          "checkpoint": {{"every": 0}}}})",
      choice.device, choice.precision, choice.path, choice.deterministic, choice.time_gemms, shape.vocab_size,
      shape.T, shape.model, choice.attention, data, shape.B, shape.B);
  return parse_run_config(text, "bench");
}

// A run that can take steps, past the first ones, in which libraries compile and choose kernels.
struct BenchRun {
  RandomData data;
  RunConfig config;
  Dataset train;
  std::unique_ptr<Communicator> comm = make_one_rank();
  Trainer trainer;

  BenchRun(const BenchShape& shape, const Choice& choice)
      : data(shape.vocab_size),
        config(config_of(shape, choice, data.pattern())),
        train(config.data.train, config.model.vocab_size),
        trainer(config, train, nullptr, *comm) {
    for (int i = 0; i < 3; ++i) trainer.step();
  }
};

void train_step(benchmark::State& state, const BenchShape& shape, const Choice& choice) {
  BenchRun run(shape, choice);
  Trainer& trainer = run.trainer;
  double data_s = 0;
  for (auto _ : state) data_s += trainer.step().data_s;

  const auto tokens = static_cast<double>(trainer.tokens_per_step());
  const double gemm_rate = measure_gemm_flops_per_s(trainer.device(), trainer.gpt.dtype);
  const double flops_per_token = trainer.gpt.flops_per_token(shape.T);
  state.counters["tokens/s"] = benchmark::Counter(tokens, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["of_gemm_rate"] =
      benchmark::Counter(tokens * flops_per_token / gemm_rate, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["data_ms"] = benchmark::Counter(1e3 * data_s, benchmark::Counter::kAvgIterations);
  state.counters["flops_per_token"] = flops_per_token;
  state.counters["gemm_gflops"] = gemm_rate / 1e9;
  if (trainer.device() == Device::cpu)
    state.counters["peak_MiB"] =
        peak_memory_bytes() / (1 << 20);  // of the process so far: run one benchmark alone
}

// What `attention` costs over softmax: steps of both in turn, now one first, now the other, so that a slow
// moment of the machine meets both. The counters are medians; `cost_percent` is the median over the pairs.
// Softmax beside softmax tells how much of a cost is chance.
void cost_over_softmax(benchmark::State& state, const BenchShape& shape, const char* precision,
                       const char* attention) {
  BenchRun softmax(shape, {"cpu", precision, "softmax"}), other(shape, {"cpu", precision, attention});
  const auto step_ms = [](Trainer& trainer) {
    const auto start = std::chrono::steady_clock::now();
    trainer.step();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  };
  std::vector<double> softmax_ms, other_ms, cost_percent;
  for (auto _ : state) {
    const bool other_first = std::ssize(other_ms) % 2 == 1;
    if (other_first) other_ms.push_back(step_ms(other.trainer));
    softmax_ms.push_back(step_ms(softmax.trainer));
    if (!other_first) other_ms.push_back(step_ms(other.trainer));
    cost_percent.push_back(100 * (other_ms.back() / softmax_ms.back() - 1));
  }
  const auto median = [](std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + std::ssize(values) / 2, values.end());
    return values[values.size() / 2];
  };
  state.counters["softmax_ms"] = median(softmax_ms);
  state.counters["other_ms"] = median(other_ms);
  state.counters["cost_percent"] = median(cost_percent);
}

// Adds a benchmark. What does not fit into the device is part of the answer; the others go on.
template <class F> benchmark::internal::Benchmark* add(const std::string& name, const F& body) {
  const auto run = [body](benchmark::State& state) {
    try {
      body(state);
    } catch (const Error& error) {
      if (error.exit != Exit::device) throw;
      state.SkipWithError(error.what());
    }
  };
  return benchmark::RegisterBenchmark(name.c_str(), run)->Unit(benchmark::kMillisecond)->UseRealTime();
}

void add_cpu_steps() {
  for (const BenchShape& shape : kCpuShapes)
    for (const char* precision : {"fp32", "bf16"})
      for (const char* attention : {"softmax", "ssmax"})
        add(fmt::format("{}/{}/{}", shape.name, precision, attention),
            [&shape, choice = Choice{"cpu", precision, attention}](benchmark::State& state) {
              train_step(state, shape, choice);
            });
  for (const BenchShape& shape : kCpuShapes)
    for (const char* precision : {"fp32", "bf16"})
      for (const char* attention : {"softmax", "ssmax"})
        add(fmt::format("{}_cost/{}/{}", attention, shape.name, precision),
            [&shape, precision, attention](benchmark::State& state) {
              cost_over_softmax(state, shape, precision, attention);
            });
}

void add_cuda_steps() {
  const auto add_choice = [](const BenchShape& shape, const Choice& choice) {
    add(fmt::format("cuda/{}/{}/{}/{}{}{}", shape.name, choice.precision, choice.attention, choice.path,
                    choice.deterministic ? "/deterministic" : "", choice.time_gemms ? "" : "/untimed_gemms"),
        [&shape, choice](benchmark::State& state) { train_step(state, shape, choice); })
        ->Iterations(std::string_view(shape.model) == kGpt2Large ? 10 : 30);
  };
  for (const BenchShape& shape : kCudaShapes)
    for (const char* attention : {"softmax", "ssmax"}) add_choice(shape, {"cuda", "bf16", attention});
  const BenchShape& one = kCudaShapes[0];
  add_choice(one, {"cuda", "bf16", "softmax", "flash"});
  add_choice(one, {"cuda", "bf16", "softmax", "auto", true});
  add_choice(one, {"cuda", "bf16", "softmax", "auto", false, false});
  add_choice(one, {"cuda", "fp32", "softmax"});
}

}  // namespace
}  // namespace keen

int main(int argc, char** argv) {
  using namespace keen;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  add_cpu_steps();
  if constexpr (kCudaBuilt && !kCudaEmulated)
    if (cuda::device_count() > 0) {
      benchmark::AddCustomContext("device", cuda::device_facts().name);
      add_cuda_steps();
    }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
