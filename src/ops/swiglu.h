// SwiGLU (Shazeer, "GLU Variants Improve Transformer", 2020): y = silu(gate) * up, silu(g) = g / (1 +
// exp(-g)).
#pragma once

#include "core/context.h"

namespace keen::ops {

// gate_up (N, 2F): the gate in the first F columns, up in the last F. y (N, F) is overwritten; no aliasing.
// One type for all; other shapes or types raise.
void swiglu(Context& ctx, Tensor y, ConstTensor gate_up);

// dgate_up (N, 2F) is overwritten and may alias gate_up's memory only if it is the same tensor; dy (N, F).
// With sigma = 1 / (1 + exp(-g)): dup = dy g sigma, dgate = dy up sigma (1 + g (1 - sigma)).
void swiglu_backward(Context& ctx, Tensor dgate_up, ConstTensor dy, ConstTensor gate_up);

// The bodies; the .cpp defines Device::cpu, the .cu Device::cuda.
template <Device> void swiglu_on(Context& ctx, Tensor y, ConstTensor gate_up);
template <Device> void swiglu_backward_on(Context& ctx, Tensor dgate_up, ConstTensor dy, ConstTensor gate_up);

}  // namespace keen::ops
