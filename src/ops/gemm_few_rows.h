// Matrix products of few rows on the CPU, as decoding has them: c = a b^T + bias in float32 or bf16. Of other
// files only gemm.cpp includes this.
#pragma once

#include "ops/gemm.h"

namespace keen::ops {

// Whether a plain product (Gemm::is_plain) is one of these.
bool has_few_rows(const Gemm& product);

// Each lane of each element is one chain of multiply-adds over k in the same order, whatever M, N and the
// number of threads are. bf16 rows are copied as float32 to ctx.scratch.
void gemm_few_rows(Context& ctx, const Gemm& product);

}  // namespace keen::ops
