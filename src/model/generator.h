// Text generation: the model fed token by token with its keys and values cached, and the choice of the next
// token.
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

// The token that `uniform` in [0, 1) chooses: tokens are ordered from the most likely on (ties by id), cut by
// top_k, then by top_p on what is left, and drawn in proportion to exp(logit / temperature).
int32_t choose_token(std::span<const double> logits, const Sampling& sampling, double uniform);

// Feeds tokens to a model that is bound without training. Keys and values of everything fed so far are
// cached, in the arena `activations`, for at most `capacity` tokens. SSMax needs nothing special: a cached
// key never changes, and the scale of a new query counts the keys that it sees.
class Generator {
 public:
  // Tokens that one forward pass takes at most; longer prompts are fed in pieces.
  static constexpr int64_t kPiece = 256;

  // Takes the cache and the workspace of one pass from the arena; call inside `bind` of plan_and_allocate. A
  // model with learned positions has a capacity of at most its context.
  Generator(Context& ctx, const Gpt& gpt, int64_t capacity, Arena& activations);

  // Appends `ids` (at least one, at most capacity - length) and returns the logits (V) that follow the last
  // of them, valid until the next call.
  std::span<const double> feed(std::span<const int32_t> ids);
  int64_t length() const { return length_; }
  void clear() { length_ = 0; }

 private:
  void feed_piece(std::span<const int32_t> ids);

  Context& ctx_;
  const Gpt& gpt_;
  Arena& arena_;
  int64_t capacity_, length_ = 0;
  std::vector<KvCache> caches_;
  Tensor ids_;     // (kPiece)
  Tensor logits_;  // (1, V)
  std::vector<double> host_logits_;
};

}  // namespace keen
