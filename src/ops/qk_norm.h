// QK-norm: RMSNorm of every query head and every key head, before RoPE (Henry et al., "Query-Key Normalization for
// Transformers", 2020; the RMSNorm form with a weight per head width is the one of Gemma 3 and Qwen 3).
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
void qk_norm(Context& ctx, const QkNorm& args);

struct QkNormBackward {
  Tensor dqkv;           // (N, (H+2K)D)  its first (H+K)D columns hold dL/d(normalized) and are overwritten with
                         //               dL/d(raw); the columns of the values are left alone
  Tensor dq_weight;      // (D)           wide; added to
  Tensor dk_weight;      // (D)           wide; added to
  ConstTensor rstd;      // (N, H+K)
  ConstTensor qkv;       // (N, (H+2K)D)
  ConstTensor q_weight;  // (D)
  ConstTensor k_weight;  // (D)
  HeadLayout layout;
};
void qk_norm_backward(Context& ctx, const QkNormBackward& args);

}  // namespace keen::ops
