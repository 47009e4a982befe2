// RMSNorm (Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019).
#pragma once

#include "core/context.h"

namespace keen::ops {

struct RmsNorm {
  Tensor y;              // (N, C)  overwritten with x * rstd * w; may alias x
  Tensor rstd;           // (N)     wide; overwritten: 1 / sqrt(mean(x^2) + eps) over C
  ConstTensor x;         // (N, C)
  ConstTensor w;         // (C)     wide
  double eps;            //
  ConstTensor branch{};  // (N, C)  added to x first, and rounded to its type; optional
  Tensor sum{};  // (N, C)  overwritten with x + branch, where there is one; may alias x or branch, not y
};
// Statistics in the wide type, of the rounded sum where there is a branch: the same bits as `add` before it.
// Raises on other shapes or types.
void rmsnorm(Context& ctx, const RmsNorm& args);

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
template <Device> void rmsnorm_on(Context& ctx, const RmsNorm& args);
template <Device> void rmsnorm_backward_on(Context& ctx, const RmsNormBackward& args, Tensor partial);

}  // namespace keen::ops
