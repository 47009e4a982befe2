#include "ops/attention_cudnn_graph.h"

#include <utility>

namespace keen::ops::cudnn {

namespace {

constexpr cudnnDataType_t kFloat = CUDNN_DATA_FLOAT, kBf16 = CUDNN_DATA_BFLOAT16, kInt = CUDNN_DATA_INT32,
                          kBool = CUDNN_DATA_BOOLEAN;

// The dimensions and strides that the graphs share.
struct Layout {
  Four scores, rows, row_strides, queries, keys, keys_transposed, out_strides, contiguous, transposed_scores;
  explicit Layout(const AttentionShape& s)
      : scores{s.B, s.H, s.T, s.T},
        rows{s.B, s.H, s.T, 1},
        row_strides{s.H * s.T, s.T, 1, 1},
        queries{s.B, s.H, s.T, s.D},
        keys{s.B, s.K, s.T, s.D},
        keys_transposed{s.B, s.K, s.D, s.T},
        out_strides{s.T * s.H * s.D, s.D, s.H * s.D, 1},
        contiguous{s.H * s.T * s.D, s.T * s.D, s.D, 1},
        transposed_scores{s.H * s.T * s.T, s.T * s.T, 1, s.T} {}
};

Four strides_of(const HeadStrides& x, int64_t D) { return {x.sequence, D, x.token, 1}; }
Four transposed(Four strides) {
  std::swap(strides[2], strides[3]);
  return strides;
}

// y = x where row >= column, minus infinity elsewhere.
Descriptor& causal(Graph& g, const Layout& l, const Descriptor& x) {
  Descriptor &row = g.between(kInt, l.scores), &column = g.between(kInt, l.scores),
             &seen = g.between(kBool, l.scores), &y = g.between(kFloat, l.scores),
             &minus_infinity = g.scalar(kMinusInfinity);
  g.pointwise({.mode = CUDNN_POINTWISE_GEN_INDEX, .x = x, .axis = 2}, row);
  g.pointwise({.mode = CUDNN_POINTWISE_GEN_INDEX, .x = x, .axis = 3}, column);
  g.pointwise({.mode = CUDNN_POINTWISE_CMP_GE, .x = row, .b = &column, .precision = kBool}, seen);
  g.pointwise({.mode = CUDNN_POINTWISE_BINARY_SELECT, .x = x, .b = &minus_infinity, .mask = &seen}, y);
  return y;
}

void forward(Graph& g, const AttentionShape& s) {
  const Layout l(s);
  Descriptor& q = g.tensor(kQ, kBf16, l.queries, strides_of(s.q, s.D));
  Descriptor& k = g.tensor(kK, kBf16, l.keys_transposed, transposed(strides_of(s.k, s.D)));
  Descriptor& v = g.tensor(kV, kBf16, l.keys, strides_of(s.v, s.D));
  Descriptor& out = g.tensor(kOut, kBf16, l.queries, l.out_strides);
  Descriptor& lse = g.tensor(kLse, kFloat, l.rows, l.row_strides);
  Descriptor& scale = g.scalar(kScale);

  Descriptor &product = g.between(kFloat, l.scores), &scores = g.between(kFloat, l.scores);
  g.matmul(q, k, product);
  g.pointwise({.mode = CUDNN_POINTWISE_MUL, .x = product, .b = &scale}, scores);
  const Descriptor& masked = causal(g, l, scores);
  Descriptor &largest = g.between(kFloat, l.rows), &shifted = g.between(kFloat, l.scores),
             &weight = g.between(kFloat, l.scores), &sum = g.between(kFloat, l.rows),
             &log_sum = g.between(kFloat, l.rows), &p = g.between(kBf16, l.scores);
  g.reduce(CUDNN_REDUCE_TENSOR_MAX, masked, largest);
  g.pointwise({.mode = CUDNN_POINTWISE_SUB, .x = masked, .b = &largest}, shifted);
  g.pointwise({.mode = CUDNN_POINTWISE_EXP, .x = shifted}, weight);
  g.reduce(CUDNN_REDUCE_TENSOR_ADD, weight, sum);
  g.pointwise({.mode = CUDNN_POINTWISE_LOG, .x = sum}, log_sum);
  g.pointwise({.mode = CUDNN_POINTWISE_ADD, .x = largest, .b = &log_sum}, lse);
  g.pointwise({.mode = CUDNN_POINTWISE_DIV, .x = weight, .b = &sum}, p);
  g.matmul(p, v, out);
}

// The gradient of keys or values: y = a b, added over the query heads that share a key head.
void key_gradient(Graph& g, const AttentionShape& s, const Layout& l, const Descriptor& a,
                  const Descriptor& b, const Descriptor& y) {
  if (s.H == s.K) return g.matmul(a, b, y);
  Descriptor& of_query_head = g.between(kBf16, l.queries, l.contiguous);
  g.matmul(a, b, of_query_head);
  g.reduce(CUDNN_REDUCE_TENSOR_ADD, of_query_head, y);
}

void backward(Graph& g, const AttentionShape& s) {
  const Layout l(s);
  Descriptor& q = g.tensor(kQ, kBf16, l.queries, strides_of(s.q, s.D));
  Descriptor& k = g.tensor(kK, kBf16, l.keys_transposed, transposed(strides_of(s.k, s.D)));
  Descriptor& v = g.tensor(kV, kBf16, l.keys_transposed, transposed(strides_of(s.v, s.D)));
  Descriptor& out = g.tensor(kOut, kBf16, l.queries, l.out_strides);
  Descriptor& dout = g.tensor(kDout, kBf16, l.queries, l.out_strides);
  Descriptor& lse = g.tensor(kLse, kFloat, l.rows, l.row_strides);
  Descriptor& dq = g.tensor(kDq, kBf16, l.queries, strides_of(s.dq, s.D));
  Descriptor& dk = g.tensor(kDk, kBf16, l.keys, strides_of(s.dk, s.D));
  Descriptor& dv = g.tensor(kDv, kBf16, l.keys, strides_of(s.dv, s.D));
  Descriptor &scale = g.scalar(kScale), &one = g.scalar(kOne);

  // delta = the row sums of dout out
  Descriptor &dout_out = g.between(kFloat, l.queries), &row_sum = g.between(kFloat, l.rows);
  Descriptor& delta = g.tensor(kDelta, kFloat, l.rows, l.row_strides);
  g.pointwise({.mode = CUDNN_POINTWISE_MUL, .x = dout, .b = &out}, dout_out);
  g.reduce(CUDNN_REDUCE_TENSOR_ADD, dout_out, row_sum);
  g.pointwise({.mode = CUDNN_POINTWISE_MUL, .x = row_sum, .b = &one}, delta);

  // p = exp(scale q k^T - lse), causal; dv = p^T dout
  Descriptor &product = g.between(kFloat, l.scores), &scores = g.between(kFloat, l.scores),
             &shifted = g.between(kFloat, l.scores);
  g.matmul(q, k, product);
  g.pointwise({.mode = CUDNN_POINTWISE_MUL, .x = product, .b = &scale}, scores);
  g.pointwise({.mode = CUDNN_POINTWISE_SUB, .x = scores, .b = &lse}, shifted);
  const Descriptor& masked = causal(g, l, shifted);
  Descriptor &p = g.between(kFloat, l.scores),
             &p_transposed = g.between(kBf16, l.scores, l.transposed_scores);
  g.pointwise({.mode = CUDNN_POINTWISE_EXP, .x = masked}, p);
  g.reshape(p, p_transposed);
  key_gradient(g, s, l, p_transposed, dout, dv);

  // ds = scale p (dout v^T - delta); dk = ds^T q, dq = ds k
  Descriptor &dp = g.between(kFloat, l.scores), &centred = g.between(kFloat, l.scores),
             &weighted = g.between(kFloat, l.scores), &ds = g.between(kBf16, l.scores),
             &ds_transposed = g.between(kBf16, l.scores, l.transposed_scores);
  g.matmul(dout, v, dp);
  g.pointwise({.mode = CUDNN_POINTWISE_SUB, .x = dp, .b = &delta}, centred);
  g.pointwise({.mode = CUDNN_POINTWISE_MUL, .x = centred, .b = &p}, weighted);
  g.pointwise({.mode = CUDNN_POINTWISE_MUL, .x = weighted, .b = &scale}, ds);
  g.reshape(ds, ds_transposed);
  key_gradient(g, s, l, ds_transposed, q, dk);
  Descriptor& k_rows = g.between(kBf16, l.keys, strides_of(s.k, s.D));
  g.reshape(k, k_rows);
  if (s.deterministic) return g.matmul(ds, k_rows, dq);
  Descriptor& dq_sum = g.tensor(kDqSum, kFloat, l.queries, l.contiguous);
  g.matmul(ds, k_rows, dq_sum);
  g.pointwise({.mode = CUDNN_POINTWISE_IDENTITY, .x = dq_sum}, dq);
}

}  // namespace

Graph attention_graph(const Library& library, const AttentionShape& shape) {
  Graph graph(library);
  if (shape.backward)
    backward(graph, shape);
  else
    forward(graph, shape);
  return graph;
}

int64_t attention_workspace_bytes(const AttentionShape& shape) {
  constexpr int64_t kTile = 128, kBeside = 4096;
  if (!shape.backward) return kBeside;
  const int64_t T = (shape.T + kTile - 1) / kTile * kTile, heads = shape.B * shape.H;
  const int64_t dq_bytes = heads * T * (shape.deterministic ? 2 * T : 4 * shape.D);
  const int64_t shared_keys_bytes = shape.H == shape.K ? 0 : heads * T * 4 * shape.D;
  return dq_bytes + shared_keys_bytes + kBeside;
}

}  // namespace keen::ops::cudnn
