#include <cstdlib>
#include <fstream>

#include "cuda_test.h"
#include "ops/gemm.h"
#include "ops/gemm_choice.h"
#include "temporary_directory.h"

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

class GemmCuda : public testing::CudaTest {};

TEST_F(GemmCuda, EqualsTheCpuForEveryKindAndShape) {
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 1, 1},
                                {1, 33, 7},
                                {33, 1, 7},
                                {33, 7, 1},
                                {3, 5, 7},
                                {16, 24, 32},
                                {40, 16, 520},
                                {129, 37, 65}})
    for (const Case& kind : cases()) {
      Twins t;
      const Product product(t, kind, m, n, k);
      t.run(product);
      EXPECT_TRUE(close(t, product.c, tolerance(kind))) << m << " x " << n << " x " << k << " " << kind.str();
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
  for (const Case& kind : cases())
    for (const int64_t first : {1, 2, 4, 8})
      for (const auto& [m, n, k] : {std::array<int64_t, 3>{8, 16, 24}, {7, 9, 11}}) {
        Twins t;
        Product product(t, kind, 24, 25, 26);
        product.a = slice(product.a, first, kind.transpose_a ? Shape{k, m} : Shape{m, k});
        product.b = slice(product.b, first, kind.transpose_b ? Shape{n, k} : Shape{k, n});
        product.c = slice(product.c, first, {m, n});
        if (kind.bias) product.bias = slice(product.bias, first, {n});
        t.run(product);
        EXPECT_TRUE(close(t, product.c, tolerance(kind))) << "from element " << first << " " << kind.str();
      }
}

TEST_F(GemmCuda, GivesTheSameBitsEveryTime) {
  for (const Case& kind : cases()) {
    Twins t;
    const Product product(t, kind, 48, 32, 160);
    t.expect_repeats(product, {product.c});
  }
}

TEST_F(GemmCuda, TakesAsMuchScratchAsPlanned) {
  for (const Case& kind : cases()) {
    Twins t;
    const Product product(t, kind, 16, 24, 32);
    t.run_on_cuda(product);
    const bool rounds = kind.bias && kind.c_type == DType::bf16;
    EXPECT_EQ(t.cuda.scratch.peak(), kCudaGemmWorkspaceBytes + (rounds ? Arena::kAlignment : 0))
        << kind.str();
    EXPECT_EQ(t.cuda.scratch.mark(), 0);
  }
}

TEST_F(GemmCuda, RefusesFloat64) {
  Twins t;
  const Twin x = t.zeros({2, 2}, DType::f64);
  EXPECT_THROW(t.run_on_cuda([&](Context& ctx, auto on) { gemm(ctx, {.c = on(x), .a = on(x), .b = on(x)}); }),
               Error);
}

// With a cache directory of its own.
class GemmTimingCuda : public GemmCuda {
 protected:
  void SetUp() override {
    GemmCuda::SetUp();
    const char* cache = std::getenv("XDG_CACHE_HOME");
    if (cache != nullptr) before_ = cache;
    setenv("XDG_CACHE_HOME", directory_.path().c_str(), 1);
  }
  void TearDown() override {
    before_ ? setenv("XDG_CACHE_HOME", before_->c_str(), 1) : unsetenv("XDG_CACHE_HOME");
  }
  static std::string file() {
    std::ifstream in(gemm_choices_file());
    return {std::istreambuf_iterator<char>(in), {}};
  }

 private:
  testing::TemporaryDirectory directory_;
  std::optional<std::string> before_;
};

TEST_F(GemmTimingCuda, ComputesTheSameAndKeepsItsChoice) {
  std::string kept;
  for (const bool again : {false, true}) {
    for (const Case& kind : cases()) {
      Twins t;
      t.cuda.time_gemms = true;
      const Product product(t, kind, 24, 16, 32);
      t.run(product);
      EXPECT_TRUE(close(t, product.c, tolerance(kind))) << kind.str();
    }
    if (!again) kept = file();
  }
  EXPECT_EQ(std::count(kept.begin(), kept.end(), '\t'), 2 * static_cast<int64_t>(cases().size()));
  EXPECT_EQ(file(), kept) << "the second time the choices are read";
}

TEST_F(GemmTimingCuda, TimesAgainWhatTheFileCannotSay) {
  const Case kind{DType::bf16, DType::bf16, false, true, false, false};
  const auto run = [&] {
    Twins t;
    t.cuda.time_gemms = true;
    const Product product(t, kind, 24, 16, 32);
    t.run(product);
    EXPECT_TRUE(close(t, product.c, tolerance(kind)));
  };
  run();
  const std::string kept = file();
  const std::string key = kept.substr(1, kept.find('\t') - 1);
  // Whole, but no algorithm of this library.
  GemmChoices(gemm_choices_file()).keep(key, {~uint64_t{0}, 1, 2, 3, 4, 5, 6, 7});
  run();
  EXPECT_EQ(GemmChoices(gemm_choices_file()).find(key)->at(7), 0) << "the foreign one is replaced";
  std::ofstream(gemm_choices_file()) << kept.substr(0, kept.size() / 2);
  run();
  EXPECT_TRUE(GemmChoices(gemm_choices_file()).find(key));
}

}  // namespace
}  // namespace keen::ops
