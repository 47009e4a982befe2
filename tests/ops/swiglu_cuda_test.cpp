#include "cuda_test.h"
#include "ops/swiglu.h"

namespace keen::ops {
namespace {

using testing::close;
using testing::Twin;
using testing::Twins;

class SwigluCuda : public testing::CudaTypeTest {};
INSTANTIATE_TEST_SUITE_P(Types, SwigluCuda, testing::kCudaTypes, testing::type_name);

constexpr std::pair<int64_t, int64_t> kShapes[] = {{1, 1}, {3, 5}, {1, 8}, {7, 40}, {65, 129}, {33, 264}};

TEST_P(SwigluCuda, AgreesWithTheCpu) {
  for (const auto& [N, F] : kShapes) {
    Twins t;
    const Twin gate_up = t.normal({N, 2 * F}, GetParam(), 3), y = t.poisoned({N, F}, GetParam());
    t.run([&](Context& ctx, auto on) { swiglu(ctx, on(y), on(gate_up)); });
    EXPECT_TRUE(close(t, y));
  }
}

TEST_P(SwigluCuda, BackwardAgreesWithTheCpuAlsoInPlace) {
  for (const auto& [N, F] : kShapes) {
    Twins t;
    const Twin gate_up = t.normal({N, 2 * F}, GetParam(), 3), dy = t.normal({N, F}, GetParam());
    const Twin dgate_up = t.poisoned({N, 2 * F}, GetParam());
    t.run([&](Context& ctx, auto on) { swiglu_backward(ctx, on(dgate_up), on(dy), on(gate_up)); });
    EXPECT_TRUE(close(t, dgate_up));
    t.run([&](Context& ctx, auto on) { swiglu_backward(ctx, on(gate_up), on(dy), on(gate_up)); });
    EXPECT_TRUE(close(t, gate_up));
  }
}

}  // namespace
}  // namespace keen::ops
