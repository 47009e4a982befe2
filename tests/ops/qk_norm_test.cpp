#include "ops/qk_norm.h"

#include <omp.h>

#include "op_test.h"

namespace keen::ops {
namespace {

using testing::dot;
using testing::gradient_error;
using testing::prepare;
using testing::relative_error;
using testing::Tensors;

constexpr double kEps = 1e-5;

struct Case {
  int64_t N;
  HeadLayout layout;
};
constexpr Case kCases[] = {{1, {1, 1, 2}}, {5, {6, 2, 6}}, {70, {6, 2, 64}}};

// The inputs of one case in float64; `dqk` is the gradient of the normalized queries and keys, and beside it
// the values'.
struct Inputs {
  Tensor qkv, q_weight, k_weight, dqk;
  Inputs(Tensors& t, const Case& at) {
    // Values that every type holds exactly, so that only the arithmetic differs.
    qkv = t.copy_as(t.normal({at.N, at.layout.qkv_columns()}, DType::bf16), DType::f64);
    dqk = t.copy_as(t.normal({at.N, at.layout.qkv_columns()}, DType::bf16), DType::f64);
    q_weight = t.copy_as(t.normal({at.layout.D}, DType::f32), DType::f64);
    k_weight = t.copy_as(t.normal({at.layout.D}, DType::f32), DType::f64);
  }
};

// Forward and backward in any type, the outputs poisoned, the weights' gradients starting at `start`.
struct Outcome {
  Tensor qk, rstd, dqkv, dq_weight, dk_weight;
  Outcome(Tensors& t, const Inputs& in, const HeadLayout& layout, DType dtype, double start = 0) {
    const Tensor qkv = t.copy_as(in.qkv, dtype), q_weight = t.copy_as(in.q_weight, wide(dtype));
    const Tensor k_weight = t.copy_as(in.k_weight, wide(dtype));
    const int64_t N = qkv.shape[0];
    qk = t.poisoned({N, layout.qk_columns()}, dtype);
    rstd = t.poisoned({N, layout.H + layout.K}, wide(dtype));
    dqkv = t.copy_as(in.dqk, dtype);
    dq_weight = t.zeros({layout.D}, wide(dtype));
    Tensors::fill(dq_weight, [=](int64_t) { return start; });
    dk_weight = t.copy_as(dq_weight, wide(dtype));
    Context ctx;
    const auto run = [&] {
      qk_norm(ctx, {.qk = qk,
                    .rstd = rstd,
                    .qkv = qkv,
                    .q_weight = q_weight,
                    .k_weight = k_weight,
                    .layout = layout,
                    .eps = kEps});
      qk_norm_backward(ctx, {.dqkv = dqkv,
                             .dq_weight = dq_weight,
                             .dk_weight = dk_weight,
                             .rstd = rstd,
                             .qkv = qkv,
                             .q_weight = q_weight,
                             .k_weight = k_weight,
                             .layout = layout});
    };
    prepare(ctx, run);
    run();
  }
};

TEST(QkNorm, MatchesItsFormulaPerHead) {
  for (const Case& at : kCases) {
    Tensors t;
    const Inputs in(t, at);
    const auto [H, K, D] = at.layout;
    const Outcome run(t, in, at.layout, DType::f64);
    for (int64_t row = 0; row < at.N; ++row)
      for (int64_t h = 0; h < H + K; ++h) {
        const double* x = in.qkv.as<double>() + row * at.layout.qkv_columns() + h * D;
        const double* w = (h < H ? in.q_weight : in.k_weight).as<double>();
        double squares = 0;
        for (int64_t d = 0; d < D; ++d) squares += x[d] * x[d];
        const double rstd = 1 / std::sqrt(squares / static_cast<double>(D) + kEps);
        EXPECT_NEAR(run.rstd.as<double>()[row * (H + K) + h] / rstd, 1, 1e-12);
        for (int64_t d = 0; d < D; ++d)
          EXPECT_NEAR(run.qk.as<double>()[row * at.layout.qk_columns() + h * D + d], x[d] * rstd * w[d],
                      1e-12);
      }
  }
}

TEST(QkNorm, GradientsAgreeWithCentralDifferences) {
  for (const Case& at : kCases) {
    Tensors t;
    const Inputs in(t, at);
    const HeadLayout& layout = at.layout;
    const Outcome run(t, in, layout, DType::f64);
    const Tensor qk = t.poisoned({at.N, layout.qk_columns()}), rstd = t.poisoned({at.N, layout.H + layout.K});
    // The loss weighs the normalized heads by dqk, and the values, which pass by, by what lies beside it:
    // their columns of dqkv are left alone and so are already the gradient.
    const auto loss = [&] {
      Context ctx;
      qk_norm(ctx, {.qk = qk,
                    .rstd = rstd,
                    .qkv = in.qkv,
                    .q_weight = in.q_weight,
                    .k_weight = in.k_weight,
                    .layout = layout,
                    .eps = kEps});
      double sum = 0;
      for (int64_t row = 0; row < at.N; ++row)
        for (int64_t c = 0; c < layout.qkv_columns(); ++c)
          sum += in.dqk.as<double>()[row * layout.qkv_columns() + c] *
                 (c < layout.qk_columns() ? qk.as<double>()[row * layout.qk_columns() + c]
                                          : in.qkv.as<double>()[row * layout.qkv_columns() + c]);
      return sum;
    };
    EXPECT_LT(gradient_error(loss, in.qkv, run.dqkv), 1e-7) << at.N;
    EXPECT_LT(gradient_error(loss, in.q_weight, run.dq_weight), 1e-7) << at.N;
    EXPECT_LT(gradient_error(loss, in.k_weight, run.dk_weight), 1e-7) << at.N;
  }
}

TEST(QkNorm, SmallTypesAgreeWithFloat64) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Case& at : kCases) {
      Tensors t;
      const Inputs in(t, at);
      const Outcome want(t, in, at.layout, DType::f64), got(t, in, at.layout, dtype);
      const double rounded = dtype == DType::bf16 ? 4e-3 : 1e-6;  // bf16: one rounding of 2^-9
      EXPECT_LT(relative_error(got.qk, want.qk), rounded);
      EXPECT_LT(relative_error(got.dqkv, want.dqkv), rounded);
      EXPECT_LT(relative_error(got.rstd, want.rstd), 1e-6);
      EXPECT_LT(relative_error(got.dq_weight, want.dq_weight), 2e-6);  // fp32 sums in either case
      EXPECT_LT(relative_error(got.dk_weight, want.dk_weight), 2e-6);
    }
  }
}

