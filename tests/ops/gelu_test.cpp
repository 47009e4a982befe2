#include "ops/gelu.h"

#include <omp.h>

#include <numbers>

#include "op_test.h"

namespace keen::ops {
namespace {

using testing::dot;
using testing::gradient_error;
using testing::relative_error;
using testing::Tensors;

const Shape kShapes[] = {{1, 1}, {1, 768}, {5, 3}, {70, 65}};

TEST(Gelu, MatchesItsFormula) {
  for (const Shape& shape : kShapes) {
    Tensors t;
    Context ctx;
    const Tensor x = t.normal(shape, DType::f64, 3), y = t.poisoned(shape);
    gelu(ctx, y, x);
    for (int64_t i = 0; i < x.count(); ++i) {
      const double v = x.as<double>()[i];
      const double inner = std::sqrt(2 / std::numbers::pi) * (v + 0.044715 * v * v * v);
      EXPECT_NEAR(y.as<double>()[i], v / 2 * (1 + std::tanh(inner)), 1e-13);
    }
  }
}

TEST(Gelu, GradientAgreesWithCentralDifferences) {
  for (const Shape& shape : kShapes) {
    Tensors t;
    Context ctx;
    const Tensor x = t.normal(shape), dy = t.normal(shape), y = t.poisoned(shape), dx = t.poisoned(shape);
    gelu_backward(ctx, dx, dy, x);
    const auto loss = [&] {
      gelu(ctx, y, x);
      return dot(y, dy);
    };
    EXPECT_LT(gradient_error(loss, x, dx), 1e-8) << to_string(shape);
  }
}

TEST(Gelu, SmallTypesAgreeWithFloat64) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Tensors t;
    Context ctx;
    // Values that every type holds exactly, so that only the arithmetic differs.
    const Tensor x = t.normal({70, 65}, DType::bf16, 3), dy = t.normal({70, 65}, DType::bf16);
    Tensor y[2], dx[2];
    for (int i = 0; i < 2; ++i) {
      const DType type = i == 0 ? DType::f64 : dtype;
      y[i] = t.poisoned({70, 65}, type), dx[i] = t.poisoned({70, 65}, type);
      gelu(ctx, y[i], t.copy_as(x, type));
      gelu_backward(ctx, dx[i], t.copy_as(dy, type), t.copy_as(x, type));
    }
    const double tolerance = dtype == DType::bf16 ? 4e-3 : 1e-6;  // bf16: one rounding of 2^-9
    EXPECT_LT(relative_error(y[1], y[0]), tolerance);
    EXPECT_LT(relative_error(dx[1], dx[0]), tolerance);
  }
}

TEST(Gelu, LargeInputsStayFinite) {
  Tensors t;
  Context ctx;
  const Tensor x = t.zeros({2}, DType::f32), y = t.poisoned({2}, DType::f32), dy = t.zeros({2}, DType::f32);
  const Tensor dx = t.poisoned({2}, DType::f32);
  x.as<float>()[0] = -1000, x.as<float>()[1] = 1000;
  Tensors::fill(dy, [](int64_t) { return 1.0; });
  gelu(ctx, y, x);
  gelu_backward(ctx, dx, dy, x);
  EXPECT_EQ(Tensors::to_doubles(y), (std::vector<double>{0, 1000}));
  EXPECT_EQ(Tensors::to_doubles(dx), (std::vector<double>{0, 1}));
}

TEST(Gelu, OutputsMayAliasInputs) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    Tensors t;
    Context ctx;
    const Tensor x = t.normal({70, 65}, dtype), dy = t.normal({70, 65}, dtype);
    const Tensor y = t.poisoned(x.shape, dtype), dx = t.poisoned(x.shape, dtype);
    gelu(ctx, y, x);
    gelu_backward(ctx, dx, dy, x);
    const Tensor on_dy = t.copy_as(dy, dtype), on_x = t.copy_as(x, dtype), in_place = t.copy_as(x, dtype);
    gelu_backward(ctx, on_dy, on_dy, x);
    gelu_backward(ctx, on_x, dy, on_x);
    gelu(ctx, in_place, in_place);
    EXPECT_EQ(Tensors::to_doubles(in_place), Tensors::to_doubles(y));
    EXPECT_EQ(Tensors::to_doubles(on_dy), Tensors::to_doubles(dx));
    EXPECT_EQ(Tensors::to_doubles(on_x), Tensors::to_doubles(dx));
  }
}

TEST(Gelu, BitsDoNotDependOnTheNumberOfThreads) {
  const int threads = omp_get_max_threads();
  Tensors t;
  Context ctx;
  const Tensor x = t.normal({12347}, DType::f32), dy = t.normal({12347}, DType::f32);
  Tensor y[2], dx[2];
  for (int i = 0; i < 2; ++i) {
    omp_set_num_threads(i + 1);
    y[i] = t.poisoned(x.shape, DType::f32), dx[i] = t.poisoned(x.shape, DType::f32);
    gelu(ctx, y[i], x);
    gelu_backward(ctx, dx[i], dy, x);
  }
  omp_set_num_threads(threads);
  EXPECT_EQ(Tensors::to_doubles(y[0]), Tensors::to_doubles(y[1]));
  EXPECT_EQ(Tensors::to_doubles(dx[0]), Tensors::to_doubles(dx[1]));
}

TEST(Gelu, RefusesOtherShapesAndTypes) {
  Tensors t;
  Context ctx;
  const Tensor x = t.zeros({4, 3}), other = t.zeros({3, 4}), f32 = t.zeros({4, 3}, DType::f32);
  EXPECT_THROW(gelu(ctx, other, x), Error);
  EXPECT_THROW(gelu(ctx, f32, x), Error);
  EXPECT_THROW(gelu_backward(ctx, other, x, x), Error);
  EXPECT_THROW(gelu_backward(ctx, x, other, x), Error);
}

}  // namespace
}  // namespace keen::ops
