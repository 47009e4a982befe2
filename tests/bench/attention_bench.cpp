// Attention as training calls it. `flops` counts the causal half: 2 products forward, 5 backward, of
// 2 * D * T * (T + 1) / 2 operations for each head.
#include <benchmark/benchmark.h>

#include "op_test.h"
#include "ops/attention.h"

namespace keen::ops {
namespace {

struct Tensors {
  testing::Tensors own;
  Tensor qkv, out, lse, dout, dqkv;
  Tensors(int64_t B, int64_t T, int64_t H, int64_t K, int64_t D, DType dtype) {
    const int64_t N = B * T;
    qkv = own.normal({N, (H + 2 * K) * D}, dtype);
    dout = own.normal({N, H * D}, dtype);
    out = own.zeros({N, H * D}, dtype);
    lse = own.zeros({B, H, T}, wide(dtype));
    dqkv = own.zeros({N, (H + 2 * K) * D}, dtype);
  }
};

template <class F> void time(benchmark::State& state, double flops, const F& call) {
  Context ctx;
  testing::prepare(ctx, [&] { call(ctx); });
  for (auto _ : state) call(ctx);
  state.counters["flops"] =
      benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

void forward(benchmark::State& state, DType dtype, AttentionPath path) {
  const int64_t B = state.range(0), T = state.range(1), H = state.range(2), D = state.range(3),
                T_q = state.range(4);
  Tensors t(B, T, H, H, D, dtype);
  ConstHeads q = heads(ConstTensor(t.qkv), B, 0, H, D);
  if (T_q < T) q.T = T_q, q.data += (T - T_q) * q.token_stride * size_of(dtype);
  Attention args{.out = t.out.rows(0, B * q.T),
                 .lse = t.lse,
                 .q = q,
                 .k = heads(ConstTensor(t.qkv), B, H, H, D),
                 .v = heads(ConstTensor(t.qkv), B, 2 * H, H, D),
                 .path = path};
  args.lse.shape = {B, H, q.T};
  const double pairs = 0.5 * static_cast<double>(q.T) * static_cast<double>(2 * T - q.T + 1);
  time(state, 4.0 * static_cast<double>(B * H * D) * pairs, [&](Context& ctx) { attention(ctx, args); });
}

void backward(benchmark::State& state, DType dtype, AttentionPath path) {
  const int64_t B = state.range(0), T = state.range(1), H = state.range(2), D = state.range(3);
  Tensors t(B, T, H, H, D, dtype);
  const ConstHeads q = heads(ConstTensor(t.qkv), B, 0, H, D), k = heads(ConstTensor(t.qkv), B, H, H, D),
                   v = heads(ConstTensor(t.qkv), B, 2 * H, H, D);
  Context ctx;
  const Attention before{.out = t.out, .lse = t.lse, .q = q, .k = k, .v = v, .path = path};
  testing::prepare(ctx, [&] { attention(ctx, before); });
  attention(ctx, before);
  const AttentionBackward args{.dq = heads(t.dqkv, B, 0, H, D),
                               .dk = heads(t.dqkv, B, H, H, D),
                               .dv = heads(t.dqkv, B, 2 * H, H, D),
                               .dout = t.dout,
                               .out = t.out,
                               .lse = t.lse,
                               .q = q,
                               .k = k,
                               .v = v,
                               .path = path};
  time(state, 5.0 * static_cast<double>(B * H * D) * static_cast<double>(T) * static_cast<double>(T + 1),
       [&](Context& c) { attention_backward(c, args); });
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"B", "T", "H", "D", "Tq"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  bench->Args({1, 1024, 12, 64, 1024})
      ->Args({4, 256, 12, 64, 256})
      ->Args({8, 256, 8, 32, 256})
      ->Args({1, 1024, 6, 128, 1024});
}
void decode_shapes(benchmark::internal::Benchmark* bench) {
  shapes(bench);
  bench->Args({1, 1024, 12, 64, 1})->Args({1, 1024, 12, 64, 16});
}

BENCHMARK_CAPTURE(forward, fp32, DType::f32, AttentionPath::fused)->Apply(decode_shapes);
BENCHMARK_CAPTURE(forward, bf16, DType::bf16, AttentionPath::fused)->Apply(decode_shapes);
BENCHMARK_CAPTURE(forward, reference, DType::f32, AttentionPath::reference)->Apply(decode_shapes);
BENCHMARK_CAPTURE(backward, fp32, DType::f32, AttentionPath::fused)->Apply(shapes);
BENCHMARK_CAPTURE(backward, bf16, DType::bf16, AttentionPath::fused)->Apply(shapes);
BENCHMARK_CAPTURE(backward, reference, DType::f32, AttentionPath::reference)->Apply(shapes);

}  // namespace
}  // namespace keen::ops
