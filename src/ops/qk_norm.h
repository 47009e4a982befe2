// QK-norm: RMSNorm of every query head and every key head, before RoPE (Henry et al., "Query-Key
// Normalization for Transformers", 2020; the RMSNorm form with a weight per head width is the one of Gemma 3
// and Qwen 3).
#pragma once

#include "core/context.h"
#include "ops/heads.h"

namespace keen::ops {

struct QkNorm {
  Tensor qk;             // (N, (H+K)D)   overwritten: normalized query heads, then key heads
  Tensor rstd;           // (N, H+K)      wide; overwritten
  ConstTensor qkv;       // (N, (H+2K)D)
  ConstTensor q_weight;  // (D)           wide
  ConstTensor k_weight;  // (D)           wide
  HeadLayout layout;
  double eps;
};
// y = x * rstd * weight per head, as rmsnorm. No aliasing; other shapes or types raise.
void qk_norm(Context& ctx, const QkNorm& args);

struct QkNormBackward {
  Tensor dqkv;       // (N, (H+2K)D)  its first (H+K)D columns hold dL/d(normalized) and are overwritten with
                     //               dL/d(raw); the columns of the values are left alone
  Tensor dq_weight;  // (D)           wide; added to
  Tensor dk_weight;  // (D)           wide; added to
  ConstTensor rstd;  // (N, H+K)
  ConstTensor qkv;   // (N, (H+2K)D)
  ConstTensor q_weight;  // (D)
  ConstTensor k_weight;  // (D)
  HeadLayout layout;
};
// The weights' gradients are summed over rows and heads in chunks of rows that are added in order
// (ops/column_sums.h), so the bits do not depend on the number of threads. Scratch: their partial sums.
void qk_norm_backward(Context& ctx, const QkNormBackward& args);

// The bodies; the .cpp defines Device::cpu, the .cu Device::cuda. `partial` is scratch, (chunks, 2D) wide:
// the gradient of q_weight, then that of k_weight.
template <Device> void qk_norm_on(Context& ctx, const QkNorm& args);
template <Device> void qk_norm_backward_on(Context& ctx, const QkNormBackward& args, Tensor partial);

}  // namespace keen::ops
