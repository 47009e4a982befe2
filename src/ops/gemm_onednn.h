// Matrix products of float32 and bf16 on the CPU, by oneDNN. Only gemm.cpp includes this.
#pragma once

#include "ops/gemm.h"

namespace keen::ops {

// What oneDNN wants as scratchpad for this product, in bytes. Makes the primitive, or finds it in ctx.gemm,
// where primitives are kept by shape, types and number of threads. Reads no memory of the tensors.
int64_t onednn_workspace_bytes(Context& ctx, const Gemm& args);

// Runs it; `workspace` has at least that many bytes.
void onednn_gemm(Context& ctx, const Gemm& args, Tensor workspace);

// Whether bf16 products are faster than float32 ones: with AMX, and with avx512_bf16 where the processor is
// not Intel's. Measured on two cores: a Zen 4 does 340 to 430 GFLOP/s in bf16 and 200 to 220 in float32, a
// Xeon (Sapphire Rapids) whose AMX is hidden 140 in bf16 and 230 in float32.
bool onednn_is_fast_at_bf16();

}  // namespace keen::ops
