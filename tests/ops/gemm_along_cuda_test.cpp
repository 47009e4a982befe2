// GEMMs with what goes along with them, GELU and sums, in the library's kernel and in kernels apart.
#include <fstream>

#include "cuda_test.h"
#include "environment.h"
#include "ops/gemm.h"
#include "ops/gemm_choice.h"
#include "ops/linear.h"

namespace keen::ops {
namespace {

using testing::close;
using testing::FreshGemmChoices;
using testing::Twin;
using testing::Twins;

enum class Along { gelu, gelu_and_bias, slope, sums };
constexpr Along kAll[] = {Along::gelu, Along::gelu_and_bias, Along::slope, Along::sums};
constexpr const char* kNames[] = {"gelu", "gelu and bias", "slope", "sums"};

// The tensors of one product. Sums go with a weight gradient: c and they are added to.
struct Case {
  Along along;
  Twin a, b, c, bias, gelu_input, gelu_at, a_sums;

  Case(Twins& t, Along along, DType type, int64_t m, int64_t n, int64_t k) : along(along) {
    const bool sums = along == Along::sums;
    a = t.normal(sums ? Shape{k, m} : Shape{m, k}, type);
    b = t.normal({k, n}, type);
    c = sums ? t.normal({m, n}, DType::f32) : t.poisoned({m, n}, type);
    if (along == Along::gelu_and_bias) bias = t.normal({n}, DType::f32);
    if (along == Along::gelu || along == Along::gelu_and_bias) gelu_input = t.poisoned({m, n}, type);
    if (along == Along::slope) gelu_at = t.normal({m, n}, type, 2);
    if (sums) a_sums = t.normal({m}, DType::f32, 10);
  }
  void operator()(Context& ctx, auto on) const {
    Gemm g{.c = on(c), .a = on(a), .b = on(b)};
    if (bias) g.bias = on(bias);
    if (gelu_input) g.gelu_input = on(gelu_input);
    if (gelu_at) g.gelu_at = on(gelu_at);
    if (a_sums) g.a_sums = on(a_sums);
    g.transpose_a = g.accumulate = static_cast<bool>(a_sums);
    gemm(ctx, g);
  }
  void expect_close(Twins& t) const {
    for (const Twin& out : {c, gelu_input, a_sums})
      if (out) {
        EXPECT_TRUE(close(t, out)) << kNames[static_cast<int>(along)];
      }
  }
};

std::string choices() {
  std::ifstream in(gemm_choices_file());
  return {std::istreambuf_iterator<char>(in), {}};
}
int64_t count(const std::string& text, std::string_view part) {
  int64_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}
// How the file says that kernels apart are faster.
constexpr std::string_view kApart = "\tffffffffffffffff";

class GemmAlongCuda : public testing::CudaTypeTest {};
INSTANTIATE_TEST_SUITE_P(Types, GemmAlongCuda, testing::kCudaTypes, testing::type_name);

TEST_P(GemmAlongCuda, EqualsTheCpuAndRepeatsInOneKernelAndInSeveral) {
  for (const int ahead_ms : {0, 5, -5}) {
    const FreshGemmChoices fresh(ahead_ms);
    for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 1, 1}, {3, 5, 7}, {16, 24, 32}, {33, 8, 65}})
      for (const Along along : kAll) {
        SCOPED_TRACE(fmt::format("{} x {} x {}, {} ms ahead", m, n, k, ahead_ms));
        Twins t;
        t.cuda.time_gemms = ahead_ms != 0;
        const Case product(t, along, GetParam(), m, n, k);
        Case again = product;
        for (Twin* out : {&again.c, &again.gelu_input, &again.a_sums})
          if (*out) *out = t.copy_of(*out);
        t.run(product);
        product.expect_close(t);
        t.run_on_cuda(again);
        for (const auto& [x, y] : {std::pair{product.c, again.c},
                                   {product.gelu_input, again.gelu_input},
                                   {product.a_sums, again.a_sums}})
          if (x) {
            EXPECT_EQ(
                std::memcmp(t.fetch(x.cuda).data, t.fetch(y.cuda).data, static_cast<size_t>(x.cuda.bytes())),
                0);
          }
      }
  }
}

