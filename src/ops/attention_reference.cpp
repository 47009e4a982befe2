// Attention as its formulas read, one row at a time: what the fused path is measured against.
#include <cmath>

#include "core/parallel.h"
#include "ops/attention_cpu.h"

namespace keen::ops {

namespace {

template <class T> Wide<T> dot(const T* a, const T* b, int64_t D) {
  Wide<T> sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < D; ++d) sum += Wide<T>(a[d]) * Wide<T>(b[d]);
  return sum;
}

template <class T> void forward(const Attention& args, Tensor work) {
  using W = Wide<T>;
  const int64_t T_q = args.q.T, T_k = args.k.T, H = args.q.heads, group = H / args.k.heads, D = args.q.D;
  const W scale = W(1 / std::sqrt(static_cast<double>(D)));
  const ConstHeads queries = args.q, keys = args.k, values = args.v;
  T* out = args.out.as<T>();
  W* lse = args.lse ? args.lse.as<W>() : nullptr;
  W* rows = work.as<W>();
  const int64_t row_length = work.shape[1];
  parallel_for_each(args.q.B * H * T_q, [=](int64_t begin, int64_t end) {
    W *score = rows + omp_get_thread_num() * row_length, *sum = score + T_k;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t i = T_q - 1 - item % T_q, h = item / T_q % H, b = item / T_q / H;  // longest rows first
      const T* q = head_rows<T>(queries, b, h).row(i);
      const auto k = head_rows<T>(keys, b, h / group), v = head_rows<T>(values, b, h / group);
      const int64_t n = visible_keys(i, T_q, T_k);
      W largest = -std::numeric_limits<W>::infinity(), total = 0;
      for (int64_t j = 0; j < n; ++j) {
        score[j] = scale * dot(q, k.row(j), D);
        largest = score[j] > largest ? score[j] : largest;
      }
      for (int64_t d = 0; d < D; ++d) sum[d] = 0;
      for (int64_t j = 0; j < n; ++j) {
        const W p = std::exp(score[j] - largest);
        const T* value = v.row(j);
        total += p;
        for (int64_t d = 0; d < D; ++d) sum[d] += p * W(value[d]);
      }
      T* to = out + ((b * T_q + i) * H + h) * D;
      for (int64_t d = 0; d < D; ++d) to[d] = T(sum[d] / total);
      if (lse != nullptr) lse[(b * H + h) * T_q + i] = largest + std::log(total);
    }
  });
}

// What rows and keys of one pair (i, j) give to the gradients.
template <class W> struct Pair {
  W p, ds;  // the weight, and the gradient of the scaled score
};
template <class T>
Pair<Wide<T>> pair(const T* q, const T* k, const T* v, const T* dout, Wide<T> scale, Wide<T> lse,
                   Wide<T> delta, int64_t D) {
  const Wide<T> p = std::exp(scale * dot(q, k, D) - lse);
  return {p, p * (dot(dout, v, D) - delta)};
}

// dq row by row, then dk and dv key by key: every gradient is one sum in one order.
template <class T> void backward(const AttentionBackward& args, const Wide<T>* delta, Tensor work) {
  using W = Wide<T>;
  const int64_t B = args.q.B, tokens = args.q.T, H = args.q.heads, K = args.k.heads, group = H / K,
                D = args.q.D;
  const W scale = W(1 / std::sqrt(static_cast<double>(D)));
  const AttentionBackward a = args;
  const T* dout = a.dout.as<T>();
  const W* lse = a.lse.as<W>();
  W* rows = work.as<W>();
  const int64_t row_length = work.shape[1];
  parallel_for_each(B * H * tokens, [=](int64_t begin, int64_t end) {
    W* dq = rows + omp_get_thread_num() * row_length;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t i = tokens - 1 - item % tokens, h = item / tokens % H, b = item / tokens / H;
      const int64_t row = (b * H + h) * tokens + i;
      const T *q = head_rows<T>(a.q, b, h).row(i), *dout_i = dout + ((b * tokens + i) * H + h) * D;
      const auto k = head_rows<T>(a.k, b, h / group), v = head_rows<T>(a.v, b, h / group);
      for (int64_t d = 0; d < D; ++d) dq[d] = 0;
      for (int64_t j = 0; j < visible_keys(i, tokens, tokens); ++j) {
        const W ds = pair(q, k.row(j), v.row(j), dout_i, scale, lse[row], delta[row], D).ds;
        for (int64_t d = 0; d < D; ++d) dq[d] += ds * W(k.row(j)[d]);
      }
      T* to = head_rows<T>(a.dq, b, h).row(i);
      for (int64_t d = 0; d < D; ++d) to[d] = T(scale * dq[d]);
    }
  });
  parallel_for_each(B * K * tokens, [=](int64_t begin, int64_t end) {
    W *dk = rows + omp_get_thread_num() * row_length, *dv = dk + D;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t j = item % tokens, key_head = item / tokens % K, b = item / tokens / K;
      const T *k = head_rows<T>(a.k, b, key_head).row(j), *v = head_rows<T>(a.v, b, key_head).row(j);
      for (int64_t d = 0; d < D; ++d) dk[d] = dv[d] = 0;
      for (int64_t h = key_head * group; h < (key_head + 1) * group; ++h)
        for (int64_t i = j; i < tokens; ++i) {
          const int64_t row = (b * H + h) * tokens + i;
          const T *q = head_rows<T>(a.q, b, h).row(i), *dout_i = dout + ((b * tokens + i) * H + h) * D;
          const Pair<W> g = pair(q, k, v, dout_i, scale, lse[row], delta[row], D);
          for (int64_t d = 0; d < D; ++d) dk[d] += g.ds * W(q[d]);
          for (int64_t d = 0; d < D; ++d) dv[d] += g.p * W(dout_i[d]);
        }
      T *to_k = head_rows<T>(a.dk, b, key_head).row(j), *to_v = head_rows<T>(a.dv, b, key_head).row(j);
      for (int64_t d = 0; d < D; ++d) to_k[d] = T(scale * dk[d]);
      for (int64_t d = 0; d < D; ++d) to_v[d] = T(dv[d]);
    }
  });
}

}  // namespace

void attention_reference(const Attention& args, Tensor work) {
  with_float_type(args.q.dtype, [&]<class T>() { forward<T>(args, work); });
}

void attention_backward_reference(const AttentionBackward& args, ConstTensor delta, Tensor work) {
  with_float_type(args.q.dtype, [&]<class T>() { backward<T>(args, delta.as<Wide<T>>(), work); });
}

}  // namespace keen::ops
