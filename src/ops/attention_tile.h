// What the fused attention passes are built from: products of small tiles in scratch memory, blocked for
// registers, and moves between packed heads and tiles. Everything here is to be inlined into the body of a
// parallel loop, which compiles it for the processor (VectorBytes in core/parallel.h).
//
// A tile holds its queries along the contiguous dimension, one query a vector lane ("transposed"): scores are
// S^T[j][i]. Softmax statistics are then plain vectors, without sums across lanes, and keys and values enter
// the products as scalars that are broadcast, so that they are copied but never transposed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/dtype.h"
#include "core/parallel.h"
#include "core/simd.h"

namespace keen::ops::tile {

inline constexpr int64_t kQueries = 64;  // lanes of a tile, and its row stride
inline constexpr int64_t kKeys = 64;     // keys of a block
static_assert(kQueries == kKeys, "scratch is shared out in blocks of one size");
inline constexpr int64_t kDiagonalKeys = 16;  // keys of a step where the block crosses the diagonal
inline constexpr int64_t kMicroRows =
    4;  // rows of a register block; row counts of products are multiples of it

constexpr int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

// Row stride of a tile whose contiguous dimension is d: whole vectors on every instruction set, zero behind
// D.
constexpr int64_t head_stride(int64_t D) { return round_up(D, 16); }

template <class W, int kBytes> struct VectorOf { typedef W type __attribute__((vector_size(kBytes))); };
template <class W, int kBytes> constexpr int64_t kLanes = kBytes / static_cast<int64_t>(sizeof(W));

// x = exp(x) for every lane, where x <= 0, or above it by rounding errors.
template <int kBytes>
[[gnu::always_inline]] inline void exp_lanes(typename VectorOf<float, kBytes>::type& x) {
  simd::exp_nonpositive<typename VectorOf<float, kBytes>::type, typename VectorOf<int32_t, kBytes>::type>(x);
}
template <int kBytes>
[[gnu::always_inline]] inline void exp_lanes(typename VectorOf<double, kBytes>::type& x) {
  for (int64_t lane = 0; lane < kLanes<double, kBytes>; ++lane) x[lane] = std::exp(x[lane]);
}

enum class Start : uint8_t { zero, add, scale };

// One register block: c[m][n] = start + sum_k a[m * a_row + k * a_step] * b[k][n] for 4 rows m and kVectors
// vectors of columns n. The start is 0, c, or c times scale[n].
template <int kBytes, int kVectors, Start kStart, class W>
[[gnu::always_inline]] inline void register_block(W* c, int64_t c_stride, const W* a, int64_t a_row,
                                                  int64_t a_step, const W* b, int64_t b_stride, int64_t steps,
                                                  const W* scale) {
  using V = typename VectorOf<W, kBytes>::type;
  constexpr int64_t L = kLanes<W, kBytes>;
  V sum[kMicroRows][kVectors];
  for (int64_t m = 0; m < kMicroRows; ++m)
    for (int64_t v = 0; v < kVectors; ++v) {
      V* at = reinterpret_cast<V*>(c + m * c_stride + v * L);
      if constexpr (kStart == Start::zero)
        sum[m][v] = V{};
      else if constexpr (kStart == Start::add)
        sum[m][v] = *at;
      else
        sum[m][v] = *at * *reinterpret_cast<const V*>(scale + v * L);
    }
  for (int64_t k = 0; k < steps; ++k) {
    V row[kVectors];
    for (int64_t v = 0; v < kVectors; ++v) row[v] = *reinterpret_cast<const V*>(b + k * b_stride + v * L);
    for (int64_t m = 0; m < kMicroRows; ++m) {
      const W factor = a[m * a_row + k * a_step];
      for (int64_t v = 0; v < kVectors; ++v) sum[m][v] += factor * row[v];
    }
  }
  for (int64_t m = 0; m < kMicroRows; ++m)
    for (int64_t v = 0; v < kVectors; ++v) *reinterpret_cast<V*>(c + m * c_stride + v * L) = sum[m][v];
}

// The same for `rows` (a multiple of 4) and `columns` (a multiple of the lanes): panels of b that stay in the
// first cache, over which the rows of a pass. Every element is one chain of fused multiply-adds in the order
// of k, whatever the blocking.
template <int kBytes, Start kStart, class W>
[[gnu::always_inline]] inline void product(W* c, int64_t c_stride, const W* a, int64_t a_row, int64_t a_step,
                                           const W* b, int64_t b_stride, int64_t rows, int64_t steps,
                                           int64_t columns, const W* scale = nullptr) {
  constexpr int64_t L = kLanes<W, kBytes>;
  // 16 sums in 32 registers, 8 in 16; float64 is for tests and compiles fewer variants.
  constexpr int kWidest = kBytes == 64 && sizeof(W) == 4 ? 4 : 2;
  int64_t n = 0;
  const auto panel = [&]<int kVectors>() {
    for (int64_t m = 0; m < rows; m += kMicroRows)
      register_block<kBytes, kVectors, kStart>(c + m * c_stride + n, c_stride, a + m * a_row, a_row, a_step,
                                               b + n, b_stride, steps,
                                               kStart == Start::scale ? scale + n : nullptr);
    n += kVectors * L;
  };
  while (columns - n >= kWidest * L) panel.template operator()<kWidest>();
  const int64_t rest = (columns - n) / L;
  if constexpr (kWidest == 4) {
    if (rest == 3) panel.template operator()<3>();
    if (rest == 2) panel.template operator()<2>();
  }
  if (rest == 1) panel.template operator()<1>();
}

// The rows of one head in packed memory: row t at data + t * stride.
template <class T> struct HeadRows {
  T* data;
  int64_t stride;
  [[gnu::always_inline]] T* row(int64_t t) const { return data + t * stride; }
};

// tile[t][d] = factor * head[begin + t][d] for t < count, zero behind D and in rows [count, padded).
template <class T, class W>
[[gnu::always_inline]] inline void load_rows(W* tile, HeadRows<const T> head, int64_t begin, int64_t count,
                                             int64_t padded, int64_t D, W factor) {
  const int64_t stride = head_stride(D);
  for (int64_t t = 0; t < count; ++t) {
    const T* from = head.row(begin + t);
    W* to = tile + t * stride;
    int64_t d = 0;
    for (; d + 16 <= D; d += 16) {  // whole vectors: a loop over D would cost more than it moves
#pragma omp simd
      for (int64_t x = 0; x < 16; ++x) to[d + x] = factor * W(from[d + x]);
    }
    for (; d < D; ++d) to[d] = factor * W(from[d]);
    for (; d < stride; ++d) to[d] = 0;
  }
  for (int64_t x = count * stride; x < padded * stride; ++x) tile[x] = 0;
}

// Asks for rows that load_rows will read next: rows of packed heads lie pages apart, where no hardware
// prefetcher follows.
template <class T>
[[gnu::always_inline]] inline void prefetch_rows(HeadRows<T> head, int64_t begin, int64_t end, int64_t D) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t t = begin; t < end; ++t)
    for (int64_t d = 0; d < D; d += kLine) __builtin_prefetch(head.row(t) + d, 0, 3);
}

