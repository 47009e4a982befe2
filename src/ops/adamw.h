// AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019) over flat arrays that hold
// many parameters one behind the other, and the norms of their gradients.
#pragma once

#include <span>

#include "core/context.h"

namespace keen::ops {

// One parameter tensor, or a slice of it, inside the flat arrays. Segments come in ascending order and do not
// overlap; elements between them are left as they are.
struct Segment {
  int64_t begin, end;   // elements
  double weight_decay;  // 0 for vectors
  int64_t updates;      // updates of this parameter including the coming one, for the bias correction; >= 1
  bool learned = true;  // false: left as it is
};

struct AdamW {
  Tensor value;    // (n)  wide master weights; updated
  Tensor rounded;  // (n)  bf16 copy of value; overwritten where learned; optional
  Tensor m, v;  // (n)  wide; averages of the clipped gradient and its square, before bias correction; updated
  ConstTensor grad;  // (n)  wide
  std::span<const Segment> segments;
  double lr, beta1, beta2, eps;
  double grad_scale = 1;  // applied to grad first: clipping
};
// g = grad_scale grad;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
// value -= lr (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay value)
// with t = segment.updates.
void adamw(Context& ctx, const AdamW& args);

// sums[i] = sum of x^2 over segment i, in float64 and in a fixed order; segments that are not learned give 0.
// x (n) wide, sums (number of segments) float64.
void sum_of_squares(Context& ctx, Tensor sums, ConstTensor x, std::span<const Segment> segments);

// The bodies; the .cpp defines Device::cpu, the .cu Device::cuda. `partial` is scratch: one float64 for every
// kSumChunk elements of a segment (the last chunk of a segment may be shorter), added in order.
constexpr int64_t kSumChunk = 1 << 14;
template <Device> void adamw_on(Context& ctx, const AdamW& args);
template <Device>
void sum_of_squares_on(Context& ctx, Tensor sums, ConstTensor x, std::span<const Segment> segments,
                       Tensor partial);

}  // namespace keen::ops
