#include "cuda_test.h"
#include "ops/rmsnorm.h"

namespace keen::ops {
namespace {

using testing::close;
using testing::Twin;
using testing::Twins;

class RmsNormCuda : public testing::CudaTypeTest {};
INSTANTIATE_TEST_SUITE_P(Types, RmsNormCuda, testing::kCudaTypes, testing::type_name);

// One column; rows that no 16 bytes divide; 1 to 8 Packs a lane, a block a row, and rows too wide for
// registers. More than 16 rows are several chunks.
constexpr std::pair<int64_t, int64_t> kShapes[] = {{1, 1},     {3, 7},     {1, 8},     {35, 8},
                                                   {20, 264},  {17, 520},  {18, 1032}, {17, 2056},
                                                   {18, 1030}, {19, 4104}, {2, 12296}};

TEST_P(RmsNormCuda, AgreesWithTheCpuAndMayAlias) {
  for (const auto& [N, C] : kShapes) {
    Twins t;
    const Twin x = t.normal({N, C}, GetParam(), 2, 1), w = t.normal({C}, DType::f32);
    const Twin y = t.poisoned({N, C}, GetParam()), rstd = t.poisoned({N}, DType::f32);
    t.run([&](Context& ctx, auto on) {
      rmsnorm(ctx, {.y = on(y), .rstd = on(rstd), .x = on(x), .w = on(w), .eps = 1e-5});
    });
    EXPECT_TRUE(close(t, y)) << N << " x " << C;
    EXPECT_TRUE(close(t, rstd)) << N << " x " << C;
    t.run([&](Context& ctx, auto on) {
      rmsnorm(ctx, {.y = on(x), .rstd = on(rstd), .x = on(x), .w = on(w), .eps = 1e-5});
    });
    EXPECT_TRUE(close(t, x)) << N << " x " << C;
  }
}

TEST_P(RmsNormCuda, ABranchIsAddedFirst) {
  const double tolerance = testing::cuda_tolerance(GetParam());  // statistics are of the rounded sum
  for (const auto& [N, C] : kShapes) {
    Twins t;
    const Twin x = t.normal({N, C}, GetParam(), 2, 1), w = t.normal({C}, DType::f32);
    const Twin branch = t.normal({N, C}, GetParam(), 3), sum = t.poisoned({N, C}, GetParam());
    const Twin y = t.poisoned({N, C}, GetParam()), rstd = t.poisoned({N}, DType::f32);
    const auto into = [&](const Twin& out) {
      return [&, out](Context& ctx, auto on) {
        rmsnorm(ctx, {.y = on(y),
                      .rstd = on(rstd),
                      .x = on(x),
                      .w = on(w),
                      .eps = 1e-5,
                      .branch = on(branch),
                      .sum = on(out)});
      };
    };
    for (const Twin& out : {sum, branch}) {  // branch is the tensor that the sum overwrites, the second time
      t.run(into(out));
      EXPECT_TRUE(close(t, out)) << N << " x " << C;
      EXPECT_TRUE(close(t, y)) << N << " x " << C;
      EXPECT_TRUE(close(t, rstd, tolerance)) << N << " x " << C;
    }
  }
}

TEST_P(RmsNormCuda, BackwardAgreesWithTheCpuMayAliasAndRepeats) {
  for (const auto& [N, C] : kShapes) {
    Twins t;
    const Twin x = t.normal({N, C}, GetParam(), 2, 1), dy = t.normal({N, C}, GetParam());
    const Twin w = t.normal({C}, DType::f32), rstd = t.normal({N}, DType::f32, 0.1, 0.5);
    const Twin dx = t.poisoned({N, C}, GetParam()), dw = t.normal({C}, DType::f32);
    const auto into = [&](const Twin& out) {
      return [&, out](Context& ctx, auto on) {
        rmsnorm_backward(
            ctx, {.dx = on(out), .dw = on(dw), .dy = on(dy), .x = on(x), .w = on(w), .rstd = on(rstd)});
      };
    };
    t.run(into(dx));
    EXPECT_TRUE(close(t, dx)) << N << " x " << C;
    EXPECT_TRUE(close(t, dw)) << N << " x " << C;
    t.run(into(dy));
    EXPECT_TRUE(close(t, dy)) << N << " x " << C;
    EXPECT_TRUE(close(t, dw)) << N << " x " << C;
    if (C < 1000) t.expect_repeats(into(dx), {dx, dw});
  }
}

TEST_P(RmsNormCuda, WhatReachesXPastTheNormIsAddedInPlace) {
  for (const auto& [N, C] : kShapes) {
    Twins t;
    const Twin x = t.normal({N, C}, GetParam(), 2, 1), dy = t.normal({N, C}, GetParam());
    const Twin w = t.normal({C}, DType::f32), rstd = t.normal({N}, DType::f32, 0.1, 0.5);
    const Twin dx = t.normal({N, C}, GetParam(), 9), dw = t.zeros({C}, DType::f32);
    t.run([&](Context& ctx, auto on) {
      rmsnorm_backward(ctx, {.dx = on(dx),
                             .dw = on(dw),
                             .dy = on(dy),
                             .x = on(x),
                             .w = on(w),
                             .rstd = on(rstd),
                             .dresidual = on(dx)});
    });
    EXPECT_TRUE(close(t, dx)) << N << " x " << C;
  }
}

TEST_P(RmsNormCuda, ManyRowsMakeLongerChunks) {
  Twins t;
  const int64_t N = 528 * 16 + 3, C = 8;
  const Twin x = t.normal({N, C}, GetParam()), dy = t.normal({N, C}, GetParam()),
             w = t.normal({C}, DType::f32);
  const Twin rstd = t.normal({N}, DType::f32, 0.1, 0.5), dx = t.poisoned({N, C}, GetParam());
  const Twin dw = t.zeros({C}, DType::f32);
  t.run([&](Context& ctx, auto on) {
    rmsnorm_backward(ctx,
                     {.dx = on(dx), .dw = on(dw), .dy = on(dy), .x = on(x), .w = on(w), .rstd = on(rstd)});
  });
  EXPECT_TRUE(close(t, dx));
  EXPECT_TRUE(close(t, dw));
}

}  // namespace
}  // namespace keen::ops
