// Matrix product with accumulation in the wide type: the one door to the GEMM library.
#pragma once

#include "core/context.h"

namespace keen::ops {

struct Gemm {
  Tensor c;            // (M, N)  A's type or the wide type
  ConstTensor a;       // (M, K), or (K, M) when transpose_a
  ConstTensor b;       // (K, N), or (N, K) when transpose_b; A's type
  ConstTensor bias{};  // (N) of the wide type, added to every row; optional; not with accumulate
  bool transpose_a = false, transpose_b = false;
  bool accumulate = false;  // c += a b instead of c = a b
};

// c = op(a) op(b) + bias. float32 and bf16 run in the device's library, float64 in a plain loop. The
// library's workspace comes from ctx.scratch. Rows of c do not depend on how many other rows there are beyond
// rounding. On CUDA the bias of a bf16 product is rounded to bf16 first, and ctx.time_gemms chooses the
// algorithm. All three sizes are at least 1; accumulate needs a c of the wide type; c may alias nothing. A
// processor without bf16 arithmetic multiplies bf16 operands as float32 copies in scratch: slower, and as
// exact.
void gemm(Context& ctx, const Gemm& args);

// Whether this machine multiplies bf16 matrices faster than float32 ones: what `precision: auto` asks.
bool fast_bf16(Device device);

// Scratch that a GEMM may take on CUDA: a constant, so that a plan for CUDA can be made on any machine. On
// the CPU the library says for each shape what it needs.
constexpr int64_t kCudaGemmWorkspaceBytes = int64_t{32} << 20;

// The body; gemm.cpp defines Device::cpu, the .cu Device::cuda. `workspace` is scratch memory for the
// library. On CUDA the bias is of c's type.
template <Device> void gemm_on(Context& ctx, const Gemm& args, Tensor workspace);

}  // namespace keen::ops
