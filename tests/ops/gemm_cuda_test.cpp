#include <fstream>

#include "cuda_test.h"
#include "environment.h"
#include "ops/gemm.h"
#include "ops/gemm_choice.h"

namespace keen::ops {
namespace {

using testing::close;
using testing::Twin;
using testing::Twins;

struct Case {
  DType type, c_type;
  bool transpose_a, transpose_b, accumulate, bias;

  std::string str() const {
    return fmt::format("{} to {} transposed {}{} accumulate {} bias {}", name_of(type), name_of(c_type),
                       transpose_a, transpose_b, accumulate, bias);
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& [type, c_type] :
       {std::pair{DType::f32, DType::f32}, {DType::bf16, DType::bf16}, {DType::bf16, DType::f32}})
    for (const bool transpose_a : {false, true})
      for (const bool transpose_b : {false, true})
        for (int extra = 0; extra < 3; ++extra)
          if (extra != 1 || c_type == DType::f32)
            all.push_back({type, c_type, transpose_a, transpose_b, extra == 1, extra == 2});
  return all;
}

// The tensors of one product. The CPU's side of bf16 ones is float32, so that its c is exact.
struct Product {
  Twin a, b, c, bias;
  Case kind;

  Product(Twins& t, const Case& kind, int64_t m, int64_t n, int64_t k) : kind(kind) {
    a = t.normal(kind.transpose_a ? Shape{k, m} : Shape{m, k}, kind.type);
    b = t.normal(kind.transpose_b ? Shape{n, k} : Shape{k, n}, kind.type);
    c = kind.accumulate ? t.normal({m, n}, kind.c_type) : t.poisoned({m, n}, kind.c_type);
    if (kind.bias) bias = t.normal({n}, DType::f32);
  }
  void operator()(Context& ctx, auto on) const {
    gemm(ctx, {.c = on(c),
               .a = on(a),
               .b = on(b),
               .bias = bias ? ConstTensor(on(bias)) : ConstTensor(),
               .transpose_a = kind.transpose_a,
               .transpose_b = kind.transpose_b,
               .accumulate = kind.accumulate});
  }
};

// What is left beside one rounding of c: float32 sums in another order.
double tolerance(const Case& kind) { return kind.c_type == DType::bf16 ? 8e-3 : 1e-5; }

// Runs products on both devices. The library's workspace is allocated once, and not for each of many
// products.
class Runner {
 public:
  Twins t;

  void operator()(const Product& product) {
    t.run_on_cpu(product);
    if (t.cuda.scratch.data() == nullptr) {
      // Enough for every product of these tests: beside the workspace, only a bias takes scratch.
      const auto planned = [](Shape shape, DType type) {
        Tensor x;
        x.device = Device::cuda;
        x.shape = shape;
        x.dtype = type;
        return x;
      };
      testing::prepare(t.cuda, [&] {
        gemm(t.cuda, {.c = planned({1, 1024}, DType::bf16),
                      .a = planned({1, 1}, DType::bf16),
                      .b = planned({1, 1024}, DType::bf16),
                      .bias = planned({1024}, DType::f32)});
      });
    }
    product(t.cuda, [](const Twin& twin) { return twin.cuda; });
    if constexpr (kCudaBuilt) cuda::synchronize(t.cuda);
    EXPECT_TRUE(close(t, product.c, tolerance(product.kind))) << product.kind.str();
  }
};

class GemmCuda : public testing::CudaTest {};

TEST_F(GemmCuda, EqualsTheCpuForEveryKindAndShape) {
  Runner run;
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 1, 1},
                                {1, 33, 7},
                                {33, 1, 7},
                                {33, 7, 1},
                                {3, 5, 7},
                                {16, 24, 32},
                                {40, 16, 520},
                                {129, 37, 65}})
    for (const Case& kind : cases()) {
      SCOPED_TRACE(fmt::format("{} x {} x {}", m, n, k));
      run(Product(run.t, kind, m, n, k));
    }
}

// `shape` elements of x, from its `first` one on.
Twin slice(const Twin& x, int64_t first, Shape shape) {
  const auto part = [&](const Tensor& whole) {
    return whole.reshape({whole.count()}).rows(first, first + shape.count()).reshape(shape);
  };
  return {part(x.cpu), part(x.cuda)};
}

TEST_F(GemmCuda, TakesViewsOfAnyAlignment) {
  Runner run;
  for (const Case& kind : cases())
    for (const int64_t first : {1, 2, 4, 8})
      for (const auto& [m, n, k] : {std::array<int64_t, 3>{8, 16, 24}, {7, 9, 11}}) {
        Product product(run.t, kind, 24, 25, 26);
        product.a = slice(product.a, first, kind.transpose_a ? Shape{k, m} : Shape{m, k});
        product.b = slice(product.b, first, kind.transpose_b ? Shape{n, k} : Shape{k, n});
        product.c = slice(product.c, first, {m, n});
        if (kind.bias) product.bias = slice(product.bias, first, {n});
        SCOPED_TRACE(fmt::format("{} x {} x {} from element {}", m, n, k, first));
        run(product);
      }
}

