#include "ops/swiglu.h"

#include <omp.h>

#include "op_test.h"

namespace keen::ops {
namespace {

using testing::dot;
using testing::gradient_error;
using testing::relative_error;
using testing::Tensors;

struct Sizes {
  int64_t N, F;
};
constexpr Sizes kSizes[] = {{1, 1}, {1, 768}, {5, 3}, {70, 65}};

TEST(Swiglu, MatchesItsFormula) {
  for (const auto [N, F] : kSizes) {
    Tensors t;
    Context ctx;
    const Tensor gate_up = t.normal({N, 2 * F}, DType::f64, 3), y = t.poisoned({N, F});
    swiglu(ctx, y, gate_up);
    for (int64_t row = 0; row < N; ++row)
      for (int64_t f = 0; f < F; ++f) {
        const double g = gate_up.as<double>()[row * 2 * F + f],
                     up = gate_up.as<double>()[row * 2 * F + F + f];
        EXPECT_NEAR(y.as<double>()[row * F + f], g / (1 + std::exp(-g)) * up, 1e-13);
      }
  }
}

TEST(Swiglu, GradientAgreesWithCentralDifferences) {
  for (const auto [N, F] : kSizes) {
    Tensors t;
    Context ctx;
    const Tensor gate_up = t.normal({N, 2 * F}), dy = t.normal({N, F}), y = t.poisoned({N, F});
    const Tensor dgate_up = t.poisoned({N, 2 * F});
    swiglu_backward(ctx, dgate_up, dy, gate_up);
    const auto loss = [&] {
      swiglu(ctx, y, gate_up);
      return dot(y, dy);
    };
    EXPECT_LT(gradient_error(loss, gate_up, dgate_up), 1e-8) << N << " x " << F;
  }
}

TEST(Swiglu, SmallTypesAgreeWithFloat64) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Tensors t;
    Context ctx;
    // Values that every type holds exactly, so that only the arithmetic differs.
    const Tensor small = t.normal({70, 130}, DType::bf16, 3), dsmall = t.normal({70, 65}, DType::bf16);
    Tensor y[2], dgate_up[2];
    for (int i = 0; i < 2; ++i) {
      const DType type = i == 0 ? DType::f64 : dtype;
      y[i] = t.poisoned({70, 65}, type), dgate_up[i] = t.poisoned({70, 130}, type);
      swiglu(ctx, y[i], t.copy_as(small, type));
      swiglu_backward(ctx, dgate_up[i], t.copy_as(dsmall, type), t.copy_as(small, type));
    }
    const double tolerance = dtype == DType::bf16 ? 4e-3 : 1e-6;  // bf16: one rounding of 2^-9
    EXPECT_LT(relative_error(y[1], y[0]), tolerance);
    EXPECT_LT(relative_error(dgate_up[1], dgate_up[0]), tolerance);
  }
}

TEST(Swiglu, LargeGatesStayFinite) {
  Tensors t;
  Context ctx;
  const Tensor gate_up = t.zeros({1, 4}, DType::f32), y = t.poisoned({1, 2}, DType::f32);
  const Tensor dgate_up = t.poisoned({1, 4}, DType::f32), dy = t.zeros({1, 2}, DType::f32);
  const float values[] = {-1000, 1000, 2, 2};
  std::copy(values, values + 4, gate_up.as<float>());
  Tensors::fill(dy, [](int64_t) { return 1.0; });
  swiglu(ctx, y, gate_up);
  swiglu_backward(ctx, dgate_up, dy, gate_up);
  EXPECT_EQ(Tensors::to_doubles(y), (std::vector<double>{0, 2000}));
  EXPECT_EQ(Tensors::to_doubles(dgate_up), (std::vector<double>{0, 2, 0, 1000}));
}

TEST(Swiglu, TheGradientMayOverwriteGateUp) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    Tensors t;
    Context ctx;
    const Tensor gate_up = t.normal({70, 130}, dtype), dy = t.normal({70, 65}, dtype);
    const Tensor dgate_up = t.poisoned({70, 130}, dtype);
    swiglu_backward(ctx, dgate_up, dy, gate_up);
    swiglu_backward(ctx, gate_up, dy, gate_up);
    EXPECT_EQ(Tensors::to_doubles(gate_up), Tensors::to_doubles(dgate_up));
  }
}

TEST(Swiglu, BitsDoNotDependOnTheNumberOfThreads) {
  const int threads = omp_get_max_threads();
  Tensors t;
  Context ctx;
  const Tensor gate_up = t.normal({333, 130}, DType::f32), dy = t.normal({333, 65}, DType::f32);
  Tensor y[2], dgate_up[2];
  for (int i = 0; i < 2; ++i) {
    omp_set_num_threads(i + 1);
    y[i] = t.poisoned({333, 65}, DType::f32), dgate_up[i] = t.poisoned({333, 130}, DType::f32);
    swiglu(ctx, y[i], gate_up);
    swiglu_backward(ctx, dgate_up[i], dy, gate_up);
  }
  omp_set_num_threads(threads);
  EXPECT_EQ(Tensors::to_doubles(y[0]), Tensors::to_doubles(y[1]));
  EXPECT_EQ(Tensors::to_doubles(dgate_up[0]), Tensors::to_doubles(dgate_up[1]));
}

TEST(Swiglu, RefusesOtherShapesAndTypes) {
  Tensors t;
  Context ctx;
  const Tensor y = t.zeros({4, 3}), gate_up = t.zeros({4, 6});
  EXPECT_THROW(swiglu(ctx, y, t.zeros({4, 3})), Error);
  EXPECT_THROW(swiglu(ctx, y, t.zeros({4, 6}, DType::f32)), Error);
  EXPECT_THROW(swiglu_backward(ctx, t.zeros({4, 5}), y, gate_up), Error);
  EXPECT_THROW(swiglu_backward(ctx, gate_up, t.zeros({3, 3}), gate_up), Error);
}

}  // namespace
}  // namespace keen::ops
