// RoPE and the row scale of SSMax, in one pass over queries and keys:
//   q' = c(h, n) RoPE(q),  k' = RoPE(k),  c(h, n) = s_h ln n + b_h,  n = keys that the query's row sees.
// Softmax attention on q', k', v is then SSMax attention (Nakanishi, "Scalable-Softmax Is Superior for
// Attention", 2025). RoPE is Su et al., "RoFormer", 2021, rotating the pairs (i, i + D/2) by position *
// theta^(-2i/D).
#pragma once

#include "core/context.h"
#include "ops/heads.h"

namespace keen::ops {

// The heads that change: with RoPE queries and keys, without it the queries alone, M = H + K or H.
inline int64_t changed_heads(const HeadLayout& layout, const ConstTensor& rotation) {
  return rotation ? layout.H + layout.K : layout.H;
}

struct RotateAndScale {
  Tensor qk;  // (N, M D)     overwritten: q' then, with RoPE, k'; rounded once to its type. May be the same
              //              tensor as x
  ConstTensor x;  // (N, W)       W >= M D; its first columns are the query heads, then the key heads
  ConstTensor
      rotation;       // (P, R, 2)    wide; cos and sin per position and pair; R <= D/2 pairs are rotated, the
                      //              others stay as they are (p-RoPE). Absent: no RoPE
  ConstTensor log_n;  // (P)          wide; ln 1, ln 2, ..., ln P. Read only with s
  ConstTensor s, b;   // (H)          wide; s absent: c = 1, and b is absent too. b absent: 0
  HeadLayout layout;
  int64_t T;                   // tokens a sequence in x
  int64_t first_position = 0;  // tokens of the same sequence that came before (KV cache)
};
// Row i of a sequence stands at position first_position + i and sees n = first_position + i + 1 keys. Raises
// on other shapes or types, and when first_position + T > P.
void rotate_and_scale(Context& ctx, const RotateAndScale& args);

struct RotateAndScaleBackward {
  Tensor dqkv;  // (N, W)   its first M D columns hold dL/dq', dL/dk' and are overwritten with dL/dq, dL/dk as
                //          they were before this op; further columns are left alone
  Tensor ds, db;  // (H)      wide; added to: sum of ln n <g, q> and of <g, q>, with g = RoPE^T dL/dq' and the
                  //          raw q: no division by s or c, which may be 0. Fixed order. Each optional
  ConstTensor x;  // (N, W')  as in the forward op
  ConstTensor rotation;  // (P, R, 2)
  ConstTensor log_n;     // (P)
  ConstTensor s, b;      // (H)
  HeadLayout layout;
  int64_t T;
};
// dq = c g. The sums for ds and db are taken in chunks of rows that are added in order (ops/column_sums.h).
// Scratch: their partial sums. ds and db need s.
void rotate_and_scale_backward(Context& ctx, const RotateAndScaleBackward& args);

// The bodies; the .cpp defines Device::cpu, the .cu Device::cuda. `partial` is scratch for the sums of ds,
// then db: (chunks, 2H) wide, on the CPU (chunks, 2HD); without either no columns. The CPU sums a head's
// columns over rows first and over D once a chunk: a sum across a register for every row took longer than the
// rotation.
template <Device> void rotate_and_scale_on(Context& ctx, const RotateAndScale& args);
template <Device>
void rotate_and_scale_backward_on(Context& ctx, const RotateAndScaleBackward& args, Tensor partial);

// Writes the tables on the host: rotation (P, R, 2) with angle(p, i) = p theta^(-2i/D), and log_n (P), both
// computed in double and rounded to the tensor's type. The tensors lie in host memory.
void fill_rotation(Tensor rotation, double theta, int64_t D);
void fill_log_n(Tensor log_n);

}  // namespace keen::ops
