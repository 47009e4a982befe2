// One transformer block, pre-norm: x += proj(attention(norm1(x))); x += down(act(up(norm2(x)))).
#pragma once

#include <span>
#include <string>
#include <vector>

#include "model/layers.h"
#include "ops/attention.h"
#include "ops/heads.h"

namespace keen {

// Constants of position, shared by all layers. P positions, as many as the longest sequence in use.
struct Tables {
  Tensor rotation;  // (P, R, 2)  cos and sin of RoPE; absent without RoPE
  Tensor log_n;     // (P)        ln n
};
Tables take_tables(const ModelConfig& config, int64_t P, DType dtype, Arena& arena);
// Computes them on the host, in float64, for every device; after the arena has memory.
void fill_tables(const ModelConfig& config, const Tables& tables);

// Sequences of a ragged pass that stand alike and lie one behind the other: `count` of them, the first being
// sequence `first` of the KV cache, each with T new tokens behind the `past` ones that the cache holds.
struct Span {
  int64_t first, count, T, past;
  int64_t rows() const { return count * T; }
};

// What one pass over the model works on: B sequences of T tokens, N = B T rows. A pass that goes on with
// cached sequences of different lengths is ragged: it has T = N rows of B = 1, of which the first belong to
// `spans`, one behind the other; what is left of them is padding, which is computed and means nothing. All
// that works on single rows (norms, products, activations) takes the rows together, and only position and
// attention go span by span: so the weights are read once for all sequences.
struct Pass {
  int64_t B, T;
  const Tables* tables;
  ops::AttentionPath path = ops::AttentionPath::fused;
  bool deterministic = false;  // of the backward pass (ops/attention.h)
  std::span<const Span> spans = {};
  int64_t N() const { return B * T; }
};

// Calls body(span, first row) for the spans of a pass, which is one of its own when it is not ragged.
template <class F> void for_each_span(const Pass& pass, const F& body) {
  if (pass.spans.empty()) return body(Span{.first = 0, .count = pass.B, .T = pass.T, .past = 0}, int64_t{0});
  int64_t row = 0;
  for (const Span& span : pass.spans) {
    body(span, row);
    row += span.rows();
  }
}

struct Block {
  ops::HeadLayout heads;
  double norm_eps = 0;
  MlpKind mlp = MlpKind::swiglu;
  Norm norm1;
  Dense qkv;                // (H+2K)D from C: all query heads, then keys, then values
  Param* q_norm = nullptr;  // (D)  with QK-norm
  Param* k_norm = nullptr;  // (D)
  Param* s = nullptr;       // (H)  row scale c = s ln n + b; absent: c = 1
  Param* b = nullptr;       // (H)
  Dense proj;               // C from H D
  Norm norm2;
  Dense up;    // F from C; with SwiGLU 2F: the gate's rows first
  Dense down;  // C from F
};

Block make_block(Params& params, const ModelConfig& config, int64_t layer);

// What backward needs, in the order in which forward makes it.
struct BlockActs {
  Tensor x;          // (N, C)         input of the block: the residual stream
  NormStats stats1;  //
  Tensor norm1;      // (N, C)
  Tensor qkv;        // (N, (H+2K)D)   raw projections
  Tensor qk_rstd;    // (N, H+K)       with QK-norm
  Tensor qk_normed;  // (N, (H+K)D)    with QK-norm
  Tensor qk;         // (N, (H+K)D)    queries rotated and scaled, keys rotated; without RoPE the scaled
                     //                queries alone, (N, H D), and with softmax then nothing
  Tensor attn;       // (N, H D)
  Tensor lse;        // (B, H, T)
  Tensor mid;        // (N, C)         x + proj(attn)
  NormStats stats2;  //
  Tensor norm2;      // (N, C)
  Tensor up;         // (N, F or 2F)
  Tensor act;        // (N, F)
};
BlockActs take_block_acts(const Block& block, const Pass& pass, DType dtype, Arena& arena);

// Keys and values of the tokens seen so far, of one layer: those of each sequence in P rows, (sequences * P,
// 2 K D), the keys (rotated) before the values. Where asked for, also the query that the last token of each
// sequence had, as attention read it (rotated and scaled): (sequences, H D).
struct KvCache {
  Tensor kv;
  int64_t P;
  Tensor last_queries = {};
};

// Every addition to the residual stream is made by the norm behind it, in one pass: a block leaves its last
// one to the next block, or to the final norm. So block(x) is acts.mid + branch, `branch` (N, C) being
// overwritten; and with `mid_before`, the acts.mid of the block before, branch holds on entry what that one
// left, and acts.x is made here. Without mid_before acts.x is complete; without branch (backward runs the
// block again) the last product is left out, which no gradient needs. With a cache, the keys and values of
// each span are written behind its `past` tokens, and its queries see all of those; acts.lse is then left
// alone. Overwrites the activations.
void block_forward(Context& ctx, const Block& block, const Pass& pass, BlockActs& acts, Tensor branch,
                   ConstTensor mid_before = {}, KvCache* cache = nullptr);

// block_forward read bottom-up. On entry dx holds dL/dy, on return dL/dx; adds to the gradients of the
// parameters.
void block_backward(Context& ctx, const Block& block, const Pass& pass, const BlockActs& acts, Tensor dx);

}  // namespace keen
