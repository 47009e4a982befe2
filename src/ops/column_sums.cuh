// The second half of a sum over rows on CUDA: every chunk of rows (ops/column_sums.h) has left a row of
// partial sums, and these are added in a fixed order.
#pragma once

#include "core/launch.cuh"
#include "ops/column_sums.h"

namespace keen::ops {

// gradient[i] += sum over chunks of partial[chunk, first_column + i], for every i of `gradient`; float32.
void add_partial_sums(Context& ctx, Tensor gradient, ConstTensor partial, int64_t first_column);

}  // namespace keen::ops
