// Causal softmax attention over heads: out_i = sum_j softmax_j(q_i k_j / sqrt(D)) v_j, j over the keys that row i
// sees (visible_keys). The row scale of SSMax is already in q (ops/rotate_and_scale.h), so softmax and SSMax share
// this op. Never holds T x T: scores exist in tiles (Dao et al., "FlashAttention", 2022), except on the reference path.
#pragma once

#include "core/context.h"
#include "ops/heads.h"

namespace keen::ops {

enum class AttentionPath : uint8_t { fused, reference };

struct Attention {
  Tensor out;   // (B * T_q, H D)  overwritten
  Tensor lse;   // (B, H, T_q)     wide; overwritten: natural log of sum_j exp(q_i k_j / sqrt(D)); optional
  ConstHeads q;  // (B, T_q, H, D)
  ConstHeads k;  // (B, T_k, K, D)  T_k >= T_q: the queries are the last T_q tokens; H is a multiple of K
  ConstHeads v;  // (B, T_k, K, D)
  AttentionPath path = AttentionPath::fused;
};
void attention(Context& ctx, const Attention& args);

struct AttentionBackward {
  Heads dq, dk, dv;  // shapes of q, k, v; overwritten; strides may differ from theirs (packed dqkv)
  ConstTensor dout;  // (B * T, H D)
  ConstTensor out;   // (B * T, H D)
  ConstTensor lse;   // (B, H, T)
  ConstHeads q, k, v;  // T_q = T_k = T
  AttentionPath path = AttentionPath::fused;
};
// Deterministic: the same bits on any number of threads.
void attention_backward(Context& ctx, const AttentionBackward& args);

}  // namespace keen::ops
