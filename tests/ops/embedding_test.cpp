#include "ops/embedding.h"

#include <omp.h>

#include "op_test.h"

namespace keen::ops {
namespace {

using testing::dot;
using testing::gradient_error;
using testing::relative_error;
using testing::Tensors;

TEST(Embedding, LooksUpTokensAndPositions) {
  Tensors t;
  Context ctx;
  constexpr int64_t B = 3, T = 4, V = 11, C = 7, P = 9, kFirst = 2;
  Tensor ids = t.ids({B * T}, V), y = t.poisoned({B * T, C});
  Tensor tokens = t.normal({V, C}), positions = t.normal({P, C});
  for (const bool with_positions : {false, true}) {
    embedding(ctx, {.y = y,
                    .ids = ids,
                    .tokens = tokens,
                    .positions = with_positions ? ConstTensor(positions) : ConstTensor(),
                    .T = T,
                    .first_position = kFirst});
    for (int64_t row = 0; row < B * T; ++row)
      for (int64_t c = 0; c < C; ++c)
        EXPECT_EQ(y.as<double>()[row * C + c],
                  tokens.as<double>()[ids.as<int32_t>()[row] * C + c] +
                      (with_positions ? positions.as<double>()[(kFirst + row % T) * C + c] : 0.0));
  }
}

TEST(Embedding, GradientsEqualCentralDifferences) {
  for (const auto [B, T, C] : {std::array<int64_t, 3>{1, 1, 1}, {3, 5, 7}, {2, 9, 70}}) {
    Tensors t;
    Context ctx;
    const int64_t V = 6, P = T + 2;
    Tensor ids = t.ids({B * T}, V), y = t.poisoned({B * T, C}), dy = t.normal({B * T, C});
    Tensor tokens = t.normal({V, C}), positions = t.normal({P, C});
    const auto loss = [&] {
      embedding(ctx, {.y = y, .ids = ids, .tokens = tokens, .positions = positions, .T = T});
      return dot(y, dy);
    };
    Tensor dtokens = t.zeros({V, C}), dpositions = t.zeros({P, C});
    embedding_backward(ctx, {.dtokens = dtokens, .dpositions = dpositions, .dy = dy, .ids = ids, .T = T});
    EXPECT_LT(gradient_error(loss, tokens, dtokens), 1e-7);
    EXPECT_LT(gradient_error(loss, positions, dpositions), 1e-7);
  }
}

TEST(Embedding, Float32AndBf16AgreeWithFloat64AndGradientsAdd) {
  constexpr int64_t N = 300, T = 50, V = 17, C = 96;
  for (const DType type : {DType::f32, DType::bf16}) {
    Tensors t;
    Context ctx;
    Tensor ids = t.ids({N}, V), tokens = t.normal({V, C}, type), positions = t.normal({T, C}, type);
    Tensor y = t.poisoned({N, C}, type), want = t.poisoned({N, C});
    embedding(ctx, {.y = y, .ids = ids, .tokens = tokens, .positions = positions, .T = T});
    embedding(ctx, {.y = want,
                    .ids = ids,
                    .tokens = t.copy_as(tokens, DType::f64),
                    .positions = t.copy_as(positions, DType::f64),
                    .T = T});
    EXPECT_LT(relative_error(y, want), type == DType::bf16 ? 4e-3 : 1e-6);

    Tensor dy = t.normal({N, C}, type), dtokens = t.normal({V, C}, wide(type)),
           dpositions = t.normal({T, C}, wide(type));
    Tensor dtokens64 = t.copy_as(dtokens, DType::f64), dpositions64 = t.copy_as(dpositions, DType::f64);
    embedding_backward(ctx, {.dtokens = dtokens, .dpositions = dpositions, .dy = dy, .ids = ids, .T = T});
    embedding_backward(ctx, {.dtokens = dtokens64,
                             .dpositions = dpositions64,
                             .dy = t.copy_as(dy, DType::f64),
                             .ids = ids,
                             .T = T});
    EXPECT_LT(relative_error(dtokens, dtokens64), 1e-6);
    EXPECT_LT(relative_error(dpositions, dpositions64), 1e-6);
  }
}

TEST(Embedding, SameBitsOnOneAndTwoThreads) {
  const int threads = omp_get_max_threads();
  std::vector<double> bits[2];
  for (const int run : {0, 1}) {
    omp_set_num_threads(run + 1);
    Tensors t;
    Context ctx;
    Tensor ids = t.ids({500}, 3), dy = t.normal({500, 200}, DType::bf16),
           dtokens = t.zeros({3, 200}, DType::f32);
    embedding_backward(ctx, {.dtokens = dtokens, .dpositions = {}, .dy = dy, .ids = ids, .T = 100});
    bits[run] = Tensors::to_doubles(dtokens);
  }
  omp_set_num_threads(threads);
  EXPECT_EQ(bits[0], bits[1]);
}

TEST(Embedding, PlanningRunsNothing) {
  Tensors t;
  Context ctx;
  ctx.planning = true;
  Tensor y = t.poisoned({2, 3}), dtokens = t.zeros({4, 3});
  embedding(ctx, {.y = y, .ids = t.ids({2}, 4), .tokens = t.normal({4, 3}), .positions = {}, .T = 2});
  embedding_backward(
      ctx, {.dtokens = dtokens, .dpositions = {}, .dy = t.normal({2, 3}), .ids = t.ids({2}, 4), .T = 2});
  EXPECT_TRUE(std::isnan(y.as<double>()[0]));
  EXPECT_EQ(dot(dtokens, dtokens), 0.0);
  EXPECT_EQ(ctx.scratch.peak(), 0);
}

TEST(Embedding, RefusesOtherShapes) {
  Tensors t;
  Context ctx;
  const auto forward = [&](Shape ids, Shape tokens, Shape positions, int64_t first) {
    embedding(ctx, {.y = t.zeros({6, 4}),
                    .ids = t.ids(ids, 2),
                    .tokens = t.zeros(tokens),
                    .positions = t.zeros(positions),
                    .T = 3,
                    .first_position = first});
  };
  EXPECT_NO_THROW(forward({6}, {5, 4}, {3, 4}, 0));
  EXPECT_THROW(forward({5}, {5, 4}, {3, 4}, 0), Error);
  EXPECT_THROW(forward({6}, {5, 3}, {3, 4}, 0), Error);
  EXPECT_THROW(forward({6}, {5, 4}, {3, 5}, 0), Error);
  EXPECT_THROW(forward({6}, {5, 4}, {3, 4}, 1), Error);
  const auto backward = [&](Tensor dtokens, Shape positions, Shape ids) {
    embedding_backward(ctx, {.dtokens = dtokens,
                             .dpositions = t.zeros(positions),
                             .dy = t.zeros({6, 4}),
                             .ids = t.ids(ids, 2),
                             .T = 3});
  };
  EXPECT_NO_THROW(backward(t.zeros({5, 4}), {3, 4}, {6}));
  EXPECT_THROW(backward(t.zeros({5, 3}), {3, 4}, {6}), Error);
  EXPECT_THROW(backward(t.zeros({5, 4}, DType::f32), {3, 4}, {6}), Error);
  EXPECT_THROW(backward(t.zeros({5, 4}), {2, 4}, {6}), Error);
  EXPECT_THROW(backward(t.zeros({5, 4}), {3, 4}, {4}), Error);
}

}  // namespace
}  // namespace keen::ops
