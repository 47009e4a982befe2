#include "data/ngram.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

namespace keen {

namespace {

constexpr int64_t kMaxDenseVocabulary = 8192;

// Counts of pairs: a table, or a hash map where the table would be too large.
class PairCounts {
 public:
  explicit PairCounts(int64_t vocab_size) : vocab_size_(vocab_size) {
    if (vocab_size <= kMaxDenseVocabulary) table_.resize(static_cast<size_t>(vocab_size * vocab_size));
  }

  void add(uint32_t a, uint32_t b) {
    if (table_.empty())
      ++map_[key(a, b)];
    else
      ++table_[key(a, b)];
  }
  uint32_t of(uint32_t a, uint32_t b) const {
    if (!table_.empty()) return table_[key(a, b)];
    const auto found = map_.find(key(a, b));
    return found == map_.end() ? 0 : found->second;
  }
  // Calls f(a, count) for every pair that was seen.
  template <class F> void each(const F& f) const {
    for (size_t i = 0; i < table_.size(); ++i)
      if (table_[i] > 0) f(i / static_cast<size_t>(vocab_size_), table_[i]);
    for (const auto& [k, count] : map_) f(k / static_cast<size_t>(vocab_size_), count);
  }

 private:
  size_t key(uint32_t a, uint32_t b) const { return size_t{a} * static_cast<size_t>(vocab_size_) + b; }

  int64_t vocab_size_;
  std::vector<uint32_t> table_;
  std::unordered_map<size_t, uint32_t> map_;
};

// Calls f(tokens) with the tokens of each shard in pieces that overlap by one token, at most `most` tokens in
// all.
template <class F> int64_t each_piece(const std::vector<Shard>& shards, int64_t most, const F& f) {
  constexpr int64_t kPiece = 1 << 16;
  std::vector<int32_t> tokens;
  int64_t taken = 0;
  for (const Shard& shard : shards) {
    const int64_t length = std::min(shard.tokens(), most - taken);
    for (int64_t begin = 0; begin < length; begin += kPiece) {
      const int64_t first = std::max<int64_t>(begin - 1, 0), end = std::min(length, begin + kPiece);
      tokens.resize(static_cast<size_t>(end - first));
      shard.copy(first, tokens);
      f(tokens, begin == 0);
    }
    taken += length;
  }
  return taken;
}

}  // namespace

NgramLoss ngram_loss(const std::vector<Shard>& train, const std::vector<Shard>& validation,
                     int64_t vocab_size, int64_t most_tokens) {
  NgramLoss loss;
  PairCounts pairs(vocab_size);
  const size_t ids = static_cast<size_t>(vocab_size);
  std::vector<int64_t> count(ids), as_first(ids), followers(ids);
  loss.train_tokens =
      each_piece(train, most_tokens, [&](const std::vector<int32_t>& tokens, bool starts_shard) {
        if (starts_shard) ++count.at(static_cast<size_t>(tokens[0]));
        for (size_t i = 1; i < tokens.size(); ++i) {
          ++count.at(static_cast<size_t>(tokens[i]));
          ++as_first[static_cast<size_t>(tokens[i - 1])];
          pairs.add(static_cast<uint32_t>(tokens[i - 1]), static_cast<uint32_t>(tokens[i]));
        }
      });
  double once = 0, twice = 0;
  pairs.each([&](size_t a, uint32_t times) {
    ++followers[a];
    once += times == 1;
    twice += times == 2;
  });
  const double discount = once > 0 ? once / (once + 2 * twice) : 0.5;

  double unigram = 0, bigram = 0;
  const double total = static_cast<double>(loss.train_tokens) + static_cast<double>(vocab_size);
  each_piece(validation, most_tokens, [&](const std::vector<int32_t>& tokens, bool) {
    for (size_t i = 1; i < tokens.size(); ++i) {
      const size_t a = static_cast<size_t>(tokens[i - 1]), b = static_cast<size_t>(tokens[i]);
      const double p1 = (static_cast<double>(count.at(b)) + 1) / total;
      double p2 = p1;
      if (as_first.at(a) > 0) {
        const double seen = pairs.of(static_cast<uint32_t>(a), static_cast<uint32_t>(b));
        p2 = (std::max(seen - discount, 0.0) + discount * static_cast<double>(followers[a]) * p1) /
             static_cast<double>(as_first[a]);
      }
      unigram -= std::log(p1);
      bigram -= std::log(p2);
      ++loss.validation_tokens;
    }
  });
  if (loss.validation_tokens == 0) return loss;
  loss.unigram = unigram / static_cast<double>(loss.validation_tokens);
  loss.bigram = bigram / static_cast<double>(loss.validation_tokens);
  return loss;
}

}  // namespace keen
