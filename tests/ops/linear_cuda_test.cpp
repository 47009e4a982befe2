#include "cuda_test.h"
#include "ops/linear.h"

namespace keen::ops {
namespace {

using testing::close;
using testing::Twin;
using testing::Twins;

class LinearCuda : public testing::CudaTypeTest {};
INSTANTIATE_TEST_SUITE_P(Types, LinearCuda, testing::kCudaTypes, testing::type_name);

TEST_P(LinearCuda, TheBiasGradientAgreesWithTheCpuAndRepeats) {
  for (const auto& [rows, out] :
       {std::pair<int64_t, int64_t>{1, 1}, {17, 5}, {300, 8}, {40, 264}, {33, 301}}) {
    Twins t;
    const Twin dy = t.normal({rows, out}, GetParam()), x = t.normal({rows, 8}, GetParam());
    const Twin w = t.normal({out, 8}, GetParam()), dw = t.zeros({out, 8}, DType::f32);
    const Twin dbias = t.normal({out}, DType::f32);
    const auto op = [&](Context& ctx, auto on) {
      linear_backward(ctx,
                      {.dx = {}, .dw = on(dw), .dbias = on(dbias), .dy = on(dy), .x = on(x), .w = on(w)});
    };
    t.run(op);
    EXPECT_TRUE(close(t, dbias)) << rows << " x " << out;
    t.expect_repeats(op, {dbias});
  }
}

TEST_P(LinearCuda, ForwardAndBackwardAgreeWithTheCpu) {
  Twins t;
  const int64_t N = 20, I = 24, O = 40;
  const Twin x = t.normal({N, I}, GetParam()), w = t.normal({O, I}, GetParam());
  const Twin bias = t.normal({O}, DType::f32), dy = t.normal({N, O}, GetParam());
  const Twin y = t.poisoned({N, O}, GetParam()), dx = t.poisoned({N, I}, GetParam());
  const Twin dw = t.normal({O, I}, DType::f32), dbias = t.normal({O}, DType::f32);
  t.run([&](Context& ctx, auto on) {
    linear(ctx, on(y), on(x), on(w), on(bias));
    linear_backward(ctx,
                    {.dx = on(dx), .dw = on(dw), .dbias = on(dbias), .dy = on(dy), .x = on(x), .w = on(w)});
  });
  for (const Twin& out : {y, dx, dw, dbias}) EXPECT_TRUE(close(t, out));
}

}  // namespace
}  // namespace keen::ops