TEST_F(GemmCuda, GivesTheSameBitsEveryTime) {
  for (const Case& kind : {Case{DType::f32, DType::f32, false, true, false, true},
                           {DType::bf16, DType::bf16, false, false, false, true},
                           {DType::bf16, DType::f32, true, false, true, false}}) {
    Twins t;
    const Product product(t, kind, 48, 32, 160);
    t.expect_repeats(product, {product.c});
  }
}

// Large parts of the sum cancel: rounded to bf16 in between, 800 + 2 (i + 1) would lose what is left.
TEST_F(GemmCuda, AddsInFloat32WhateverTheTypeOfTheResult) {
  testing::Tensors host;
  const Tensor a = host.zeros({8, 32}, DType::bf16), b = host.zeros({32, 8}, DType::bf16);
  testing::Tensors::fill(a, [](int64_t element) {
    const int64_t row = element / 32, quarter = element % 32 / 8;
    return quarter == 0 ? 100 : quarter == 1 ? 0.25 * static_cast<double>(row + 1) : quarter == 2 ? -100 : 0;
  });
  testing::Tensors::fill(b, [](int64_t) { return 1.0; });
  Runner run;
  Product product(run.t, {DType::bf16, DType::bf16, false, false, false, false}, 8, 8, 32);
  product.a = run.t.twin_of(a);
  product.b = run.t.twin_of(b);
  run(product);
  EXPECT_TRUE(close(run.t, product.c, 1e-6));
}

TEST_F(GemmCuda, TakesAsMuchScratchAsPlanned) {
  for (const DType c_type : {DType::f32, DType::bf16}) {
    Twins t;
    const Product product(t, {DType::bf16, c_type, false, true, false, true}, 16, 24, 32);
    t.run_on_cuda(product);
    const int64_t rounded_bias_bytes = c_type == DType::bf16 ? Arena::kAlignment : 0;
    EXPECT_EQ(t.cuda.scratch.peak(), kCudaGemmWorkspaceBytes + rounded_bias_bytes);
    EXPECT_EQ(t.cuda.scratch.mark(), 0);
  }
}

TEST_F(GemmCuda, RefusesFloat64) {
  Twins t;
  const Twin x = t.zeros({2, 2}, DType::f64);
  EXPECT_THROW(t.run_on_cuda([&](Context& ctx, auto on) { gemm(ctx, {.c = on(x), .a = on(x), .b = on(x)}); }),
               Error);
}

class GemmTimingCuda : public GemmCuda {
 protected:
  static std::string file() {
    std::ifstream in(gemm_choices_file());
    return {std::istreambuf_iterator<char>(in), {}};
  }

 private:
  const testing::FreshGemmChoices fresh_{0};
};

TEST_F(GemmTimingCuda, ComputesTheSameAndKeepsItsChoice) {
  const Case kinds[] = {{DType::f32, DType::f32, false, true, false, true},
                        {DType::bf16, DType::bf16, false, false, false, true},
                        {DType::bf16, DType::f32, true, false, true, false}};
  std::string kept;
  for (const bool again : {false, true}) {
    Runner run;
    run.t.cuda.time_gemms = true;
    for (const Case& kind : kinds) run(Product(run.t, kind, 24, 16, 32));
    if (!again) kept = file();
  }
  EXPECT_EQ(std::count(kept.begin(), kept.end(), '\t'), 2 * static_cast<int64_t>(std::size(kinds)));
  EXPECT_EQ(file(), kept) << "the second time the choices are read";
}

TEST_F(GemmTimingCuda, TimesAgainWhatTheFileCannotSay) {
  const auto run_once = [] {
    Runner run;
    run.t.cuda.time_gemms = true;
    run(Product(run.t, {DType::bf16, DType::bf16, false, true, false, false}, 24, 16, 32));
  };
  run_once();
  const std::string kept = file();
  const std::string key = kept.substr(1, kept.find('\t') - 1);
  // Whole, but no algorithm of this library.
  constexpr GemmAlgorithm kForeign{~uint64_t{0}, 1, 2, 3, 4, 5, 6, 7};
  GemmChoices(gemm_choices_file()).keep(key, kForeign);
  run_once();
  EXPECT_NE(GemmChoices(gemm_choices_file()).find(key), kForeign);
  std::ofstream(gemm_choices_file()) << kept.substr(0, kept.size() / 2);
  run_once();
  EXPECT_TRUE(GemmChoices(gemm_choices_file()).find(key));
}

}  // namespace
}  // namespace keen::ops
