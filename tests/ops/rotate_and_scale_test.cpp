#include "ops/rotate_and_scale.h"

#include <omp.h>

#include <complex>

#include "op_test.h"

namespace keen::ops {
namespace {

using testing::gradient_error;
using testing::prepare;
using testing::relative_error;
using testing::Tensors;

constexpr double kTheta = 10000;

// One case: B sequences of T tokens, R rotating pairs (-1: no RoPE).
struct Case {
  int64_t B, T;
  HeadLayout layout;
  int64_t R;
  int64_t columns() const { return (R < 0 ? layout.H : layout.H + layout.K) * layout.D; }  // that change
};
constexpr Case kCases[] = {{1, 1, {1, 1, 2}, 1},
                           {2, 5, {6, 2, 6}, 3},
                           {3, 17, {6, 2, 64}, 32},
                           {2, 7, {6, 2, 6}, 2},
                           {2, 7, {2, 1, 3}, -1}};

// Inputs in float64 of values that every type holds exactly, so that only the arithmetic differs. x is a
// packed qkv.
struct Inputs {
  Tensor x, d, s, b;
  Inputs(Tensors& t, const Case& at) {
    x = t.copy_as(t.normal({at.B * at.T, at.layout.qkv_columns()}, DType::bf16), DType::f64);
    d = t.copy_as(t.normal({at.B * at.T, at.layout.qkv_columns()}, DType::bf16), DType::f64);
    s = t.copy_as(t.normal({at.layout.H}, DType::f32), DType::f64);
    b = t.copy_as(t.normal({at.layout.H}, DType::f32), DType::f64);
  }
};

struct Tables {
  Tensor rotation, log_n;
  Tables(Tensors& t, int64_t P, int64_t R, int64_t D, DType dtype) {
    if (R >= 0) fill_rotation(rotation = t.poisoned({P, R, 2}, wide(dtype)), kTheta, D);
    fill_log_n(log_n = t.poisoned({P}, wide(dtype)));
  }
};

// q' and k' of x in `dtype`; s and b may be absent.
Tensor forward(Tensors& t, const Case& at, ConstTensor x, ConstTensor s, ConstTensor b, DType dtype,
               int64_t first_position = 0) {
  const Tables tables(t, first_position + at.T + 3, at.R, at.layout.D, dtype);
  const Tensor qk = t.poisoned({x.shape[0], at.columns()}, dtype);
  const ConstTensor s_typed = s ? ConstTensor(t.copy_as(s, wide(dtype))) : s;
  const ConstTensor b_typed = b ? ConstTensor(t.copy_as(b, wide(dtype))) : b;
  Context ctx;
  rotate_and_scale(ctx, {.qk = qk,
                         .x = t.copy_as(x, dtype),
                         .rotation = tables.rotation,
                         .log_n = tables.log_n,
                         .s = s_typed,
                         .b = b_typed,
                         .layout = at.layout,
                         .T = at.T,
                         .first_position = first_position});
  return qk;
}

struct Gradients {
  Tensor dqkv, ds, db;
};
Gradients backward(Tensors& t, const Case& at, const Inputs& in, bool scaled, DType dtype, double start = 0) {
  const Tables tables(t, at.T, at.R, at.layout.D, dtype);
  Gradients g;
  g.dqkv = t.copy_as(in.d, dtype);
  ConstTensor s, b;
  if (scaled) {
    s = t.copy_as(in.s, wide(dtype)), b = t.copy_as(in.b, wide(dtype));
    g.ds = t.zeros({at.layout.H}, wide(dtype));
    Tensors::fill(g.ds, [=](int64_t) { return start; });
    g.db = t.copy_as(g.ds, wide(dtype));
  }
  const Tensor x = t.copy_as(in.x, dtype);
  Context ctx;
  const auto run = [&] {
    rotate_and_scale_backward(ctx, {.dqkv = g.dqkv,
                                    .ds = g.ds,
                                    .db = g.db,
                                    .x = x,
                                    .rotation = tables.rotation,
                                    .log_n = tables.log_n,
                                    .s = s,
                                    .b = b,
                                    .layout = at.layout,
                                    .T = at.T});
  };
  prepare(ctx, run);
  run();
  return g;
}

// sum over q' and k' of d * (q', k'), and of d * value over the columns of the values, which pass by
// unchanged.
double loss_of(const Case& at, const Inputs& in, bool scaled) {
  Tensors t;
  const Tensor qk = forward(t, at, in.x, scaled ? ConstTensor(in.s) : ConstTensor{},
                            scaled ? ConstTensor(in.b) : ConstTensor{}, DType::f64);
  const int64_t columns = at.layout.qkv_columns(), changed = at.columns();
  double sum = 0;
  for (int64_t row = 0; row < at.B * at.T; ++row)
    for (int64_t c = 0; c < columns; ++c)
      sum += in.d.as<double>()[row * columns + c] *
             (c < changed ? qk.as<double>()[row * changed + c] : in.x.as<double>()[row * columns + c]);
  return sum;
}

void expect_right_gradients(const Case& at, const Inputs& in, bool scaled) {
  Tensors t;
  const Gradients g = backward(t, at, in, scaled, DType::f64);
  const auto loss = [&] { return loss_of(at, in, scaled); };
  EXPECT_LT(gradient_error(loss, in.x, g.dqkv, 200), 1e-7);
  if (!scaled) return;
  EXPECT_LT(gradient_error(loss, in.s, g.ds), 1e-7);
  EXPECT_LT(gradient_error(loss, in.b, g.db), 1e-7);
}

double at_row(const Tensor& x, int64_t row, int64_t column) {
  return x.as<double>()[row * x.shape[1] + column];
}

TEST(RotateAndScale, EqualsComplexMultiplicationTimesTheRowScale) {
  for (const Case& at : kCases) {
    Tensors t;
    const Inputs in(t, at);
    const auto [H, K, D] = at.layout;
    const Tensor qk = forward(t, at, in.x, in.s, in.b, DType::f64);
    for (int64_t row = 0; row < at.B * at.T; ++row) {
      const double position = static_cast<double>(row % at.T), n = position + 1;
      for (int64_t h = 0; h < at.columns() / D; ++h) {
        const double scale = h < H ? in.s.as<double>()[h] * std::log(n) + in.b.as<double>()[h] : 1.0;
        const double* x = in.x.as<double>() + row * at.layout.qkv_columns() + h * D;
        const double* y = qk.as<double>() + row * at.columns() + h * D;
        if (at.R < 0) {
          for (int64_t i = 0; i < D; ++i) EXPECT_NEAR(y[i], scale * x[i], 1e-13);
          continue;
        }
        for (int64_t i = 0; i < D / 2; ++i) {
          const double frequency =
              1 / std::pow(kTheta, static_cast<double>(i) / (static_cast<double>(D) / 2));
          const std::complex<double> turn =
              i < at.R ? std::exp(std::complex<double>(0, position * frequency)) : 1.0;
          const std::complex<double> z = scale * turn * std::complex<double>(x[i], x[i + D / 2]);
          EXPECT_NEAR(y[i], z.real(), 1e-12);
          EXPECT_NEAR(y[i + D / 2], z.imag(), 1e-12);
        }
      }
    }
  }
}

TEST(RotateAndScale, GradientsAgreeWithCentralDifferences) {
  for (const Case& at : kCases)
    for (const bool scaled : {true, false}) {
      Tensors t;
      expect_right_gradients(at, Inputs(t, at), scaled);
    }
}

TEST(RotateAndScale, ANegativeOrZeroSGetsTheRightGradient) {
  Tensors t;
  const Case at = {2, 5, {6, 2, 6}, 3};
  const Inputs in(t, at);
  for (const double s : {0.0, -0.7}) {
    Tensors::fill(in.s, [=](int64_t) { return s; });
    Tensors::fill(in.b, [](int64_t) { return 0.0; });
    expect_right_gradients(at, in, true);
    const Gradients g = backward(t, at, in, true, DType::f64);
    for (int64_t h = 0; h < 6; ++h) EXPECT_GT(std::abs(g.ds.as<double>()[h]), 1e-3);
  }
}

TEST(RotateAndScale, SmallTypesAgreeWithFloat64) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Case& at : kCases) {
      Tensors t;
      const Inputs in(t, at);
      const double rounded = dtype == DType::bf16 ? 4e-3 : 2e-6;  // bf16: one rounding of 2^-9
      EXPECT_LT(relative_error(forward(t, at, in.x, in.s, in.b, dtype),
                               forward(t, at, in.x, in.s, in.b, DType::f64)),
                rounded);
      const Gradients want = backward(t, at, in, true, DType::f64), got = backward(t, at, in, true, dtype);
      EXPECT_LT(relative_error(got.dqkv, want.dqkv), rounded);
      EXPECT_LT(relative_error(got.ds, want.ds, 1), 1e-5);  // fp32 sums in either case
      EXPECT_LT(relative_error(got.db, want.db, 1), 1e-5);
    }
  }
}

