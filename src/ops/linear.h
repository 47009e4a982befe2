// Linear layer: y = x w^T + bias, and its gradients. GEMMs run in oneDNN on the CPU (float64: a plain loop).
#pragma once

#include "core/context.h"

namespace keen::ops {

// x (N, I), w (O, I), y (N, O) of one type; y may also be of the wide type (float32 for bf16 operands), as
// logits are. bias (O) of the wide type, optional. y is overwritten and may alias nothing.
void linear(Context& ctx, Tensor y, ConstTensor x, ConstTensor w, ConstTensor bias = {});

struct LinearBackward {
  Tensor dx;       // (N, I)  overwritten with dy w; optional; may not alias dy
  Tensor dw;       // (O, I)  wide; added to: dy^T x
  Tensor dbias;    // (O)     wide; added to: column sums of dy; optional
  ConstTensor dy;  // (N, O)
  ConstTensor x;   // (N, I)
  ConstTensor w;   // (O, I)  used for dx alone
};
void linear_backward(Context& ctx, const LinearBackward& args);

// The body of the bias gradient; linear.cpp defines Device::cpu, the .cu Device::cuda. `partial` (chunks, O)
// is scratch: sums over chunks of rows, which are then added in order (ops/column_sums.h).
template <Device> void add_column_sums_on(Context& ctx, Tensor sums, ConstTensor x, Tensor partial);

}  // namespace keen::ops
