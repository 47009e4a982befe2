#include "ops/embedding.h"

#include "core/parallel.h"

namespace keen::ops {

namespace {

TokenOrder take_token_order(Context& ctx, int64_t N, int64_t C) {
  if (ctx.device == Device::cpu) return {};
  const auto parts = [N](int64_t length) { return (N + length - 1) / length; };
  TokenOrder order;
  order.ids = ctx.scratch.take({2, N}, DType::i32);
  order.rows = ctx.scratch.take({2, N}, DType::i32);
  order.counts = ctx.scratch.take({kSortDigits, parts(kSortTile)}, DType::i32);
  order.border = ctx.scratch.take({parts(kRun), 2, C}, DType::f32);
  return order;
}

}  // namespace

void embedding(Context& ctx, const Embedding& args) {
  const auto [rows, width] = dims<2>(args.y);
  const auto [vocabulary, tokens_width] = dims<2>(args.tokens);
  expect(args.ids, {rows}, DType::i32, "embedding: ids (N)");
  expect(args.tokens, {vocabulary, width}, args.y.dtype, "embedding: tokens (V, C)");
  check(args.T >= 1 && args.first_position >= 0, "embedding: T >= 1 and first_position >= 0");
  if (args.positions) {
    const auto [count, positions_width] = dims<2>(args.positions);
    expect(args.positions, {count, width}, args.y.dtype, "embedding: positions (P, C)");
    check(args.first_position + args.T <= count, "embedding: first_position + T must be at most P");
  }
  on_device(ctx, [&]<Device D>() { embedding_on<D>(ctx, args); });
}

void embedding_backward(Context& ctx, const EmbeddingBackward& args) {
  const auto [rows, width] = dims<2>(args.dy);
  const auto [vocabulary, tokens_width] = dims<2>(args.dtokens);
  expect(args.ids, {rows}, DType::i32, "embedding_backward: ids (N)");
  expect(args.dtokens, {vocabulary, width}, wide(args.dy.dtype), "embedding_backward: dtokens (V, C)");
  check(args.T >= 1, "embedding_backward: T >= 1");
  if (args.dpositions) {
    const auto [count, positions_width] = dims<2>(args.dpositions);
    expect(args.dpositions, {count, width}, wide(args.dy.dtype), "embedding_backward: dpositions (P, C)");
    check(args.T <= count, "embedding_backward: T must be at most P");
  }
  ScratchScope scope(ctx);
  const TokenOrder order = take_token_order(ctx, rows, width);
  on_device(ctx, [&]<Device D>() { embedding_backward_on<D>(ctx, args, order); });
}

template <> void embedding_on<Device::cpu>(Context&, const Embedding& args) {
  with_float_type(args.y.dtype, [&]<class T>() {
    using W = Wide<T>;
    const int64_t width = args.y.shape[1], length = args.T, first = args.first_position;
    const int32_t* ids = args.ids.as<int32_t>();
    const T *tokens = args.tokens.as<T>(), *positions = args.positions ? args.positions.as<T>() : nullptr;
    T* y = args.y.as<T>();
    parallel_for(args.y.shape[0], 1 + (1 << 13) / width, [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T* __restrict token = tokens + ids[row] * width;
        T* __restrict out = y + row * width;
        if (positions == nullptr) {
          std::copy_n(token, width, out);
          continue;
        }
        const T* __restrict position = positions + (first + row % length) * width;
        KEEN_INDEPENDENT
        for (int64_t j = 0; j < width; ++j) out[j] = T(W(token[j]) + W(position[j]));
      }
    });
  });
}

// Each thread owns a range of columns of both tables and walks over all rows: no two threads write one
// element, and every element sums its rows in ascending order.
template <>
void embedding_backward_on<Device::cpu>(Context&, const EmbeddingBackward& args, const TokenOrder&) {
  with_float_type(args.dy.dtype, [&]<class T>() {
    using W = Wide<T>;
    const auto [rows, columns] = dims<2>(args.dy);
    const int64_t count = rows, width = columns, length = args.T;
    const int32_t* ids = args.ids.as<int32_t>();
    const T* dy = args.dy.as<T>();
    W *dtokens = args.dtokens.as<W>(), *dpositions = args.dpositions ? args.dpositions.as<W>() : nullptr;
    parallel_for(width, 32, [=](int64_t begin, int64_t end) {
      for (int64_t row = 0; row < count; ++row) {
        const T* __restrict from = dy + row * width;
        W* __restrict token = dtokens + ids[row] * width;
        KEEN_INDEPENDENT
        for (int64_t j = begin; j < end; ++j) token[j] += W(from[j]);
        if (dpositions == nullptr) continue;
        W* __restrict position = dpositions + row % length * width;
        KEEN_INDEPENDENT
        for (int64_t j = begin; j < end; ++j) position[j] += W(from[j]);
      }
    });
  });
}

}  // namespace keen::ops
