// RMSNorm (Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019).
#pragma once

#include "core/context.h"

namespace keen::ops {

// y = x * rstd * w with rstd = 1 / sqrt(mean(x^2) + eps) per row, statistics in the wide type.
// x, y (N, C); rstd (N) wide; w (C) wide. Overwrites y and rstd; y may alias x. Other shapes or types raise.
void rmsnorm(Context& ctx, Tensor y, Tensor rstd, ConstTensor x, ConstTensor w, double eps);

struct RmsNormBackward {
  Tensor dx;                // (N, C)  overwritten; may alias dy or dresidual
  Tensor dw;                // (C)     wide; added to
  ConstTensor dy;           // (N, C)
  ConstTensor x;            // (N, C)
  ConstTensor w;            // (C)
  ConstTensor rstd;         // (N)
  ConstTensor dresidual{};  // (N, C)  what reaches x past the norm; absent: 0
};
// dx = dresidual + rstd (dy w - x rstd^2 mean(dy w x)), rounded once; dw += sum over rows of dy x rstd: in
// chunks of rows that are added in order (ops/column_sums.h), so the bits do not depend on the number of
// threads. Scratch: their partial sums.
void rmsnorm_backward(Context& ctx, const RmsNormBackward& args);

// The bodies; the .cpp defines Device::cpu, the .cu Device::cuda. `partial` is scratch, (chunks, C) wide.
template <Device>
void rmsnorm_on(Context& ctx, Tensor y, Tensor rstd, ConstTensor x, ConstTensor w, double eps);
template <Device> void rmsnorm_backward_on(Context& ctx, const RmsNormBackward& args, Tensor partial);

}  // namespace keen::ops
