// The rows of a batch sorted by token id, those of one id in ascending order, so that the gradient of an
// embedding can be added up without atomics.
#pragma once

#include "core/launch.cuh"
#include "ops/embedding.h"

namespace keen::ops {

struct SortedTokens {
  const int32_t *ids, *rows;  // (N); inside the scratch of `order`
};

// ids (N), each in [0, V).
SortedTokens sort_tokens(Context& ctx, const TokenOrder& order, ConstTensor ids, int64_t V);

}  // namespace keen::ops
