// The plainest ops: sums, copies between types, zeros.
#pragma once

#include "core/context.h"

namespace keen::ops {

// y = a + b, all of one shape and type. y may alias a or b.
void add(Context& ctx, Tensor y, ConstTensor a, ConstTensor b);

// y = x converted to y's type, rounded to nearest. The same number of elements; no aliasing.
void convert(Context& ctx, Tensor y, ConstTensor x);

// y = 0.
void zero(Context& ctx, Tensor y);

// The bodies; the .cpp defines Device::cpu, the .cu Device::cuda.
template <Device> void add_on(Context& ctx, Tensor y, ConstTensor a, ConstTensor b);
template <Device> void convert_on(Context& ctx, Tensor y, ConstTensor x);
template <Device> void zero_on(Context& ctx, Tensor y);

}  // namespace keen::ops
