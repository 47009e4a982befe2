// LayerNorm (Ba, Kiros and Hinton, "Layer Normalization", 2016).
#pragma once

#include "core/context.h"

namespace keen::ops {

struct LayerNorm {
  Tensor y;              // (N, C)  overwritten with (x - mean) * rstd * w + bias; may alias x
  Tensor mean;           // (N)     wide; overwritten
  Tensor rstd;           // (N)     wide; overwritten: 1 / sqrt(var + eps), var without Bessel's correction
  ConstTensor x;         // (N, C)
  ConstTensor w;         // (C)     wide
  ConstTensor bias;      // (C)     wide; optional
  double eps;            //
  ConstTensor branch{};  // (N, C)  added to x first, and rounded to its type; optional
  Tensor sum{};  // (N, C)  overwritten with x + branch, where there is one; may alias x or branch, not y
};
// Of the rounded sum where there is a branch: the same bits as `add` before it. Raises on other shapes or
// types.
void layernorm(Context& ctx, const LayerNorm& args);

struct LayerNormBackward {
  Tensor dx;                // (N, C)  overwritten; may alias dy or dresidual
  Tensor dw;                // (C)     wide; added to
  Tensor dbias;             // (C)     wide; added to; optional
  ConstTensor dy;           // (N, C)
  ConstTensor x;            // (N, C)
  ConstTensor w;            // (C)
  ConstTensor mean;         // (N)
  ConstTensor rstd;         // (N)
  ConstTensor dresidual{};  // (N, C)  what reaches x past the norm; absent: 0
};
// With z = (x - mean) rstd: dx = dresidual + rstd (dy w - mean(dy w) - z mean(dy w z)), rounded once; dw +=
// sum over rows of dy z, dbias += sum over rows of dy: in chunks of rows that are added in order
// (ops/column_sums.h), so the bits do not depend on the number of threads. Scratch: their partial sums.
void layernorm_backward(Context& ctx, const LayerNormBackward& args);

// The bodies; the .cpp defines Device::cpu, the .cu Device::cuda. `partial` is scratch, (chunks, C or 2C)
// wide: dw, then dbias if it is wanted.
template <Device> void layernorm_on(Context& ctx, const LayerNorm& args);
template <Device> void layernorm_backward_on(Context& ctx, const LayerNormBackward& args, Tensor partial);

}  // namespace keen::ops