// transposed[d][t] = rows[t][d] for d < D and t < kQueries: all rows of the tile must be set.
template <class W>
[[gnu::always_inline]] inline void transpose_rows(W* transposed, const W* rows, int64_t D) {
  const int64_t stride = head_stride(D);
  for (int64_t t = 0; t < kQueries; t += 16)
    for (int64_t d = 0; d < D; ++d)
      for (int64_t x = t; x < t + 16; ++x) transposed[d * kQueries + x] = rows[x * stride + d];
}

// head[begin + t][d] = factor[t] * transposed[d][t] for t < count.
template <class T, class W>
[[gnu::always_inline]] inline void store_transposed(HeadRows<T> head, int64_t begin, int64_t count,
                                                    const W* transposed, const W* factor, int64_t D) {
  for (int64_t t = 0; t < count; ++t) {
    T* to = head.row(begin + t);
    for (int64_t d = 0; d < D; ++d) to[d] = T(factor[t] * transposed[d * kQueries + t]);
  }
}

// The part of a tile of scores that a step computes: keys [key, key + keys) of the sequence, keys a multiple
// of 4 (rows behind the last key are masked), and lanes from first_lane on, the whole vectors of queries that
// see any of them.
struct Step {
  int64_t key, keys, first_lane;
  bool masked;
};

// Calls step(Step) on the pieces of key block [key, key + keys) for a block of queries whose first sees the
// keys up to and including `diagonal`. Off the diagonal the block is one step; on it, short ones that skip
// the vectors of queries that see none of their keys.
template <int64_t kLaneCount, class F>
[[gnu::always_inline]] inline void for_each_step(int64_t key, int64_t keys, int64_t diagonal, const F& step) {
  const int64_t padded = round_up(keys, kMicroRows);
  const bool masked = key + padded - 1 > diagonal;
  const int64_t length = masked ? kDiagonalKeys : padded;
  for (int64_t j = 0; j < padded; j += length) {
    const int64_t unseen = std::max<int64_t>(0, key + j - diagonal);
    step(Step{key + j, std::min(length, padded - j), unseen / kLaneCount * kLaneCount, masked});
  }
}

// Scores of keys that a query does not see, to minus infinity.
template <class W>
[[gnu::always_inline]] inline void mask(W* scores, const Step& step, int64_t diagonal, int64_t lanes) {
  for (int64_t j = 0; j < step.keys; ++j) {
    const int64_t unseen = std::min(lanes, step.key + j - diagonal);
    for (int64_t i = step.first_lane; i < unseen; ++i)
      scores[j * kQueries + i] = -std::numeric_limits<W>::infinity();
  }
}

}  // namespace keen::ops::tile