TEST(RotateAndScale, NIsTheRowOfItsOwnSequenceAndRestartsAtEach) {
  Tensors t;
  const Case at = {3, 7, {2, 1, 4}, -1};
  const Inputs in(t, at);
  Tensors::fill(in.x, [](int64_t) { return 1.0; });
  const Tensor qk = forward(t, at, in.x, in.s, {}, DType::f64);
  for (int64_t row = 0; row < 21; ++row)
    for (int64_t h = 0; h < 2; ++h)
      EXPECT_DOUBLE_EQ(at_row(qk, row, h * 4),
                       in.s.as<double>()[h] * std::log(static_cast<double>(row % 7 + 1)));
}

TEST(RotateAndScale, AFirstPositionContinuesItsSequence) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    Tensors t;
    const Case whole = {1, 9, {6, 2, 6}, 3}, tail = {1, 4, {6, 2, 6}, 3};
    const Inputs in(t, whole);
    const Tensor all = forward(t, whole, in.x, in.s, in.b, dtype);
    const Tensor last = forward(t, tail, in.x.rows(5, 9), in.s, in.b, dtype, 5);
    EXPECT_EQ(Tensors::to_doubles(last), Tensors::to_doubles(all.rows(5, 9)));
    EXPECT_NE(Tensors::to_doubles(forward(t, tail, in.x.rows(5, 9), in.s, in.b, dtype)),
              Tensors::to_doubles(last));
  }
}

