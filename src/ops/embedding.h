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
  Tensor dtokens;  // (V, C)  wide; added to, in an order that depends on ids alone: rows ascending on the CPU
  Tensor dpositions;  // (P, C)  wide; added to; optional
  ConstTensor dy;     // (N, C)
  ConstTensor ids;    // (N)
  int64_t T;
};
// Scratch on CUDA: TokenOrder.
void embedding_backward(Context& ctx, const EmbeddingBackward& args);

// What CUDA needs to sort rows by token and to add those of one token in parallel: about 20 bytes a row and a
// sixteenth of dy's elements. Empty on the CPU, whose threads divide the columns instead.
struct TokenOrder {
  Tensor ids, rows;  // (2, N)                  int32; from and to of a pass of the sort
  Tensor counts;     // (kSortDigits, tiles)    int32; tiles of kSortTile rows
  Tensor border;  // (runs, 2, C)            float32; sums of tokens that reach over the ends of a run of kRun
                  // rows
};
constexpr int kSortDigits = 256, kSortTile = 2048, kRun = 32;

// The bodies; the .cpp defines Device::cpu, the .cu Device::cuda.
template <Device> void embedding_on(Context& ctx, const Embedding& args);
template <Device>
void embedding_backward_on(Context& ctx, const EmbeddingBackward& args, const TokenOrder& order);

}  // namespace keen::ops
