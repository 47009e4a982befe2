#include "ops/cross_entropy.h"

#include <omp.h>

#include "op_test.h"

namespace keen::ops {
namespace {

using testing::gradient_error;
using testing::relative_error;
using testing::Tensors;

struct Size {
  int64_t N, V;
};

double sum(ConstTensor x) {
  double total = 0;
  for (const double v : Tensors::to_doubles(x)) total += v;
  return total;
}

TEST(CrossEntropy, EqualsTheDefinition) {
  Tensors t;
  Context ctx;
  Tensor logits = t.normal({15, 7}, DType::f64, 3), targets = t.ids({15}, 7), losses = t.poisoned({15});
  cross_entropy(ctx, {.losses = losses, .dlogits = {}, .logits = logits, .targets = targets});
  for (int64_t i = 0; i < 15; ++i) {
    const double* x = logits.as<double>() + i * 7;
    double total = 0;
    for (int64_t j = 0; j < 7; ++j) total += std::exp(x[j]);
    EXPECT_NEAR(losses.as<double>()[i], std::log(total) - x[targets.as<int32_t>()[i]], 1e-12);
  }
}

TEST(CrossEntropy, GradientEqualsCentralDifferences) {
  for (const auto [N, V] : {Size{1, 1}, Size{1, 50}, Size{15, 7}, Size{3, 5000}}) {
    Tensors t;
    Context ctx;
    Tensor logits = t.normal({N, V}, DType::f64, 2), targets = t.ids({N}, V);
    Tensor losses = t.poisoned({N}), dlogits = t.poisoned({N, V});
    constexpr double kScale = 0.25;
    const auto loss = [&] {
      cross_entropy(ctx, {.losses = losses, .dlogits = {}, .logits = logits, .targets = targets});
      return kScale * sum(losses);
    };
    cross_entropy(
        ctx, {.losses = losses, .dlogits = dlogits, .logits = logits, .targets = targets, .scale = kScale});
    EXPECT_LT(gradient_error(loss, logits, dlogits), 1e-7);
    // The elements at the targets, which an even spread over 5000 columns may miss.
    for (int64_t i = 0; i < N; ++i) {
      double row = 0;
      for (int64_t j = 0; j < V; ++j) row += dlogits.as<double>()[i * V + j];
      EXPECT_NEAR(row, 0.0, 1e-12);
      EXPECT_LE(dlogits.as<double>()[i * V + targets.as<int32_t>()[i]], 0.0);
    }
  }
}

TEST(CrossEntropy, Float32AndBf16GradientsAgreeWithFloat64) {
  for (const auto [N, V] : {Size{1, 1}, Size{15, 7}, Size{3, 50257}}) {
    for (const DType type : {DType::f32, DType::bf16}) {
      Tensors t;
      Context ctx;
      Tensor logits = t.normal({N, V}, DType::f32, 3, 20), targets = t.ids({N}, V);
      Tensor losses = t.poisoned({N}, DType::f32), dlogits = t.poisoned({N, V}, type);
      Tensor losses64 = t.poisoned({N}), dlogits64 = t.poisoned({N, V});
      cross_entropy(
          ctx, {.losses = losses, .dlogits = dlogits, .logits = logits, .targets = targets, .scale = 0.1});
      cross_entropy(ctx, {.losses = losses64,
                          .dlogits = dlogits64,
                          .logits = t.copy_as(logits, DType::f64),
                          .targets = targets,
                          .scale = 0.1});
      EXPECT_LT(relative_error(losses, losses64, 1), 1e-6);
      EXPECT_LT(relative_error(dlogits, dlogits64, 1e-2), type == DType::bf16 ? 4e-3 : 2e-6);
    }
  }
}

TEST(CrossEntropy, GradientMayOverwriteTheLogits) {
  for (const DType type : {DType::f64, DType::f32}) {
    Tensors t;
    Context ctx;
    Tensor logits = t.normal({4, 3000}, type), targets = t.ids({4}, 3000);
    Tensor losses = t.poisoned({4}, type), apart = t.poisoned({4, 3000}, type);
    cross_entropy(ctx,
                  {.losses = losses, .dlogits = apart, .logits = logits, .targets = targets, .scale = 0.5});
    const auto losses_apart = Tensors::to_doubles(losses);
    cross_entropy(ctx,
                  {.losses = losses, .dlogits = logits, .logits = logits, .targets = targets, .scale = 0.5});
    EXPECT_EQ(Tensors::to_doubles(logits), Tensors::to_doubles(apart));
    EXPECT_EQ(Tensors::to_doubles(losses), losses_apart);
  }
}

TEST(CrossEntropy, HoldsForHugeLogitsAndShowsNonFiniteOnes) {
  Tensors t;
  Context ctx;
  Tensor logits = t.normal({3, 40}, DType::f32, 1, 1e4), targets = t.ids({3}, 40);
  Tensor losses = t.poisoned({3}, DType::f32), dlogits = t.poisoned({3, 40}, DType::f32);
  logits.as<float>()[40 + 7] = std::numeric_limits<float>::quiet_NaN();
  logits.as<float>()[80 + 7] = std::numeric_limits<float>::infinity();
  cross_entropy(ctx, {.losses = losses, .dlogits = dlogits, .logits = logits, .targets = targets});
  EXPECT_TRUE(std::isfinite(losses.as<float>()[0]));
  EXPECT_TRUE(std::isnan(losses.as<float>()[1]));
  EXPECT_TRUE(std::isnan(losses.as<float>()[2]));
}

TEST(CrossEntropy, SameBitsOnOneAndTwoThreads) {
  const int threads = omp_get_max_threads();
  std::vector<double> losses_bits[2], dlogits_bits[2];
  for (const int run : {0, 1}) {
    omp_set_num_threads(run + 1);
    Tensors t;
    Context ctx;
    Tensor logits = t.normal({5, 5001}, DType::f32), targets = t.ids({5}, 5001);
    Tensor losses = t.poisoned({5}, DType::f32), dlogits = t.poisoned({5, 5001}, DType::bf16);
    cross_entropy(ctx, {.losses = losses, .dlogits = dlogits, .logits = logits, .targets = targets});
    losses_bits[run] = Tensors::to_doubles(losses);
    dlogits_bits[run] = Tensors::to_doubles(dlogits);
  }
  omp_set_num_threads(threads);
  EXPECT_EQ(losses_bits[0], losses_bits[1]);
  EXPECT_EQ(dlogits_bits[0], dlogits_bits[1]);
}

TEST(CrossEntropy, PlanningRunsNothing) {
  Tensors t;
  Context ctx;
  ctx.planning = true;
  Tensor losses = t.poisoned({2});
  cross_entropy(ctx, {.losses = losses, .dlogits = {}, .logits = t.normal({2, 3}), .targets = t.ids({2}, 3)});
  EXPECT_TRUE(std::isnan(losses.as<double>()[0]));
  EXPECT_EQ(ctx.scratch.peak(), 0);
}

TEST(CrossEntropy, RefusesOtherShapesAndTypes) {
  Tensors t;
  Context ctx;
  const auto run = [&](Tensor losses, Tensor dlogits, Tensor logits, Tensor targets) {
    cross_entropy(ctx, {.losses = losses, .dlogits = dlogits, .logits = logits, .targets = targets});
  };
  Tensor losses = t.zeros({2}), logits = t.zeros({2, 3}), targets = t.ids({2}, 3);
  EXPECT_NO_THROW(run(losses, logits, logits, targets));
  EXPECT_THROW(run(t.zeros({3}), logits, logits, targets), Error);
  EXPECT_THROW(run(losses, t.zeros({3, 2}), logits, targets), Error);
  EXPECT_THROW(run(losses, {}, logits, t.ids({3}, 3)), Error);
  EXPECT_THROW(run(losses, t.zeros({2, 3}, DType::f32), logits, targets), Error);
  EXPECT_THROW(run(losses, {}, t.zeros({2, 3}, DType::bf16), targets), Error);
  Tensor logits32 = t.zeros({2, 3}, DType::f32), overlaid = logits32;
  overlaid.dtype = DType::bf16;
  EXPECT_THROW(run(t.zeros({2}, DType::f32), overlaid, logits32, targets), Error);
  EXPECT_THROW(
      cross_entropy(ctx,
                    {.losses = losses, .dlogits = {}, .logits = logits, .targets = targets, .columns = 4}),
      Error);
}

}  // namespace
}  // namespace keen::ops
