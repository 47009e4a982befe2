#include "model/generator.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "core/copy.h"
#include "ops/copy_heads.h"
#include "ops/gemm.h"

namespace keen {

namespace {

// Ids from the most likely on, as far as they were asked for: nobody sorts a whole vocabulary to draw from
// its head.
class Ranking {
 public:
  explicit Ranking(std::span<const double> logits) : logits_(logits), order_(logits.size()) {
    std::iota(order_.begin(), order_.end(), 0);
  }
  size_t size() const { return order_.size(); }
  int32_t operator[](size_t rank) {
    if (rank >= sorted_) sort_up_to(std::min(order_.size(), std::max<size_t>(64, 4 * sorted_)));
    return order_[rank];
  }

 private:
  void sort_up_to(size_t end) {
    const auto more_likely = [this](int32_t a, int32_t b) {
      const double x = logits_[static_cast<size_t>(a)], y = logits_[static_cast<size_t>(b)];
      return x > y || (x == y && a < b);
    };
    const auto at = [this](size_t i) { return order_.begin() + static_cast<std::ptrdiff_t>(i); };
    if (end < order_.size()) std::nth_element(at(sorted_), at(end), order_.end(), more_likely);
    std::sort(at(sorted_), at(end), more_likely);
    sorted_ = end;
  }

  std::span<const double> logits_;
  std::vector<int32_t> order_;
  size_t sorted_ = 0;
};

// The sum of exp((logit - top) / temperature) over all tokens, in the order of their ids.
double sum_of_weights(std::span<const double> logits, double top, double temperature) {
  double sum = 0;
  for (const double logit : logits) sum += std::exp((logit - top) / temperature);
  return sum;
}

// The last of the T tokens of each of `count` sequences that lie in `rows` one behind the other.
ops::ConstHeads last_tokens(const ConstTensor& rows, int64_t count) {
  ops::ConstHeads view = ops::heads(rows, count, 0, 1, rows.shape[1]);
  if (view.data != nullptr) view.data += (view.T - 1) * view.token_stride * size_of(view.dtype);
  view.T = 1;
  return view;
}

}  // namespace

ChosenToken choose_token(std::span<const double> logits, const Sampling& sampling, double uniform) {
  const double top = *std::max_element(logits.begin(), logits.end());
  const double all = sum_of_weights(logits, top, 1);
  // An infinity makes the sum NaN or 0 too.
  if (!(all > 0) || !std::isfinite(top) || !std::isfinite(all))
    fail(Exit::non_finite,
         "the model's logits are not finite: no token can be drawn. \"keen inspect\" tells whether a weight "
         "of "
         "the checkpoint is not finite; otherwise try --precision fp32");
  const auto chosen = [&](int32_t id) {
    return ChosenToken{id, logits[static_cast<size_t>(id)] - top - std::log(all)};
  };
  Ranking ranking(logits);
  if (sampling.temperature <= 0) return chosen(ranking[0]);

  const auto weight = [&](size_t rank) {
    return std::exp((logits[static_cast<size_t>(ranking[rank])] - top) / sampling.temperature);
  };
  size_t count = ranking.size();
  double total = 0;
  if (sampling.top_k > 0 && sampling.top_k < static_cast<int64_t>(count)) {
    count = static_cast<size_t>(sampling.top_k);
    for (size_t rank = 0; rank < count; ++rank) total += weight(rank);
  } else {
    total = sum_of_weights(logits, top, sampling.temperature);
  }
  double kept = total;
  if (sampling.top_p < 1) {
    kept = 0;
    size_t rank = 0;
    while (rank < count && (rank == 0 || kept < sampling.top_p * total)) kept += weight(rank++);
    count = rank;
  }
  double left = uniform * kept;
  for (size_t rank = 0; rank + 1 < count; ++rank) {
    left -= weight(rank);
    if (left < 0) return chosen(ranking[rank]);
  }
  return chosen(ranking[count - 1]);
}

Generator::Generator(Context& ctx, const Gpt& gpt, int64_t B, int64_t capacity, Arena& activations,
                     bool keep_queries)
    : ctx_(ctx),
      gpt_(gpt),
      arena_(activations),
      B_(B),
      capacity_(capacity),
      most_together_(std::min(ctx.device == Device::cpu ? ops::kFewRows : std::max(kPiece, B), B * capacity)),
      most_rows_(std::max(std::min(kPiece, capacity), most_together_)),
      length_(static_cast<size_t>(B)) {
  check(B >= 1 && capacity >= 1, "Generator: at least one sequence and one token");
  check(gpt.positions == nullptr || capacity <= gpt.config.context,
        "Generator: no more than the learned positions");
  for (const Block& block : gpt.blocks) {
    const auto [H, K, D] = block.heads;
    caches_.push_back({.kv = arena_.take({B * capacity, 2 * K * D}, gpt.dtype), .P = capacity});
    if (keep_queries) caches_.back().last_queries = arena_.take({B, H * D}, gpt.dtype);
  }
  ids_ = arena_.take({padded(most_rows_)}, DType::i32);
  const int64_t most_waiting = padded(std::min(B, most_together_));
  last_rows_ = arena_.take({most_waiting, gpt.config.width}, gpt.dtype);
  logits_ = arena_.take({most_waiting, gpt.config.vocab_size}, wide(gpt.dtype));
  if (ctx.planning) plan();
  host_logits_.resize(static_cast<size_t>(B * gpt.config.vocab_size));
}

// Every number of rows that a pass can have, so that each finds its scratch; and as many sequences as go
// together, which is where attention takes most.
void Generator::plan() {
  for (int64_t rows = 1; rows <= padded(most_rows_); rows = padded(rows + 1)) {
    const int64_t T = std::min({rows, kPiece, capacity_});
    const Piece piece{0, {.first = 0, .count = 1, .T = T, .past = capacity_ - T}, true};
    const std::vector<Piece> alone(static_cast<size_t>(std::min(B_, rows / T)), piece);
    run_pass(alone, std::vector<int32_t>(static_cast<size_t>(std::min(rows, most_rows_))));
    run_head();
  }
  std::vector<Piece> together;
  for (int64_t b = 0; b < std::min(B_, most_together_); ++b)
    together.push_back({0, {.first = b, .count = 1, .T = 1, .past = capacity_ - 1}, true});
  run_pass(together, std::vector<int32_t>(together.size()));
  run_head();
}

int64_t Generator::padded(int64_t rows) const {
  if (ctx_.device == Device::cpu && rows <= ops::kFewRows) return rows;
  const auto power = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(rows)));
  return rows <= power / 4 * 3 ? power / 4 * 3 : power;
}

