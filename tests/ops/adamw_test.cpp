#include "ops/adamw.h"

#include <omp.h>

#include "op_test.h"

namespace keen::ops {
namespace {

using testing::prepare;
using testing::relative_error;
using testing::Tensors;

constexpr double kLr = 1e-2, kBeta1 = 0.9, kBeta2 = 0.95, kEps = 1e-8, kGradScale = 0.3;

// A gap of 5 elements lies before the fourth segment, and 3 elements behind the last belong to none.
std::vector<Segment> segments_at(int64_t step) {
  return {{.begin = 0, .end = 1, .weight_decay = 0, .updates = step},
          {.begin = 1, .end = 40'000, .weight_decay = 0.1, .updates = step},
          {.begin = 40'000, .end = 40'100, .weight_decay = 0.1, .updates = step, .learned = false},
          {.begin = 40'105, .end = 40'872, .weight_decay = 0, .updates = step + 50},
          {.begin = 40'872, .end = 40'872, .weight_decay = 0, .updates = step}};
}
constexpr int64_t kCount = 40'875;

struct State {
  Tensor value, rounded, m, v;
  State(Tensors& t, DType type, bool with_rounded = true)
      : value(t.normal({kCount}, type)), m(t.zeros({kCount}, type)), v(t.zeros({kCount}, type)) {
    if (with_rounded) rounded = t.poisoned({kCount}, DType::bf16);
  }
};

void update(const State& state, ConstTensor grad, std::span<const Segment> segments) {
  Context ctx;
  adamw(ctx, {.value = state.value,
              .rounded = state.rounded,
              .m = state.m,
              .v = state.v,
              .grad = grad,
              .segments = segments,
              .lr = kLr,
              .beta1 = kBeta1,
              .beta2 = kBeta2,
              .eps = kEps,
              .grad_scale = kGradScale});
}

TEST(AdamW, EqualsAScalarLoopOverSeveralSteps) {
  for (const DType type : {DType::f64, DType::f32}) {
    Tensors t;
    const State state(t, type);
    const auto start = Tensors::to_doubles(state.value);
    std::vector<double> value = start, m(kCount), v(kCount);
    for (int64_t step = 1; step <= 5; ++step) {
      Tensor grad = t.normal({kCount}, type, 0.1);
      const auto gradients = Tensors::to_doubles(grad);
      const auto segments = segments_at(step);
      update(state, grad, segments);
      for (const Segment& segment : segments) {
        if (!segment.learned) continue;
        const double t1 = static_cast<double>(segment.updates);
        for (int64_t j = segment.begin; j < segment.end; ++j) {
          const auto i = static_cast<size_t>(j);
          const double g = kGradScale * gradients[i];
          m[i] = kBeta1 * m[i] + (1 - kBeta1) * g;
          v[i] = kBeta2 * v[i] + (1 - kBeta2) * g * g;
          const double mean = m[i] / (1 - std::pow(kBeta1, t1)), square = v[i] / (1 - std::pow(kBeta2, t1));
          value[i] -= kLr * (mean / (std::sqrt(square) + kEps) + segment.weight_decay * value[i]);
        }
      }
    }
    const double tolerance = type == DType::f64 ? 1e-13 : 1e-6;
    const auto expect_near = [&](ConstTensor got, const std::vector<double>& want, double error) {
      const auto x = Tensors::to_doubles(got);
      for (size_t i = 0; i < want.size(); ++i)
        ASSERT_NEAR(x[i], want[i], error * (1 + std::abs(want[i]))) << i;
    };
    expect_near(state.value, value, tolerance);
    expect_near(state.m, m, tolerance);
    expect_near(state.v, v, tolerance);
    // What is not learned, and what belongs to no segment, is left to the bit.
    const auto after = Tensors::to_doubles(state.value), rounded = Tensors::to_doubles(state.rounded);
    for (const auto& [begin, end] : {std::pair<size_t, size_t>{40'000, 40'105}, {40'872, kCount}}) {
      for (size_t i = begin; i < end; ++i) {
        EXPECT_EQ(after[i], start[i]);
        EXPECT_TRUE(std::isnan(rounded[i]));
      }
    }
    for (size_t i = 0; i < 40'000; ++i)
      ASSERT_EQ(rounded[i], static_cast<double>(float(bf16(static_cast<float>(after[i])))));
  }
}

TEST(AdamW, RoundedCopyIsOptional) {
  Tensors t;
  Tensors same;
  const State with(t, DType::f32, true), without(same, DType::f32, false);
  Tensor grad = t.normal({kCount}, DType::f32);
  const auto segments = segments_at(1);
  update(with, grad, segments);
  update(without, grad, segments);
  EXPECT_EQ(Tensors::to_doubles(with.value), Tensors::to_doubles(without.value));
}

TEST(AdamW, SameBitsOnOneAndTwoThreads) {
  const int threads = omp_get_max_threads();
  std::vector<double> bits[2];
  for (const int run : {0, 1}) {
    omp_set_num_threads(run + 1);
    Tensors t;
    const State state(t, DType::f32);
    for (int64_t step = 1; step <= 2; ++step)
      update(state, t.normal({kCount}, DType::f32), segments_at(step));
    bits[run] = Tensors::to_doubles(state.value);
  }
  omp_set_num_threads(threads);
  EXPECT_EQ(bits[0], bits[1]);
}

// Three owners, each with its elements of the averages alone (and of the masters), give what one gives.
TEST(AdamW, OwnedPartsMakeTheWholeBitForBit) {
  for (const bool own_masters : {false, true}) {
    Tensors t;
    const State whole(t, DType::f32);
    const Tensor grad = t.normal({kCount}, DType::f32, 0.1);
    const auto values = Tensors::to_doubles(whole.value);
    const auto segments = segments_at(3);
    std::vector<double> value(kCount), rounded(kCount);
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 64}, {64, 40'512}, {40'512, kCount}}) {
      const int64_t count = end - begin;
      const Tensor all = t.zeros({kCount}, DType::f32), own = t.zeros({count}, DType::f32);
      Tensors::fill(all, [&](int64_t i) { return values[static_cast<size_t>(i)]; });
      Tensors::fill(own, [&](int64_t i) { return values[static_cast<size_t>(begin + i)]; });
      const State part(t, DType::f32);
      std::vector<Segment> owned = segments;
      for (Segment& segment : owned) {
        segment.begin = std::clamp(segment.begin, begin, end);
        segment.end = std::clamp(segment.end, begin, end);
        segment.shift = begin;
      }
      State state = part;
      state.value = own_masters ? own : all;
      state.m = t.zeros({count}, DType::f32);
      state.v = t.zeros({count}, DType::f32);
      update(state, grad, owned);
      const auto now = Tensors::to_doubles(state.value), low = Tensors::to_doubles(state.rounded);
      for (int64_t i = begin; i < end; ++i) {
        value[static_cast<size_t>(i)] = now[static_cast<size_t>(own_masters ? i - begin : i)];
        rounded[static_cast<size_t>(i)] = low[static_cast<size_t>(i)];
      }
    }
    update(whole, grad, segments);
    EXPECT_EQ(value, Tensors::to_doubles(whole.value)) << own_masters;
    const auto low = Tensors::to_doubles(whole.rounded);
    for (const Segment& segment : segments)
      for (int64_t i = segment.begin; segment.learned && i < segment.end; ++i)
        ASSERT_EQ(rounded[static_cast<size_t>(i)], low[static_cast<size_t>(i)]) << i;
  }
}

TEST(AdamW, RefusesOtherShapesAndSegments) {
  Tensors t;
  const State state(t, DType::f32);
  Tensor grad = t.zeros({kCount}, DType::f32);
  const auto with = [&](Segment a, Segment b) {
    const Segment segments[] = {a, b};
    update(state, grad, segments);
  };
  const Segment first{.begin = 0, .end = 10, .weight_decay = 0, .updates = 1};
  EXPECT_NO_THROW(with(first, {.begin = 10, .end = 20, .weight_decay = 0, .updates = 1}));
  EXPECT_THROW(with(first, {.begin = -1, .end = 20, .weight_decay = 0, .updates = 1}), Error);
  EXPECT_THROW(with(first, {.begin = 10, .end = 20, .weight_decay = 0, .updates = 1, .shift = 11}), Error);
  EXPECT_THROW(with(first, {.begin = 20, .end = 19, .weight_decay = 0, .updates = 1}), Error);
  EXPECT_THROW(with(first, {.begin = 10, .end = kCount + 1, .weight_decay = 0, .updates = 1}), Error);
  EXPECT_THROW(with(first, {.begin = 10, .end = 20, .weight_decay = 0, .updates = 0}), Error);
  EXPECT_THROW(update(state, t.zeros({kCount - 1}, DType::f32), {}), Error);
  EXPECT_THROW(update(state, t.zeros({kCount}, DType::f64), {}), Error);
}

TEST(SumOfSquares, EqualsAScalarLoop) {
  for (const DType type : {DType::f64, DType::f32}) {
    Tensors t;
    Context ctx;
    const auto segments = segments_at(1);
    Tensor x = t.normal({kCount}, type), sums = t.poisoned({5});
    prepare(ctx, [&] { sum_of_squares(ctx, sums, x, segments); });
    EXPECT_TRUE(std::isnan(sums.as<double>()[0]));  // planning ran nothing
    sum_of_squares(ctx, sums, x, segments);
    const auto values = Tensors::to_doubles(x);
    for (size_t s = 0; s < segments.size(); ++s) {
      double want = 0;
      if (segments[s].learned)
        for (int64_t i = segments[s].begin; i < segments[s].end; ++i)
          want += values[static_cast<size_t>(i)] * values[static_cast<size_t>(i)];
      EXPECT_NEAR(sums.as<double>()[s], want, 1e-12 * want);
    }
  }
}

TEST(SumOfSquares, SameBitsOnOneAndTwoThreadsAndExactScratch) {
  const int threads = omp_get_max_threads();
  std::vector<double> bits[2];
  for (const int run : {0, 1}) {
    omp_set_num_threads(run + 1);
    Tensors t;
    Context ctx;
    const auto segments = segments_at(1);
    Tensor x = t.normal({kCount}, DType::f32), sums = t.poisoned({5});
    ctx.planning = true;
    sum_of_squares(ctx, sums, x, segments);
    ctx.planning = false;
    const int64_t planned = ctx.scratch.peak();
    ctx.scratch.allocate("scratch");
    sum_of_squares(ctx, sums, x, segments);
    EXPECT_EQ(ctx.scratch.peak(), planned);
    bits[run] = Tensors::to_doubles(sums);
  }
  omp_set_num_threads(threads);
  EXPECT_EQ(bits[0], bits[1]);
}

TEST(SumOfSquares, RefusesOtherShapes) {
  Tensors t;
  Context ctx;
  const auto segments = segments_at(1);
  EXPECT_THROW(sum_of_squares(ctx, t.zeros({4}), t.zeros({kCount}), segments), Error);
  EXPECT_THROW(sum_of_squares(ctx, t.zeros({5}, DType::f32), t.zeros({kCount}), segments), Error);
  EXPECT_THROW(sum_of_squares(ctx, t.zeros({5}), t.zeros({kCount - 20}), segments), Error);
}

}  // namespace
}  // namespace keen::ops
