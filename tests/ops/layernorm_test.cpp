#include "ops/layernorm.h"

#include <omp.h>

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

// The inputs of one case in float64.
struct Inputs {
  Tensor x, w, bias, dy;
  Inputs(Tensors& t, int64_t N, int64_t C) {
    // Values that every type holds exactly, so that only the arithmetic differs; the mean is not zero.
    x = t.copy_as(t.normal({N, C}, DType::bf16, 1, 0.5), DType::f64);
    w = t.copy_as(t.normal({C}, DType::f32), DType::f64);
    bias = t.copy_as(t.normal({C}, DType::f32), DType::f64);
    dy = t.copy_as(t.normal({N, C}, DType::bf16), DType::f64);
  }
};

// Forward and backward in any type, the outputs poisoned, dw and dbias starting at `start`.
struct Outcome {
  Tensor y, mean, rstd, dx, dw, dbias;
  Outcome(Tensors& t, const Inputs& in, DType dtype, bool biased = true, bool in_place = false,
          double start = 0) {
    const Tensor x = t.copy_as(in.x, dtype), w = t.copy_as(in.w, wide(dtype)), dy = t.copy_as(in.dy, dtype);
    const Tensor bias = biased ? t.copy_as(in.bias, wide(dtype)) : Tensor{};
    const int64_t N = x.shape[0];
    y = in_place ? t.copy_as(x, dtype) : t.poisoned(x.shape, dtype);
    dx = in_place ? dy : t.poisoned(x.shape, dtype);
    mean = t.poisoned({N}, wide(dtype)), rstd = t.poisoned({N}, wide(dtype));
    dw = t.zeros(w.shape, wide(dtype));
    Tensors::fill(dw, [=](int64_t) { return start; });
    if (biased) dbias = t.copy_as(dw, wide(dtype));
    Context ctx;
    const auto run = [&] {
      layernorm(
          ctx,
          {.y = y, .mean = mean, .rstd = rstd, .x = in_place ? y : x, .w = w, .bias = bias, .eps = kEps});
      layernorm_backward(
          ctx, {.dx = dx, .dw = dw, .dbias = dbias, .dy = dy, .x = x, .w = w, .mean = mean, .rstd = rstd});
    };
    prepare(ctx, run);
    run();
  }
};

TEST(LayerNorm, MatchesItsFormula) {
  for (const auto [N, C] : kSizes) {
    for (const bool biased : {true, false}) {
      Tensors t;
      const Inputs in(t, N, C);
      const Outcome run(t, in, DType::f64, biased);
      for (int64_t row = 0; row < N; ++row) {
        const double* x = in.x.as<double>() + row * C;
        double mean = 0, variance = 0;
        for (int64_t c = 0; c < C; ++c) mean += x[c] / static_cast<double>(C);
        for (int64_t c = 0; c < C; ++c) variance += (x[c] - mean) * (x[c] - mean) / static_cast<double>(C);
        const double rstd = 1 / std::sqrt(variance + kEps);
        EXPECT_NEAR(run.mean.as<double>()[row], mean, 1e-12);
        EXPECT_NEAR(run.rstd.as<double>()[row] / rstd, 1, 1e-12);
        for (int64_t c = 0; c < C; ++c)
          EXPECT_NEAR(run.y.as<double>()[row * C + c],
                      (x[c] - mean) * rstd * in.w.as<double>()[c] + (biased ? in.bias.as<double>()[c] : 0),
                      1e-11);
      }
    }
  }
}

