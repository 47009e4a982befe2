// The loader: which tokens make up which sequence. It keeps no state: the number of sequences consumed so
// far, which a checkpoint stores, says all.
#pragma once

#include <cstdint>
#include <vector>

#include "data/dataset.h"

namespace keen {

// All windows of a dataset in order. A window is `context` + 1 tokens inside one shard; windows tile each
// shard with stride `context` (the last token of one is the first of the next), and none crosses a shard: a
// shard of n tokens holds floor((n - 1) / context), a shard shorter than a window none. Evaluation reads them
// in this order. Raises Exit::data, saying how many tokens are needed, when no shard holds a window. The
// dataset must outlive it.
class SequentialWindows {
 public:
  SequentialWindows(const Dataset& dataset, int64_t context);

  int64_t count() const { return first_.back(); }
  int64_t context() const { return context_; }
  // Window `id`: its first `context` tokens to `inputs` (context), its last `context` to `targets` (context).
  void window(int64_t id, int32_t* inputs, int32_t* targets) const;
  // Windows [first, first + count) as `inputs` and `targets` (count, context), overwritten.
  void fill(int64_t first, int64_t count, int32_t* inputs, int32_t* targets) const;

 private:
  const Dataset* dataset_;
  int64_t context_;
  std::vector<int64_t> first_;  // each shard's first window, and the total
};

// A bijection of [0, size) that depends on `seed` and `epoch` alone: a Feistel network of 8 rounds over pairs
// of h-bit halves, 4^h being the smallest power of 4 not below `size`, whose round function is Philox; an
// image outside [0, size) is mapped again until it falls inside (cycle walking: Black and Rogaway, "Ciphers
// with Arbitrary Finite Domains", 2002), which takes at most 4 tries on average.
int64_t permuted(uint64_t seed, int64_t epoch, int64_t size, int64_t index);

// The order in which training reads windows. Sequence q, counted from the start of training, is the window
// permuted(seed, q / windows, windows, q mod windows): every epoch reads every window once, in an order of
// its own. A batch is a range of sequences: it may straddle epochs, its size may change at any time, and any
// number of ranks reads the same order by taking parts of the range. The dataset must outlive the loader.
class Loader {
 public:
  Loader(const Dataset& dataset, int64_t context, uint64_t seed) : windows_(dataset, context), seed_(seed) {}

  // Windows an epoch.
  int64_t windows() const { return windows_.count(); }
  int64_t context() const { return windows_.context(); }
  // The window, in order of shards, that sequence `sequence` >= 0 reads.
  int64_t sample_id(int64_t sequence) const;
  // Sequences [first_sequence, first_sequence + count) as `inputs` and `targets` (count, context),
  // overwritten: at each position the token, and the token that follows it.
  void fill(int64_t first_sequence, int64_t count, int32_t* inputs, int32_t* targets) const;

 private:
  SequentialWindows windows_;
  uint64_t seed_;
};

}  // namespace keen
