#include "ops/gemm.h"

#include <omp.h>

#include "op_test.h"

namespace keen::ops {
namespace {

using testing::prepare;
using testing::relative_error;
using testing::Tensors;

struct Size {
  int64_t m, n, k;
};

// The product by definition, in double.
void multiply(Tensor c, const Gemm& g) {
  const auto a = Tensors::to_doubles(g.a), b = Tensors::to_doubles(g.b), before = Tensors::to_doubles(g.c);
  const auto bias = g.bias ? Tensors::to_doubles(g.bias) : std::vector<double>();
  const auto [m, n] = dims<2>(g.c);
  const int64_t rows = m, columns = n, depth = g.a.shape[g.transpose_a ? 0 : 1];
  Tensors::fill(c, [&](int64_t element) {
    const int64_t i = element / columns, j = element % columns;
    double sum = g.accumulate ? before[static_cast<size_t>(element)] : 0;
    if (g.bias) sum += bias[static_cast<size_t>(j)];
    for (int64_t l = 0; l < depth; ++l)
      sum += a[static_cast<size_t>(g.transpose_a ? l * rows + i : i * depth + l)] *
             b[static_cast<size_t>(g.transpose_b ? j * depth + l : l * columns + j)];
    return sum;
  });
}

// The largest difference allowed, relative to the largest element: one rounding of c, and the accumulation.
double tolerance(DType c) { return c == DType::f64 ? 1e-13 : c == DType::f32 ? 2e-6 : 4e-3; }

struct Case {
  DType type, c_type;
  bool transpose_a, transpose_b, accumulate, bias;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& [type, c_type] : {std::pair{DType::f64, DType::f64}, std::pair{DType::f32, DType::f32},
                                     std::pair{DType::bf16, DType::bf16}, std::pair{DType::bf16, DType::f32}})
    for (const bool transpose_a : {false, true})
      for (const bool transpose_b : {false, true})
        for (int extra = 0; extra < 3; ++extra)
          if (extra != 1 || c_type == wide(type))
            all.push_back({type, c_type, transpose_a, transpose_b, extra == 1, extra == 2});
  return all;
}

Gemm make(Tensors& t, const Case& kind, Size size) {
  const auto [m, n, k] = size;
  Gemm g;
  g.a = t.normal(kind.transpose_a ? Shape{k, m} : Shape{m, k}, kind.type);
  g.b = t.normal(kind.transpose_b ? Shape{n, k} : Shape{k, n}, kind.type);
  g.c = kind.accumulate ? t.normal({m, n}, kind.c_type) : t.poisoned({m, n}, kind.c_type);
  if (kind.bias) g.bias = t.normal({n}, wide(kind.type));
  g.transpose_a = kind.transpose_a;
  g.transpose_b = kind.transpose_b;
  g.accumulate = kind.accumulate;
  return g;
}

TEST(Gemm, EqualsTheDefinitionForEveryKindAndShape) {
  for (const Size size :
       {Size{1, 1, 1}, Size{1, 33, 7}, Size{33, 1, 7}, Size{33, 7, 1}, Size{3, 5, 7}, Size{64, 96, 128},
        Size{800, 24, 520}, Size{1030, 40, 37}, Size{129, 515, 65}, Size{2050, 24, 33}, Size{96, 40, 1030},
        Size{2, 50, 96}, Size{7, 43, 530}, Size{16, 35, 71}}) {
    for (const Case& kind : cases()) {
      Tensors t;
      const Gemm g = make(t, kind, size);
      Tensor want = t.zeros(g.c.shape);
      multiply(want, g);
      Context ctx;
      prepare(ctx, [&] { gemm(ctx, g); });
      gemm(ctx, g);
      EXPECT_LT(relative_error(g.c, want), tolerance(kind.c_type))
          << size.m << " x " << size.n << " x " << size.k << " " << name_of(kind.type) << " -> "
          << name_of(kind.c_type) << " transposed " << kind.transpose_a << kind.transpose_b << " accumulate "
          << kind.accumulate << " bias " << kind.bias;
    }
  }
}

TEST(Gemm, CachedPrimitiveTakesOtherMemory) {
  Tensors t;
  Context ctx;
  const Case kind{DType::f32, DType::f32, false, true, false, true};
  const Gemm first = make(t, kind, {48, 32, 16}), second = make(t, kind, {48, 32, 16});
  prepare(ctx, [&] { gemm(ctx, first); });
  for (const Gemm& g : {first, second, first}) {
    Tensors::fill(g.c, [](int64_t) { return std::nan(""); });
    gemm(ctx, g);
    Tensor want = t.zeros(g.c.shape);
    multiply(want, g);
    EXPECT_LT(relative_error(g.c, want), 2e-6);
  }
}

// Decoding relies on it: a row is the same to the last bit, however many there are, on any number of threads.
TEST(Gemm, AFewRowsAreTheSameHoweverMany) {
  const int threads = omp_get_max_threads();
  for (const Case& kind : cases()) {
    if (kind.transpose_a || !kind.transpose_b || kind.accumulate) continue;
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{515, 768}, {43, 131}, {50, 8}, {1, 3}}) {
      Tensors t;
      const Gemm all = make(t, kind, {kFewRows, n, k});
      std::vector<double> want;
      for (int64_t rows = kFewRows; rows >= 1; --rows) {
        omp_set_num_threads(static_cast<int>(1 + rows % 2));
        Gemm some = all;
        some.a = all.a.rows(0, rows);
        some.c = t.poisoned({rows, n}, kind.c_type);
        Context ctx;
        prepare(ctx, [&] { gemm(ctx, some); });
        gemm(ctx, some);
        const std::vector<double> got = Tensors::to_doubles(some.c);
        if (rows == kFewRows) want = got;
        want.resize(got.size());
        EXPECT_EQ(got, want) << rows << " rows, " << n << " x " << k << " " << name_of(kind.type) << " -> "
                             << name_of(kind.c_type) << " bias " << kind.bias;
      }
    }
  }
  omp_set_num_threads(threads);
}

