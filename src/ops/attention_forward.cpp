// The fused forward pass. A work item is a block of 64 queries of one head: its queries stay in the cache as
// Q^T, its sums as O^T, while the keys and values pass in blocks of 64, and the maximum and the sum of the
// weights are corrected as they grow (online softmax; Dao et al., "FlashAttention", 2022).
#include <cmath>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/attention_cpu.h"

namespace keen::ops {

namespace {

using tile::kKeys;
using tile::kQueries;
using tile::Step;

// So few queries (decoding) would leave most lanes of a tile empty: they go row by row.
constexpr int64_t kFewQueries = 4;

template <class W, class E> struct ForwardTiles {
  tile::Rows<E> queries, keys, values;  // (64, D)
  E* queries_t;                         // (D, 64)
  W *sums_t, *scores;                   // (D, 64) and (64 keys, 64 queries)
  E* weights;                           // in the place of the scores
  W *largest, *total, *correction;      // (64 queries)
  [[gnu::always_inline]] ForwardTiles(W* work, int64_t D)
      : queries(work, D),
        keys(work, D),
        values(work, D),
        queries_t(tile::take<E>(work, tile::head_stride(D) * kQueries)),
        sums_t(tile::take<W>(work, tile::head_stride(D) * kQueries)),
        scores(tile::take<W>(work, kKeys * kQueries)),
        weights(reinterpret_cast<E*>(scores)),
        largest(tile::take<W>(work, kQueries)),
        total(tile::take<W>(work, kQueries)),
        correction(tile::take<W>(work, kQueries)) {}
};

// Scores become weights relative to the new largest score; totals and the correction of earlier sums follow.
// `scale` is left to multiply the scores by. Totals are of the weights before they are rounded to factors:
// rounded ones would be no better for the output and cost lse 1e-3.
template <int kBytes, class W, class E>
[[gnu::always_inline]] inline void online_softmax(const ForwardTiles<W, E>& t, const Step& step,
                                                  int64_t lanes, W scale) {
  using V = typename tile::VectorOf<W, kBytes>::type;
  constexpr int64_t L = tile::kLanes<W, kBytes>;
  for (int64_t i = step.first_lane; i < lanes; i += L) {
    V *column = reinterpret_cast<V*>(t.scores + i), *largest = reinterpret_cast<V*>(t.largest + i);
    V most = column[0];
    for (int64_t j = 1; j < step.keys; ++j) {
      const V score = column[j * (kQueries / L)];
      most = score > most ? score : most;
    }
    tile::scale_scores<E>(most, scale);
    most = *largest > most ? *largest : most;
    V correction = *largest - most;
    tile::exp_lanes<kBytes>(correction);
    V total = *reinterpret_cast<V*>(t.total + i) * correction;
    for (int64_t j = 0; j < step.keys; j += tile::kDepth<E>) {
      V weight[tile::kDepth<E>];
      for (int64_t x = 0; x < tile::kDepth<E>; ++x) {
        weight[x] = column[(j + x) * (kQueries / L)];
        tile::scale_scores<E>(weight[x], scale);
        weight[x] -= most;
        tile::exp_lanes<kBytes>(weight[x]);
        total += weight[x];
      }
      tile::store_along_keys<kBytes>(t.weights, j, i, weight);
    }
    *largest = most;
    *reinterpret_cast<V*>(t.correction + i) = correction;
    *reinterpret_cast<V*>(t.total + i) = total;
  }
}

template <class T> struct ForwardHead {
  tile::HeadRows<const T> q, k, v;
  tile::HeadRows<T> out;
  Wide<T>* lse;  // T_q of them, or null
  int64_t T_q, T_k, D;
};

template <class Vectors, class T>
[[gnu::always_inline]] inline void forward_block(const ForwardHead<T>& head, int64_t i0, Wide<T>* work) {
  using W = Wide<T>;
  using E = tile::Factor<T, Vectors>;
  constexpr int kBytes = Vectors::value;
  const ForwardTiles<W, E> t(work, head.D);
  const int64_t D = head.D, stride = tile::head_stride(D), row = tile::factors<E>(stride);
  const int64_t queries = std::min(kQueries, head.T_q - i0);
  const int64_t lanes = tile::round_up(queries, tile::kLanes<W, kBytes>);
  const W scale = tile::scale_left<E, W>(D);
  tile::load_rows(t.queries, head.q, i0, queries, kQueries, D);
  tile::scale_queries(t.queries, D);
  tile::transpose<kBytes>(t.queries_t, kQueries, t.queries.along_d, row, kQueries, tile::factors<E>(D));
  for (int64_t x = 0; x < stride * kQueries; ++x) t.sums_t[x] = 0;
  for (int64_t i = 0; i < kQueries; ++i) {
    t.largest[i] = -std::numeric_limits<W>::infinity();
    t.total[i] = 0;
  }
  const int64_t diagonal = visible_keys(i0, head.T_q, head.T_k) - 1;
  const int64_t end = visible_keys(i0 + queries - 1, head.T_q, head.T_k);
  for (int64_t key = 0; key < end; key += kKeys) {
    const int64_t keys = std::min(kKeys, end - key);
    const int64_t padded = tile::round_up(keys, tile::kMicroRows);
    tile::load_rows(t.keys, head.k, key, keys, padded, D);
    tile::load_rows(t.values, head.v, key, keys, padded, D);
    tile::pair_rows(t.values, padded);
    const int64_t next = std::min(key + 2 * kKeys, end);
    tile::prefetch_rows(head.k, key + kKeys, next, D);
    tile::prefetch_rows(head.v, key + kKeys, next, D);
    tile::for_each_step<tile::kLanes<W, kBytes>>(
        key, keys, diagonal, [&](const Step& step) __attribute__((always_inline)) {
          const int64_t j = step.key - key, n = step.first_lane;
          tile::product<kBytes, tile::Start::zero>(t.scores + n, kQueries, t.keys.along_d + j * row, row,
                                                   int64_t{1}, t.queries_t + n, kQueries, step.keys,
                                                   tile::factors<E>(D), lanes - n);
          if (step.masked) tile::mask(t.scores, step, diagonal, lanes);
          online_softmax<kBytes>(t, step, lanes, scale);
          tile::product<kBytes, tile::Start::scale>(
              t.sums_t + n, kQueries, t.values.along_t + j * row, int64_t{1}, stride, t.weights + n, kQueries,
              tile::round_up(D, tile::kMicroRows), tile::factors<E>(step.keys), lanes - n, t.correction + n);
        });
  }
  if (head.lse != nullptr)
    for (int64_t i = 0; i < queries; ++i) head.lse[i0 + i] = t.largest[i] + std::log(t.total[i]);
  W* sums = reinterpret_cast<W*>(t.queries.along_d);  // whose turn is over
  tile::transpose<kBytes>(sums, stride, t.sums_t, kQueries, stride, kQueries);
  for (int64_t i = 0; i < queries; ++i)
    tile::store_rows(head.out, i0 + i, 1, sums + i * stride, 1 / t.total[i], D);
}

// scores[j] = <query, keys[begin + j]> for `count` keys, at most 64. One vector of sums a key, then across
// the lanes of as many keys as there are lanes: g++ would add the lanes of each key one by one. `sums` and
// `sums_t` are scratch, (64, lanes) and (lanes, 64).
template <int kBytes, class W, class T>
[[gnu::always_inline]] inline void score_row(W* scores, const W* query, tile::HeadRows<const T> keys,
                                             int64_t begin, int64_t count, int64_t D, W* sums, W* sums_t) {
  using V = typename tile::VectorOf<W, kBytes>::type;
  constexpr int64_t L = tile::kLanes<W, kBytes>;
  for (int64_t j = 0; j < count; ++j) {
    const T* key = keys.row(begin + j);
    V sum{}, x;
    int64_t d = 0;
    for (; d + L <= D; d += L) {
      tile::load_lanes<kBytes>(x, key + d);
      sum += *reinterpret_cast<const V*>(query + d) * x;
    }
    for (; d < D; ++d) sum[0] += query[d] * W(key[d]);
    *reinterpret_cast<V*>(sums + j * L) = sum;
  }
  tile::transpose<kBytes>(sums_t, kKeys, sums, L, count, L);
  for (int64_t j = 0; j < count; j += L) {
    V score{};
    for (int64_t lane = 0; lane < L; ++lane) score += *reinterpret_cast<const V*>(sums_t + lane * kKeys + j);
    *reinterpret_cast<V*>(scores + j) = score;
  }
}

// One query against its keys, 64 at a time.
template <int kBytes, class T>
[[gnu::always_inline]] inline void forward_row(const ForwardHead<T>& head, int64_t i, Wide<T>* work) {
  using W = Wide<T>;
  const ForwardTiles<W, W> t(work, head.D);
  W *query = t.queries_t, *sums = t.sums_t;
  const int64_t D = head.D;
  const T* q = head.q.row(i);
  const W scale = tile::score_scale<W>(D);
  for (int64_t d = 0; d < D; ++d) query[d] = scale * W(q[d]);
  for (int64_t d = 0; d < D; ++d) sums[d] = 0;
  W largest = -std::numeric_limits<W>::infinity(), total = 0;
  const int64_t end = visible_keys(i, head.T_q, head.T_k);
  for (int64_t key = 0; key < end; key += kKeys) {
    const int64_t keys = std::min(kKeys, end - key), next = std::min(key + 2 * kKeys, end);
    tile::prefetch_rows(head.k, key + kKeys, next, D);
    tile::prefetch_rows(head.v, key + kKeys, next, D);
    score_row<kBytes>(t.scores, query, head.k, key, keys, D, t.queries.along_d, t.values.along_d);
    W most = largest;
    for (int64_t j = 0; j < keys; ++j) most = t.scores[j] > most ? t.scores[j] : most;
    const W correction = simd::exp_nonpositive(largest - most);
    largest = most;
    total *= correction;
#pragma omp simd reduction(+ : total)
    for (int64_t j = 0; j < keys; ++j) {
      const W weight = simd::exp_nonpositive(t.scores[j] - most);
      t.scores[j] = weight;
      total += weight;
    }
    for (int64_t d = 0; d < D; ++d) sums[d] *= correction;
    int64_t j = 0;
    for (; j + 4 <= keys; j += 4) {
      const T *v0 = head.v.row(key + j), *v1 = head.v.row(key + j + 1), *v2 = head.v.row(key + j + 2);
      const T* v3 = head.v.row(key + j + 3);
      const W* p = t.scores + j;
      KEEN_INDEPENDENT
      for (int64_t d = 0; d < D; ++d)
        sums[d] += (p[0] * W(v0[d]) + p[1] * W(v1[d])) + (p[2] * W(v2[d]) + p[3] * W(v3[d]));
    }
    for (; j < keys; ++j) {
      const T* v = head.v.row(key + j);
      const W p = t.scores[j];
      KEEN_INDEPENDENT
      for (int64_t d = 0; d < D; ++d) sums[d] += p * W(v[d]);
    }
  }
  T* out = head.out.row(i);
  const W inverse = 1 / total;
  for (int64_t d = 0; d < D; ++d) out[d] = T(inverse * sums[d]);
  if (head.lse != nullptr) head.lse[i] = largest + std::log(total);
}

template <class T> void forward(const Attention& args, Tensor work) {
  using W = Wide<T>;
  const ConstHeads q = args.q, k = args.k, v = args.v;
  const int64_t T_q = q.T, T_k = k.T, H = q.heads, group = H / k.heads, D = q.D;
  const int64_t blocks = tile::round_up(T_q, kQueries) / kQueries, work_length = work.shape[1];
  T* out = args.out.as<T>();
  W *lse = args.lse ? args.lse.as<W>() : nullptr, *all_work = work.as<W>();
  // Sequence by sequence, so that its keys stay in the last cache; within one, the last blocks, which see
  // most keys, come first, so that the threads end together.
  parallel_for_each(q.B * blocks * H, [=]<tile::VectorsFor<T> Vectors>(int64_t begin, int64_t end, Vectors) {
    W* mine = all_work + omp_get_thread_num() * work_length;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t h = item % H, block = blocks - 1 - item / H % blocks, b = item / H / blocks;
      const ForwardHead<T> head{head_rows<T>(q, b, h),
                                head_rows<T>(k, b, h / group),
                                head_rows<T>(v, b, h / group),
                                {out + (b * T_q * H + h) * D, H * D},
                                lse == nullptr ? nullptr : lse + (b * H + h) * T_q,
                                T_q,
                                T_k,
                                D};
      if (T_q <= kFewQueries)
        for (int64_t i = 0; i < T_q; ++i) forward_row<Vectors::value>(head, i, mine);
      else
        forward_block<Vectors>(head, block * kQueries, mine);
    }
  });
}

}  // namespace

void attention_fused(const Attention& args, Tensor work) {
  with_float_type(args.q.dtype, [&]<class T>() { forward<T>(args, work); });
}

}  // namespace keen::ops
