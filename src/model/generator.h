// Text generation: sequences fed token by token with their keys and values cached, many at once, and the
// choice of the next token.
#pragma once

#include <span>
#include <vector>

#include "core/philox.h"
#include "model/gpt.h"

namespace keen {

// How the next token is drawn from the logits.
struct Sampling {
  double temperature = 1;  // 0: the most likely token
  int64_t top_k = 0;       // only the k most likely tokens; 0: all
  double top_p = 1;        // only the fewest most likely tokens whose probabilities add up to p or more
};

struct ChosenToken {
  int32_t id = 0;
  double logprob = 0;  // ln of its probability under the model as it is: temperature 1, nothing cut off
};

// The token that `uniform` in [0, 1) chooses: tokens are ordered from the most likely on (ties by id), cut by
// top_k, then by top_p on what is left, and drawn in proportion to exp(logit / temperature). Raises
// Exit::non_finite for logits that are NaN or infinite.
ChosenToken choose_token(std::span<const double> logits, const Sampling& sampling, double uniform);

// Feeds tokens to a model that is bound without training. Keys and values of everything fed so far are
// cached, in the arena `activations`: B sequences of at most `capacity` tokens, each as long as it is. SSMax
// needs nothing special: a cached key never changes, and the scale of a new query counts the keys that its
// own sequence has.
//
// Sequences of any lengths go through the model together, in ragged passes without padding between them, so
// that the weights are read once for many. What a sequence computes does not depend on the others: rows go
// through norms, activations and matrix products one by one, and attention works on one sequence at a time,
// cut into the same pieces whoever else is there. On the CPU the logits are equal bit for bit: since a row of
// a product may depend there on the number of rows by rounding, unless they are few (ops/gemm.h), a pass is
// either of at most that many rows or of one sequence.
class Generator {
 public:
  // Tokens of a sequence that one pass takes at most; longer prompts are fed in pieces.
  static constexpr int64_t kPiece = 256;

  struct Feed {
    int64_t sequence;              // in [0, B)
    std::span<const int32_t> ids;  // at least one, at most capacity - length(sequence)
  };

  // Takes the cache and the workspace of one pass from the arena; call inside `bind` of plan_and_allocate. A
  // model with learned positions has a capacity of at most its context. `keep_queries`: for attention().
  Generator(Context& ctx, const Gpt& gpt, int64_t B, int64_t capacity, Arena& activations,
            bool keep_queries = false);

  // Appends tokens to sequences, which ascend. The logits (V) that follow the last token of feeds[i] are
  // logits(i), valid until the next call.
  void feed(std::span<const Feed> feeds);
  std::span<const double> logits(size_t i) const;

  int64_t length(int64_t sequence) const { return length_[static_cast<size_t>(sequence)]; }
  // Forgets all but the first `tokens` tokens of a sequence.
  void truncate(int64_t sequence, int64_t tokens);
  // Makes the first `tokens` tokens of `from` the whole of another sequence: the same as feeding them to it,
  // bit for bit on the CPU where they end with a feed.
  void copy_prefix(int64_t from, int64_t to, int64_t tokens);

  // The weights with which the token that was fed to a sequence last attends to all of its tokens, itself
  // included, in one layer: (H, length), each head's add up to 1. Computed on the host, in float64, from the
  // queries and keys that attention read. Needs keep_queries.
  std::vector<double> attention(int64_t layer, int64_t sequence) const;

 private:
  // A part of a feed that one pass takes.
  struct Piece {
    size_t feed;
    Span span;  // of one sequence
    bool last;  // the feed ends with it: its logits are wanted
  };

  void plan();
  // Rows that a pass has in truth: 2^k or 3 * 2^k. So the GEMM library makes its kernels for few sizes, all
  // of them at the start, and at most a third of the rows are padding. Few rows on the CPU are not the
  // library's.
  int64_t padded(int64_t rows) const;
  // The pieces through all layers; the last rows of the feeds that end with it then wait for the head.
  void run_pass(std::span<const Piece> pieces, std::span<const int32_t> ids);
  // The logits of all rows that wait.
  void run_head();

  Context& ctx_;
  const Gpt& gpt_;
  Arena& arena_;
  int64_t B_, capacity_;
  int64_t most_together_;  // rows of a pass of several pieces
  int64_t most_rows_;      // of any pass, before they are padded
  std::vector<int64_t> length_;
  std::vector<KvCache> caches_;
  std::vector<size_t> waiting_;  // the feeds whose rows are in last_rows_
  Tensor ids_;                   // (padded most_rows)
  Tensor last_rows_;             // (padded min(B, most_together), C)  the normed rows that the head reads
  Tensor logits_;                // (padded min(B, most_together), V)
  std::vector<double> host_logits_;
};

}  // namespace keen
