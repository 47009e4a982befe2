#include "ops/rmsnorm.h"

#include <omp.h>

#include "core/copy.h"
#include "op_test.h"
#include "ops/elementwise.h"

namespace keen::ops {
namespace {

using testing::dot;
using testing::gradient_error;
using testing::prepare;
using testing::relative_error;
using testing::Tensors;

constexpr double kEps = 1e-5;

struct Sizes {
  int64_t N, C;
};
constexpr Sizes kSizes[] = {{1, 1}, {1, 768}, {5, 3}, {70, 65}, {37, 768}};

// Forward and backward on the same values in any type, the outputs poisoned, dw starting at zero.
struct Outcome {
  Tensor y, rstd, dx, dw;
  Outcome(Tensors& t, ConstTensor x64, ConstTensor w64, ConstTensor dy64, DType dtype) {
    const Tensor x = t.copy_as(x64, dtype), w = t.copy_as(w64, wide(dtype)), dy = t.copy_as(dy64, dtype);
    const int64_t N = x.shape[0];
    y = t.poisoned(x.shape, dtype), dx = t.poisoned(x.shape, dtype);
    rstd = t.poisoned({N}, wide(dtype)), dw = t.zeros(w.shape, wide(dtype));
    Context ctx;
    const auto run = [&] {
      rmsnorm(ctx, {.y = y, .rstd = rstd, .x = x, .w = w, .eps = kEps});
      rmsnorm_backward(ctx, {.dx = dx, .dw = dw, .dy = dy, .x = x, .w = w, .rstd = rstd});
    };
    prepare(ctx, run);
    run();
  }
};

TEST(RmsNorm, MatchesItsFormula) {
  for (const auto [N, C] : kSizes) {
    Tensors t;
    const Tensor x = t.normal({N, C}), w = t.normal({C});
    const Outcome run(t, x, w, x, DType::f64);
    for (int64_t row = 0; row < N; ++row) {
      double squares = 0;
      for (int64_t c = 0; c < C; ++c) squares += x.as<double>()[row * C + c] * x.as<double>()[row * C + c];
      const double rstd = 1 / std::sqrt(squares / static_cast<double>(C) + kEps);
      EXPECT_NEAR(run.rstd.as<double>()[row], rstd, 1e-12 * rstd);
      for (int64_t c = 0; c < C; ++c)
        EXPECT_NEAR(run.y.as<double>()[row * C + c], x.as<double>()[row * C + c] * rstd * w.as<double>()[c],
                    1e-12);
    }
  }
}

TEST(RmsNorm, GradientsAgreeWithCentralDifferences) {
  for (const auto [N, C] : kSizes) {
    Tensors t;
    const Tensor x = t.normal({N, C}), w = t.normal({C}), dy = t.normal({N, C});
    const Outcome run(t, x, w, dy, DType::f64);
    const Tensor y = t.poisoned({N, C}), rstd = t.poisoned({N});
    const auto loss = [&] {
      Context ctx;
      rmsnorm(ctx, {.y = y, .rstd = rstd, .x = x, .w = w, .eps = kEps});
      return dot(y, dy);
    };
    EXPECT_LT(gradient_error(loss, x, run.dx), 1e-7) << N << " x " << C;
    EXPECT_LT(gradient_error(loss, w, run.dw), 1e-7) << N << " x " << C;
  }
}

TEST(RmsNorm, SmallTypesAgreeWithFloat64) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const auto [N, C] : kSizes) {
      if (C == 1) continue;  // there dx is a difference that cancels to nearly nothing
      Tensors t;
      // Values that every type holds exactly, so that only the arithmetic differs.
      const Tensor x = t.copy_as(t.normal({N, C}, DType::bf16), DType::f64);
      const Tensor dy = t.copy_as(t.normal({N, C}, DType::bf16), DType::f64);
      const Tensor w = t.copy_as(t.normal({C}, DType::f32), DType::f64);
      const Outcome want(t, x, w, dy, DType::f64), got(t, x, w, dy, dtype);
      const double rounded = dtype == DType::bf16 ? 4e-3 : 1e-6;  // bf16: one rounding of 2^-9
      EXPECT_LT(relative_error(got.y, want.y), rounded);
      EXPECT_LT(relative_error(got.dx, want.dx), rounded);
      EXPECT_LT(relative_error(got.rstd, want.rstd), 1e-6);
      EXPECT_LT(relative_error(got.dw, want.dw), 2e-6);  // fp32 sums in either case
    }
  }
}

