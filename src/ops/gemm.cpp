#include "ops/gemm.h"

#include "core/parallel.h"
#include "ops/column_sums.h"
#include "ops/elementwise.h"
#include "ops/gelu.h"
#include "ops/gemm_few_rows.h"
#include "ops/gemm_onednn.h"

namespace keen::ops {

namespace {

void check_shapes(const Gemm& g) {
  const auto [m, n] = dims<2>(g.c);
  check(g.a.shape.rank == 2, "gemm: a must be a matrix");
  const int64_t k = g.a.shape[g.transpose_a ? 0 : 1];
  check(m >= 1 && n >= 1 && k >= 1, "gemm: every size must be at least 1");
  expect(g.a, g.transpose_a ? Shape{k, m} : Shape{m, k}, g.a.dtype, "gemm: a (M, K)");
  expect(g.b, g.transpose_b ? Shape{n, k} : Shape{k, n}, g.a.dtype, "gemm: b (K, N)");
  check(g.a.dtype != DType::i32, "gemm: a must be of a floating type");
  check(g.c.dtype == g.a.dtype || g.c.dtype == wide(g.a.dtype),
        "gemm: c must be of a's type or the wide type");
  check(!g.accumulate || g.c.dtype == wide(g.a.dtype), "gemm: accumulate needs a c of the wide type");
  check(!g.bias || !g.accumulate, "gemm: bias and accumulate exclude each other");
  if (g.bias) expect(g.bias, {n}, wide(g.a.dtype), "gemm: bias (N)");
  check(!g.accumulate || (!g.gelu_input && !g.gelu_at), "gemm: GELU and accumulate exclude each other");
  check(!g.gelu_at || (!g.gelu_input && !g.bias), "gemm: gelu_at excludes gelu_input and bias");
  if (g.gelu_input || g.gelu_at) check(g.c.dtype == g.a.dtype, "gemm: with GELU c must be of a's type");
  if (g.gelu_input) expect(g.gelu_input, {m, n}, g.c.dtype, "gemm: gelu_input (M, N)");
  if (g.gelu_at) expect(g.gelu_at, {m, n}, g.c.dtype, "gemm: gelu_at (M, N)");
  check(!g.a_sums || (g.transpose_a && !g.bias && !g.gelu_input && !g.gelu_at),
        "gemm: a_sums needs transpose_a, and excludes bias and GELU");
  if (g.a_sums) expect(g.a_sums, {m}, wide(g.a.dtype), "gemm: a_sums (M)");
}

// Rows [begin, end) of a float64 product, some rows and columns at a time: the sums stay in the first-level
// cache, and k ascends for every element.
void multiply_rows(const Gemm& g, int64_t begin, int64_t end) {
  constexpr int64_t kRows = 4, kColumns = 128;
  const int64_t n = g.c.shape[1], k = g.a.shape[g.transpose_a ? 0 : 1];
  const int64_t a_row = g.transpose_a ? 1 : k, a_column = g.transpose_a ? g.c.shape[0] : 1;
  const double *a = g.a.as<double>(), *b = g.b.as<double>(), *bias = g.bias ? g.bias.as<double>() : nullptr;
  double* c = g.c.as<double>();
  for (int64_t i0 = begin; i0 < end; i0 += kRows) {
    const int64_t rows = std::min(kRows, end - i0);
    for (int64_t j0 = 0; j0 < n; j0 += kColumns) {
      const int64_t columns = std::min(kColumns, n - j0);
      double sums[kRows][kColumns] = {};
      if (g.transpose_b) {
        for (int64_t i = 0; i < rows; ++i) {
          for (int64_t j = 0; j < columns; ++j) {
            const double *x = a + (i0 + i) * a_row, *y = b + (j0 + j) * k;
            double sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t l = 0; l < k; ++l) sum += x[l * a_column] * y[l];
            sums[i][j] = sum;
          }
        }
      } else {
        for (int64_t l = 0; l < k; ++l) {
          for (int64_t i = 0; i < rows; ++i) {
            const double x = a[(i0 + i) * a_row + l * a_column];
            const double* y = b + l * n + j0;
            KEEN_INDEPENDENT
            for (int64_t j = 0; j < columns; ++j) sums[i][j] += x * y[j];
          }
        }
      }
      for (int64_t i = 0; i < rows; ++i) {
        double* row = c + (i0 + i) * n + j0;
        for (int64_t j = 0; j < columns; ++j)
          row[j] = sums[i][j] + (g.accumulate ? row[j] : bias ? bias[j0 + j] : 0.0);
      }
    }
  }
}

// A bf16 product on a processor without bf16 arithmetic, where oneDNN would refuse it or emulate every
// instruction.
void gemm_as_float32(Context& ctx, const Gemm& g) {
  ScratchScope scope(ctx);
  Gemm copy = g;
  const Tensor a = ctx.scratch.take(g.a.shape, DType::f32), b = ctx.scratch.take(g.b.shape, DType::f32);
  convert(ctx, a, g.a);
  convert(ctx, b, g.b);
  copy.a = a;
  copy.b = b;
  if (g.c.dtype == DType::bf16) copy.c = ctx.scratch.take(g.c.shape, DType::f32);
  gemm(ctx, copy);
  if (g.c.dtype == DType::bf16) convert(ctx, g.c, copy.c);
}

}  // namespace

