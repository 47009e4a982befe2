#include "model/generator.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace keen {

int32_t choose_token(std::span<const double> logits, const Sampling& sampling, double uniform) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto more_likely = [&](int32_t a, int32_t b) {
    const double x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  };
  if (sampling.temperature <= 0) return *std::min_element(order.begin(), order.end(), more_likely);
  if (sampling.top_k > 0 && sampling.top_k < static_cast<int64_t>(order.size())) {
    std::partial_sort(order.begin(), order.begin() + sampling.top_k, order.end(), more_likely);
    order.resize(static_cast<size_t>(sampling.top_k));
  } else {
    std::sort(order.begin(), order.end(), more_likely);
  }

  const double top = logits[static_cast<size_t>(order[0])];
  std::vector<double> weights;
  double total = 0;
  for (const int32_t id : order) {
    weights.push_back(std::exp((logits[static_cast<size_t>(id)] - top) / sampling.temperature));
    total += weights.back();
  }
  double kept = 0;
  size_t count = 0;
  while (count < weights.size() && (count == 0 || kept < sampling.top_p * total)) kept += weights[count++];
  double left = uniform * kept;
  for (size_t i = 0; i + 1 < count; ++i) {
    left -= weights[i];
    if (left < 0) return order[i];
  }
  return order[count - 1];
}

Generator::Generator(Context& ctx, const Gpt& gpt, int64_t capacity, Arena& activations)
    : ctx_(ctx), gpt_(gpt), arena_(activations), capacity_(capacity) {
  check(gpt.positions == nullptr || capacity <= gpt.config.context,
        "Generator: no more than the learned positions");
  for (const Block& block : gpt.blocks)
    caches_.push_back({arena_.take({capacity, 2 * block.heads.K * block.heads.D}, gpt.dtype)});
  ids_ = arena_.take({kPiece}, DType::i32);
  logits_ = arena_.take({1, gpt.config.vocab_size}, wide(gpt.dtype));
  host_logits_.resize(static_cast<size_t>(gpt.config.vocab_size));
  if (!ctx.planning) return;
  // The largest pass that can come: a whole piece at the end of the cache.
  length_ = std::max<int64_t>(0, capacity - kPiece);
  feed_piece(std::vector<int32_t>(static_cast<size_t>(std::min(kPiece, capacity))));
}

std::span<const double> Generator::feed(std::span<const int32_t> ids) {
  check(!ids.empty(), "Generator::feed: at least one token");
  const auto count = static_cast<int64_t>(ids.size());
  check(length_ + count <= capacity_, "Generator::feed: no more tokens than the cache holds");
  for (; !ids.empty(); ids = ids.subspan(std::min<size_t>(ids.size(), kPiece)))
    feed_piece(ids.first(std::min<size_t>(ids.size(), kPiece)));
  to_doubles(logits_, host_logits_);
  return host_logits_;
}

void Generator::feed_piece(std::span<const int32_t> ids) {
  const Pass pass{.B = 1, .T = static_cast<int64_t>(ids.size()), .tables = &gpt_.tables, .past = length_};
  const int64_t mark = arena_.mark();
  GptActs acts = take_gpt_acts(gpt_, pass, Keep::nothing, arena_);
  const Tensor inputs = ids_.rows(0, pass.T);
  if (!ctx_.planning) std::copy(ids.begin(), ids.end(), inputs.as<int32_t>());
  gpt_forward(ctx_, gpt_, pass, acts, inputs, &caches_);
  gpt_logits(ctx_, gpt_, logits_, acts.norm.rows(pass.T - 1, pass.T));
  arena_.release(mark);
  length_ += pass.T;
}

}  // namespace keen