TEST(QkNorm, LeavesTheColumnsOfTheValuesAlone) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    Tensors t;
    const Case at = {70, {6, 2, 6}};
    const Inputs in(t, at);
    const Outcome run(t, in, at.layout, dtype);
    const auto before = Tensors::to_doubles(in.dqk), after = Tensors::to_doubles(run.dqkv);
    const int64_t columns = at.layout.qkv_columns();
    for (int64_t i = 0; i < run.dqkv.count(); ++i) {
      if (i % columns >= at.layout.qk_columns()) {
        EXPECT_EQ(after[static_cast<size_t>(i)], before[static_cast<size_t>(i)]);
      }
    }
  }
}

TEST(QkNorm, GradientsOfTheWeightsAreAddedTo) {
  Tensors t;
  const Case at = {70, {6, 2, 6}};
  const Inputs in(t, at);
  const Outcome once(t, in, at.layout, DType::f64), more(t, in, at.layout, DType::f64, 10);
  for (int64_t d = 0; d < 6; ++d) {
    EXPECT_NEAR(more.dq_weight.as<double>()[d], 10 + once.dq_weight.as<double>()[d], 1e-12);
    EXPECT_NEAR(more.dk_weight.as<double>()[d], 10 + once.dk_weight.as<double>()[d], 1e-12);
  }
}

TEST(QkNorm, BitsDoNotDependOnTheNumberOfThreads) {
  const int threads = omp_get_max_threads();
  Tensors t;
  const Case at = {500, {6, 2, 6}};
  const Inputs in(t, at);
  omp_set_num_threads(1);
  const Outcome one(t, in, at.layout, DType::f32);
  omp_set_num_threads(2);
  const Outcome two(t, in, at.layout, DType::f32);
  omp_set_num_threads(threads);
  EXPECT_EQ(Tensors::to_doubles(one.qk), Tensors::to_doubles(two.qk));
  EXPECT_EQ(Tensors::to_doubles(one.dqkv), Tensors::to_doubles(two.dqkv));
  EXPECT_EQ(Tensors::to_doubles(one.dq_weight), Tensors::to_doubles(two.dq_weight));
  EXPECT_EQ(Tensors::to_doubles(one.dk_weight), Tensors::to_doubles(two.dk_weight));
}

TEST(QkNorm, RefusesOtherShapesAndTypes) {
  Tensors t;
  Context ctx;
  const HeadLayout layout = {6, 2, 4};
  const Tensor qkv = t.zeros({3, 40}), qk = t.zeros({3, 32}), rstd = t.zeros({3, 8}), w = t.zeros({4});
  const Tensor other = t.zeros({3, 7});
  const QkNorm good = {
      .qk = qk, .rstd = rstd, .qkv = qkv, .q_weight = w, .k_weight = w, .layout = layout, .eps = kEps};
  for (int field = 0; field < 6; ++field) {
    QkNorm bad = good;
    if (field == 0) bad.qk = other;
    if (field == 1) bad.rstd = other;
    if (field == 2) bad.qkv = other;
    if (field == 3) bad.q_weight = other;
    if (field == 4) bad.k_weight = other;
    if (field == 5) bad.qk = t.zeros({3, 32}, DType::f32);
    EXPECT_THROW(qk_norm(ctx, bad), Error) << field;
  }
  const QkNormBackward right = {.dqkv = qkv,
                                .dq_weight = w,
                                .dk_weight = w,
                                .rstd = rstd,
                                .qkv = qkv,
                                .q_weight = w,
                                .k_weight = w,
                                .layout = layout};
  for (int field = 0; field < 7; ++field) {
    QkNormBackward bad = right;
    if (field == 0) bad.dqkv = other;
    if (field == 1) bad.dq_weight = other;
    if (field == 2) bad.dk_weight = other;
    if (field == 3) bad.rstd = other;
    if (field == 4) bad.qkv = other;
    if (field == 5) bad.q_weight = other;
    if (field == 6) bad.k_weight = other;
    EXPECT_THROW(qk_norm_backward(ctx, bad), Error) << field;
  }
}

}  // namespace
}  // namespace keen::ops