void gemm(Context& ctx, const Gemm& args) {
  check_shapes(args);
  ScratchScope scope(ctx);
  GemmScratch scratch;
  if (args.a_sums) {
    const auto [k, m] = dims<2>(args.a);
    scratch.sums = take_partial_sums(ctx, k, m, wide(args.a.dtype));
  }
  int64_t workspace_bytes = kCudaGemmWorkspaceBytes;
  if (ctx.device == Device::cpu) {
    const Gemm product = plain_product(args);
    if (has_few_rows(product)) {
      gemm_few_rows(ctx, product);
      return after_product(ctx, args, scratch);
    }
    if (args.a.dtype == DType::bf16 && !fast_bf16(Device::cpu)) {
      gemm_as_float32(ctx, product);
      return after_product(ctx, args, scratch);
    }
    workspace_bytes = args.a.dtype == DType::f64 ? 0 : onednn_workspace_bytes(ctx, product);
  }
  Gemm product = args;
  if (ctx.device == Device::cuda && args.bias && args.bias.dtype != args.c.dtype) {
    // cuBLASLt adds a bias of c's type alone. It is rounded before the sum is.
    const Tensor rounded = ctx.scratch.take(args.bias.shape, args.c.dtype);
    convert(ctx, rounded, args.bias);
    product.bias = rounded;
  }
  scratch.workspace = ctx.scratch.take({(workspace_bytes + 3) / 4}, DType::i32);
  on_device(ctx, [&]<Device D>() { gemm_on<D>(ctx, product, scratch); });
}

Gemm plain_product(const Gemm& args) {
  Gemm product = args;
  if (args.gelu_input) product.c = args.gelu_input;
  product.gelu_input = product.a_sums = {};
  product.gelu_at = {};
  return product;
}

void after_product(Context& ctx, const Gemm& args, const GemmScratch& scratch) {
  if (args.gelu_input) gelu(ctx, args.c, args.gelu_input);
  if (args.gelu_at) gelu_backward(ctx, args.c, args.c, args.gelu_at);
  if (args.a_sums) add_column_sums(ctx, args.a_sums, args.a, scratch.sums);
}

bool fast_bf16(Device device) { return device == Device::cuda || onednn_is_fast_at_bf16(); }

template <> void gemm_on<Device::cpu>(Context& ctx, const Gemm& args, const GemmScratch& scratch) {
  const Gemm product = plain_product(args);
  if (product.a.dtype == DType::f64) {
    const int64_t row_cost = product.c.shape[1] * product.a.shape[product.transpose_a ? 0 : 1];
    parallel_for(product.c.shape[0], std::max<int64_t>(1, (1 << 15) / row_cost),
                 [&](int64_t begin, int64_t end) { multiply_rows(product, begin, end); });
  } else {
    onednn_gemm(ctx, product, scratch.workspace);
  }
  after_product(ctx, args, scratch);
}

}  // namespace keen::ops