TEST(RotateAndScale, TheFirstRowHasLogarithmZero) {
  Tensors t;
  const Case at = {2, 3, {2, 1, 4}, 2};
  const Inputs in(t, at);
  const Tensor qk = forward(t, at, in.x, in.s, {}, DType::f64);
  for (const int64_t row : {0, 3})
    for (int64_t c = 0; c < 12; ++c) {
      const double want = c < 8 ? 0.0 : at_row(in.x, row, c);  // the key stands at position 0
      EXPECT_EQ(at_row(qk, row, c), want);
    }
}

TEST(RotateAndScale, SZeroAndBOneEqualNoScaleBitForBit) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    for (const Case& at : kCases) {
      Tensors t;
      const Inputs in(t, at);
      Tensors::fill(in.s, [](int64_t) { return 0.0; });
      Tensors::fill(in.b, [](int64_t) { return 1.0; });
      EXPECT_EQ(Tensors::to_doubles(forward(t, at, in.x, in.s, in.b, dtype)),
                Tensors::to_doubles(forward(t, at, in.x, {}, {}, dtype)));
      EXPECT_EQ(Tensors::to_doubles(backward(t, at, in, true, dtype).dqkv),
                Tensors::to_doubles(backward(t, at, in, false, dtype).dqkv));
    }
  }
}

TEST(RotateAndScale, RopeCommutesWithTheScale) {
  Tensors t;
  const Case at = {2, 5, {6, 2, 6}, 3}, unrotated = {2, 5, {6, 2, 6}, -1};
  const Inputs in(t, at);
  const auto scaled = [&](ConstTensor x) {  // without RoPE the op gives queries alone
    const Tensor all = t.copy_as(x, DType::f64), q = forward(t, unrotated, x, in.s, in.b, DType::f64);
    for (int64_t row = 0; row < 10; ++row)
      std::copy_n(q.as<double>() + row * 36, 36, all.as<double>() + row * all.shape[1]);
    return all;
  };
  const Tensor scaled_first = forward(t, at, scaled(in.x), {}, {}, DType::f64);
  const Tensor scaled_last = scaled(forward(t, at, in.x, {}, {}, DType::f64));
  EXPECT_LT(relative_error(scaled_first, scaled_last), 1e-14);
  EXPECT_LT(relative_error(forward(t, at, in.x, in.s, in.b, DType::f64), scaled_last), 1e-14);
}

