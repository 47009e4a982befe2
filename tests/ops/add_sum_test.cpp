#include "ops/add_sum.h"

#include "cuda_test.h"

namespace keen::ops {
namespace {

using testing::CudaTest;
using testing::Tensors;
using testing::Twin;
using testing::Twins;

TEST(AddSum, AddsToTheTotal) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    Tensors t;
    Context ctx;
    const Tensor x = t.normal({1001}, dtype), total = t.zeros({1});
    *total.as<double>() = 3;
    add_sum(ctx, total, x, 8);
    double sum = 0;
    for (const double v : Tensors::to_doubles(x)) sum += v;
    EXPECT_DOUBLE_EQ(*total.as<double>(), 3 + sum / 8);
  }
}

TEST(AddSum, RefusesOtherTypes) {
  Tensors t;
  Context ctx;
  EXPECT_THROW(add_sum(ctx, t.zeros({1}), t.zeros({4}, DType::bf16), 1), Error);
  EXPECT_THROW(add_sum(ctx, t.zeros({2}), t.zeros({4}), 1), Error);
}

using AddSumCuda = CudaTest;

TEST_F(AddSumCuda, FollowsTheCpu) {
  for (const int64_t count : {1, 31, 1024, 1025, 5000}) {
    Twins t;
    const Twin x = t.normal({count}, DType::f32, 1, 2), total = t.normal({1}, DType::f64);
    t.run([&](Context& ctx, auto on) { add_sum(ctx, on(total), on(x), 7); });
    EXPECT_TRUE(testing::close(t, total, 1e-12));
  }
}

}  // namespace
}  // namespace keen::ops
