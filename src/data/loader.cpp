#include "data/loader.h"

#include <algorithm>

#include "core/philox.h"

namespace keen {

SequentialWindows::SequentialWindows(const Dataset& dataset, int64_t context)
    : dataset_(&dataset), context_(context), first_{0} {
  check(context > 0, "SequentialWindows: a positive context");
  int64_t longest = 0;
  for (const Shard& shard : dataset.shards()) {
    longest = std::max(longest, shard.tokens());
    first_.push_back(first_.back() + std::max<int64_t>(shard.tokens() - 1, 0) / context);
  }
  if (count() == 0)
    fail(Exit::data,
         "\"{}\": no shard holds a window of context {}: {} tokens are needed in one shard, the longest of "
         "{} has {}; "
         "lower the context or encode more text",
         dataset.pattern(), context, context + 1, dataset.shards().size(), longest);
}

void SequentialWindows::window(int64_t id, int32_t* inputs, int32_t* targets) const {
  check(0 <= id && id < count(), "SequentialWindows: a window id below the count");
  const auto after = std::upper_bound(first_.begin(), first_.end(), id);
  const size_t shard = static_cast<size_t>(after - first_.begin()) - 1;
  const int64_t begin = (id - first_[shard]) * context_;
  const size_t length = static_cast<size_t>(context_);
  dataset_->shards()[shard].copy(begin, {inputs, length});
  dataset_->shards()[shard].copy(begin + 1, {targets, length});
}

void SequentialWindows::fill(int64_t first, int64_t count, int32_t* inputs, int32_t* targets) const {
  for (int64_t i = 0; i < count; ++i) window(first + i, inputs + i * context_, targets + i * context_);
}

int64_t permuted(uint64_t seed, int64_t epoch, int64_t size, int64_t index) {
  check(0 <= index && index < size && epoch >= 0, "permuted: an index below the size");
  constexpr uint64_t kRounds = 8;
  int half_bits = 1;
  while ((uint64_t{1} << (2 * half_bits)) < static_cast<uint64_t>(size)) ++half_bits;
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  const Philox philox(seed, "order of samples");
  uint64_t x = static_cast<uint64_t>(index);
  do {
    uint64_t left = x >> half_bits, right = x & mask;
    for (uint64_t round = 0; round < kRounds; ++round) {
      const uint64_t mixed = philox.bits(right, static_cast<uint64_t>(epoch) * kRounds + round)[0];
      const uint64_t next = left ^ (mixed & mask);
      left = right;
      right = next;
    }
    x = left << half_bits | right;
  } while (x >= static_cast<uint64_t>(size));
  return static_cast<int64_t>(x);
}

int64_t Loader::sample_id(int64_t sequence) const {
  check(sequence >= 0, "Loader: a sequence number that is not negative");
  return permuted(seed_, sequence / windows(), windows(), sequence % windows());
}

void Loader::fill(int64_t first_sequence, int64_t count, int32_t* inputs, int32_t* targets) const {
  for (int64_t i = 0; i < count; ++i)
    windows_.window(sample_id(first_sequence + i), inputs + i * context(), targets + i * context());
}

}  // namespace keen