TEST(RotateAndScale, APartialRotationLeavesTheOtherPairsBitForBit) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    Tensors t;
    const Case at = {2, 7, {6, 2, 64}, 11};
    const Inputs in(t, at);
    const auto x = Tensors::to_doubles(in.x), d = Tensors::to_doubles(in.d);
    const auto y = Tensors::to_doubles(forward(t, at, in.x, {}, {}, dtype));
    const auto dx = Tensors::to_doubles(backward(t, at, in, false, dtype).dqkv);
    int64_t changed = 0;
    for (int64_t row = 0; row < 14; ++row)
      for (int64_t c = 0; c < at.columns(); ++c) {
        const auto from = static_cast<size_t>(row * at.layout.qkv_columns() + c);
        const auto to = static_cast<size_t>(row * at.columns() + c);
        if (c % 32 >= 11) {
          EXPECT_EQ(y[to], x[from]);
          EXPECT_EQ(dx[from], d[from]);
        } else if (row % 7 != 0 && y[to] != x[from]) {
          ++changed;
        }
      }
    EXPECT_GT(changed, 12 * 8 * 22 * 9 / 10);  // the last of the 11 pairs turns too, if by little
  }
}

TEST(RotateAndScale, OneSPerQueryHeadAndKeysAreNeverScaled) {
  Tensors t;
  const Case at = {2, 5, {6, 2, 6}, 3};
  const Inputs in(t, at);
  const Tensor plain = forward(t, at, in.x, {}, {}, DType::f64);
  const Tensor before = forward(t, at, in.x, in.s, in.b, DType::f64);
  for (int64_t changed = 0; changed < 6; ++changed) {
    in.s.as<double>()[changed] += 1;
    const Tensor after = forward(t, at, in.x, in.s, in.b, DType::f64);
    in.s.as<double>()[changed] -= 1;
    for (int64_t row = 0; row < 10; ++row)
      for (int64_t c = 0; c < at.columns(); ++c) {
        const int64_t h = c / 6;
        if (h >= 6) {
          EXPECT_EQ(at_row(after, row, c), at_row(plain, row, c));
        } else if (h != changed) {
          EXPECT_EQ(at_row(after, row, c), at_row(before, row, c));
        } else if (row % 5 != 0) {
          EXPECT_NE(at_row(after, row, c), at_row(before, row, c));
        }
      }
  }
}

TEST(RotateAndScale, RotationPreservesNorms) {
  Tensors t;
  const Case at = {1, 50, {2, 1, 64}, 32};
  const Inputs in(t, at);
  const Tensor qk = forward(t, at, in.x, {}, {}, DType::f64, 1000);
  for (int64_t row = 0; row < 50; ++row)
    for (int64_t h = 0; h < 3; ++h) {
      double before = 0, after = 0;
      for (int64_t i = 0; i < 64; ++i) {
        before += std::pow(in.x.as<double>()[row * 256 + h * 64 + i], 2);
        after += std::pow(qk.as<double>()[row * 192 + h * 64 + i], 2);
      }
      EXPECT_NEAR(after / before, 1, 1e-13);
    }
}

TEST(RotateAndScale, LeavesTheColumnsOfTheValuesAlone) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    Tensors t;
    const Case at = {2, 7, {6, 2, 6}, 3};
    const Inputs in(t, at);
    const auto before = Tensors::to_doubles(in.d),
               after = Tensors::to_doubles(backward(t, at, in, true, dtype).dqkv);
    for (size_t i = 0; i < before.size(); ++i) {
      if (static_cast<int64_t>(i) % at.layout.qkv_columns() >= at.columns()) {
        EXPECT_EQ(after[i], before[i]);
      }
    }
  }
}