void Generator::feed(std::span<const Feed> feeds) {
  std::vector<std::span<const int32_t>> rest;
  for (size_t i = 0; i < feeds.size(); ++i) {
    const Feed& feed = feeds[i];
    check(0 <= feed.sequence && feed.sequence < B_ && (i == 0 || feeds[i - 1].sequence < feed.sequence),
          "Generator::feed: sequences that ascend");
    check(!feed.ids.empty(), "Generator::feed: at least one token");
    check(length(feed.sequence) + std::ssize(feed.ids) <= capacity_,
          "Generator::feed: no more tokens than the cache holds");
    rest.push_back(feed.ids);
  }
  for (bool more = true; more;) {
    more = false;
    std::vector<Piece> pieces;
    std::vector<int32_t> ids;
    for (size_t i = 0; i < feeds.size(); ++i) {
      const int64_t T = std::min(kPiece, std::ssize(rest[i]));
      if (T == 0) continue;
      if (!pieces.empty() && std::ssize(ids) + T > most_together_) {
        more = true;
        continue;
      }
      const int64_t sequence = feeds[i].sequence;
      const auto taken = rest[i].first(static_cast<size_t>(T));
      rest[i] = rest[i].subspan(taken.size());
      more = more || !rest[i].empty();
      pieces.push_back(
          {i, {.first = sequence, .count = 1, .T = T, .past = length(sequence)}, rest[i].empty()});
      ids.insert(ids.end(), taken.begin(), taken.end());
      length_[static_cast<size_t>(sequence)] += T;
    }
    if (!pieces.empty()) run_pass(pieces, ids);
  }
  run_head();
}

