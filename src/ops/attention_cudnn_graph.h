// Attention as graphs for cuDNN. The library plans them as one fused kernel each way if their operations
// stand in the order in which it looks for them; this is that order.
#pragma once

#include "ops/cudnn_graph.h"

namespace keen::ops::cudnn {

// Where the heads of one tensor lie, in elements (ops/heads.h).
struct HeadStrides {
  int64_t sequence = 0, token = 0;
  auto operator<=>(const HeadStrides&) const = default;
};

// What one plan is for. dq, dk and dv matter to the backward pass alone.
struct AttentionShape {
  int64_t B, T, H, K, D;
  bool backward = false, deterministic = false;
  HeadStrides q, k, v, dq{}, dk{}, dv{};
  auto operator<=>(const AttentionShape&) const = default;
};

// The tensors in memory. Types and dimensions: q, out, dout, dq (B, H, T, D), k, v, dk, dv (B, K, T, D) bf16;
// lse and delta (B, H, T) and dq_sum (B, H, T, D) contiguous, float32. The forward pass has q, k, v, out,
// lse; the backward pass reads these and dout, and writes dq, dk, dv and, on its way, delta. dq_sum only
// exists where the pass need not be deterministic: there partial sums of dq are added in any order.
enum Id : int64_t {
  kQ = 1,
  kK,
  kV,
  kOut,
  kLse,
  kDout,
  kDq,
  kDk,
  kDv,
  kDelta,
  kDqSum,
  kScale,
  kMinusInfinity,
  kOne
};

Graph attention_graph(const Library& library, const AttentionShape& shape);

// What a plan of this shape may take as workspace, dq_sum not included: enough for every kernel of cuDNN 9.19
// on sm_80, sm_90 and sm_100, so that memory can be planned where there is no cuDNN. It holds, in the
// backward pass, for every query head sums of dq in float32 or (deterministic) its bf16 gradients of scores,
// T x T, and where heads share keys also the bf16 dk and dv of every query head.
int64_t attention_workspace_bytes(const AttentionShape& shape);

}  // namespace keen::ops::cudnn