TEST(RotateAndScale, QkMayBeTheSameTensorAsX) {
  for (const DType dtype : {DType::f64, DType::bf16})
    for (const Case& at : {Case{2, 17, {6, 2, 6}, 2}, Case{2, 17, {6, 2, 6}, -1}}) {
      Tensors t;
      const Tensor x = t.normal({34, at.columns()}, dtype), s = t.normal({6}, wide(dtype));
      const Tensor want = forward(t, at, x, s, {}, dtype);
      const Tables tables(t, 17, at.R, 6, dtype);
      Context ctx;
      rotate_and_scale(ctx, {.qk = x,
                             .x = x,
                             .rotation = tables.rotation,
                             .log_n = tables.log_n,
                             .s = s,
                             .b = {},
                             .layout = at.layout,
                             .T = at.T});
      EXPECT_EQ(Tensors::to_doubles(x), Tensors::to_doubles(want));
    }
}

TEST(RotateAndScale, GradientsOfSAndBAreAddedToAndEachIsOptional) {
  Tensors t;
  const Case at = {2, 50, {6, 2, 6}, 3};
  const Inputs in(t, at);
  const Gradients once = backward(t, at, in, true, DType::f64),
                  more = backward(t, at, in, true, DType::f64, 10);
  for (int64_t h = 0; h < 6; ++h) {
    EXPECT_NEAR(more.ds.as<double>()[h], 10 + once.ds.as<double>()[h], 1e-11);
    EXPECT_NEAR(more.db.as<double>()[h], 10 + once.db.as<double>()[h], 1e-11);
  }
  const Tables tables(t, at.T, at.R, 6, DType::f64);
  for (const bool with_s : {true, false})
    for (const bool with_b : {true, false}) {
      const Tensor dqkv = t.copy_as(in.d, DType::f64);
      const Tensor ds = with_s ? t.zeros({6}) : Tensor{}, db = with_b ? t.zeros({6}) : Tensor{};
      Context ctx;
      const auto run = [&] {
        rotate_and_scale_backward(ctx, {.dqkv = dqkv,
                                        .ds = ds,
                                        .db = db,
                                        .x = in.x,
                                        .rotation = tables.rotation,
                                        .log_n = tables.log_n,
                                        .s = in.s,
                                        .b = in.b,
                                        .layout = at.layout,
                                        .T = at.T});
      };
      prepare(ctx, run);
      run();
      EXPECT_LT(relative_error(dqkv, once.dqkv), 1e-15);
      if (with_s) {
        EXPECT_EQ(Tensors::to_doubles(ds), Tensors::to_doubles(once.ds));
      }
      if (with_b) {
        EXPECT_EQ(Tensors::to_doubles(db), Tensors::to_doubles(once.db));
      }
    }
}

TEST(RotateAndScale, GradientsOfQueriesAndKeysRoundAlikeWhetherSIsLearnedOrNot) {
  for (const Case& at : kCases)
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
      Tensors t;
      const Inputs in(t, at);
      const Tables tables(t, at.T, at.R, at.layout.D, dtype);
      const auto dqkv_with = [&](Tensor ds) {
        const Tensor dqkv = t.copy_as(in.d, dtype);
        const RotateAndScaleBackward args{.dqkv = dqkv,
                                          .ds = ds,
                                          .db = {},
                                          .x = t.copy_as(in.x, dtype),
                                          .rotation = tables.rotation,
                                          .log_n = tables.log_n,
                                          .s = t.copy_as(in.s, wide(dtype)),
                                          .b = t.copy_as(in.b, wide(dtype)),
                                          .layout = at.layout,
                                          .T = at.T};
        Context ctx;
        prepare(ctx, [&] { rotate_and_scale_backward(ctx, args); });
        rotate_and_scale_backward(ctx, args);
        return Tensors::to_doubles(dqkv);
      };
      EXPECT_EQ(dqkv_with({}), dqkv_with(t.zeros({at.layout.H}, wide(dtype))))
          << name_of(dtype) << at.layout.D;
    }
}

TEST(RotateAndScale, BitsDoNotDependOnTheNumberOfThreads) {
  const int threads = omp_get_max_threads();
  Tensors t;
  const Case at = {3, 170, {6, 2, 6}, 3};
  const Inputs in(t, at);
  Tensor qk[2];
  Gradients g[2];
  for (int i = 0; i < 2; ++i) {
    omp_set_num_threads(i + 1);
    qk[i] = forward(t, at, in.x, in.s, in.b, DType::f32);
    g[i] = backward(t, at, in, true, DType::f32);
  }
  omp_set_num_threads(threads);
  EXPECT_EQ(Tensors::to_doubles(qk[0]), Tensors::to_doubles(qk[1]));
  EXPECT_EQ(Tensors::to_doubles(g[0].dqkv), Tensors::to_doubles(g[1].dqkv));
  EXPECT_EQ(Tensors::to_doubles(g[0].ds), Tensors::to_doubles(g[1].ds));
  EXPECT_EQ(Tensors::to_doubles(g[0].db), Tensors::to_doubles(g[1].db));
}

