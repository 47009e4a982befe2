#include "ops/elementwise.h"

#include "op_test.h"

namespace keen::ops {
namespace {

using testing::relative_error;
using testing::Tensors;

TEST(Add, SumsEveryTypeAndMayAlias) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    Tensors t;
    Context ctx;
    Tensor a = t.normal({37, 5}, dtype), b = t.normal({37, 5}, dtype), y = t.poisoned({37, 5}, dtype);
    add(ctx, y, a, b);
    for (int64_t i = 0; i < y.count(); ++i)
      EXPECT_NEAR(Tensors::to_doubles(y)[i], Tensors::to_doubles(a)[i] + Tensors::to_doubles(b)[i], 2e-2);
    add(ctx, a, a, b);
    EXPECT_EQ(Tensors::to_doubles(a), Tensors::to_doubles(y));
  }
}

TEST(Add, RefusesOtherShapes) {
  Tensors t;
  Context ctx;
  EXPECT_THROW(add(ctx, t.zeros({2, 3}), t.zeros({2, 3}), t.zeros({3, 2})), Error);
}

TEST(Convert, RoundsToNearestEven) {
  Tensors t;
  Context ctx;
  Tensor x = t.zeros({4}, DType::f32), y = t.poisoned({4}, DType::bf16);
  const float values[] = {1.0f, 1.00390625f, 1.01171875f, -3.0e38f};  // the second and third lie half-way
  std::copy(values, values + 4, x.as<float>());
  convert(ctx, y, x);
  EXPECT_EQ(float(y.as<bf16>()[0]), 1.0f);
  EXPECT_EQ(float(y.as<bf16>()[1]), 1.0f);
  EXPECT_EQ(float(y.as<bf16>()[2]), 1.015625f);
  EXPECT_LT(relative_error(y, x), 4e-3);
}

TEST(Zero, OverwritesPoison) {
  Tensors t;
  Context ctx;
  Tensor y = t.poisoned({1000}, DType::bf16);
  zero(ctx, y);
  for (const double v : Tensors::to_doubles(y)) EXPECT_EQ(v, 0.0);
}

}  // namespace
}  // namespace keen::ops
