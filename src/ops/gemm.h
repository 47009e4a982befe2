// Matrix product with accumulation in the wide type, and what is computed along with it: the one door to the
// GEMM library.
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

  // What goes along with the product, each optional. The first two are of c's type, which is a's, and not
  // with accumulate.
  Tensor gelu_input{};    // (M, N)  overwritten with op(a) op(b) + bias; c is the GELU of it
  ConstTensor gelu_at{};  // (M, N)  c is multiplied by the slope of GELU at this; not with bias
  Tensor a_sums{};        // (M) of the wide type; added to: the sums over K of op(a). Needs transpose_a;
                          //     not with bias or GELU
  bool is_plain() const { return !gelu_input && !gelu_at && !a_sums; }
};

// On the CPU c = a b^T + bias of at most this many rows, in float32 or bf16, is a loop of keen's own, by
// which a row is the same to the last bit however many there are. With more rows, or not of this form, a row
// may depend on how many there are by rounding.
constexpr int64_t kFewRows = 16;

// c = op(a) op(b) + bias. float32 and bf16 run in the device's library (but for few rows), float64 in a plain
// loop. Workspace comes from ctx.scratch. On CUDA the bias of a bf16 product is rounded to bf16 first, and
// ctx.time_gemms chooses the algorithm, and whether one kernel computes the product and what goes along with
// it; without it kernels of their own do the latter, as on the CPU. Where one kernel does, nothing is rounded
// in between. All three sizes are at least 1; accumulate needs a c of the wide type; c may alias nothing. A
// processor that is not fast at bf16 multiplies bf16 operands as float32 copies in scratch: as exact.
void gemm(Context& ctx, const Gemm& args);

// Whether this machine multiplies bf16 matrices faster than float32 ones: what `precision: auto` asks.
bool fast_bf16(Device device);

// Scratch that a GEMM may take on CUDA: a constant, so that a plan for CUDA can be made on any machine. On
// the CPU the library says for each shape what it needs.
constexpr int64_t kCudaGemmWorkspaceBytes = int64_t{32} << 20;

// What a GEMM takes from ctx.scratch.
struct GemmScratch {
  Tensor workspace;  // of the library
  Tensor sums;       // with a_sums: partial sums of `a` (ops/column_sums.h)
};

// The body; gemm.cpp defines Device::cpu, gemm_cuda.cpp Device::cuda, where the bias is of c's type.
template <Device> void gemm_on(Context& ctx, const Gemm& args, const GemmScratch& scratch);

// The two halves of a GEMM whose kernels are apart: the plain product, and what goes along with it.
Gemm plain_product(const Gemm& args);
void after_product(Context& ctx, const Gemm& args, const GemmScratch& scratch);

}  // namespace keen::ops
