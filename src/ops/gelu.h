// GELU, tanh form, as GPT-2 uses it (Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016):
// y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
#pragma once

#include "core/context.h"

namespace keen::ops {

// x, y of one shape and type; y is overwritten and may alias x.
void gelu(Context& ctx, Tensor y, ConstTensor x);

// dx is overwritten and may alias dy or x.
void gelu_backward(Context& ctx, Tensor dx, ConstTensor dy, ConstTensor x);

// The bodies; the .cpp defines Device::cpu, the .cu Device::cuda.
template <Device> void gelu_on(Context& ctx, Tensor y, ConstTensor x);
template <Device> void gelu_backward_on(Context& ctx, Tensor dx, ConstTensor dy, ConstTensor x);

}  // namespace keen::ops
