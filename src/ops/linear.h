// Linear layer: y = x w^T + bias, and its gradients. GEMMs run in oneDNN on the CPU (float64: a plain loop).
#pragma once

#include "core/context.h"

namespace keen::ops {

// x (N, I), w (O, I), y (N, O) of one type; y may also be of the wide type (float32 for bf16 operands), as
// logits are. bias (O) of the wide type, optional. y is overwritten and may alias nothing.
void linear(Context& ctx, Tensor y, ConstTensor x, ConstTensor w, ConstTensor bias = {});

// z = x w^T + bias and y = GELU(z) (ops/gelu.h), both (N, O) of x's type and overwritten.
void linear_gelu(Context& ctx, Tensor y, Tensor z, ConstTensor x, ConstTensor w, ConstTensor bias = {});

struct LinearBackward {
  Tensor dx;                   // (N, I)  overwritten with dy w; optional; may not alias dy
  Tensor dw;                   // (O, I)  wide; added to: dy^T x
  Tensor dbias;                // (O)     wide; added to: column sums of dy; optional
  ConstTensor dy;              // (N, O)
  ConstTensor x;               // (N, I)
  ConstTensor w;               // (O, I)  used for dx alone
  ConstTensor x_is_gelu_of{};  // (N, I)  optional: then dx is the gradient of this, not of x
};
void linear_backward(Context& ctx, const LinearBackward& args);

}  // namespace keen::ops
