// The rate of matrix products on training shapes: forward (y = x w^T), dx (dy w) and dw (dy^T x, added), with
// rows, inputs and outputs as arguments. The counter FLOPS is the achieved rate; compare it with the best of
// the column.
#include <benchmark/benchmark.h>

#include "core/buffer.h"
#include "ops/gemm.h"

namespace keen::ops {
namespace {

enum class Pass { forward, dx, dw };

void products(benchmark::State& state, Pass pass, DType type) {
  const int64_t rows = state.range(0), in = state.range(1), out = state.range(2);
  Arena memory(Device::cpu);
  Tensor x, w, y, dw;
  const auto take = [&] {
    x = memory.take({rows, in}, type);
    w = memory.take({out, in}, type);
    y = memory.take({rows, out}, type);
    dw = memory.take({out, in}, wide(type));
  };
  take();
  memory.allocate("the benchmark");
  take();
  Gemm product;
  switch (pass) {
    case Pass::forward:
      product = {.c = y, .a = x, .b = w, .transpose_b = true};
      break;
    case Pass::dx:
      product = {.c = x, .a = y, .b = w};
      break;
    case Pass::dw:
      product = {.c = dw, .a = y, .b = x, .transpose_a = true, .accumulate = true};
      break;
  }
  Context ctx;
  ctx.planning = true;
  gemm(ctx, product);
  ctx.planning = false;
  ctx.scratch.allocate("scratch");
  gemm(ctx, product);
  for (auto _ : state) gemm(ctx, product);
  state.counters["FLOPS"] = benchmark::Counter(2.0 * static_cast<double>(rows * in * out),
                                               benchmark::Counter::kIsIterationInvariantRate);
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"N", "I", "O"})->UseRealTime()->MinTime(0.1);
  for (const int64_t rows : {256, 1024, 2048})
    for (const auto& [in, out] : {std::pair<int64_t, int64_t>{768, 2304},
                                  {768, 768},
                                  {768, 3072},
                                  {3072, 768},
                                  {128, 384},
                                  {512, 2048}})
      bench->Args({rows, in, out});
  bench->Args({256, 768, 50257});
  // Decoding, of one text and of several.
  for (const int64_t rows : {1, 2, 4, 8, 16})
    for (const auto& [in, out] : {std::pair<int64_t, int64_t>{128, 384}, {768, 2304}, {768, 50257}})
      bench->Args({rows, in, out});
  // The quickstart's model.
  for (const auto& [in, out] :
       {std::pair<int64_t, int64_t>{128, 384}, {128, 128}, {128, 768}, {384, 128}, {128, 2048}})
    bench->Args({4096, in, out});
}

BENCHMARK_CAPTURE(products, forward_fp32, Pass::forward, DType::f32)->Apply(shapes);
BENCHMARK_CAPTURE(products, dx_fp32, Pass::dx, DType::f32)->Apply(shapes);
BENCHMARK_CAPTURE(products, dw_fp32, Pass::dw, DType::f32)->Apply(shapes);
BENCHMARK_CAPTURE(products, forward_bf16, Pass::forward, DType::bf16)->Apply(shapes);
BENCHMARK_CAPTURE(products, dx_bf16, Pass::dx, DType::bf16)->Apply(shapes);
BENCHMARK_CAPTURE(products, dw_bf16, Pass::dw, DType::bf16)->Apply(shapes);

}  // namespace
}  // namespace keen::ops
