// The fused backward pass. The weights of a tile are computed anew from Q, K and lse. Whole
// (backward_is_split): a work item is one key head of one sequence; it holds dk and dv of all its keys while
// the blocks of 64 queries of its query heads pass in order, each visiting its key blocks in order, with dq^T
// in the cache. Split: one item for each key block computes dk and dv, a second pass with one item for each
// query block computes dq. Both add the same products in the same order, so that the number of threads, which
// chooses between them, does not show in the result.
#include <cmath>

#include "core/parallel.h"
#include "ops/attention_cpu.h"

namespace keen::ops {

namespace {

using tile::kKeys;
using tile::kQueries;
using tile::Start;
using tile::Step;

template <class W, class E> struct BackwardTiles {
  tile::Rows<E> queries, douts, keys, values;  // (64, D)
  E *queries_t, *douts_t;                      // (D, 64)
  W* dq_t;                                     // (D, 64)
  W *scores, *dweights;                        // (64 keys, 64 queries)
  E *weights_i, *dscores_i, *dscores_j;        // factors along queries, in the place of these two, and keys
  W *lse, *delta;                              // (64 queries)
  W *dk, *dv;                                  // (T or 64 keys, D)
  [[gnu::always_inline]] BackwardTiles(W* work, int64_t D, int64_t sums)
      : queries(work, D),
        douts(work, D),
        keys(work, D),
        values(work, D),
        queries_t(tile::take<E>(work, tile::head_stride(D) * kQueries)),
        douts_t(tile::take<E>(work, tile::head_stride(D) * kQueries)),
        dq_t(tile::take<W>(work, tile::head_stride(D) * kQueries)),
        scores(tile::take<W>(work, kKeys * kQueries)),
        dweights(tile::take<W>(work, kKeys * kQueries)),
        weights_i(reinterpret_cast<E*>(scores)),
        dscores_i(reinterpret_cast<E*>(dweights)),
        dscores_j(tile::kPaired<E> ? tile::take<E>(work, kKeys * kQueries / 2) : dscores_i),
        lse(tile::take<W>(work, kQueries)),
        delta(tile::take<W>(work, kQueries)),
        dk(tile::take<W>(work, sums * tile::head_stride(D))),
        dv(tile::take<W>(work, sums * tile::head_stride(D))) {}
};

template <class T> struct BackwardHead {
  tile::HeadRows<const T> q, k, v, dout;
  const Wide<T>*lse, *delta;
  int64_t tokens, D;
};

// The block of queries from i0 on: rows and columns of Q / sqrt(D) and dO, and their statistics. Lanes
// without a query get zeros, so that their weights are finite; nothing of them is added to any sum.
template <int kBytes, class T, class E>
[[gnu::always_inline]] inline void load_queries(const BackwardTiles<Wide<T>, E>& t,
                                                const BackwardHead<T>& head, int64_t i0) {
  using W = Wide<T>;
  const int64_t queries = std::min(kQueries, head.tokens - i0);
  tile::load_rows(t.queries, head.q, i0, queries, kQueries, head.D);
  tile::load_rows(t.douts, head.dout, i0, queries, kQueries, head.D);
  tile::scale_queries(t.queries, head.D);
  tile::pair_rows(t.queries, kQueries);
  tile::pair_rows(t.douts, kQueries);
  const int64_t stride = tile::factors<E>(t.queries.stride), steps = tile::factors<E>(head.D);
  tile::transpose<kBytes>(t.queries_t, kQueries, t.queries.along_d, stride, kQueries, steps);
  tile::transpose<kBytes>(t.douts_t, kQueries, t.douts.along_d, stride, kQueries, steps);
  for (int64_t i = 0; i < kQueries; ++i) {
    t.lse[i] = i < queries ? head.lse[i0 + i] : W(0);
    t.delta[i] = i < queries ? head.delta[i0 + i] : W(0);
  }
}

template <class T, class E>
[[gnu::always_inline]] inline void load_keys(const BackwardTiles<Wide<T>, E>& t, const BackwardHead<T>& head,
                                             int64_t key, int64_t keys) {
  const int64_t padded = tile::round_up(keys, tile::kMicroRows);
  tile::load_rows(t.keys, head.k, key, keys, padded, head.D);
  tile::load_rows(t.values, head.v, key, keys, padded, head.D);
  tile::pair_rows(t.keys, padded);
}

// p = exp(s - lse), ds = p (dp - delta), in place; `scale` is left to multiply the scores by.
template <int kBytes, class W, class E>
[[gnu::always_inline]] inline void weights_and_gradients(const BackwardTiles<W, E>& t, const Step& step,
                                                         int64_t lanes, W scale) {
  using V = typename tile::VectorOf<W, kBytes>::type;
  constexpr int64_t L = tile::kLanes<W, kBytes>;
  for (int64_t i = step.first_lane; i < lanes; i += L) {
    const V lse = *reinterpret_cast<const V*>(t.lse + i), delta = *reinterpret_cast<const V*>(t.delta + i);
    for (int64_t j = 0; j < step.keys; j += tile::kDepth<E>) {
      V p[tile::kDepth<E>], ds[tile::kDepth<E>];
      for (int64_t x = 0; x < tile::kDepth<E>; ++x) {
        p[x] = *reinterpret_cast<const V*>(t.scores + (j + x) * kQueries + i);
        tile::scale_scores<E>(p[x], scale);
        p[x] -= lse;
        tile::exp_lanes<kBytes>(p[x]);
        ds[x] = p[x] * (*reinterpret_cast<const V*>(t.dweights + (j + x) * kQueries + i) - delta);
      }
      tile::store_along_queries<kBytes>(t.weights_i, j, i, p);
      tile::store_along_queries<kBytes>(t.dscores_i, j, i, ds);
      if constexpr (tile::kPaired<E>) tile::store_along_keys<kBytes>(t.dscores_j, j, i, ds);
    }
  }
}

// Which gradients a work item computes.
struct Sides {
  bool keys, queries;
};

// Adds what one tile, the loaded block of queries from i0 on and the loaded block of keys from `key` on,
// gives to dk and dv (their rows of that block) and to dq^T.
template <int kBytes, class W, class E>
[[gnu::always_inline]] inline void add_tile(const BackwardTiles<W, E>& t, W* dk, W* dv, int64_t i0,
                                            int64_t key, int64_t tokens, int64_t D, Sides sides) {
  constexpr int64_t L = tile::kLanes<W, kBytes>;
  const int64_t stride = tile::head_stride(D), columns = tile::round_up(D, L);
  const int64_t row = tile::factors<E>(stride), d_steps = tile::factors<E>(D);
  const int64_t queries = std::min(kQueries, tokens - i0), lanes = tile::round_up(queries, L);
  const int64_t diagonal = visible_keys(i0, tokens, tokens) - 1;
  const int64_t keys = std::min(kKeys, visible_keys(i0 + queries - 1, tokens, tokens) - key);
  tile::for_each_step<L>(
      key, keys, diagonal, [&](const Step& step) __attribute__((always_inline)) {
        const int64_t j = step.key - key, n = step.first_lane;
        const int64_t i_steps = tile::factors<E>(queries - n), i_from = tile::factors<E>(n);
        tile::product<kBytes, Start::zero>(t.scores + n, kQueries, t.keys.along_d + j * row, row, int64_t{1},
                                           t.queries_t + n, kQueries, step.keys, d_steps, lanes - n);
        tile::product<kBytes, Start::zero>(t.dweights + n, kQueries, t.values.along_d + j * row, row,
                                           int64_t{1}, t.douts_t + n, kQueries, step.keys, d_steps,
                                           lanes - n);
        if (step.masked) tile::mask(t.scores, step, diagonal, lanes);
        weights_and_gradients<kBytes>(t, step, lanes, tile::scale_left<E, W>(D));
        if (sides.keys) {
          tile::product<kBytes, Start::add>(dv + j * stride, stride, t.weights_i + i_from, kQueries,
                                            int64_t{1}, t.douts.along_t + i_from * stride, stride, step.keys,
                                            i_steps, columns);
          tile::product<kBytes, Start::add>(dk + j * stride, stride, t.dscores_i + i_from, kQueries,
                                            int64_t{1}, t.queries.along_t + i_from * stride, stride,
                                            step.keys, i_steps, columns);
        }
        if (sides.queries)
          tile::product<kBytes, Start::add>(
              t.dq_t + n, kQueries, t.keys.along_t + j * row, int64_t{1}, stride, t.dscores_j + n, kQueries,
              tile::round_up(D, tile::kMicroRows), tile::factors<E>(step.keys), lanes - n);
      });
}

template <class W> [[gnu::always_inline]] inline void clear(W* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] = 0;
}

// The arguments, by head.
template <class T> struct Gradients {
  AttentionBackward a;
  const Wide<T>* delta;
  Wide<T>* all_work;
  int64_t work_length;

  int64_t tokens() const { return a.q.T; }
  int64_t D() const { return a.q.D; }
  int64_t group() const { return a.q.heads / a.k.heads; }
  template <class E> BackwardTiles<Wide<T>, E> tiles(int64_t sums) const {
    return {all_work + omp_get_thread_num() * work_length, D(), sums};
  }
  BackwardHead<T> head(int64_t b, int64_t h) const {
    const int64_t H = a.q.heads, row = (b * H + h) * tokens();
    return {head_rows<T>(a.q, b, h),
            head_rows<T>(a.k, b, h / group()),
            head_rows<T>(a.v, b, h / group()),
            {a.dout.as<T>() + (b * tokens() * H + h) * D(), H * D()},
            a.lse.as<Wide<T>>() + row,
            delta + row,
            tokens(),
            D()};
  }
};

// A piece of the work: of key head `key_head` of sequence b, the tiles of query heads [first_head, end_head),
// queries [first_query, end_query) and keys [first_key, end_key). The gradients of its keys or its queries,
// or both, are whole when it is done.
struct Item {
  int64_t b, key_head, first_head, end_head, first_query, end_query, first_key, end_key;
  Sides sides;
};

template <class Vectors, class T>
[[gnu::always_inline]] inline void run_item(const Gradients<T>& g, const Item& x) {
  const int64_t tokens = g.tokens(), D = g.D(), stride = tile::head_stride(D);
  const int64_t sums = tile::round_up(x.end_key - x.first_key, kKeys);
  using W = Wide<T>;
  using E = tile::Factor<T, Vectors>;
  constexpr int kBytes = Vectors::value;
  const BackwardTiles<W, E> t = g.template tiles<E>(sums);
  if (x.sides.keys) {
    clear(t.dk, sums * stride);
    clear(t.dv, sums * stride);
  }
  for (int64_t h = x.first_head; h < x.end_head; ++h) {
    const BackwardHead<T> head = g.head(x.b, h);
    for (int64_t i0 = x.first_query; i0 < x.end_query; i0 += kQueries) {
      load_queries<kBytes>(t, head, i0);
      clear(t.dq_t, stride * kQueries);
      const int64_t queries = std::min(kQueries, tokens - i0);
      for (int64_t key = x.first_key; key < std::min(x.end_key, i0 + queries); key += kKeys) {
        load_keys(t, head, key, std::min(kKeys, tokens - key));
        const int64_t next = std::min({key + 2 * kKeys, x.end_key, i0 + queries});
        tile::prefetch_rows(head.k, key + kKeys, next, D);
        tile::prefetch_rows(head.v, key + kKeys, next, D);
        const int64_t at = (key - x.first_key) * stride;
        add_tile<kBytes>(t, t.dk + at, t.dv + at, i0, key, tokens, D, x.sides);
      }
      if (x.sides.queries) {
        W* dq = reinterpret_cast<W*>(t.queries.along_d);  // whose turn is over
        tile::transpose<kBytes>(dq, stride, t.dq_t, kQueries, stride, kQueries);
        tile::store_rows(head_rows<T>(g.a.dq, x.b, h), i0, queries, dq, tile::score_scale<W>(D), D);
      }
    }
  }
  if (x.sides.keys) {
    tile::store_rows(head_rows<T>(g.a.dk, x.b, x.key_head), x.first_key, x.end_key - x.first_key, t.dk,
                     tile::scale_left<E, W>(D), D);
    tile::store_rows(head_rows<T>(g.a.dv, x.b, x.key_head), x.first_key, x.end_key - x.first_key, t.dv, W(1),
                     D);
  }
}

enum class Pass : uint8_t { whole, keys, queries };

// The work items of a pass, in the order in which they start. The first key blocks are seen by most queries,
// the last query blocks see most keys: the longest items come first, so that the threads end together.
inline Item item_of(Pass pass, int64_t item, int64_t B, int64_t K, int64_t group, int64_t tokens) {
  if (pass == Pass::whole) {
    const int64_t kh = item % K;
    return {item / K, kh, kh * group, (kh + 1) * group, 0, tokens, 0, tokens, {true, true}};
  }
  if (pass == Pass::keys) {
    const int64_t kh = item % K, key = item / K / B * kKeys;
    const int64_t end = std::min(tokens, key + kKeys);
    return {item / K % B, kh, kh * group, (kh + 1) * group, key, tokens, key, end, {true, false}};
  }
  const int64_t H = K * group, h = item % H, blocks = tile::round_up(tokens, kQueries) / kQueries;
  const int64_t i0 = (blocks - 1 - item / H / B) * kQueries, end = std::min(tokens, i0 + kQueries);
  return {item / H % B, h / group, h, h + 1, i0, end, 0, end, {false, true}};
}

template <class T> void backward(const AttentionBackward& args, const Wide<T>* delta, Tensor work) {
  const Gradients<T> g{args, delta, work.as<Wide<T>>(), work.shape[1]};
  const int64_t B = args.q.B, K = args.k.heads, group = g.group(), tokens = g.tokens();
  const auto run = [&](Pass pass, int64_t items) {
    parallel_for_each(items, [=]<tile::VectorsFor<T> Vectors>(int64_t begin, int64_t end, Vectors) {
      for (int64_t item = begin; item < end; ++item)
        run_item<Vectors>(g, item_of(pass, item, B, K, group, tokens));
    });
  };
  if (!backward_is_split(B * K, omp_get_max_threads())) return run(Pass::whole, B * K);
  const int64_t blocks = tile::round_up(tokens, kQueries) / kQueries;
  run(Pass::keys, B * K * blocks);
  run(Pass::queries, B * K * group * blocks);
}

}  // namespace

void attention_backward_fused(const AttentionBackward& args, ConstTensor delta, Tensor work) {
  with_float_type(args.q.dtype, [&]<class T>() { backward<T>(args, delta.as<Wide<T>>(), work); });
}

}  // namespace keen::ops