TEST(LayerNorm, GradientsAgreeWithCentralDifferences) {
  for (const auto [N, C] : kSizes) {
    for (const bool biased : {true, false}) {
      Tensors t;
      const Inputs in(t, N, C);
      const Outcome run(t, in, DType::f64, biased);
      const Tensor y = t.poisoned({N, C}), mean = t.poisoned({N}), rstd = t.poisoned({N});
      const ConstTensor bias = biased ? ConstTensor(in.bias) : ConstTensor{};
      const auto loss = [&] {
        Context ctx;
        layernorm(ctx, {.y = y, .mean = mean, .rstd = rstd, .x = in.x, .w = in.w, .bias = bias, .eps = kEps});
        return dot(y, in.dy);
      };
      EXPECT_LT(gradient_error(loss, in.x, run.dx), 1e-7) << N << " x " << C;
      EXPECT_LT(gradient_error(loss, in.w, run.dw), 1e-7) << N << " x " << C;
      if (biased) {
        EXPECT_LT(gradient_error(loss, in.bias, run.dbias), 1e-7) << N << " x " << C;
      }
    }
  }
}

TEST(LayerNorm, SmallTypesAgreeWithFloat64) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const auto [N, C] : kSizes) {
      if (C == 1) continue;  // there y is the bias and dx is zero
      Tensors t;
      const Inputs in(t, N, C);
      const Outcome want(t, in, DType::f64), got(t, in, dtype);
      const double rounded = dtype == DType::bf16 ? 4e-3 : 2e-6;  // bf16: one rounding of 2^-9
      EXPECT_LT(relative_error(got.y, want.y), rounded);
      EXPECT_LT(relative_error(got.dx, want.dx), rounded);
      EXPECT_LT(relative_error(got.mean, want.mean), 1e-6);
      EXPECT_LT(relative_error(got.rstd, want.rstd), 2e-6);
      EXPECT_LT(relative_error(got.dw, want.dw), 4e-6);  // fp32 sums in either case
      EXPECT_LT(relative_error(got.dbias, want.dbias), 2e-6);
    }
  }
}

TEST(LayerNorm, ALargeMeanDoesNotCancelTheVariance) {
  Tensors t;
  Inputs in(t, 3, 768);
  in.x = t.copy_as(t.normal({3, 768}, DType::f32, 1, 1000), DType::f64);
  const Outcome want(t, in, DType::f64), got(t, in, DType::f32);
  EXPECT_LT(relative_error(got.rstd, want.rstd), 1e-5);
}

TEST(LayerNorm, YMayAliasXAndDxMayAliasDy) {
  for (const DType dtype : {DType::f64, DType::bf16}) {
    Tensors t;
    const Inputs in(t, 70, 65);
    const Outcome want(t, in, dtype), got(t, in, dtype, true, true);
    EXPECT_EQ(Tensors::to_doubles(got.y), Tensors::to_doubles(want.y));
    EXPECT_EQ(Tensors::to_doubles(got.dx), Tensors::to_doubles(want.dx));
    EXPECT_EQ(Tensors::to_doubles(got.dw), Tensors::to_doubles(want.dw));
  }
}

TEST(LayerNorm, ABranchIsAddedFirstBitForBit) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    Tensors t;
    const Tensor x = t.normal({70, 65}, dtype), branch = t.normal({70, 65}, dtype);
    const Tensor w = t.normal({65}, wide(dtype)), sum = t.poisoned({70, 65}, dtype);
    const Tensor y = t.poisoned({70, 65}, dtype), want = t.poisoned({70, 65}, dtype);
    const Tensor mean = t.poisoned({70}, wide(dtype)), rstd = t.poisoned({70}, wide(dtype));
    Context ctx;
    LayerNorm args{.y = y, .mean = mean, .rstd = rstd, .x = x, .w = w, .bias = {}, .eps = kEps};
    args.branch = branch, args.sum = sum;
    layernorm(ctx, args);
    args.branch = {}, args.sum = {}, args.x = sum, args.y = want;
    layernorm(ctx, args);
    EXPECT_EQ(Tensors::to_doubles(y), Tensors::to_doubles(want));
    add(ctx, want, x, branch);
    EXPECT_EQ(Tensors::to_doubles(sum), Tensors::to_doubles(want));
  }
}