void Generator::run_pass(std::span<const Piece> pieces, std::span<const int32_t> ids) {
  // Sequences that stand alike become one span.
  std::vector<Span> spans;
  std::vector<bool> last;
  for (const Piece& piece : pieces) {
    if (!spans.empty() && last.back() == piece.last && spans.back().T == piece.span.T &&
        spans.back().past == piece.span.past && spans.back().first + spans.back().count == piece.span.first) {
      ++spans.back().count;
    } else {
      spans.push_back(piece.span);
      last.push_back(piece.last);
    }
  }
  const Pass pass{.B = 1, .T = padded(std::ssize(ids)), .tables = &gpt_.tables, .spans = spans};
  const int64_t mark = arena_.mark();
  GptActs acts = take_gpt_acts(gpt_, pass, Keep::nothing, arena_);
  const Tensor inputs = ids_.rows(0, pass.T);
  if (!ctx_.planning) copy_now(inputs.rows(0, std::ssize(ids)), view_of(ids));
  gpt_forward(ctx_, gpt_, pass, acts, inputs, &caches_);

  int64_t row = 0;
  const Piece* piece = pieces.data();
  for (size_t i = 0; i < spans.size(); ++i) {
    const int64_t count = spans[i].count;
    if (last[i]) {
      if (std::ssize(waiting_) + count > last_rows_.shape[0]) run_head();
      const auto first = std::ssize(waiting_);
      ops::copy_heads(ctx_, ops::heads(last_rows_.rows(first, first + count), count, 0, 1, gpt_.config.width),
                      last_tokens(acts.norm.rows(row, row + spans[i].rows()), count));
      for (int64_t k = 0; k < count; ++k) waiting_.push_back(piece[k].feed);
    }
    piece += count;
    row += spans[i].rows();
  }
  arena_.release(mark);
}

void Generator::run_head() {
  if (waiting_.empty()) return;
  const int64_t rows = padded(std::ssize(waiting_));
  gpt_logits(ctx_, gpt_, logits_.rows(0, rows), last_rows_.rows(0, rows));
  const auto V = static_cast<size_t>(gpt_.config.vocab_size);
  if (!ctx_.planning)
    for (size_t i = 0; i < waiting_.size(); ++i)
      to_doubles(logits_.rows(static_cast<int64_t>(i), static_cast<int64_t>(i) + 1),
                 std::span(host_logits_).subspan(waiting_[i] * V, V));
  waiting_.clear();
}

std::span<const double> Generator::logits(size_t i) const {
  const auto V = static_cast<size_t>(gpt_.config.vocab_size);
  return std::span(host_logits_).subspan(i * V, V);
}

void Generator::truncate(int64_t sequence, int64_t tokens) {
  check(0 <= tokens && tokens <= length(sequence), "Generator::truncate: tokens that were fed");
  length_[static_cast<size_t>(sequence)] = tokens;
}

void Generator::copy_prefix(int64_t from, int64_t to, int64_t tokens) {
  check(from != to && tokens >= 1 && tokens <= length(from), "Generator::copy_prefix: tokens that were fed");
  for (size_t l = 0; l < caches_.size(); ++l) {
    const Tensor& kv = caches_[l].kv;
    const int64_t columns = kv.shape[1];
    const auto rows_of = [&](int64_t sequence) {
      return ops::heads(kv.rows(sequence * capacity_, sequence * capacity_ + tokens), 1, 0, 1, columns);
    };
    ops::copy_heads(ctx_, rows_of(to), rows_of(from));
  }
  length_[static_cast<size_t>(to)] = tokens;
}

std::vector<double> Generator::attention(int64_t layer, int64_t sequence) const {
  const KvCache& cache = caches_[static_cast<size_t>(layer)];
  const int64_t T = length(sequence), first = sequence * cache.P;
  check(cache.last_queries && T >= 1, "Generator::attention: queries that were kept, and a token");
  const auto [H, K, D] = gpt_.blocks[static_cast<size_t>(layer)].heads;
  const std::vector<double> q = to_doubles(cache.last_queries.rows(sequence, sequence + 1)),
                            kv = to_doubles(cache.kv.rows(first, first + T));
  std::vector<double> weights(static_cast<size_t>(H * T));
  for (int64_t h = 0; h < H; ++h) {
    const std::span<double> row =
        std::span(weights).subspan(static_cast<size_t>(h * T), static_cast<size_t>(T));
    const double* query = q.data() + h * D;
    for (int64_t j = 0; j < T; ++j) {
      const double* key = kv.data() + (j * 2 * K + h / (H / K)) * D;
      row[static_cast<size_t>(j)] =
          std::inner_product(query, query + D, key, 0.0) / std::sqrt(static_cast<double>(D));
    }
    const double top = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (double& weight : row) sum += weight = std::exp(weight - top);
    for (double& weight : row) weight /= sum;
  }
  return weights;
}

}  // namespace keen
