#include "cuda_test.h"
#include "ops/rotate_and_scale.h"

namespace keen::ops {
namespace {

using testing::close;
using testing::Twin;
using testing::Twins;

class RotateAndScaleCuda : public testing::CudaTypeTest {};
INSTANTIATE_TEST_SUITE_P(Types, RotateAndScaleCuda, testing::kCudaTypes, testing::type_name);

// B sequences of T tokens, R rotating pairs (-1: no RoPE), `more` columns behind the heads that change.
struct Case {
  int64_t B, T;
  HeadLayout layout;
  int64_t R, more;
  int64_t columns() const { return (R < 0 ? layout.H : layout.H + layout.K) * layout.D; }  // that change
};
// One row; narrow and odd heads; heads of the usual widths; fewer pairs than half a head, also an odd number;
// so many heads that a block does not take all of them; more rows than a chunk of the sums; packed qkv and
// queries and keys alone.
constexpr Case kCases[] = {
    {1, 1, {1, 1, 2}, 1, 2},        {2, 5, {6, 2, 6}, 3, 12},    {2, 7, {2, 1, 3}, -1, 6},
    {2, 3, {2, 2, 64}, -1, 256},    {2, 7, {2, 1, 3}, -1, 0},    {3, 17, {6, 2, 64}, 32, 128},
    {1, 9, {3, 1, 128}, 64, 128},   {2, 7, {4, 4, 32}, 10, 0},   {2, 7, {4, 4, 32}, 7, 0},
    {1, 3, {48, 48, 64}, 32, 3072}, {1, 4, {2, 1, 1040}, 520, 0}};

// Everything that the op may read, of one case.
struct Inputs {
  Twin x, rotation, log_n, s, b;
  Inputs(Twins& t, const Case& at, DType dtype, bool scaled, int64_t first_position) {
    const int64_t P = first_position + at.T + 3;
    x = t.normal({at.B * at.T, at.columns() + at.more}, dtype);
    testing::Tensors host;
    if (at.R >= 0) {
      const Tensor table = host.zeros({P, at.R, 2}, DType::f32);
      fill_rotation(table, 10000, at.layout.D);
      rotation = t.twin_of(table);
    }
    const Tensor logarithms = host.zeros({P}, DType::f32);
    fill_log_n(logarithms);
    log_n = t.twin_of(logarithms);
    if (!scaled) return;
    s = t.normal({at.layout.H}, DType::f32);
    b = t.normal({at.layout.H}, DType::f32);
  }
};

TEST_P(RotateAndScaleCuda, AgreesWithTheCpuAndMayWorkInPlace) {
  for (const Case& at : kCases)
    for (const bool scaled : {true, false})
      for (const int64_t first_position : {0, 11}) {
        Twins t;
        const Inputs in(t, at, GetParam(), scaled, first_position);
        const Twin qk = t.poisoned({at.B * at.T, at.columns()}, GetParam());
        const auto into = [&](const Twin& out) {
          return [&, out](Context& ctx, auto on) {
            rotate_and_scale(ctx, {.qk = on(out),
                                   .x = on(in.x),
                                   .rotation = on(in.rotation),
                                   .log_n = on(in.log_n),
                                   .s = on(in.s),
                                   .b = on(in.b),
                                   .layout = at.layout,
                                   .T = at.T,
                                   .first_position = first_position});
          };
        };
        t.run(into(qk));
        EXPECT_TRUE(close(t, qk)) << "D " << at.layout.D << ", R " << at.R;
        if (at.more > 0) continue;
        t.run(into(in.x));
        EXPECT_TRUE(close(t, in.x)) << "D " << at.layout.D << ", R " << at.R;
      }
}

TEST_P(RotateAndScaleCuda, BackwardAgreesWithTheCpuAndRepeats) {
  for (const Case& at : kCases)
    for (const int learned : {0, 1, 2, 3}) {  // ds, db
      Twins t;
      const Inputs in(t, at, GetParam(), learned > 0, 0);
      const Twin dqkv = t.normal({at.B * at.T, at.columns() + at.more}, GetParam());
      const Twin ds = learned & 1 ? t.normal({at.layout.H}, DType::f32) : Twin{};
      const Twin db = learned & 2 ? t.normal({at.layout.H}, DType::f32) : Twin{};
      const auto op = [&](Context& ctx, auto on) {
        rotate_and_scale_backward(ctx, {.dqkv = on(dqkv),
                                        .ds = on(ds),
                                        .db = on(db),
                                        .x = on(in.x),
                                        .rotation = on(in.rotation),
                                        .log_n = on(in.log_n),
                                        .s = on(in.s),
                                        .b = on(in.b),
                                        .layout = at.layout,
                                        .T = at.T});
      };
      t.run(op);
      for (const Twin& out : {dqkv, ds, db})
        if (out) {
          EXPECT_TRUE(close(t, out)) << "D " << at.layout.D << ", R " << at.R << ", learned " << learned;
        }
      if (learned == 3) t.expect_repeats(op, {dqkv, ds, db});
    }
}

// The row scale s = 0, b = 1 leaves no trace, and a scale of 0 does not hide the gradient of s.
TEST_P(RotateAndScaleCuda, AScaleOfOneIsNoScaleBitForBit) {
  const Case at = {2, 5, {4, 2, 64}, 32, 128};
  Twins t;
  const Inputs in(t, at, GetParam(), true, 0);
  testing::Tensors host;
  const Tensor one = host.zeros({4}, DType::f32);
  testing::Tensors::fill(one, [](int64_t) { return 1.0; });
  const Twin b = t.twin_of(one), s = t.zeros({4}, DType::f32);
  const Twin plain = t.poisoned({10, at.columns()}, GetParam()), scaled = t.copy_of(plain);
  const Twin d = t.normal({10, at.layout.qkv_columns()}, GetParam()), d_scaled = t.copy_of(d);
  const Twin ds = t.zeros({4}, DType::f32);
  for (const bool with : {false, true})
    t.run_on_cuda([&](Context& ctx, auto on) {
      const ConstTensor s_or_none = with ? ConstTensor(on(s)) : ConstTensor();
      const ConstTensor b_or_none = with ? ConstTensor(on(b)) : ConstTensor();
      rotate_and_scale(ctx, {.qk = on(with ? scaled : plain),
                             .x = on(in.x),
                             .rotation = on(in.rotation),
                             .log_n = on(in.log_n),
                             .s = s_or_none,
                             .b = b_or_none,
                             .layout = at.layout,
                             .T = at.T});
      rotate_and_scale_backward(ctx, {.dqkv = on(with ? d_scaled : d),
                                      .ds = with ? on(ds) : Tensor(),
                                      .db = {},
                                      .x = on(in.x),
                                      .rotation = on(in.rotation),
                                      .log_n = on(in.log_n),
                                      .s = s_or_none,
                                      .b = b_or_none,
                                      .layout = at.layout,
                                      .T = at.T});
    });
  const auto values = [&](const Twin& x) { return testing::Tensors::to_doubles(t.fetch(x.cuda)); };
  EXPECT_EQ(values(plain), values(scaled));
  EXPECT_EQ(values(d), values(d_scaled));
  for (const double gradient : values(ds)) EXPECT_GT(std::abs(gradient), 1e-3);
}

}  // namespace
}  // namespace keen::ops
