#include "cuda_test.h"
#include "ops/layernorm.h"

namespace keen::ops {
namespace {

using testing::close;
using testing::Twin;
using testing::Twins;

class LayerNormCuda : public testing::CudaTypeTest {};
INSTANTIATE_TEST_SUITE_P(Types, LayerNormCuda, testing::kCudaTypes, testing::type_name);

// As in the test of RMSNorm: every way of sharing out a row.
constexpr std::pair<int64_t, int64_t> kShapes[] = {{1, 1},    {3, 7},     {1, 8},     {35, 8},    {20, 264},
                                                   {17, 520}, {18, 1032}, {17, 2056}, {18, 1030}, {2, 12296}};

TEST_P(LayerNormCuda, AgreesWithTheCpuAndMayAlias) {
  for (const auto& [N, C] : kShapes)
    for (const bool biased : {true, false}) {
      Twins t;
      const Twin x = t.normal({N, C}, GetParam(), 2, 5), w = t.normal({C}, DType::f32);
      const Twin bias = biased ? t.normal({C}, DType::f32) : Twin{};
      const Twin y = t.poisoned({N, C}, GetParam());
      const Twin mean = t.poisoned({N}, DType::f32), rstd = t.poisoned({N}, DType::f32);
      const auto into = [&](const Twin& out) {
        return [&, out](Context& ctx, auto on) {
          layernorm(ctx, {.y = on(out),
                          .mean = on(mean),
                          .rstd = on(rstd),
                          .x = on(x),
                          .w = on(w),
                          .bias = on(bias),
                          .eps = 1e-5});
        };
      };
      t.run(into(y));
      EXPECT_TRUE(close(t, y)) << N << " x " << C;
      EXPECT_TRUE(close(t, mean)) << N << " x " << C;
      EXPECT_TRUE(close(t, rstd)) << N << " x " << C;
      t.run(into(x));
      EXPECT_TRUE(close(t, x)) << N << " x " << C;
    }
}

TEST_P(LayerNormCuda, ABranchIsAddedFirst) {
  const double tolerance = testing::cuda_tolerance(GetParam());  // statistics are of the rounded sum
  for (const auto& [N, C] : kShapes) {
    Twins t;
    const Twin x = t.normal({N, C}, GetParam(), 2, 5), w = t.normal({C}, DType::f32);
    const Twin branch = t.normal({N, C}, GetParam(), 3), y = t.poisoned({N, C}, GetParam());
    const Twin mean = t.poisoned({N}, DType::f32), rstd = t.poisoned({N}, DType::f32);
    t.run([&](Context& ctx, auto on) {
      layernorm(ctx, {.y = on(y),
                      .mean = on(mean),
                      .rstd = on(rstd),
                      .x = on(x),
                      .w = on(w),
                      .bias = {},
                      .eps = 1e-5,
                      .branch = on(branch),
                      .sum = on(x)});
    });
    EXPECT_TRUE(close(t, x)) << N << " x " << C;
    EXPECT_TRUE(close(t, y)) << N << " x " << C;
    EXPECT_TRUE(close(t, mean, tolerance)) << N << " x " << C;
    EXPECT_TRUE(close(t, rstd, tolerance)) << N << " x " << C;
  }
}

TEST_P(LayerNormCuda, BackwardAgreesWithTheCpuMayAliasAndRepeats) {
  for (const auto& [N, C] : kShapes)
    for (const bool biased : {true, false}) {
      Twins t;
      const Twin x = t.normal({N, C}, GetParam(), 2, 1), dy = t.normal({N, C}, GetParam());
      const Twin w = t.normal({C}, DType::f32), mean = t.normal({N}, DType::f32, 0.1, 1);
      const Twin rstd = t.normal({N}, DType::f32, 0.1, 0.5), dx = t.poisoned({N, C}, GetParam());
      const Twin dw = t.normal({C}, DType::f32), dbias = biased ? t.normal({C}, DType::f32) : Twin{};
      const Twin past = t.normal({N, C}, GetParam(), 9);
      const auto into = [&](const Twin& out, const Twin& dresidual = {}) {
        return [&, out, dresidual](Context& ctx, auto on) {
          layernorm_backward(ctx, {.dx = on(out),
                                   .dw = on(dw),
                                   .dbias = on(dbias),
                                   .dy = on(dy),
                                   .x = on(x),
                                   .w = on(w),
                                   .mean = on(mean),
                                   .rstd = on(rstd),
                                   .dresidual = on(dresidual)});
        };
      };
      t.run(into(dx));
      EXPECT_TRUE(close(t, dx)) << N << " x " << C;
      t.run(into(past, past));
      EXPECT_TRUE(close(t, past)) << N << " x " << C;
      t.run(into(dy));
      EXPECT_TRUE(close(t, dy)) << N << " x " << C;
      EXPECT_TRUE(close(t, dw)) << N << " x " << C;
      if (biased) {
        EXPECT_TRUE(close(t, dbias)) << N << " x " << C;
      }
      if (C < 1000) t.expect_repeats(into(dx), {dx, dw});
    }
}

}  // namespace
}  // namespace keen::ops
