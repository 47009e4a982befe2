#include "cuda_test.h"
#include "ops/embedding.h"

namespace keen::ops {
namespace {

using testing::close;
using testing::Twin;
using testing::Twins;

class EmbeddingCuda : public testing::CudaTypeTest {};
INSTANTIATE_TEST_SUITE_P(Types, EmbeddingCuda, testing::kCudaTypes, testing::type_name);

TEST_P(EmbeddingCuda, AgreesWithTheCpu) {
  for (const int64_t C : {1, 7, 8, 264})
    for (const bool positioned : {true, false}) {
      Twins t;
      const int64_t B = 3, T = 5, V = 11, P = 9;
      const Twin ids = t.ids({B * T}, V), tokens = t.normal({V, C}, GetParam());
      const Twin positions = positioned ? t.normal({P, C}, GetParam()) : Twin{};
      const Twin y = t.poisoned({B * T, C}, GetParam());
      t.run([&](Context& ctx, auto on) {
        embedding(ctx, {.y = on(y),
                        .ids = on(ids),
                        .tokens = on(tokens),
                        .positions = on(positions),
                        .T = T,
                        .first_position = 3});
      });
      EXPECT_TRUE(close(t, y)) << C;
    }
}

// What ids are like: all of them equal; few of a small vocabulary, one far more often than others; as many as
// there are, of a vocabulary that takes one, two or three passes of the sort.
struct Case {
  int64_t N, V, C;
  bool skewed;
};
constexpr Case kCases[] = {{1, 1, 1, false},       {31, 2, 7, false},     {32, 1, 8, false},
                           {33, 1, 8, false},      {65, 3, 40, true},     {1100, 1, 8, false},
                           {700, 50, 264, true},   {2047, 300, 8, true},  {2049, 257, 8, false},
                           {4500, 50257, 8, true}, {300, 70000, 3, false}};

TEST_P(EmbeddingCuda, BackwardAgreesWithTheCpuAndRepeats) {
  for (const auto& [N, V, C, skewed] : kCases) {
    Twins t;
    testing::Tensors host;
    const Tensor list = host.ids({N}, V);
    for (int64_t i = 0; skewed && i < N; ++i)
      if (i % 7 < 4) list.as<int32_t>()[i] = static_cast<int32_t>(V / 2);
    const Twin ids = t.twin_of(list), dy = t.normal({N, C}, GetParam());
    const Twin dtokens = t.normal({V, C}, DType::f32);
    const auto op = [&](Context& ctx, auto on) {
      embedding_backward(ctx,
                         {.dtokens = on(dtokens), .dpositions = {}, .dy = on(dy), .ids = on(ids), .T = 1});
    };
    t.run(op);
    EXPECT_TRUE(close(t, dtokens)) << N << " of " << V << ", width " << C;
    t.expect_repeats(op, {dtokens});
  }
}

TEST_P(EmbeddingCuda, TheGradientOfPositionsAgreesWithTheCpu) {
  for (const int64_t C : {1, 8, 40}) {
    Twins t;
    const int64_t B = 5, T = 6, V = 13, P = 8;
    const Twin ids = t.ids({B * T}, V), dy = t.normal({B * T, C}, GetParam());
    const Twin dtokens = t.zeros({V, C}, DType::f32), dpositions = t.normal({P, C}, DType::f32);
    t.run([&](Context& ctx, auto on) {
      embedding_backward(
          ctx, {.dtokens = on(dtokens), .dpositions = on(dpositions), .dy = on(dy), .ids = on(ids), .T = T});
    });
    EXPECT_TRUE(close(t, dtokens)) << C;
    EXPECT_TRUE(close(t, dpositions)) << C;
  }
}

}  // namespace
}  // namespace keen::ops
