// What the fused attention passes are built from: products of small tiles in scratch memory, blocked for
// registers, and moves between packed heads and tiles. Everything here is to be inlined into the body of a
// parallel loop, which compiles it for the processor (VectorBytes in core/parallel.h).
//
// A tile holds its queries along the contiguous dimension, one query a vector lane ("transposed"): scores are
// S^T[j][i]. Softmax statistics are then plain vectors, without sums across lanes, and keys and values enter
// the products as scalars that are broadcast, so that they are copied but never transposed.
//
// The factors of products are numbers of the wide type or, for bf16 on processors that multiply two of them
// at once (Bf16Pairs), pairs of neighbours along the dimension that a product sums over. What enters two
// products then has two forms: pairs within rows, (t, d / 2), and pairs of rows, (t / 2, d).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "core/lanes.h"
#include "core/parallel.h"
#include "core/prefetch.h"
#include "core/simd.h"

namespace keen::ops::tile {

using simd::kLanes;
using simd::load_lanes;
using Pair = simd::Bf16Pair;
using simd::transpose;
using simd::VectorOf;

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

template <class E> constexpr bool kPaired = std::is_same_v<E, Pair>;
template <class E> constexpr int64_t kDepth = kPaired<E> ? 2 : 1;  // numbers in a factor
template <class E> constexpr int64_t factors(int64_t numbers) {
  return (numbers + kDepth<E> - 1) / kDepth<E>;
}

// A pass over T is compiled for Bf16Pairs if T is bf16, and has pairs as factors there.
template <class Vectors, class T>
concept VectorsFor = !std::is_same_v<Vectors, Bf16Pairs> || std::is_same_v<T, bf16>;
template <class T, class Vectors>
using Factor = std::conditional_t<std::is_same_v<Vectors, Bf16Pairs>, Pair, Wide<T>>;

// x = exp(x) for every lane, where x <= 0, or above it by rounding errors.
template <int kBytes>
[[gnu::always_inline]] inline void exp_lanes(typename VectorOf<float, kBytes>::type& x) {
  simd::exp_nonpositive<typename VectorOf<float, kBytes>::type, typename VectorOf<int32_t, kBytes>::type>(x);
}
template <int kBytes>
[[gnu::always_inline]] inline void exp_lanes(typename VectorOf<double, kBytes>::type& x) {
  for (int64_t lane = 0; lane < kLanes<double, kBytes>; ++lane) x[lane] = std::exp(x[lane]);
}

// sum += factor * row in every lane.
template <class V, class W> [[gnu::always_inline]] inline void add_product(V& sum, W factor, const V& row) {
  sum += factor * row;
}

#ifdef __x86_64__
// Not always_inline, as in core/lanes.h.
using simd::Floats16;
using Pairs16 = VectorOf<Pair, 64>::type;
[[gnu::target("avx512bf16")]] inline void add_product(Floats16& sum, Pair factor, const Pairs16& row) {
  const __m512i factors = _mm512_set1_epi32(static_cast<int>(factor.bits));
  sum = (Floats16)_mm512_dpbf16_ps((__m512)sum, (__m512bh)factors, (__m512bh)row);
}
// both = first, in the lower half, and second, rounded to bf16.
[[gnu::target("avx512bf16")]] inline void round_both(Pairs16& both, const Floats16& first,
                                                     const Floats16& second) {
  both = (Pairs16)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
}
// x *= factor, rounded at once and not fused with what is subtracted from it later.
[[gnu::target("avx512bf16")]] inline void multiply(Floats16& x, float factor) {
  x *= factor;
  asm("" : "+v"(x));
}
#endif

enum class Start : uint8_t { zero, add, scale };

// One register block: c[m][n] = start + sum_k a[m * a_row + k * a_step] * b[k][n] for 4 rows m and kVectors
// vectors of columns n. The start is 0, c, or c times scale[n].
template <int kBytes, int kVectors, Start kStart, class W, class E>
[[gnu::always_inline]] inline void register_block(W* c, int64_t c_stride, const E* a, int64_t a_row,
                                                  int64_t a_step, const E* b, int64_t b_stride, int64_t steps,
                                                  const W* scale) {
  using V = typename VectorOf<W, kBytes>::type;
  using Row = typename VectorOf<E, kBytes>::type;
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
    Row row[kVectors];
    for (int64_t v = 0; v < kVectors; ++v) row[v] = *reinterpret_cast<const Row*>(b + k * b_stride + v * L);
    for (int64_t m = 0; m < kMicroRows; ++m) {
      const E factor = a[m * a_row + k * a_step];
      for (int64_t v = 0; v < kVectors; ++v) add_product(sum[m][v], factor, row[v]);
    }
  }
  for (int64_t m = 0; m < kMicroRows; ++m)
    for (int64_t v = 0; v < kVectors; ++v) *reinterpret_cast<V*>(c + m * c_stride + v * L) = sum[m][v];
}

