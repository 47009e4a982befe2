// The CPU's two attention paths and their scratch; only attention*.cpp include this. `work` has one row for
// each thread that may run, of the length that the matching function gives in elements of the wide type.
#pragma once

#include "ops/attention.h"
#include "ops/attention_tile.h"

namespace keen::ops {

void attention_reference(const Attention& args, Tensor work);
void attention_backward_reference(const AttentionBackward& args, ConstTensor delta, Tensor work);
void attention_fused(const Attention& args, Tensor work);
void attention_backward_fused(const AttentionBackward& args, ConstTensor delta, Tensor work);

// How the fused backward pass shares out its work; it follows from the shapes and the number of threads
// alone, and the result does not depend on it. Whole: one work item a key head does everything, five products
// a tile. Split: one item a key block for dk and dv, then one a query block for dq, seven products, for when
// there are too few key heads to keep the threads busy.
inline bool backward_is_split(int64_t key_heads, int64_t threads) {
  const int64_t rounds = (key_heads + threads - 1) / threads;
  // Costs of both in units of one product; 8 stands for the 7 products and for loading the queries once more.
  return 5 * rounds * threads > 8 * key_heads;
}

inline int64_t reference_work(int64_t T_k, int64_t D) { return tile::round_up(T_k + 2 * D, 64); }

inline int64_t fused_work(int64_t D) {
  const int64_t queries = tile::head_stride(D) * tile::kQueries, keys = tile::head_stride(D) * tile::kKeys;
  return 3 * queries + 2 * keys + tile::kKeys * tile::kQueries + 3 * tile::kQueries;
}

inline int64_t fused_backward_work(int64_t T, int64_t D, bool split) {
  const int64_t queries = tile::head_stride(D) * tile::kQueries, keys = tile::head_stride(D) * tile::kKeys;
  const int64_t sums = split ? tile::kKeys : tile::round_up(T, tile::kKeys);
  return 5 * queries + 2 * keys + 5 * tile::kKeys * tile::kQueries / 2 + 2 * tile::kQueries +
         2 * sums * tile::head_stride(D);
}

// One head of one sequence.
template <class T> tile::HeadRows<const T> head_rows(const ConstHeads& x, int64_t b, int64_t h) {
  return {x.as<T>() + b * x.sequence_stride + h * x.D, x.token_stride};
}
template <class T> tile::HeadRows<T> head_rows(const Heads& x, int64_t b, int64_t h) {
  return {x.as<T>() + b * x.sequence_stride + h * x.D, x.token_stride};
}

}  // namespace keen::ops
