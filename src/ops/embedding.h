// Token and learned position embeddings. y, tokens, positions and dy share one type. Ids are not checked
// here: the loader does.
#pragma once

#include "core/context.h"

namespace keen::ops {

struct Embedding {
  Tensor y;                    // (N, C)  overwritten: tokens[id] (+ positions[first_position + row mod T])
  ConstTensor ids;             // (N)     int32, each in [0, V)
  ConstTensor tokens;          // (V, C)
  ConstTensor positions;       // (P, C)  optional
  int64_t T;                   // tokens a sequence
  int64_t first_position = 0;  // of every sequence; first_position + T <= P
};
void embedding(Context& ctx, const Embedding& args);

struct EmbeddingBackward {
  Tensor dtokens;  // (V, C)  wide; added to, rows in ascending order: the same bits on any number of threads
  Tensor dpositions;  // (P, C)  wide; added to; optional
  ConstTensor dy;     // (N, C)
  ConstTensor ids;    // (N)
  int64_t T;
};
void embedding_backward(Context& ctx, const EmbeddingBackward& args);

// The bodies; the .cpp defines Device::cpu, the .cu Device::cuda.
template <Device> void embedding_on(Context& ctx, const Embedding& args);
template <Device> void embedding_backward_on(Context& ctx, const EmbeddingBackward& args);

}  // namespace keen::ops