TEST(RotateAndScale, RefusesWhatDoesNotFit) {
  Tensors t;
  Context ctx;
  const Tables tables(t, 5, 2, 4, DType::f64);
  const Tensor s = t.zeros({6}), other = t.zeros({7});
  const RotateAndScale good = {.qk = t.zeros({10, 32}),
                               .x = t.zeros({10, 40}),
                               .rotation = tables.rotation,
                               .log_n = tables.log_n,
                               .s = s,
                               .b = s,
                               .layout = {6, 2, 4},
                               .T = 5};
  EXPECT_NO_THROW(rotate_and_scale(ctx, good));
  for (int field = 0; field < 13; ++field) {
    RotateAndScale bad = good;
    if (field == 0) bad.qk = t.zeros({10, 40});
    if (field == 1) bad.x = t.zeros({10, 31});
    if (field == 2) bad.rotation = t.zeros({5, 3, 2});  // three pairs of a head of width 4
    if (field == 3) bad.log_n = t.zeros({4});
    if (field == 4) bad.s = other;
    if (field == 5) bad.b = other;
    if (field == 6) bad.s = {};              // b without s
    if (field == 7) bad.first_position = 1;  // past the tables
    if (field == 8) bad.T = 3;               // rows are no whole sequences
    if (field == 9) bad.rotation = t.zeros({5, 2, 2}, DType::f32);
    if (field == 10) bad.qk = t.zeros({10, 32}, DType::f32);
    if (field == 11) bad.layout = {5, 3, 4};
    if (field == 12) bad.rotation = {};  // then only queries are written
    EXPECT_THROW(rotate_and_scale(ctx, bad), Error) << field;
  }
  const RotateAndScaleBackward right = {.dqkv = t.zeros({10, 40}),
                                        .ds = s,
                                        .db = t.zeros({6}),
                                        .x = good.x,
                                        .rotation = tables.rotation,
                                        .log_n = tables.log_n,
                                        .s = s,
                                        .b = s,
                                        .layout = {6, 2, 4},
                                        .T = 5};
  for (int field = 0; field < 5; ++field) {
    RotateAndScaleBackward bad = right;
    if (field == 0) bad.dqkv = t.zeros({9, 40});
    if (field == 1) bad.dqkv = t.zeros({10, 31});
    if (field == 2) bad.ds = other;
    if (field == 3) bad.db = other;
    if (field == 4) bad.s = bad.b = {};  // gradients of what is absent
    EXPECT_THROW(rotate_and_scale_backward(ctx, bad), Error) << field;
  }
}

TEST(RotateAndScale, TablesAreComputedInDouble) {
  Tensors t;
  const Tensor rotation = t.poisoned({20000, 3, 2}, DType::f32), log_n = t.poisoned({20000}, DType::f32);
  fill_rotation(rotation, kTheta, 6);
  fill_log_n(log_n);
  EXPECT_EQ(log_n.as<float>()[0], 0.0f);
  for (const int64_t p : {0, 1, 777, 19999}) {
    EXPECT_EQ(log_n.as<float>()[p], static_cast<float>(std::log(static_cast<double>(p + 1))));
    for (int64_t i = 0; i < 3; ++i) {
      const double angle = static_cast<double>(p) * std::pow(kTheta, -2.0 * static_cast<double>(i) / 6);
      EXPECT_FLOAT_EQ(rotation.as<float>()[(p * 3 + i) * 2], static_cast<float>(std::cos(angle)));
      EXPECT_FLOAT_EQ(rotation.as<float>()[(p * 3 + i) * 2 + 1], static_cast<float>(std::sin(angle)));
    }
  }
  EXPECT_THROW(fill_rotation(rotation, kTheta, 4), Error);
}

}  // namespace
}  // namespace keen::ops
