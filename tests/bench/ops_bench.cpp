// The ops beside attention and the matrix products, on the tensors of a step of 2,048 tokens:
// `bytes_per_second` counts every byte that must move once, to be compared with `copy`, which does nothing
// else.
#include <benchmark/benchmark.h>

#include "op_test.h"
#include "ops/adamw.h"
#include "ops/cross_entropy.h"
#include "ops/elementwise.h"
#include "ops/gelu.h"
#include "ops/layernorm.h"
#include "ops/rmsnorm.h"
#include "ops/rotate_and_scale.h"
#include "ops/swiglu.h"

namespace keen::ops {
namespace {

constexpr int64_t kRows = 2048, kWidth = 384, kHidden = 1536, kVocabulary = 8192;
constexpr int64_t kHeads = 6, kHeadWidth = 64, kTokens = 256;
constexpr int64_t kParameters = int64_t{1} << 24;

// Makes the tensors of one benchmark and adds up the bytes that one call moves.
struct Bench {
  testing::Tensors own;
  int64_t bytes = 0;
  Tensor in(Shape shape, DType dtype) { return count(own.normal(shape, dtype)); }
  Tensor out(Shape shape, DType dtype) { return count(own.zeros(shape, dtype)); }
  Tensor count(Tensor x) {
    bytes += x.bytes();
    return x;
  }
  template <class F> void time(benchmark::State& state, const F& call) {
    Context ctx;
    testing::prepare(ctx, [&] { call(ctx); });
    for (auto _ : state) call(ctx);
    state.SetBytesProcessed(bytes * static_cast<int64_t>(state.iterations()));
  }
};

void time_copy(benchmark::State& state, DType dtype) {
  Bench b;
  const Tensor x = b.in({kRows, kHidden}, dtype), y = b.out(x.shape, dtype);
  b.time(state, [&](Context& ctx) { convert(ctx, y, x); });
}

void time_gelu(benchmark::State& state, DType dtype) {
  Bench b;
  const Tensor x = b.in({kRows, kHidden}, dtype), y = b.out(x.shape, dtype);
  b.time(state, [&](Context& ctx) { gelu(ctx, y, x); });
}

void time_gelu_backward(benchmark::State& state, DType dtype) {
  Bench b;
  const Tensor x = b.in({kRows, kHidden}, dtype), dy = b.in(x.shape, dtype), dx = b.out(x.shape, dtype);
  b.time(state, [&](Context& ctx) { gelu_backward(ctx, dx, dy, x); });
}

void time_swiglu(benchmark::State& state, DType dtype) {
  Bench b;
  const Tensor x = b.in({kRows, 2 * kHidden}, dtype), y = b.out({kRows, kHidden}, dtype);
  b.time(state, [&](Context& ctx) { swiglu(ctx, y, x); });
}

void time_swiglu_backward(benchmark::State& state, DType dtype) {
  Bench b;
  const Tensor x = b.in({kRows, 2 * kHidden}, dtype), dy = b.in({kRows, kHidden}, dtype);
  const Tensor dx = b.out(x.shape, dtype);
  b.time(state, [&](Context& ctx) { swiglu_backward(ctx, dx, dy, x); });
}

void time_rmsnorm(benchmark::State& state, DType dtype) {
  Bench b;
  const Tensor x = b.in({kRows, kWidth}, dtype), w = b.in({kWidth}, DType::f32);
  const Tensor y = b.out(x.shape, dtype), rstd = b.out({kRows}, DType::f32);
  b.time(state, [&](Context& ctx) { rmsnorm(ctx, {.y = y, .rstd = rstd, .x = x, .w = w, .eps = 1e-5}); });
}

void time_rmsnorm_backward(benchmark::State& state, DType dtype) {
  Bench b;
  const Tensor x = b.in({kRows, kWidth}, dtype), dy = b.in(x.shape, dtype), w = b.in({kWidth}, DType::f32);
  const Tensor rstd = b.in({kRows}, DType::f32), dx = b.out(x.shape, dtype), dw = b.out({kWidth}, DType::f32);
  b.time(state, [&](Context& ctx) {
    rmsnorm_backward(ctx, {.dx = dx, .dw = dw, .dy = dy, .x = x, .w = w, .rstd = rstd});
  });
}

void time_layernorm(benchmark::State& state, DType dtype) {
  Bench b;
  const Tensor x = b.in({kRows, kWidth}, dtype), w = b.in({kWidth}, DType::f32);
  const Tensor y = b.out(x.shape, dtype), stats = b.out({2, kRows}, DType::f32);
  const Tensor mean = stats.rows(0, 1).reshape({kRows}), rstd = stats.rows(1, 2).reshape({kRows});
  b.time(state, [&](Context& ctx) {
    layernorm(ctx, {.y = y, .mean = mean, .rstd = rstd, .x = x, .w = w, .bias = w, .eps = 1e-5});
  });
}

void time_layernorm_backward(benchmark::State& state, DType dtype) {
  Bench b;
  const Tensor x = b.in({kRows, kWidth}, dtype), dy = b.in(x.shape, dtype), w = b.in({kWidth}, DType::f32);
  const Tensor mean = b.in({kRows}, DType::f32), rstd = b.in({kRows}, DType::f32), dx = b.out(x.shape, dtype);
  const Tensor dw = b.out({kWidth}, DType::f32), dbias = b.out({kWidth}, DType::f32);
  b.time(state, [&](Context& ctx) {
    layernorm_backward(
        ctx, {.dx = dx, .dw = dw, .dbias = dbias, .dy = dy, .x = x, .w = w, .mean = mean, .rstd = rstd});
  });
}

// RoPE and the row scale of SSMax, as one op computes them.
struct Rotation {
  HeadLayout layout{kHeads, kHeads, kHeadWidth};
  Tensor table, log_n, s;
  explicit Rotation(Bench& b)
      : table(b.own.zeros({kTokens, kHeadWidth / 2, 2}, DType::f32)),
        log_n(b.own.zeros({kTokens}, DType::f32)),
        s(b.own.normal({kHeads}, DType::f32)) {
    fill_rotation(table, 10000, kHeadWidth);
    fill_log_n(log_n);
  }
};

void time_rotation(benchmark::State& state, DType dtype) {
  Bench b;
  const Rotation r(b);
  const Tensor x = b.in({kRows, r.layout.qk_columns()}, dtype), qk = b.out(x.shape, dtype);
  b.time(state, [&](Context& ctx) {
    rotate_and_scale(ctx, {.qk = qk,
                           .x = x,
                           .rotation = r.table,
                           .log_n = r.log_n,
                           .s = r.s,
                           .b = {},
                           .layout = r.layout,
                           .T = kTokens});
  });
}

void time_rotation_backward(benchmark::State& state, DType dtype) {
  Bench b;
  const Rotation r(b);
  const Tensor x = b.own.normal({kRows, r.layout.qk_columns()}, dtype), d = b.count(b.out(x.shape, dtype));
  b.bytes += x.bytes() / 2;  // of the queries: those of the keys are not read
  const Tensor ds = b.out({kHeads}, DType::f32);
  b.time(state, [&](Context& ctx) {
    rotate_and_scale_backward(ctx, {.dqkv = d,
                                    .ds = ds,
                                    .db = {},
                                    .x = x,
                                    .rotation = r.table,
                                    .log_n = r.log_n,
                                    .s = r.s,
                                    .b = {},
                                    .layout = r.layout,
                                    .T = kTokens});
  });
}

void time_cross_entropy(benchmark::State& state, DType dtype) {
  Bench b;
  const Tensor logits = b.in({kRows, kVocabulary}, DType::f32), targets = b.own.zeros({kRows}, DType::i32);
  const Tensor losses = b.out({kRows}, DType::f32), dlogits = b.out(logits.shape, dtype);
  b.time(state, [&](Context& ctx) {
    cross_entropy(ctx, {.losses = losses, .dlogits = dlogits, .logits = logits, .targets = targets});
  });
}

void time_sum_of_squares(benchmark::State& state, DType) {
  Bench b;
  const Tensor grad = b.in({kParameters}, DType::f32), sums = b.own.zeros({1}, DType::f64);
  const Segment segments[] = {{.begin = 0, .end = kParameters, .weight_decay = 0.1, .updates = 1}};
  b.time(state, [&](Context& ctx) { sum_of_squares(ctx, sums, grad, segments); });
}

void time_adamw(benchmark::State& state, DType dtype) {
  Bench b;
  const Shape shape{kParameters};
  const Segment segments[] = {{.begin = 0, .end = kParameters, .weight_decay = 0.1, .updates = 1}};
  const AdamW args{.value = b.count(b.in(shape, DType::f32)),  // read and written, as the averages
                   .rounded = dtype == DType::bf16 ? b.out(shape, DType::bf16) : Tensor(),
                   .m = b.count(b.out(shape, DType::f32)),
                   .v = b.count(b.out(shape, DType::f32)),
                   .grad = b.in(shape, DType::f32),
                   .segments = segments,
                   .lr = 1e-3,
                   .beta1 = 0.9,
                   .beta2 = 0.95,
                   .eps = 1e-8};
  b.time(state, [&](Context& ctx) { adamw(ctx, args); });
}

void add_benchmarks() {
  using Body = void (*)(benchmark::State&, DType);
  const std::pair<const char*, Body> bodies[] = {
      {"copy", time_copy},
      {"gelu", time_gelu},
      {"gelu_backward", time_gelu_backward},
      {"swiglu", time_swiglu},
      {"swiglu_backward", time_swiglu_backward},
      {"rmsnorm", time_rmsnorm},
      {"rmsnorm_backward", time_rmsnorm_backward},
      {"layernorm", time_layernorm},
      {"layernorm_backward", time_layernorm_backward},
      {"rotate_and_scale", time_rotation},
      {"rotate_and_scale_backward", time_rotation_backward},
      {"cross_entropy", time_cross_entropy},
      {"sum_of_squares", time_sum_of_squares},
      {"adamw", time_adamw},
  };
  for (const auto& [name, body] : bodies)
    for (const DType dtype : {DType::f32, DType::bf16}) {
      if (body == time_sum_of_squares && dtype == DType::bf16) continue;  // gradients are float32
      benchmark::RegisterBenchmark(fmt::format("{}/{}", name, name_of(dtype)).c_str(),
                                   [body = body, dtype](benchmark::State& state) { body(state, dtype); })
          ->UseRealTime()
          ->Unit(benchmark::kMicrosecond);
    }
}

}  // namespace
}  // namespace keen::ops

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  keen::ops::add_benchmarks();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
