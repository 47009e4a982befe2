// Matrix product with accumulation in the wide type: the one door to the GEMM library.
#pragma once

#include "core/context.h"

namespace keen::ops {

struct Gemm {
  Tensor c;       // (M, N)  A's type or the wide type
  ConstTensor a;  // (M, K), or (K, M) when transpose_a
  ConstTensor b;  // (K, N), or (N, K) when transpose_b; A's type
  ConstTensor bias{};  // (N) of the wide type, added to every row; optional; not with accumulate
  bool transpose_a = false, transpose_b = false;
  bool accumulate = false;  // c += a b instead of c = a b
};

// c = op(a) op(b) + bias. float32 and bf16 run in the device's library, float64 in a plain loop. The library's
// workspace comes from ctx.scratch. Rows of c do not depend on how many other rows there are beyond rounding.
void gemm(Context& ctx, const Gemm& args);

}  // namespace keen::ops
