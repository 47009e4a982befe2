// Matrix products of few rows on the CPU, as decoding has them: c = a b^T + bias in float32 or bf16. Only
// gemm.cpp includes this.
#pragma once

#include "ops/gemm.h"

namespace keen::ops {

// Whether the product is one of these; it is then plain (Gemm::is_plain).
bool has_few_rows(const Gemm& product);

// Each element is a sum over k in the same order, whatever M, N and the number of threads are. bf16 rows are
// copied as float32 to ctx.scratch.
void gemm_few_rows(Context& ctx, const Gemm& product);

}  // namespace keen::ops
