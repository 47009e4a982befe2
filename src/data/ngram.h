// The loss of counting: what a bigram model scores on the validation tokens, as a floor to compare a GPT's
// loss with.
#pragma once

#include <cstdint>
#include <vector>

#include "data/shard.h"

namespace keen {

struct NgramLoss {
  double unigram = 0, bigram = 0;                   // cross-entropy in nats per token
  int64_t train_tokens = 0, validation_tokens = 0;  // that were counted and scored
};

// Counts the train shards, and scores every validation token that has a token before it in its shard.
//
//   p1(b)     = (c(b) + 1) / (N + V)
//   p2(b | a) = max(c(a, b) - d, 0) / c(a) + d t(a) / c(a) p1(b)        p2(b | a) = p1(b) where c(a) = 0
//
// c counts occurrences (c(a) as the first of a pair), N is the number of tokens counted, V the vocabulary,
// t(a) the number of different tokens seen after a. This is interpolated absolute discounting, with the
// discount d = n1 / (n1 + 2 n2) from the numbers of pairs seen once and twice (Ney, Essen and Kneser, "On
// structuring probabilistic dependences in stochastic language modelling", 1994). Nothing is tuned on the
// validation tokens.
//
// At most `most_tokens` train tokens, the first, are counted, and as many validation tokens scored. Up to
// 8192 ids the counts of pairs are one table, above it a hash map. Without a pair to score the losses are 0.
// Every id must be below `vocab_size`.
NgramLoss ngram_loss(const std::vector<Shard>& train, const std::vector<Shard>& validation,
                     int64_t vocab_size, int64_t most_tokens);

}  // namespace keen