// One tensor at a time begins where the library's kernels may not want it: it has to be asked with the
// addresses that it will be given.
TEST_P(GemmAlongCuda, TakesABiasAndTheLikeOfAnyAlignment) {
  const FreshGemmChoices fresh(5);
  for (const int64_t first : {1, 2, 4, 8})
    for (const Along along : kAll)
      for (Twin Case::*which : {&Case::bias, &Case::gelu_input, &Case::gelu_at, &Case::a_sums}) {
        SCOPED_TRACE(fmt::format("from element {}", first));
        Twins t;
        t.cuda.time_gemms = true;
        Case product(t, along, GetParam(), 16, 24, 32);
        Twin& x = product.*which;
        if (!x) continue;
        const Twin more = t.normal({x.cuda.count() + first}, x.cuda.dtype);
        const auto part = [&](const Tensor& all) {
          return all.rows(first, all.count()).reshape(x.cuda.shape);
        };
        x = {part(more.cpu), part(more.cuda)};
        t.run(product);
        product.expect_close(t);
      }
}

class GemmAlongChoiceCuda : public testing::CudaTest {};

TEST_F(GemmAlongChoiceCuda, TheFasterOfOneKernelAndSeveralIsTakenAndKept) {
  if constexpr (!kCudaEmulated) GTEST_SKIP() << "only the emulator's clock can be told which is faster";
  for (const int ahead_ms : {5, -5}) {
    const FreshGemmChoices fresh(ahead_ms);
    std::string kept;
    for (const bool again : {false, true}) {
      for (const Along along : kAll) {
        Twins t;
        t.cuda.time_gemms = true;
        const Case product(t, along, DType::bf16, 16, 24, 32);
        t.run(product);
        product.expect_close(t);
      }
      if (!again) kept = choices();
    }
    EXPECT_EQ(choices(), kept) << "the second time the choices are read";
    EXPECT_EQ(count(kept, " with gelu,") + count(kept, " with gelu "), 2) << kept;
    EXPECT_EQ(count(kept, kApart), ahead_ms > 0 ? 0 : static_cast<int64_t>(std::size(kAll))) << kept;
  }
}

TEST_P(GemmAlongCuda, LinearForwardAndBackwardAgreeWithTheCpu) {
  for (const int ahead_ms : {0, 5}) {
    const FreshGemmChoices fresh(ahead_ms);
    for (const bool has_bias : {false, true}) {
      Twins t;
      t.cuda.time_gemms = ahead_ms != 0;
      const int64_t N = 24, I = 40, O = 16;
      const DType type = GetParam();
      const Twin x = t.normal({N, I}, type), up = t.normal({O, I}, type), dx = t.poisoned({N, I}, type);
      const Twin y = t.poisoned({N, O}, type), z = t.poisoned({N, O}, type), dz = t.poisoned({N, O}, type);
      const Twin dy = t.normal({N, I}, type), down = t.normal({I, O}, type);
      const Twin ddown = t.normal({I, O}, DType::f32), dup = t.normal({O, I}, DType::f32);
      const Twin bias = t.normal({O}, DType::f32), dbias = t.normal({O}, DType::f32);
      const auto optional = [&](const auto& tensor) {
        return has_bias ? tensor : std::remove_cvref_t<decltype(tensor)>{};
      };
      t.run([&](Context& ctx, auto on) {
        linear_gelu(ctx, on(y), on(z), on(x), on(up), optional(on(bias)));
        linear_backward(ctx, {.dx = on(dz),
                              .dw = on(ddown),
                              .dbias = {},
                              .dy = on(dy),
                              .x = on(y),
                              .w = on(down),
                              .x_is_gelu_of = on(z)});
        linear_backward(ctx, {.dx = on(dx),
                              .dw = on(dup),
                              .dbias = optional(on(dbias)),
                              .dy = on(dz),
                              .x = on(x),
                              .w = on(up)});
      });
      // What comes after a rounded dz is no nearer than that is.
      for (const Twin& out : {y, z, dz, dx, ddown, dup, dbias})
        EXPECT_TRUE(close(t, out, testing::cuda_tolerance(type))) << has_bias;
    }
  }
}

}  // namespace
}  // namespace keen::ops
