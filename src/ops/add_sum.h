// The sum of many numbers, added to a total.
#pragma once

#include "core/context.h"

namespace keen::ops {

// total += (sum of x) / divisor, in float64 and in a fixed order. total (1) float64, x (n) float32 or
// float64.
void add_sum(Context& ctx, Tensor total, ConstTensor x, double divisor);

// The body; the .cpp defines Device::cpu, the .cu Device::cuda.
template <Device> void add_sum_on(Context& ctx, Tensor total, ConstTensor x, double divisor);

}  // namespace keen::ops
