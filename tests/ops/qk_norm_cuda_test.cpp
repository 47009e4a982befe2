#include "cuda_test.h"
#include "ops/qk_norm.h"

namespace keen::ops {
namespace {

using testing::close;
using testing::Twin;
using testing::Twins;

class QkNormCuda : public testing::CudaTypeTest {};
INSTANTIATE_TEST_SUITE_P(Types, QkNormCuda, testing::kCudaTypes, testing::type_name);

struct Case {
  int64_t N;
  HeadLayout layout;
};
// One element; odd heads; the usual widths, grouped; heads wider than a warp's Packs, and than its registers.
constexpr Case kCases[] = {{1, {1, 1, 1}},   {3, {2, 1, 3}},    {35, {6, 2, 64}},  {5, {12, 12, 32}},
                           {4, {3, 3, 128}}, {18, {2, 1, 320}}, {3, {1, 1, 1040}}, {2, {1, 1, 131}}};

TEST_P(QkNormCuda, AgreesWithTheCpu) {
  for (const auto& [N, layout] : kCases) {
    Twins t;
    const Twin qkv = t.normal({N, layout.qkv_columns()}, GetParam(), 2, 1);
    const Twin q_weight = t.normal({layout.D}, DType::f32), k_weight = t.normal({layout.D}, DType::f32);
    const Twin qk = t.poisoned({N, layout.qk_columns()}, GetParam());
    const Twin rstd = t.poisoned({N, layout.H + layout.K}, DType::f32);
    t.run([&, layout = layout](Context& ctx, auto on) {
      qk_norm(ctx, {.qk = on(qk),
                    .rstd = on(rstd),
                    .qkv = on(qkv),
                    .q_weight = on(q_weight),
                    .k_weight = on(k_weight),
                    .layout = layout,
                    .eps = 1e-5});
    });
    EXPECT_TRUE(close(t, qk)) << "D " << layout.D;
    EXPECT_TRUE(close(t, rstd)) << "D " << layout.D;
  }
}

TEST_P(QkNormCuda, BackwardAgreesWithTheCpuAndRepeats) {
  for (const auto& [N, layout] : kCases) {
    Twins t;
    const Twin qkv = t.normal({N, layout.qkv_columns()}, GetParam(), 2, 1);
    const Twin dqkv = t.normal({N, layout.qkv_columns()}, GetParam());
    const Twin rstd = t.normal({N, layout.H + layout.K}, DType::f32, 0.1, 0.5);
    const Twin q_weight = t.normal({layout.D}, DType::f32), k_weight = t.normal({layout.D}, DType::f32);
    const Twin dq_weight = t.normal({layout.D}, DType::f32), dk_weight = t.normal({layout.D}, DType::f32);
    const auto op = [&, layout = layout](Context& ctx, auto on) {
      qk_norm_backward(ctx, {.dqkv = on(dqkv),
                             .dq_weight = on(dq_weight),
                             .dk_weight = on(dk_weight),
                             .rstd = on(rstd),
                             .qkv = on(qkv),
                             .q_weight = on(q_weight),
                             .k_weight = on(k_weight),
                             .layout = layout});
    };
    t.run(op);
    for (const Twin& out : {dqkv, dq_weight, dk_weight}) EXPECT_TRUE(close(t, out)) << "D " << layout.D;
    t.expect_repeats(op, {dqkv, dq_weight, dk_weight});
  }
}

}  // namespace
}  // namespace keen::ops
