// Matrix products of float32 and bf16 on the CPU, by oneDNN. Only gemm.cpp includes this.
#pragma once

#include "ops/gemm.h"

namespace keen::ops {

// What oneDNN wants as scratchpad for this product, in bytes. Makes the primitive, or finds it in ctx.gemm,
// where primitives are kept by shape, types and number of threads. Reads no memory of the tensors.
int64_t onednn_workspace_bytes(Context& ctx, const Gemm& args);

// Runs it; `workspace` has at least that many bytes.
void onednn_gemm(Context& ctx, const Gemm& args, Tensor workspace);

// Whether the processor has bf16 arithmetic (avx512_bf16 or amx_bf16) and oneDNN may use it.
bool onednn_has_bf16();

}  // namespace keen::ops
