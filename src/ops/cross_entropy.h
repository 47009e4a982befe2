// Cross-entropy of next-token prediction, and the gradient of the logits. The arithmetic is the wide
// type's also where dlogits is bf16 (rounded once). A NaN or +infinity among the logits makes the loss of its
// row NaN.
#pragma once

#include "core/context.h"

namespace keen::ops {

struct CrossEntropy {
  Tensor losses;   // (N)     wide; overwritten: log sum_j exp(logits_j) - logits_target, in nats
  Tensor dlogits;  // (N, V)  wide or bf16; overwritten: (softmax(logits) - onehot(target)) * scale; optional;
                   //         may alias logits where the types are equal
  ConstTensor logits;   // (N, V)  wide
  ConstTensor targets;  // (N)     int32, each in [0, V)
  int64_t columns = 0;  // where rows are longer than the vocabulary: its size. What lies behind is not read,
                        // and has a gradient of zero. 0: all are of the vocabulary
  double scale = 1;     // of the gradient: 1 / tokens of the global batch gives the gradient of the mean loss
};
void cross_entropy(Context& ctx, const CrossEntropy& args);

// The body; the .cpp defines Device::cpu, the .cu Device::cuda.
template <Device> void cross_entropy_on(Context& ctx, const CrossEntropy& args);

}  // namespace keen::ops
