#include "cuda_test.h"
#include "ops/adamw.h"

namespace keen::ops {
namespace {

using testing::close;
using testing::Twin;
using testing::Twins;

using AdamWCuda = testing::CudaTest;

// A segment of one element; one of several chunks that begins at no multiple of 16 bytes; one that is not
// learned; a gap; an aligned one with a rest; empty ones; and elements behind the last that belong to none.
std::vector<Segment> segments_at(int64_t step) {
  return {{.begin = 0, .end = 0, .weight_decay = 0, .updates = step},
          {.begin = 0, .end = 1, .weight_decay = 0, .updates = step},
          {.begin = 1, .end = 40'000, .weight_decay = 0.1, .updates = step},
          {.begin = 40'000, .end = 40'100, .weight_decay = 0.1, .updates = step, .learned = false},
          {.begin = 40'104, .end = 40'871, .weight_decay = 0, .updates = step + 50},
          {.begin = 40'872, .end = 40'872, .weight_decay = 0, .updates = step},
          {.begin = 40'896, .end = 40'896 + 2 * kSegmentChunk, .weight_decay = 0.1, .updates = step}};
}
constexpr int64_t kCount = 40'896 + 2 * kSegmentChunk + 3;

struct State {
  Twin value, rounded, m, v;
  State(Twins& t, bool with_rounded)
      : value(t.normal({kCount}, DType::f32)),
        m(t.zeros({kCount}, DType::f32)),
        v(t.zeros({kCount}, DType::f32)) {
    if (with_rounded) rounded = t.zeros({kCount}, DType::bf16);
  }
};

auto update(const State& state, const Twin& grad, std::span<const Segment> segments, const Twin& clip = {}) {
  return [=](Context& ctx, auto on) {
    // The CPU's twin of a bf16 tensor is float32, and adamw rounds to bf16.
    const Tensor rounded = ctx.device == Device::cuda ? on(state.rounded) : Tensor();
    adamw(ctx, {.value = on(state.value),
                .rounded = rounded,
                .m = on(state.m),
                .v = on(state.v),
                .grad = on(grad),
                .segments = segments,
                .lr = 1e-2,
                .beta1 = 0.9,
                .beta2 = 0.95,
                .eps = 1e-8,
                .grad_scale = 0.3,
                .clip = on(clip)});
  };
}

TEST_F(AdamWCuda, AgreesWithTheCpuOverSeveralSteps) {
  for (const bool with_rounded : {true, false}) {
    Twins t;
    const State state(t, with_rounded);
    for (int64_t step = 1; step <= 3; ++step)
      t.run(update(state, t.normal({kCount}, DType::f32, 0.1), segments_at(step)));
    for (const Twin& out : {state.value, state.m, state.v}) EXPECT_TRUE(close(t, out, 1e-6));
    if (!with_rounded) continue;
    const auto value = testing::Tensors::to_doubles(t.fetch(state.value.cuda));
    const auto rounded = testing::Tensors::to_doubles(t.fetch(state.rounded.cuda));
    std::vector<double> expected(rounded.size());  // zero where nothing was learned
    for (const Segment& segment : segments_at(1))
      for (int64_t i = segment.begin; segment.learned && i < segment.end; ++i) {
        const auto at = static_cast<size_t>(i);
        expected[at] = static_cast<float>(bf16(static_cast<float>(value[at])));
      }
    EXPECT_EQ(rounded, expected);
  }
}

TEST_F(AdamWCuda, TakesArraysThatAreNotAligned) {
  Twins t;
  const auto shifted = [&](DType dtype, double scale) {
    Twin x = t.normal({101}, dtype, scale);
    for (Tensor* side : {&x.cpu, &x.cuda}) {
      side->data += size_of(side->dtype);
      side->shape = {100};
    }
    return x;
  };
  State state(t, false);
  state.value = shifted(DType::f32, 1);
  state.m = shifted(DType::f32, 0);
  state.v = shifted(DType::f32, 0);
  const std::vector<Segment> segments = {{.begin = 0, .end = 97, .weight_decay = 0.1, .updates = 1}};
  t.run(update(state, shifted(DType::f32, 0.1), segments));
  for (const Twin& out : {state.value, state.m, state.v}) EXPECT_TRUE(close(t, out, 1e-6));
}

TEST_F(AdamWCuda, TheSumsOfSquaresAgreeWithTheCpuAndRepeat) {
  for (const auto& segments : {segments_at(1), std::vector<Segment>{}}) {
    Twins t;
    const Twin x = t.normal({kCount}, DType::f32, 3);
    const Twin sums = t.poisoned({static_cast<int64_t>(segments.size())}, DType::f64);
    const auto op = [&](Context& ctx, auto on) { sum_of_squares(ctx, on(sums), on(x), segments); };
    t.run(op);
    EXPECT_TRUE(close(t, sums, 1e-12));
    t.expect_repeats(op, {sums});
  }
}

// A square that float32 does not hold.
TEST_F(AdamWCuda, TheSumsOfSquaresDoNotOverflow) {
  Twins t;
  const Twin x = t.normal({100}, DType::f32, 1e25), sums = t.poisoned({1}, DType::f64);
  const std::vector<Segment> segments = {{.begin = 0, .end = 100, .weight_decay = 0, .updates = 1}};
  t.run([&](Context& ctx, auto on) { sum_of_squares(ctx, on(sums), on(x), segments); });
  EXPECT_TRUE(close(t, sums, 1e-12));
}

TEST_F(AdamWCuda, ClipsByTheFactorOnTheDevice) {
  Twins t;
  const State state(t, false);
  const Twin grad = t.normal({kCount}, DType::f32), clip = t.poisoned({2}, DType::f64);
  const auto segments = segments_at(1);
  const Twin sums = t.poisoned({static_cast<int64_t>(segments.size())}, DType::f64);
  t.run([&](Context& ctx, auto on) {
    sum_of_squares(ctx, on(sums), on(grad), segments);
    clip_factor(ctx, on(clip), on(sums), 0.5);
  });
  EXPECT_TRUE(close(t, clip, 1e-12));
  const auto norm_and_factor = testing::Tensors::to_doubles(t.fetch(clip.cuda));
  EXPECT_NEAR(norm_and_factor[0] * norm_and_factor[1], 0.5, 1e-12);
  t.run(update(state, grad, segments, clip));
  for (const Twin& out : {state.value, state.m, state.v}) EXPECT_TRUE(close(t, out, 1e-6));
}

TEST_F(AdamWCuda, NothingChangesWhereTheNormOrTheLossIsNotFinite) {
  for (const bool bad_loss : {true, false}) {
    Twins t;
    const State state(t, true);
    const Twin grad = t.normal({kCount}, DType::f32), clip = t.poisoned({2}, DType::f64);
    testing::Tensors host;
    const Tensor values = host.normal({5}, DType::f64), loss_value = host.zeros({1}, DType::f64);
    (bad_loss ? loss_value : values).as<double>()[0] = std::numeric_limits<double>::infinity();
    const Twin sums = t.twin_of(values), loss = t.twin_of(loss_value);
    t.run([&](Context& ctx, auto on) { clip_factor(ctx, on(clip), on(sums), 1, on(loss)); });
    const double norm = testing::Tensors::to_doubles(t.fetch(clip.cuda))[0];
    EXPECT_FALSE(std::isfinite(norm));
    const auto all = [&] {
      std::vector<double> list;
      for (const Twin& x : {state.value, state.rounded, state.m, state.v})
        for (const double y : testing::Tensors::to_doubles(t.fetch(x.cuda))) list.push_back(y);
      return list;
    };
    const auto before = all();
    t.run_on_cuda(update(state, grad, segments_at(1), clip));
    EXPECT_EQ(all(), before);
  }
}

}  // namespace
}  // namespace keen::ops
