#include "ops/gemm_few_rows.h"

#include <algorithm>

#include "core/lanes.h"
#include "core/parallel.h"
#include "core/prefetch.h"
#include "ops/elementwise.h"

namespace keen::ops {

namespace {

constexpr int64_t kPanel = 16;  // threads share out columns of c in multiples of this: whole vectors

// The sums of rows [0, R) of a with columns [0, O) of c, a vector of partial sums each: lane l sums over
// k = l, L + l, 2 L + l, ... They go to sums[r * L * L + o * L].
template <int kBytes, int R, int O, class T>
[[gnu::always_inline]] inline void sum_block(float* sums, const float* a, const T* b, int64_t K) {
  using V = typename simd::VectorOf<float, kBytes>::type;
  constexpr int64_t L = simd::kLanes<float, kBytes>;
  V sum[R][O] = {};
  const auto add = [&](int64_t k, const auto& load) __attribute__((always_inline)) {
    V x[R], y;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) load(x[r], a + r * K + k);
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) {
      load(y, b + o * K + k);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) simd::add_product(sum[r][o], x[r], y);
    }
  };
  const auto lanes = [](V & x, const auto* from) __attribute__((always_inline)) {
    simd::load_lanes<kBytes>(x, from);
  };
  const auto last_lanes = [&](V & x, const auto* from) __attribute__((always_inline)) {
    simd::load_first_lanes<kBytes>(x, from, K % L);
  };
  constexpr int64_t kLine = 64 / sizeof(T);  // numbers of b in a cache line; the columns after these are next
  int64_t k = 0;
  for (; k + kLine <= K; k += kLine) {
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) prefetch(b + (O + o) * K + k, kLine);
#pragma GCC unroll 8
    for (int64_t l = 0; l < kLine; l += L) add(k + l, lanes);
  }
  for (; k + L <= K; k += L) add(k, lanes);
  if (k < K) add(k, last_lanes);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) *reinterpret_cast<V*>(sums + (r * L + o) * L) = sum[r][o];
}

// The same for `columns` columns, at most L.
template <int kBytes, int R, int O, class T>
[[gnu::always_inline]] inline void sum_columns(float* sums, const float* a, const T* b, int64_t K,
                                               int64_t columns) {
  constexpr int64_t L = simd::kLanes<float, kBytes>;
  int64_t o = 0;
  for (; o + O <= columns; o += O) sum_block<kBytes, R, O>(sums + o * L, a, b + o * K, K);
  for (; o < columns; ++o) sum_block<kBytes, R, 1>(sums + o * L, a, b + o * K, K);
}

// Columns [begin, end) of all rows.
template <int kBytes, class T, class C>
[[gnu::always_inline]] inline void multiply(const Gemm& g, const float* a, int64_t begin, int64_t end) {
  using V = typename simd::VectorOf<float, kBytes>::type;
  constexpr int64_t L = simd::kLanes<float, kBytes>;
  constexpr int kWide = kBytes == 64 ? 4 : 2;  // columns of a block of 4 rows, by the number of registers
  const auto [M, N] = dims<2>(g.c);
  const int64_t K = g.a.shape[1];
  const T* b = g.b.as<T>();
  const float* bias = g.bias ? g.bias.as<float>() : nullptr;
  alignas(64) float sums[kFewRows * L * L], sums_t[L * L];
  std::fill_n(sums, M * L * L, 0.0f);  // all lanes are transposed, also those without a column
  for (int64_t j = begin; j < end; j += L) {
    const int64_t columns = std::min(L, end - j);
    for (int64_t i = 0; i < M; i += 4) {
      float* to = sums + i * L * L;
      const float* rows = a + i * K;
      if (M - i >= 4) sum_columns<kBytes, 4, kWide>(to, rows, b + j * K, K, columns);
      if (M - i == 3) sum_columns<kBytes, 3, 4>(to, rows, b + j * K, K, columns);
      if (M - i == 2) sum_columns<kBytes, 2, 4>(to, rows, b + j * K, K, columns);
      if (M - i == 1) sum_columns<kBytes, 1, 8>(to, rows, b + j * K, K, columns);
    }
    for (int64_t i = 0; i < M; ++i) {
      simd::transpose<kBytes>(sums_t, L, sums + i * L * L, L, L, L);
      V total{};
      for (int64_t lane = 0; lane < L; ++lane) total += *reinterpret_cast<const V*>(sums_t + lane * L);
      C* to = g.c.as<C>() + i * N + j;
      for (int64_t o = 0; o < columns; ++o) to[o] = C(bias == nullptr ? total[o] : total[o] + bias[j + o]);
    }
  }
}

template <class T, class C> void multiply(const Gemm& g, const float* a) {
  const int64_t M = g.c.shape[0], N = g.c.shape[1], K = g.a.shape[1];
  constexpr int64_t kLeast = 1 << 16;  // products that are worth a thread
  parallel_for(
      (N + kPanel - 1) / kPanel, std::max<int64_t>(1, kLeast / (M * K * kPanel)),
      [&]<class Vectors>(int64_t begin, int64_t end, Vectors) requires(!std::is_same_v<Vectors, Bf16Pairs>) {
        multiply<Vectors::value, T, C>(g, a, begin * kPanel, std::min(end * kPanel, N));
      });
}

}  // namespace

bool has_few_rows(const Gemm& product) {
  return product.c.shape[0] <= kFewRows && !product.transpose_a && product.transpose_b &&
         !product.accumulate && product.a.dtype != DType::f64;
}

void gemm_few_rows(Context& ctx, const Gemm& product) {
  ScratchScope scope(ctx);
  ConstTensor a = product.a;
  if (a.dtype == DType::bf16) {
    const Tensor copy = ctx.scratch.take(a.shape, DType::f32);
    convert(ctx, copy, a);
    a = copy;
  }
  if (ctx.planning) return;
  const float* rows = a.as<float>();
  if (product.a.dtype == DType::f32)
    multiply<float, float>(product, rows);
  else if (product.c.dtype == DType::f32)
    multiply<bf16, float>(product, rows);
  else
    multiply<bf16, bf16>(product, rows);
}

}  // namespace keen::ops
