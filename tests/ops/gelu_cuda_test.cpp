#include "cuda_test.h"
#include "ops/gelu.h"

namespace keen::ops {
namespace {

using testing::close;
using testing::Twin;
using testing::Twins;

// An element is rounded once.
double once_rounded(DType dtype) { return dtype == DType::bf16 ? 4e-3 : 1e-5; }

class GeluCuda : public testing::CudaTypeTest {};
INSTANTIATE_TEST_SUITE_P(Types, GeluCuda, testing::kCudaTypes, testing::type_name);

TEST_P(GeluCuda, AgreesWithTheCpuAndMayAlias) {
  for (const int64_t count : {1, 9, 3001}) {
    Twins t;
    const Twin x = t.normal({count}, GetParam()), y = t.poisoned({count}, GetParam());
    t.run([&](Context& ctx, auto on) { gelu(ctx, on(y), on(x)); });
    EXPECT_TRUE(close(t, y, once_rounded(GetParam())));
    t.run([&](Context& ctx, auto on) { gelu(ctx, on(x), on(x)); });
    EXPECT_TRUE(close(t, x, once_rounded(GetParam())));
  }
}

TEST_P(GeluCuda, BackwardAgreesWithTheCpuAndMayAlias) {
  for (const int64_t count : {1, 9, 3001}) {
    Twins t;
    const Twin x = t.normal({count}, GetParam()), dy = t.normal({count}, GetParam());
    const Twin dx = t.poisoned({count}, GetParam());
    t.run([&](Context& ctx, auto on) { gelu_backward(ctx, on(dx), on(dy), on(x)); });
    EXPECT_TRUE(close(t, dx, once_rounded(GetParam())));
    t.run([&](Context& ctx, auto on) { gelu_backward(ctx, on(x), on(dy), on(x)); });
    EXPECT_TRUE(close(t, x, once_rounded(GetParam())));
  }
}

TEST_P(GeluCuda, LargeInputsStayFiniteAndNanStaysNan) {
  Twins t;
  testing::Tensors host;
  const Tensor values = host.zeros({5}, GetParam());
  const double list[] = {-1e4, -100, 100, 1e4, std::numeric_limits<double>::quiet_NaN()};
  testing::Tensors::fill(values, [&](int64_t i) { return list[i]; });
  const Twin x = t.twin_of(values), dy = t.normal({5}, GetParam());
  const Twin y = t.poisoned({5}, GetParam()), dx = t.zeros({5}, GetParam());
  t.run([&](Context& ctx, auto on) {
    gelu(ctx, on(y), on(x));
    gelu_backward(ctx, on(dx), on(dy), on(x));
  });
  EXPECT_TRUE(close(t, y));
  EXPECT_TRUE(close(t, dx));
}

}  // namespace
}  // namespace keen::ops