TEST(RmsNorm, YMayAliasXAndDxMayAliasDy) {
  for (const DType dtype : {DType::f64, DType::bf16}) {
    Tensors t;
    const Tensor x64 = t.normal({70, 65}), w64 = t.normal({65}), dy64 = t.normal({70, 65});
    const Outcome want(t, x64, w64, dy64, dtype);
    const Tensor x = t.copy_as(x64, dtype), w = t.copy_as(w64, wide(dtype)), dy = t.copy_as(dy64, dtype);
    const Tensor y = t.copy_as(x, dtype), rstd = t.poisoned({70}, wide(dtype)),
                 dw = t.zeros({65}, wide(dtype));
    Context ctx;
    const auto run = [&] {
      rmsnorm(ctx, {.y = y, .rstd = rstd, .x = y, .w = w, .eps = kEps});
      rmsnorm_backward(ctx, {.dx = dy, .dw = dw, .dy = dy, .x = x, .w = w, .rstd = rstd});
    };
    prepare(ctx, run);
    run();
    EXPECT_EQ(Tensors::to_doubles(y), Tensors::to_doubles(want.y));
    EXPECT_EQ(Tensors::to_doubles(dy), Tensors::to_doubles(want.dx));
    EXPECT_EQ(Tensors::to_doubles(dw), Tensors::to_doubles(want.dw));
  }
}

TEST(RmsNorm, ABranchIsAddedFirstBitForBit) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    Tensors t;
    const Tensor x = t.normal({70, 65}, dtype), branch = t.normal({70, 65}, dtype);
    const Tensor w = t.normal({65}, wide(dtype)), sum = t.poisoned({70, 65}, dtype);
    const Tensor y = t.poisoned({70, 65}, dtype), rstd = t.poisoned({70}, wide(dtype));
    const Tensor want_sum = t.poisoned({70, 65}, dtype), want = t.poisoned({70, 65}, dtype);
    Context ctx;
    add(ctx, want_sum, x, branch);
    rmsnorm(ctx, {.y = want, .rstd = rstd, .x = want_sum, .w = w, .eps = kEps});
    for (const Tensor& into : {sum, x, branch}) {
      const Tensor before = t.copy_as(into, dtype);
      rmsnorm(ctx, {.y = y, .rstd = rstd, .x = x, .w = w, .eps = kEps, .branch = branch, .sum = into});
      EXPECT_EQ(Tensors::to_doubles(into), Tensors::to_doubles(want_sum));
      EXPECT_EQ(Tensors::to_doubles(y), Tensors::to_doubles(want));
      copy(ctx, into, before);
    }
  }
}

TEST(RmsNorm, WhatReachesXPastTheNormIsAddedBeforeTheRounding) {
  for (const DType dtype : {DType::f64, DType::bf16}) {
    Tensors t;
    // dresidual is the tensor that dx overwrites.
    const Tensor x = t.normal({70, 65}, dtype), w = t.normal({65}, wide(dtype));
    const Tensor dy = t.normal({70, 65}, dtype), dx = t.normal({70, 65}, dtype);
    const Tensor past = t.copy_as(dx, DType::f64), dw = t.zeros({65}, wide(dtype));
    const Outcome alone(t, t.copy_as(x, DType::f64), t.copy_as(w, DType::f64), t.copy_as(dy, DType::f64),
                        DType::f64);
    const Tensor rstd = t.copy_as(alone.rstd, wide(dtype));
    Context ctx;
    const auto run = [&] {
      rmsnorm_backward(ctx, {.dx = dx, .dw = dw, .dy = dy, .x = x, .w = w, .rstd = rstd, .dresidual = dx});
    };
    prepare(ctx, run);
    run();
    const std::vector<double> got = Tensors::to_doubles(dx);
    for (int64_t i = 0; i < dx.count(); ++i) {
      const double want = past.as<double>()[i] + alone.dx.as<double>()[i];
      const double rounded = dtype == DType::bf16 ? std::ldexp(std::abs(want), -8) + 1e-5 : 1e-12;
      EXPECT_NEAR(got[static_cast<size_t>(i)], want, rounded);
    }
  }
}

