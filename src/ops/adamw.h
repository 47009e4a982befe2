// AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019) over flat arrays that hold
// many parameters one behind the other, and the norms of their gradients.
#pragma once

#include <span>

#include "core/context.h"

namespace keen::ops {

// One parameter tensor, or a slice of it, inside the flat arrays. Segments do not overlap and may be empty;
// elements between them are left as they are.
struct Segment {
  int64_t begin, end;   // elements
  double weight_decay;  // 0 for vectors
  int64_t updates;      // updates of this parameter including the coming one, for the bias correction; >= 1
  bool learned = true;  // false: left as it is
  int64_t shift = 0;    // element i of grad is element i - shift of arrays of owned elements; a multiple of 4
};

// A rank that updates only a part of the parameters has m and v, and perhaps value, of the owned elements
// alone, k <= n of them, and segments that lie inside of what it owns.
struct AdamW {
  Tensor value;    // (n) or (k)  wide master weights; updated
  Tensor rounded;  // (n)  bf16 copy of value; overwritten where learned; optional
  Tensor m, v;  // (k)  wide; averages of the clipped gradient and its square, before bias correction; updated
  ConstTensor grad;  // (n)  wide
  std::span<const Segment> segments;
  double lr, beta1, beta2, eps;
  double grad_scale = 1;  // applied to grad first
  ConstTensor clip{};  // (2)  from clip_factor; its factor is applied to grad too, and where its norm is not
                       //      finite nothing changes; optional
};
// g = grad_scale factor grad;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
// value -= lr (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay value)
// with t = segment.updates. Scratch on CUDA: the table of segments.
void adamw(Context& ctx, const AdamW& args);

// sums[i] = sum of x^2 over segment i, in float64 and in a fixed order; segments that are not learned give 0.
// x (n) wide, sums (number of segments) float64.
void sum_of_squares(Context& ctx, Tensor sums, ConstTensor x, std::span<const Segment> segments);

// clip (2) float64 is overwritten with the global norm, sqrt(sum of square_sums), and the factor that brings
// it to at most `largest_norm`: 1 where it is smaller already, or where largest_norm is 0. square_sums (n)
// float64, at least one. With `loss` (1) float64 given and not finite, the norm is NaN. Lies where the other
// tensors do: the host need not wait for it.
void clip_factor(Context& ctx, Tensor clip, ConstTensor square_sums, double largest_norm,
                 ConstTensor loss = {});

// The bodies; the .cpp defines Device::cpu, the .cu Device::cuda. `partial` is scratch: one float64 for every
// kSegmentChunk elements of a segment (the last chunk of a segment may be shorter), added in a fixed order.
// `table` is scratch for the segments on CUDA, kSegmentWords float64 each, and empty on the CPU.
constexpr int64_t kSegmentChunk = 1 << 14;
constexpr int64_t kSegmentWords = 6;
template <Device> void adamw_on(Context& ctx, const AdamW& args, Tensor table);
template <Device>
void sum_of_squares_on(Context& ctx, Tensor sums, ConstTensor x, std::span<const Segment> segments,
                       Tensor partial, Tensor table);
template <Device>
void clip_factor_on(Context& ctx, Tensor clip, ConstTensor square_sums, double largest_norm,
                    ConstTensor loss);

}  // namespace keen::ops
