// Causal softmax attention over heads: out_i = sum_j softmax_j(q_i k_j / sqrt(D)) v_j, j over the keys that
// row i sees (visible_keys). The row scale of SSMax is already in q (ops/rotate_and_scale.h), so softmax and
// SSMax share this op. Never holds T x T: scores exist in tiles (Dao et al., "FlashAttention", 2022) or rows.
#pragma once

#include <string>

#include "core/context.h"
#include "ops/heads.h"

namespace keen::ops {

// fused: tiles that stay in the cache, memory linear in T; on CUDA the flash kernels for bf16 and head widths
// 32, 64, 96 and 128, the reference for what they do not take. cudnn: cuDNN's kernels for what they take
// (ops/attention_cudnn.h), fused for everything else, and on the CPU. reference: one row of scores at a time,
// as the formula reads.
enum class AttentionPath : uint8_t { fused, cudnn, reference };

constexpr std::string_view name_of(AttentionPath path) {
  constexpr std::string_view names[] = {"fused", "cudnn", "reference"};
  return names[static_cast<size_t>(path)];
}

// All tensors of one floating type but lse, which is wide; T_q, T_k, B, H, K and D are at least 1, D may be
// any width. No output may overlap an input. NaN and infinities in q, k, v reach the rows that see them; in a
// value they may reach rows before it too that are computed in one tile with such as see it (0 times NaN).
// Raises when shapes or types disagree, when H is not a multiple of K, or when T_q > T_k.
struct Attention {
  Tensor out;    // (B * T_q, H D)  overwritten
  Tensor lse;    // (B, H, T_q)     wide; overwritten: natural log of sum_j exp(q_i k_j / sqrt(D)); optional
  ConstHeads q;  // (B, T_q, H, D)
  ConstHeads k;  // (B, T_k, K, D)  T_k >= T_q: the queries are the last T_q tokens; H is a multiple of K
  ConstHeads v;  // (B, T_k, K, D)
  AttentionPath path = AttentionPath::fused;
};
void attention(Context& ctx, const Attention& args);

// With p_ij the softmax weights, dp_ij = dout_i v_j and delta_i = sum_j p_ij dp_ij = dout_i out_i:
//   dv_j = sum_i p_ij dout_i,  ds_ij = p_ij (dp_ij - delta_i),  dq_i = sum_j ds_ij k_j / sqrt(D),
//   dk_j = sum_i ds_ij q_i / sqrt(D),
// where j's sums run over the rows that see it, of all query heads that read its head. The weights are
// computed anew from lse. Deterministic: the same bits on any number of threads.
struct AttentionBackward {
  Heads dq, dk, dv;    // shapes of q, k, v; overwritten; strides may differ from theirs (packed dqkv)
  ConstTensor dout;    // (B * T, H D)
  ConstTensor out;     // (B * T, H D)  of the forward pass
  ConstTensor lse;     // (B, H, T)     of the forward pass
  ConstHeads q, k, v;  // T_q = T_k = T
  AttentionPath path = AttentionPath::fused;
  bool deterministic = false;  // the same bits every time, where that costs something: of cudnn alone
};
void attention_backward(Context& ctx, const AttentionBackward& args);

// Why AttentionPath::cudnn would be the fused path here: another device or type than it computes on, heads of
// a width that it does not take, no such library. Empty where it is not. A machine without a device, on which
// a run is only planned, is no reason.
std::string cudnn_refusal(Device device, DType dtype, int64_t D);

// The bodies; the .cpp defines Device::cpu, the .cu Device::cuda. `work` is the device's own scratch (on the
// CPU one row for each thread), `delta` holds the (B, H, T) sums above, wide, for the body to fill.
template <Device> void attention_on(Context& ctx, const Attention& args, Tensor work);
template <Device>
void attention_backward_on(Context& ctx, const AttentionBackward& args, Tensor delta, Tensor work);

}  // namespace keen::ops