// The same for `rows` (a multiple of 4) and `columns` (a multiple of the lanes): panels of b that stay in the
// first cache, over which the rows of a pass. Every element is one chain of fused multiply-adds, or of sums
// of pairs of products, in the order of k, whatever the blocking.
template <int kBytes, Start kStart, class W, class E>
[[gnu::always_inline]] inline void product(W* c, int64_t c_stride, const E* a, int64_t a_row, int64_t a_step,
                                           const E* b, int64_t b_stride, int64_t rows, int64_t steps,
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

// The next `count` elements of the scratch at `work`.
template <class E, class W> [[gnu::always_inline]] inline E* take(W*& work, int64_t count) {
  static_assert(sizeof(E) == sizeof(W));
  work += count;
  return reinterpret_cast<E*>(work - count);
}

// A block of rows of a head in both forms of factors. Plain numbers have one; of pairs each takes half the
// room.
template <class E> struct Rows {
  int64_t stride;  // numbers in a row, zero behind D
  E *along_d, *along_t;
  template <class W>
  [[gnu::always_inline]] Rows(W*& work, int64_t D)
      : stride(head_stride(D)),
        along_d(take<E>(work, stride * kKeys)),
        along_t(along_d + (kPaired<E> ? stride * kKeys / 2 : 0)) {}
};

// along_d[t] = head[begin + t] for t < count, zero in rows [count, padded).
template <class T, class E>
[[gnu::always_inline]] inline void load_rows(const Rows<E>& tile, HeadRows<const T> head, int64_t begin,
                                             int64_t count, int64_t padded, int64_t D) {
  using Number = std::conditional_t<kPaired<E>, bf16, E>;
  auto* numbers = reinterpret_cast<Number*>(tile.along_d);
  for (int64_t t = 0; t < count; ++t) {
    const T* from = head.row(begin + t);
    Number* to = numbers + t * tile.stride;
    int64_t d = 0;
    for (; d + 16 <= D; d += 16) {  // whole vectors: a loop over D would cost more than it moves
      if constexpr (std::is_same_v<T, Number>) {
        __builtin_memcpy(to + d, from + d, 16 * sizeof(T));
      } else {
        KEEN_INDEPENDENT
        for (int64_t x = 0; x < 16; ++x) to[d + x] = Number(from[d + x]);
      }
    }
    for (; d < D; ++d) to[d] = Number(from[d]);
    for (; d < tile.stride; ++d) to[d] = Number(0);
  }
  for (int64_t x = count * tile.stride; x < padded * tile.stride; ++x) numbers[x] = Number(0);
}

// along_t from along_d, for an even count of rows.
template <class E> [[gnu::always_inline]] inline void pair_rows(const Rows<E>& tile, int64_t count) {
  if constexpr (kPaired<E>)
    for (int64_t t = 0; t < count; t += 2) {
      const bf16 *even = reinterpret_cast<const bf16*>(tile.along_d) + t * tile.stride,
                 *odd = even + tile.stride;
      E* to = tile.along_t + t / 2 * tile.stride;
      for (int64_t d = 0; d < tile.stride; d += 16) {
        KEEN_INDEPENDENT
        for (int64_t x = d; x < d + 16; ++x) to[x].bits = even[x].bits | uint32_t{odd[x].bits} << 16;
      }
    }
}

// 1 / sqrt(D) multiplies the queries once they are loaded. Pairs would be rounded a second time and stay as
// they are: scale_left multiplies what comes of them, the scores and the gradients of keys.
template <class W> [[gnu::always_inline]] inline W score_scale(int64_t D) {
  return W(1 / std::sqrt(static_cast<double>(D)));
}
template <class E> [[gnu::always_inline]] inline void scale_queries(const Rows<E>& tile, int64_t D) {
  if constexpr (!kPaired<E>) {
    const E scale = score_scale<E>(D);
    for (int64_t x = 0; x < kQueries * tile.stride; ++x) tile.along_d[x] *= scale;
  }
}
template <class E, class W> [[gnu::always_inline]] inline W scale_left(int64_t D) {
  return kPaired<E> ? score_scale<W>(D) : W(1);
}

// A score times scale_left, the same number wherever it is computed: a product fused with the subtraction of
// the largest score would leave up to half an ulp of that above 0.
template <class E, class V, class W>
[[gnu::always_inline]] inline void scale_scores(V& scores, [[maybe_unused]] W scale) {
  if constexpr (kPaired<E>) multiply(scores, scale);
}

// Asks for rows that are read next: rows of packed heads lie pages apart, where no hardware
// prefetcher follows.
template <class T>
[[gnu::always_inline]] inline void prefetch_rows(HeadRows<T> head, int64_t begin, int64_t end, int64_t D) {
  for (int64_t t = begin; t < end; ++t) prefetch(head.row(t), D);
}

// head[begin + t][d] = factor * rows[t][d] for t < count.
template <class T, class W>
[[gnu::always_inline]] inline void store_rows(HeadRows<T> head, int64_t begin, int64_t count, const W* rows,
                                              W factor, int64_t D) {
  for (int64_t t = 0; t < count; ++t) {
    T* to = head.row(begin + t);
    const W* from = rows + t * head_stride(D);
    KEEN_INDEPENDENT
    for (int64_t d = 0; d < D; ++d) to[d] = T(factor * from[d]);
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

// Writes kDepth rows of scores from j on, a vector of queries from i on, as factors along the keys,
// (j / kDepth, i), or along the queries, (j, i / kDepth). The tile may be that of the scores: rows in order,
// no factor comes to lie on scores that are still to be read.
template <int kBytes, class E, class V>
[[gnu::always_inline]] inline void store_along_keys(E* tile, int64_t j, int64_t i, const V (&x)[kDepth<E>]) {
  using Row = typename VectorOf<E, kBytes>::type;
  Row* to = reinterpret_cast<Row*>(tile + j / kDepth<E> * kQueries + i);
  if constexpr (kPaired<E>) {
    using Numbers = typename VectorOf<int16_t, kBytes>::type;
    Row both;
    round_both(both, x[0], x[1]);
    Numbers pairs;
    simd::interleave<0, 16>(pairs, (Numbers)both, (Numbers)both, std::make_integer_sequence<int, 32>());
    *to = (Row)pairs;
  } else {
    *to = x[0];
  }
}
template <int kBytes, class E, class V>
[[gnu::always_inline]] inline void store_along_queries(E* tile, int64_t j, int64_t i,
                                                       const V (&x)[kDepth<E>]) {
  E* to = tile + j * kQueries + i / kDepth<E>;
  if constexpr (kPaired<E>) {
    typename VectorOf<E, kBytes>::type both;
    round_both(both, x[0], x[1]);
    for (int64_t row = 0; row < 2; ++row)
      __builtin_memcpy(to + row * kQueries, reinterpret_cast<const E*>(&both) + row * 8, kBytes / 2);
  } else {
    *reinterpret_cast<V*>(to) = x[0];
  }
}

}  // namespace keen::ops::tile
