// Kernels on the CUDA device, at the sizes of GPT-2 124M with 64 sequences of 1024 tokens (and 1558M with
// 16), by the device's clock. Counters: flops and bytes a second, and of_floor, the share of what this card
// can do at best: the rate of a large copy for what moves bytes, that of the best large matrix product for
// what multiplies.
#include <benchmark/benchmark.h>

#include <cmath>
#include <deque>

#include "core/copy.h"
#include "core/cuda.h"
#include "core/timer.cuh"
#include "ops/adamw.h"
#include "ops/attention.h"
#include "ops/elementwise.h"
#include "ops/gelu.h"
#include "ops/gemm_product.cuh"
#include "ops/layernorm.h"
#include "ops/rmsnorm.h"
#include "ops/swiglu.h"

namespace keen::ops {
namespace {

// Tensors of noise on the device, each with memory of its own.
class Tensors {
 public:
  explicit Tensors(Context& ctx) : ctx_(ctx) {}
  Tensor noise(Shape shape, DType dtype) {
    Tensor x = planned(shape, dtype);
    memory_.emplace_back(Device::cuda, x.bytes(), "a benchmark");
    x.data = memory_.back().data();
    fill_with_noise(ctx_, x, static_cast<uint32_t>(memory_.size()));
    return x;
  }