TEST(LayerNorm, WhatReachesXPastTheNormIsAddedBeforeTheRounding) {
  for (const DType dtype : {DType::f64, DType::bf16}) {
    Tensors t;
    const Inputs in(t, 70, 65);
    const Outcome alone(t, in, DType::f64);
    // dresidual is the tensor that dx overwrites.
    const Tensor dx = t.normal({70, 65}, dtype), past = t.copy_as(dx, DType::f64);
    const Tensor dw = t.zeros({65}, wide(dtype)), dbias = t.zeros({65}, wide(dtype));
    const Tensor dy = t.copy_as(in.dy, dtype), x = t.copy_as(in.x, dtype), w = t.copy_as(in.w, wide(dtype));
    const Tensor mean = t.copy_as(alone.mean, wide(dtype)), rstd = t.copy_as(alone.rstd, wide(dtype));
    Context ctx;
    const auto run = [&] {
      layernorm_backward(ctx, {.dx = dx,
                               .dw = dw,
                               .dbias = dbias,
                               .dy = dy,
                               .x = x,
                               .w = w,
                               .mean = mean,
                               .rstd = rstd,
                               .dresidual = dx});
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

TEST(LayerNorm, GradientsOfParametersAreAddedTo) {
  Tensors t;
  const Inputs in(t, 70, 3);
  const Outcome once(t, in, DType::f64), more(t, in, DType::f64, true, false, 10);
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(more.dw.as<double>()[i], 10 + once.dw.as<double>()[i], 1e-12);
    EXPECT_NEAR(more.dbias.as<double>()[i], 10 + once.dbias.as<double>()[i], 1e-12);
  }
}

TEST(LayerNorm, BitsDoNotDependOnTheNumberOfThreads) {
  const int threads = omp_get_max_threads();
  Tensors t;
  const Inputs in(t, 1000, 65);
  omp_set_num_threads(1);
  const Outcome one(t, in, DType::f32);
  omp_set_num_threads(2);
  const Outcome two(t, in, DType::f32);
  omp_set_num_threads(threads);
  EXPECT_EQ(Tensors::to_doubles(one.y), Tensors::to_doubles(two.y));
  EXPECT_EQ(Tensors::to_doubles(one.dx), Tensors::to_doubles(two.dx));
  EXPECT_EQ(Tensors::to_doubles(one.dw), Tensors::to_doubles(two.dw));
  EXPECT_EQ(Tensors::to_doubles(one.dbias), Tensors::to_doubles(two.dbias));
}

TEST(LayerNorm, RefusesOtherShapesAndTypes) {
  Tensors t;
  Context ctx;
  const Tensor x = t.zeros({4, 3}), w = t.zeros({3}), rows = t.zeros({4}), other = t.zeros({7});
  const LayerNorm good = {.y = x, .mean = rows, .rstd = rows, .x = x, .w = w, .bias = w, .eps = kEps};
  for (int field = 0; field < 9; ++field) {
    LayerNorm bad = good;
    if (field == 0) bad.y = other;
    if (field == 1) bad.mean = other;
    if (field == 2) bad.rstd = other;
    if (field == 3) bad.w = other;
    if (field == 4) bad.bias = other;
    if (field == 5) bad.w = t.zeros({3}, DType::f32);
    if (field == 6) bad.branch = x, bad.sum = other;
    if (field == 7) bad.branch = other, bad.sum = x;
    if (field == 8) bad.branch = x;
    EXPECT_THROW(layernorm(ctx, bad), Error) << field;
  }
  const LayerNormBackward right = {
      .dx = x, .dw = w, .dbias = w, .dy = x, .x = x, .w = w, .mean = rows, .rstd = rows};
  for (int field = 0; field < 8; ++field) {
    LayerNormBackward bad = right;
    if (field == 0) bad.dx = other;
    if (field == 1) bad.dw = other;
    if (field == 2) bad.dbias = other;
    if (field == 3) bad.dy = other;
    if (field == 4) bad.w = other;
    if (field == 5) bad.mean = other;
    if (field == 6) bad.rstd = other;
    if (field == 7) bad.dresidual = other;
    EXPECT_THROW(layernorm_backward(ctx, bad), Error) << field;
  }
}

}  // namespace
}  // namespace keen::ops