bool has_avx512() {
#ifdef __x86_64__
  return __builtin_cpu_supports("avx512f");
#else
  return false;
#endif
}

// Of products that the library does not cut along k; over thousands of rows it may.
TEST(Gemm, SameBitsOnOneAndTwoThreads) {
  if (!has_avx512())
    GTEST_SKIP() << "oneDNN's kernels for this processor share out a product's sums by the number of threads";
  const int threads = omp_get_max_threads();
  for (const Case& kind : cases()) {
    if (kind.bias) continue;
    for (const Size size : {Size{1030, 40, 37}, Size{800, 24, 520}}) {
      std::vector<double> bits[2];
      for (const int run : {0, 1}) {
        omp_set_num_threads(run + 1);
        Tensors t;
        const Gemm g = make(t, kind, size);
        Context ctx;
        prepare(ctx, [&] { gemm(ctx, g); });
        gemm(ctx, g);
        bits[run] = Tensors::to_doubles(g.c);
      }
      omp_set_num_threads(threads);
      EXPECT_EQ(bits[0], bits[1]) << size.m << " x " << size.n << " x " << size.k << " " << name_of(kind.type)
                                  << " -> " << name_of(kind.c_type) << " transposed " << kind.transpose_a
                                  << kind.transpose_b << " accumulate " << kind.accumulate << " bias "
                                  << kind.bias;
    }
  }
}

TEST(Gemm, PlanningMeasuresTheScratchAndTouchesNothing) {
  for (const Case& kind : cases())
    for (const Size size : {Size{800, 24, 520}, Size{2050, 24, 33}, Size{96, 40, 1030}, Size{7, 43, 530}}) {
      Tensors t;
      const Gemm g = make(t, kind, size);
      const auto before = Tensors::to_doubles(g.b);
      Gemm planned = g;
      planned.a.data = planned.b.data = planned.bias.data = nullptr;
      planned.c.data = nullptr;
      Context ctx;
      ctx.planning = true;
      gemm(ctx, planned);
      ctx.planning = false;
      const int64_t peak = ctx.scratch.peak();
      ctx.scratch.allocate("scratch");
      gemm(ctx, g);
      EXPECT_EQ(ctx.scratch.peak(), peak);
      EXPECT_EQ(ctx.scratch.mark(), 0);
      EXPECT_EQ(Tensors::to_doubles(g.b), before);
    }
}

TEST(Gemm, PlansForCudaWithoutTheCpuLibrary) {
  Context ctx(Device::cuda);
  ctx.planning = true;
  Gemm g;
  g.a.shape = {4, 8};
  g.b.shape = {8, 6};
  g.c.shape = {4, 6};
  gemm(ctx, g);
  EXPECT_EQ(ctx.gemm, nullptr);
  EXPECT_EQ(ctx.scratch.peak(), kCudaGemmWorkspaceBytes);
}

TEST(Gemm, RefusesWhatDoesNotFit) {
  Tensors t;
  Context ctx;
  const auto with = [&](const std::function<void(Gemm&)>& change) {
    Gemm g{.c = t.zeros({2, 3}), .a = t.zeros({2, 4}), .b = t.zeros({4, 3})};
    change(g);
    gemm(ctx, g);
  };
  EXPECT_NO_THROW(with([](Gemm&) {}));
  EXPECT_THROW(with([&](Gemm& g) { g.transpose_a = true; }), Error);
  EXPECT_THROW(with([&](Gemm& g) { g.b = t.zeros({3, 4}); }), Error);
  EXPECT_THROW(with([&](Gemm& g) { g.b = t.zeros({4, 3}, DType::f32); }), Error);
  EXPECT_THROW(with([&](Gemm& g) { g.c = t.zeros({2, 3}, DType::f32); }), Error);
  EXPECT_THROW(with([&](Gemm& g) { g.bias = t.zeros({2}); }), Error);
  EXPECT_THROW(with([&](Gemm& g) {
                 g.bias = t.zeros({3});
                 g.accumulate = true;
               }),
               Error);
  EXPECT_THROW(gemm(ctx, {.c = t.zeros({2, 3}, DType::bf16),
                          .a = t.zeros({2, 4}, DType::bf16),
                          .b = t.zeros({4, 3}, DType::bf16),
                          .accumulate = true}),
               Error);
  EXPECT_THROW(gemm(ctx, {.c = t.zeros({0, 3}), .a = t.zeros({0, 4}), .b = t.zeros({4, 3})}), Error);
}

}  // namespace
}  // namespace keen::ops
