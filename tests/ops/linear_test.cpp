#include "ops/linear.h"

#include <omp.h>

#include "op_test.h"

namespace keen::ops {
namespace {

using testing::dot;
using testing::gradient_error;
using testing::prepare;
using testing::relative_error;
using testing::Tensors;

struct Size {
  int64_t N, I, O;
};
constexpr Size kSizes[] = {{1, 1, 1}, {3, 5, 7}, {1, 64, 33}, {70, 24, 130}, {515, 40, 9}};

void run_forward(Tensor y, ConstTensor x, ConstTensor w, ConstTensor bias = {}) {
  Context ctx;
  prepare(ctx, [&] { linear(ctx, y, x, w, bias); });
  linear(ctx, y, x, w, bias);
}

void run_backward(const LinearBackward& args) {
  Context ctx;
  prepare(ctx, [&] { linear_backward(ctx, args); });
  const int64_t planned = [&] {
    Context again;
    again.planning = true;
    linear_backward(again, args);
    return again.scratch.peak();
  }();
  linear_backward(ctx, args);
  EXPECT_EQ(ctx.scratch.peak(), planned);
}

TEST(Linear, GradientsEqualCentralDifferences) {
  for (const auto [N, I, O] : kSizes) {
    Tensors t;
    Tensor x = t.normal({N, I}), w = t.normal({O, I}), bias = t.normal({O}), y = t.poisoned({N, O});
    Tensor dy = t.normal({N, O});
    const auto loss = [&] {
      run_forward(y, x, w, bias);
      return dot(y, dy);
    };
    Tensor dx = t.poisoned({N, I}), dw = t.zeros({O, I}), dbias = t.zeros({O});
    run_backward({.dx = dx, .dw = dw, .dbias = dbias, .dy = dy, .x = x, .w = w});
    EXPECT_LT(gradient_error(loss, x, dx), 1e-7);
    EXPECT_LT(gradient_error(loss, w, dw), 1e-7);
    EXPECT_LT(gradient_error(loss, bias, dbias), 1e-7);
  }
}

// Two layers with GELU between them: its input is kept, and the second's gradient is that of it.
TEST(Linear, GradientsThroughGeluEqualCentralDifferences) {
  for (const auto [N, I, O] : kSizes) {
    Tensors t;
    constexpr double kSmall = 0.1;  // so that differences of GELU are near its derivatives
    Tensor x = t.normal({N, I}), up = t.normal({O, I}, DType::f64, kSmall);
    Tensor bias = t.normal({O}), down = t.normal({I, O}, DType::f64, kSmall);
    Tensor z = t.poisoned({N, O}), y = t.poisoned({N, O}), out = t.poisoned({N, I}), dout = t.normal({N, I});
    const auto loss = [&] {
      Context ctx;
      prepare(ctx, [&] { linear_gelu(ctx, y, z, x, up, bias); });
      linear_gelu(ctx, y, z, x, up, bias);
      run_forward(out, y, down);
      return dot(out, dout);
    };
    loss();
    Tensor dz = t.poisoned({N, O}), dx = t.poisoned({N, I});
    Tensor ddown = t.zeros({I, O}), dup = t.zeros({O, I}), dbias = t.zeros({O});
    run_backward({.dx = dz, .dw = ddown, .dbias = {}, .dy = dout, .x = y, .w = down, .x_is_gelu_of = z});
    run_backward({.dx = dx, .dw = dup, .dbias = dbias, .dy = dz, .x = x, .w = up});
    EXPECT_LT(gradient_error(loss, x, dx), 1e-7);
    EXPECT_LT(gradient_error(loss, up, dup), 1e-7);
    EXPECT_LT(gradient_error(loss, bias, dbias), 1e-7);
    EXPECT_LT(gradient_error(loss, down, ddown), 1e-7);
  }
}

// float32 and bf16 against float64 on the same rounded operands. Sums of N terms in float32 leave about 1e-6;
// an output of bf16 is rounded once more.
TEST(Linear, Float32AndBf16AgreeWithFloat64) {
  for (const DType type : {DType::f32, DType::bf16}) {
    const double rounded = type == DType::bf16 ? 4e-3 : 2e-6;
    for (const auto [N, I, O] : kSizes) {
      Tensors t;
      Tensor x = t.normal({N, I}, type), w = t.normal({O, I}, type), dy = t.normal({N, O}, type);
      Tensor bias = t.normal({O}, wide(type)), y = t.poisoned({N, O}, type),
             y_wide = t.poisoned({N, O}, wide(type));
      Tensor x64 = t.copy_as(x, DType::f64), w64 = t.copy_as(w, DType::f64), dy64 = t.copy_as(dy, DType::f64);
      Tensor want = t.poisoned({N, O});
      run_forward(want, x64, w64, t.copy_as(bias, DType::f64));
      run_forward(y, x, w, bias);
      run_forward(y_wide, x, w, bias);
      EXPECT_LT(relative_error(y, want), rounded);
      EXPECT_LT(relative_error(y_wide, want), 2e-6);

      Tensor dx = t.poisoned({N, I}, type), dw = t.normal({O, I}, wide(type)),
             dbias = t.normal({O}, wide(type));
      Tensor dx64 = t.poisoned({N, I}), dw64 = t.copy_as(dw, DType::f64),
             dbias64 = t.copy_as(dbias, DType::f64);
      run_backward({.dx = dx64, .dw = dw64, .dbias = dbias64, .dy = dy64, .x = x64, .w = w64});
      run_backward({.dx = dx, .dw = dw, .dbias = dbias, .dy = dy, .x = x, .w = w});
      EXPECT_LT(relative_error(dx, dx64), rounded);
      EXPECT_LT(relative_error(dw, dw64), 2e-6);
      EXPECT_LT(relative_error(dbias, dbias64), 2e-6);
    }
  }
}

TEST(Linear, ParameterGradientsAddAndDxOverwrites) {
  Tensors t;
  Tensor x = t.normal({6, 5}), w = t.normal({4, 5}), dy = t.normal({6, 4});
  Tensor dx = t.poisoned({6, 5}), dw = t.zeros({4, 5}), dbias = t.zeros({4});
  run_backward({.dx = dx, .dw = dw, .dbias = dbias, .dy = dy, .x = x, .w = w});
  const auto dx1 = Tensors::to_doubles(dx), dw1 = Tensors::to_doubles(dw),
             dbias1 = Tensors::to_doubles(dbias);
  run_backward({.dx = dx, .dw = dw, .dbias = dbias, .dy = dy, .x = x, .w = w});
  EXPECT_EQ(Tensors::to_doubles(dx), dx1);
  for (size_t i = 0; i < dw1.size(); ++i) EXPECT_NEAR(Tensors::to_doubles(dw)[i], 2 * dw1[i], 1e-12);
  for (size_t i = 0; i < dbias1.size(); ++i) EXPECT_NEAR(Tensors::to_doubles(dbias)[i], 2 * dbias1[i], 1e-12);
}

TEST(Linear, DxAndBiasAreOptional) {
  Tensors t;
  Tensor x = t.normal({6, 5}), w = t.normal({4, 5}), dy = t.normal({6, 4});
  Tensor dw = t.zeros({4, 5}), all = t.zeros({4, 5});
  run_backward({.dx = {}, .dw = dw, .dbias = {}, .dy = dy, .x = x, .w = w});
  run_backward({.dx = t.zeros({6, 5}), .dw = all, .dbias = t.zeros({4}), .dy = dy, .x = x, .w = w});
  EXPECT_EQ(Tensors::to_doubles(dw), Tensors::to_doubles(all));
  EXPECT_NE(dot(dw, dw), 0.0);
}

TEST(Linear, BiasGradientHasTheSameBitsOnOneAndTwoThreads) {
  const int threads = omp_get_max_threads();
  std::vector<double> bits[2];
  for (const int run : {0, 1}) {
    omp_set_num_threads(run + 1);
    Tensors t;
    Tensor x = t.normal({3000, 8}, DType::f32), w = t.normal({96, 8}, DType::f32),
           dy = t.normal({3000, 96}, DType::f32);
    Tensor dbias = t.zeros({96}, DType::f32);
    run_backward({.dx = {}, .dw = t.zeros({96, 8}, DType::f32), .dbias = dbias, .dy = dy, .x = x, .w = w});
    bits[run] = Tensors::to_doubles(dbias);
  }
  omp_set_num_threads(threads);
  EXPECT_EQ(bits[0], bits[1]);
}

TEST(Linear, RefusesOtherShapesAndTypes) {
  Tensors t;
  Context ctx;
  Tensor x = t.zeros({2, 3}), w = t.zeros({4, 3}), y = t.zeros({2, 4});
  EXPECT_THROW(linear(ctx, y, x, t.zeros({3, 4})), Error);
  EXPECT_THROW(linear(ctx, t.zeros({4, 2}), x, w), Error);
  EXPECT_THROW(linear(ctx, y, x, w, t.zeros({3})), Error);
  EXPECT_THROW(linear(ctx, y, x, t.zeros({4, 3}, DType::f32)), Error);
  const auto backward = [&](Tensor dx, Tensor dw, Tensor dbias, Tensor dy) {
    linear_backward(ctx, {.dx = dx, .dw = dw, .dbias = dbias, .dy = dy, .x = x, .w = w});
  };
  EXPECT_THROW(backward(t.zeros({3, 2}), w, {}, y), Error);
  EXPECT_THROW(backward({}, t.zeros({3, 4}), {}, y), Error);
  EXPECT_THROW(backward({}, w, t.zeros({3}), y), Error);
  EXPECT_THROW(backward({}, w, {}, x), Error);
}

}  // namespace
}  // namespace keen::ops