TEST(RmsNorm, TheGradientOfTheWeightIsAddedTo) {
  Tensors t;
  const Tensor x = t.normal({70, 3}), w = t.normal({3}), dy = t.normal({70, 3});
  const Outcome once(t, x, w, dy, DType::f64);
  const Tensor dx = t.poisoned({70, 3}), dw = t.zeros({3});
  Tensors::fill(dw, [](int64_t i) { return 10.0 + static_cast<double>(i); });
  Context ctx;
  const auto run = [&] {
    rmsnorm_backward(ctx, {.dx = dx, .dw = dw, .dy = dy, .x = x, .w = w, .rstd = once.rstd});
  };
  prepare(ctx, run);
  run();
  for (int64_t i = 0; i < 3; ++i)
    EXPECT_NEAR(dw.as<double>()[i], 10.0 + static_cast<double>(i) + once.dw.as<double>()[i], 1e-12);
}

TEST(RmsNorm, BitsDoNotDependOnTheNumberOfThreads) {
  const int threads = omp_get_max_threads();
  Tensors t;
  const Tensor x = t.normal({1000, 65}), w = t.normal({65}), dy = t.normal({1000, 65});
  omp_set_num_threads(1);
  const Outcome one(t, x, w, dy, DType::f32);
  omp_set_num_threads(2);
  const Outcome two(t, x, w, dy, DType::f32);
  omp_set_num_threads(threads);
  EXPECT_EQ(Tensors::to_doubles(one.y), Tensors::to_doubles(two.y));
  EXPECT_EQ(Tensors::to_doubles(one.dx), Tensors::to_doubles(two.dx));
  EXPECT_EQ(Tensors::to_doubles(one.dw), Tensors::to_doubles(two.dw));
}

TEST(RmsNorm, RefusesOtherShapesAndTypes) {
  Tensors t;
  Context ctx;
  const Tensor x = t.zeros({4, 3}), w = t.zeros({3}), rstd = t.zeros({4});
  const RmsNorm right = {.y = x, .rstd = rstd, .x = x, .w = w, .eps = kEps, .branch = x, .sum = x};
  for (int field = 0; field < 7; ++field) {
    RmsNorm bad = right;
    const Tensor other = t.zeros({7});
    if (field == 0) bad.y = t.zeros({4, 2});
    if (field == 1) bad.rstd = t.zeros({3});
    if (field == 2) bad.w = t.zeros({4});
    if (field == 3) bad.w = t.zeros({3}, DType::f32);
    if (field == 4) bad.branch = other;
    if (field == 5) bad.sum = other;
    if (field == 6) bad.sum = {};
    EXPECT_THROW(rmsnorm(ctx, bad), Error) << field;
  }
  const RmsNormBackward good = {.dx = x, .dw = w, .dy = x, .x = x, .w = w, .rstd = rstd};
  for (int field = 0; field < 6; ++field) {
    RmsNormBackward bad = good;
    const Tensor other = t.zeros({7});
    if (field == 0) bad.dx = other;
    if (field == 1) bad.dw = other;
    if (field == 2) bad.dy = other;
    if (field == 3) bad.w = other;
    if (field == 4) bad.rstd = other;
    if (field == 5) bad.dresidual = other;
    EXPECT_THROW(rmsnorm_backward(ctx, bad), Error) << field;
  }
}

}  // namespace
}  // namespace keen::ops