 private:
  static Tensor planned(Shape shape, DType dtype) {
    Tensor x;
    x.device = Device::cuda;
    x.shape = shape;
    x.dtype = dtype;
    return x;
  }
  Context& ctx_;
  std::deque<Buffer> memory_;
};

constexpr int kCalls = 10;  // in one measurement: the gaps between single launches would be measured as well

// Milliseconds of one call, the scratch being planned first.
template <class F> double time_ms(Context& ctx, cuda::Timer& timer, const F& call) {
  timer.start();
  for (int i = 0; i < kCalls; ++i) call(ctx);
  return timer.stop_ms() / kCalls;
}
template <class F> void prepare(Context& ctx, const F& call) {
  ctx.planning = true;
  call(ctx);
  ctx.planning = false;
  ctx.scratch.allocate("a benchmark");
  call(ctx);  // loads the kernel
}
template <class F> double best_ms(Context& ctx, const F& call) {
  prepare(ctx, call);
  cuda::Timer timer(ctx);
  double best = 1e30;
  for (int round = 0; round < 5; ++round) best = std::min(best, time_ms(ctx, timer, call));
  return best;
}

// What the card does at best, measured once: bytes read and written by a copy of 2 GiB, FLOP/s of 8192^3 in
// bf16.
struct Floors {
  double bytes_per_s, flops_per_s;
  Floors() {
    Context ctx(Device::cuda);
    {
      Tensors t(ctx);
      const Tensor from = t.noise({int64_t{1} << 29}, DType::f32),
                   to = t.noise({int64_t{1} << 29}, DType::f32);
      bytes_per_s =
          2e3 * static_cast<double>(from.bytes()) / best_ms(ctx, [&](Context& c) { copy(c, to, from); });
    }
    constexpr int64_t kSize = 8192;
    Tensors t(ctx);
    ctx.scratch = Arena(Device::cuda);
    const Tensor a = t.noise({kSize, kSize}, DType::bf16), b = t.noise({kSize, kSize}, DType::bf16),
                 c = t.noise({kSize, kSize}, DType::bf16);
    const auto multiply = [&](Context& x) { gemm(x, {.c = c, .a = a, .b = b, .transpose_b = true}); };
    flops_per_s = 2e3 * std::pow(static_cast<double>(kSize), 3) / best_ms(ctx, multiply);
  }
};
const Floors& floors() {
  static const Floors the_floors;
  return the_floors;
}

template <class F>
void run(benchmark::State& state, Context& ctx, double flops, double bytes, const F& call) {
  const Floors& best = floors();
  prepare(ctx, call);
  cuda::Timer timer(ctx);
  double total_s = 0;
  for (auto _ : state) {
    const double s = 1e-3 * time_ms(ctx, timer, call);
    state.SetIterationTime(s);
    total_s += s;
  }
  const double rate = static_cast<double>(state.iterations()) / total_s;
  if (flops > 0) state.counters["flops"] = flops * rate;
  if (bytes > 0) state.counters["bytes"] = bytes * rate;
  state.counters["of_floor"] = rate * std::max(flops / best.flops_per_s, bytes / best.bytes_per_s);
}

template <class... T> double bytes_of(const T&... x) { return (static_cast<double>(x.bytes()) + ...); }

// Passes of a linear layer, and of two with what goes along: GELU after the one, its slope before the other,
// sums for the bias. Timed, the faster of one kernel and several is taken; untimed, several.
enum class Pass { forward, dx, dw, forward_gelu, dx_slope, dw_sums };

void product(benchmark::State& state, Pass pass, bool timed, int64_t N, int64_t I, int64_t O) {
  Context ctx(Device::cuda);
  ctx.time_gemms = timed;
  Tensors t(ctx);
  const Tensor x = t.noise({N, I}, DType::bf16), w = t.noise({O, I}, DType::bf16),
               y = t.noise({N, O}, DType::bf16), bias = t.noise({O}, DType::f32);
  const bool weights = pass == Pass::dw || pass == Pass::dw_sums;
  const Tensor dw = weights ? t.noise({O, I}, DType::f32) : Tensor();
  const Tensor kept = pass == Pass::forward_gelu ? t.noise({N, O}, DType::bf16)
                      : pass == Pass::dx_slope   ? t.noise({N, I}, DType::bf16)
                                                 : Tensor();
  Gemm g;
  switch (pass) {
    case Pass::forward:
    case Pass::forward_gelu:
      g = {.c = y, .a = x, .b = w, .transpose_b = true, .gelu_input = kept};
      if (pass == Pass::forward_gelu) g.bias = bias;
      break;
    case Pass::dx:
    case Pass::dx_slope:
      g = {.c = x, .a = y, .b = w, .gelu_at = kept};
      break;
    case Pass::dw:
    case Pass::dw_sums:
      g = {.c = dw, .a = y, .b = x, .transpose_a = true, .accumulate = true};
      if (pass == Pass::dw_sums) g.a_sums = bias;
      break;
  }
  run(state, ctx, 2.0 * static_cast<double>(N) * static_cast<double>(I) * static_cast<double>(O), 0,
      [&](Context& c) { gemm(c, g); });
}

struct Heads64 {
  int64_t B, T, H, K, D;
};

void attention_pass(benchmark::State& state, bool backward, AttentionPath path, bool deterministic,
                    const Heads64& s) {
  Context ctx(Device::cuda);
  Tensors t(ctx);
  const int64_t N = s.B * s.T, columns = (s.H + 2 * s.K) * s.D;
  const Tensor qkv = t.noise({N, columns}, DType::bf16), dqkv = t.noise({N, columns}, DType::bf16),
               out = t.noise({N, s.H * s.D}, DType::bf16), dout = t.noise({N, s.H * s.D}, DType::bf16),
               lse = t.noise({s.B, s.H, s.T}, DType::f32);
  const auto part = [&](auto rows, int64_t first, int64_t count) {
    return heads(rows, s.B, first, count, s.D);
  };
  const ConstTensor packed = qkv;
  const Attention forward{.out = out,
                          .lse = lse,
                          .q = part(packed, 0, s.H),
                          .k = part(packed, s.H, s.K),
                          .v = part(packed, s.H + s.K, s.K),
                          .path = path};
  const double pairs = 0.5 * static_cast<double>(s.T) * static_cast<double>(s.T + 1);
  const double product_flops = 2.0 * static_cast<double>(s.B * s.H * s.D) * pairs;
  if (!backward) return run(state, ctx, 2 * product_flops, 0, [&](Context& c) { attention(c, forward); });
  Context first(Device::cuda);
  prepare(first, [&](Context& c) { attention(c, forward); });
  cuda::synchronize(first);
  const AttentionBackward args{.dq = part(dqkv, 0, s.H),
                               .dk = part(dqkv, s.H, s.K),
                               .dv = part(dqkv, s.H + s.K, s.K),
                               .dout = dout,
                               .out = out,
                               .lse = lse,
                               .q = forward.q,
                               .k = forward.k,
                               .v = forward.v,
                               .path = path,
                               .deterministic = deterministic};
  run(state, ctx, 5 * product_flops, 0, [&](Context& c) { attention_backward(c, args); });
}

constexpr int64_t kRows = 65536, kWidth = 768;

void residual_add(benchmark::State& state) {
  Context ctx(Device::cuda);
  Tensors t(ctx);
  const Tensor a = t.noise({kRows, kWidth}, DType::bf16), b = t.noise({kRows, kWidth}, DType::bf16),
               y = t.noise({kRows, kWidth}, DType::bf16);
  run(state, ctx, 0, bytes_of(a, b, y), [&](Context& c) { add(c, y, a, b); });
}

void norm(benchmark::State& state, bool centred, bool backward) {
  Context ctx(Device::cuda);
  Tensors t(ctx);
  const Tensor x = t.noise({kRows, kWidth}, DType::bf16), y = t.noise({kRows, kWidth}, DType::bf16),
               dx = t.noise({kRows, kWidth}, DType::bf16), w = t.noise({kWidth}, DType::f32),
               bias = t.noise({kWidth}, DType::f32), dw = t.noise({kWidth}, DType::f32),
               dbias = t.noise({kWidth}, DType::f32), mean = t.noise({kRows}, DType::f32),
               rstd = t.noise({kRows}, DType::f32);
  constexpr double kEps = 1e-5;
  if (!backward)
    return run(state, ctx, 0, bytes_of(x, y), [&](Context& c) {
      if (centred)
        layernorm(c, {.y = y, .mean = mean, .rstd = rstd, .x = x, .w = w, .bias = bias, .eps = kEps});
      else
        rmsnorm(c, {.y = y, .rstd = rstd, .x = x, .w = w, .eps = kEps});
    });
  run(state, ctx, 0, bytes_of(x, y, dx), [&](Context& c) {
    if (centred)
      layernorm_backward(
          c, {.dx = dx, .dw = dw, .dbias = dbias, .dy = y, .x = x, .w = w, .mean = mean, .rstd = rstd});
    else
      rmsnorm_backward(c, {.dx = dx, .dw = dw, .dy = y, .x = x, .w = w, .rstd = rstd});
  });
}

void activation(benchmark::State& state, bool gated, bool backward) {
  Context ctx(Device::cuda);
  Tensors t(ctx);
  const int64_t F = gated ? 2048 : 4 * kWidth;
  const Tensor x = t.noise({kRows, gated ? 2 * F : F}, DType::bf16), y = t.noise({kRows, F}, DType::bf16),
               dx = t.noise(x.shape, DType::bf16);
  if (!backward)
    return run(state, ctx, 0, bytes_of(x, y), [&](Context& c) { gated ? swiglu(c, y, x) : gelu(c, y, x); });
  run(state, ctx, 0, bytes_of(x, y, dx),
      [&](Context& c) { gated ? swiglu_backward(c, dx, y, x) : gelu_backward(c, dx, y, x); });
}

void optimizer(benchmark::State& state) {
  Context ctx(Device::cuda);
  Tensors t(ctx);
  constexpr int64_t kCount = 124'439'808, kSegments = 148;
  const Tensor value = t.noise({kCount}, DType::f32), grad = t.noise({kCount}, DType::f32),
               m = t.noise({kCount}, DType::f32), v = t.noise({kCount}, DType::f32),
               rounded = t.noise({kCount}, DType::bf16);
  std::vector<Segment> segments;
  for (int64_t i = 0; i < kSegments; ++i)
    segments.push_back({i * kCount / kSegments, (i + 1) * kCount / kSegments, 0.1, 1});
  run(state, ctx, 0, bytes_of(value, value, m, m, v, v, grad, rounded), [&](Context& c) {
    adamw(c, {.value = value,
              .rounded = rounded,
              .m = m,
              .v = v,
              .grad = grad,
              .segments = segments,
              .lr = 0,
              .beta1 = 0.9,
              .beta2 = 0.95,
              .eps = 1e-8,
              .clip = {}});
  });
}

template <class F> void add_benchmark(const std::string& name, const F& body) {
  benchmark::RegisterBenchmark(name.c_str(), body)
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond)
      ->Iterations(10);
}

void add_products() {
  struct Shape {
    const char* name;
    int64_t N, I, O;
  };
  for (const Shape& s : {Shape{"124m_qkv", kRows, 768, 2304},
                         {"124m_proj", kRows, 768, 768},
                         {"124m_up", kRows, 768, 3072},
                         {"124m_down", kRows, 3072, 768},
                         {"124m_head", 8192, 768, 50304},
                         {"1558m_qkv", 16384, 1600, 4800},
                         {"1558m_up", 16384, 1600, 6400},
                         {"1558m_down", 16384, 6400, 1600}})
    for (const auto& [pass, pass_name] : {std::pair{Pass::forward, "forward"},
                                          {Pass::dx, "dx"},
                                          {Pass::dw, "dw"},
                                          {Pass::forward_gelu, "forward_gelu"},
                                          {Pass::dx_slope, "dx_slope"},
                                          {Pass::dw_sums, "dw_sums"}})
      for (const bool timed : {false, true})
        add_benchmark(
            fmt::format("gemm/{}/{}/{}", s.name, pass_name, timed ? "timed" : "heuristic"),
            [=, pass = pass](benchmark::State& state) { product(state, pass, timed, s.N, s.I, s.O); });
}

void add_attention() {
  struct Path {
    const char* name;
    AttentionPath path;
    bool deterministic;
  };
  for (const Heads64& s :
       {Heads64{64, 1024, 12, 12, 64}, {64, 1024, 6, 6, 128}, {16, 1024, 25, 25, 64}, {16, 4096, 16, 4, 128}})
    for (const Path& p : {Path{"flash", AttentionPath::fused, false},
                          {"cudnn", AttentionPath::cudnn, false},
                          {"cudnn_deterministic", AttentionPath::cudnn, true}})
      for (const bool backward : {false, true}) {
        if (!backward && p.deterministic) continue;
        add_benchmark(
            fmt::format("attention/b{}_t{}_h{}_k{}_d{}/{}/{}", s.B, s.T, s.H, s.K, s.D,
                        backward ? "backward" : "forward", p.name),
            [=](benchmark::State& state) { attention_pass(state, backward, p.path, p.deterministic, s); });
      }
}

}  // namespace
}  // namespace keen::ops

int main(int argc, char** argv) {
  using namespace keen;
  using namespace keen::ops;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  if (cuda::device_count() == 0) {
    fmt::print(stderr, "keen_cuda_bench: there is no CUDA device\n");
    return 6;
  }
  benchmark::AddCustomContext("device", cuda::device_facts().name);
  add_products();
  add_attention();
  add_benchmark("add", residual_add);
  for (const bool backward : {false, true}) {
    const char* pass = backward ? "backward" : "forward";
    add_benchmark(fmt::format("layernorm/{}", pass), [=](benchmark::State& s) { norm(s, true, backward); });
    add_benchmark(fmt::format("rmsnorm/{}", pass), [=](benchmark::State& s) { norm(s, false, backward); });
    add_benchmark(fmt::format("gelu/{}", pass), [=](benchmark::State& s) { activation(s, false, backward); });
    add_benchmark(fmt::format("swiglu/{}", pass),
                  [=](benchmark::State& s) { activation(s, true, backward); });
  }
  add_benchmark("adamw/124m", optimizer);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
