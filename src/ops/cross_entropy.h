// Cross-entropy of next-token prediction, and the gradient of the logits, in one pass over the row.
#pragma once

#include "core/context.h"

namespace keen::ops {

struct CrossEntropy {
  Tensor losses;        // (N)     wide; overwritten: log sum_j exp(logits_j) - logits_target, in nats
  Tensor dlogits;       // (N, V)  overwritten: (softmax(logits) - onehot(target)) * scale; optional; may alias logits
                        //         where the types are equal
  ConstTensor logits;   // (N, V)  wide
  ConstTensor targets;  // (N)     int32, each in [0, V)
  double scale = 1;     // of the gradient: 1 / tokens of the global batch gives the gradient of the mean loss
};
void cross_entropy(Context& ctx, const CrossEntropy& args);

}  // namespace keen::ops
