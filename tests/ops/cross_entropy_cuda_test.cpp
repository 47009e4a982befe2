#include "cuda_test.h"
#include "ops/cross_entropy.h"

namespace keen::ops {
namespace {

using testing::close;
using testing::Twin;
using testing::Twins;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

class CrossEntropyCuda : public testing::CudaTypeTest {};
// The type of dlogits.
INSTANTIATE_TEST_SUITE_P(Types, CrossEntropyCuda, testing::kCudaTypes, testing::type_name);

void expect_agreement(int64_t N, int64_t V, DType dtype) {
  Twins t;
  const Twin logits = t.normal({N, V}, DType::f32, 5, 20), targets = t.ids({N}, V);
  const Twin losses = t.poisoned({N}, DType::f32), dlogits = t.poisoned({N, V}, dtype);
  const auto op = [&](Context& ctx, auto on) {
    cross_entropy(ctx, {.losses = on(losses),
                        .dlogits = on(dlogits),
                        .logits = on(logits),
                        .targets = on(targets),
                        .scale = 0.37});
  };
  t.run(op);
  EXPECT_TRUE(close(t, losses)) << N << " x " << V;
  EXPECT_TRUE(close(t, dlogits)) << N << " x " << V;
  t.expect_repeats(op, {losses, dlogits});
}

// Rows that begin at every distance from 16 bytes, and narrower than that.
TEST_P(CrossEntropyCuda, AgreesWithTheCpuAndRepeats) {
  for (const int64_t V : {1, 2, 5, 33, 64, 1001, 2048}) expect_agreement(9, V, GetParam());
}

// Rows that are longer than the vocabulary: what lies behind it is poison, and gets a gradient of zero.
TEST_P(CrossEntropyCuda, LeavesOutSpareColumns) {
  for (const auto& [V, stride] :
       {std::pair<int64_t, int64_t>{1, 128}, {37, 128}, {1001, 1024}, {60001, 60032}}) {
    Twins t;
    testing::Tensors host;
    const Tensor values = host.normal({3, stride}, DType::f32, 5);
    for (int64_t i = 0; i < values.count(); ++i)
      if (i % stride >= V) values.as<float>()[i] = std::numeric_limits<float>::quiet_NaN();
    const Twin logits = t.twin_of(values), targets = t.ids({3}, V);
    const Twin losses = t.poisoned({3}, DType::f32), dlogits = t.poisoned({3, stride}, GetParam());
    t.run([&](Context& ctx, auto on) {
      cross_entropy(ctx, {.losses = on(losses),
                          .dlogits = on(dlogits),
                          .logits = on(logits),
                          .targets = on(targets),
                          .columns = V});
    });
    EXPECT_TRUE(close(t, losses)) << V;
    EXPECT_TRUE(close(t, dlogits)) << V;
    const std::vector<double> cpu = testing::Tensors::to_doubles(dlogits.cpu);
    for (size_t i = 0; i < cpu.size(); ++i) {
      if (static_cast<int64_t>(i) % stride < V) continue;
      ASSERT_EQ(cpu[i], 0) << "element " << i;
    }
  }
}

TEST_P(CrossEntropyCuda, TakesTheVocabularyOfGpt2) { expect_agreement(2, 50257, GetParam()); }

// Such a row is read a second time.
TEST_P(CrossEntropyCuda, TakesRowsThatDoNotFitIntoSharedMemory) { expect_agreement(2, 60001, GetParam()); }

TEST_P(CrossEntropyCuda, LossesAloneAgreeToo) {
  for (const int64_t V : {3, 1001}) {
    Twins t;
    const Twin logits = t.normal({5, V}, DType::f32, 5), targets = t.ids({5}, V);
    const Twin losses = t.poisoned({5}, DType::f32);
    t.run([&](Context& ctx, auto on) {
      cross_entropy(ctx, {.losses = on(losses), .dlogits = {}, .logits = on(logits), .targets = on(targets)});
    });
    EXPECT_TRUE(close(t, losses));
  }
}

using CrossEntropyInPlaceCuda = testing::CudaTest;

TEST_F(CrossEntropyInPlaceCuda, OverwritesLogitsByTheirGradient) {
  for (const int64_t V : {5, 1001, 60001}) {
    Twins t;
    const Twin logits = t.normal({3, V}, DType::f32, 5), targets = t.ids({3}, V);
    const Twin losses = t.poisoned({3}, DType::f32);
    t.run([&](Context& ctx, auto on) {
      cross_entropy(ctx, {.losses = on(losses),
                          .dlogits = on(logits),
                          .logits = on(logits),
                          .targets = on(targets),
                          .scale = 2});
    });
    EXPECT_TRUE(close(t, losses)) << V;
    EXPECT_TRUE(close(t, logits)) << V;
  }
}

// Row by row: a NaN, a NaN in the first place, +infinity, -infinity beside numbers, -infinity at the target.
TEST_P(CrossEntropyCuda, NotFiniteLogitsGiveTheCpusLosses) {
  for (const int64_t V : {6, 700}) {
    Twins t;
    testing::Tensors host;
    const Tensor list = host.normal({5, V}, DType::f32), wanted = host.ids({5}, 1);
    const auto at = [&](int64_t row, int64_t column) -> float& { return list.as<float>()[row * V + column]; };
    at(0, 3) = static_cast<float>(kNan);
    at(1, 0) = static_cast<float>(kNan);
    at(2, 4) = static_cast<float>(kInfinity);
    for (int64_t j = 1; j < V; ++j) at(3, j) = static_cast<float>(-kInfinity);
    at(4, 2) = static_cast<float>(-kInfinity);
    wanted.as<int32_t>()[4] = 2;
    const Twin logits = t.twin_of(list), targets = t.twin_of(wanted);
    const Twin losses = t.poisoned({5}, DType::f32), dlogits = t.poisoned({5, V}, GetParam());
    t.run([&](Context& ctx, auto on) {
      cross_entropy(
          ctx, {.losses = on(losses), .dlogits = on(dlogits), .logits = on(logits), .targets = on(targets)});
    });
    EXPECT_TRUE(close(t, losses));
    const auto got = testing::Tensors::to_doubles(t.fetch(losses.cuda));
    for (const size_t row : {0, 1, 2}) EXPECT_TRUE(std::isnan(got[row]));
    EXPECT_EQ(got[3], 0.0);
    EXPECT_EQ(got[4], kInfinity);
  }
}

}  // namespace
}  // namespace keen::ops
