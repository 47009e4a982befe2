// What attention.cpp must know of the CUDA kernels to plan their scratch: shapes alone, no CUDA header.
#pragma once

#include <algorithm>

#include "ops/attention.h"

namespace keen::ops::cuda_attention {

// So few queries (decoding) go row by row, their keys shared out over several blocks.
inline constexpr int64_t kFewQueries = 4;
inline constexpr int64_t kLeastKeysPerBlock = 256;

// Blocks that share the keys of one row: as many as it takes to fill a device, whatever the device, so that a
// result is the same on all of one kind.
inline int64_t key_splits(const ConstHeads& q, int64_t T_k) {
  constexpr int64_t kBlocks = 512;
  if (q.T > kFewQueries) return 1;
  const int64_t rows = q.B * q.heads * q.T;
  return std::clamp<int64_t>(kBlocks / rows, 1, (T_k + kLeastKeysPerBlock - 1) / kLeastKeysPerBlock);
}

// Of each part of a row its largest score, the sum of its weights and its weighted sum of values.
inline int64_t forward_work_bytes(const Attention& args) {
  const int64_t splits = key_splits(args.q, args.k.T);
  return splits == 1 ? 0 : args.q.B * args.q.heads * args.q.T * splits * (args.q.D + 2) * size_of(DType::f32);
}

}  // namespace keen::ops::cuda_attention
