#include "data/recall.h"

#include <algorithm>
#include <numeric>

#include "core/console.h"
#include "core/philox.h"
#include "data/dataset_writer.h"

namespace keen {

namespace {

// The share of values among the noise.
constexpr double kDistractors = 0.25;

// Numbers from one stream, one after the other.
class Draws {
 public:
  Draws(const Philox& random, int64_t stream) : random_(random), stream_(static_cast<uint64_t>(stream)) {}
  double uniform() { return random_.uniform(next_++, stream_); }
  int64_t below(int64_t count) { return static_cast<int64_t>(uniform() * static_cast<double>(count)); }
  int32_t one_of(RecallIds ids) { return ids.first + static_cast<int32_t>(below(ids.count)); }
  template <class T> void shuffle(std::vector<T>& list) {
    for (size_t i = list.size(); i > 1; --i)
      std::swap(list[i - 1], list[static_cast<size_t>(below(static_cast<int64_t>(i)))]);
  }

 private:
  Philox random_;
  uint64_t stream_, next_ = 0;
};

void expect_possible(const RecallOptions& options) {
  const RecallShape& shape = options.shape;
  if (shape.pairs < 1 || shape.pairs > kRecallKeys.count || shape.asks < 1)
    fail(Exit::usage, "{} pairs, asked {} times: from 1 to {} pairs, asked once or more, are possible",
         shape.pairs, shape.asks, kRecallKeys.count);
  const int64_t least = 1 + 2 * shape.pairs + 2 * shape.pairs * shape.asks;
  if (shape.context < least)
    fail(
        Exit::usage,
        "context {}: {} pairs, asked {} times, take {} tokens without any noise; use a longer context, fewer "
        "pairs or fewer questions",
        shape.context, shape.pairs, shape.asks, least);
  if (std::max(options.windows, options.validation_windows) > (kMaxShardTokens - 1) / shape.context)
    fail(Exit::usage, "more windows of {} tokens than a shard holds ({} tokens); ask for fewer",
         shape.context, kMaxShardTokens);
}

void write_windows(ShardWriter& writer, const RecallOptions& options, std::string_view stream,
                   int64_t windows) {
  Progress progress(fmt::format("writing {} windows", stream), windows, "windows");
  for (int64_t i = 0; i < windows; ++i) {
    writer.write(recall_window(options.shape, options.seed, stream, i));
    progress.update(i + 1);
  }
  writer.write(std::span(&kRecallStart, 1));
  writer.finish();
  progress.finish();
}

}  // namespace

std::vector<int32_t> recall_window(const RecallShape& shape, uint64_t seed, std::string_view stream,
                                   int64_t index) {
  Draws draws(Philox(seed, stream), index);
  std::vector<int32_t> keys(static_cast<size_t>(kRecallKeys.count)), values;
  std::iota(keys.begin(), keys.end(), kRecallKeys.first);
  draws.shuffle(keys);
  keys.resize(static_cast<size_t>(shape.pairs));
  for (size_t i = 0; i < keys.size(); ++i) values.push_back(draws.one_of(kRecallValues));

  // The places of the body, a pair taking one of them: which pair stands there, or none.
  constexpr size_t kNone = SIZE_MAX;
  std::vector<size_t> order(keys.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::vector<size_t> places = order;
  places.resize(static_cast<size_t>(shape.questions_begin() - 1 - shape.pairs), kNone);
  draws.shuffle(places);

  std::vector<int32_t> window = {kRecallStart};
  const auto add_pair = [&](size_t pair) {
    window.push_back(keys[pair]);
    window.push_back(values[pair]);
  };
  for (const size_t pair : places) {
    if (pair != kNone)
      add_pair(pair);
    else
      window.push_back(draws.one_of(draws.uniform() < kDistractors ? kRecallValues : kRecallNoise));
  }
  for (int64_t round = 0; round < shape.asks; ++round) {
    draws.shuffle(order);
    for (const size_t pair : order) add_pair(pair);
  }
  return window;
}

DatasetInfo write_recall_data(const RecallOptions& options) {
  expect_possible(options);
  clear_dataset(options.directory, options.force);
  DatasetInfo info{.vocab_size = kRecallVocabulary,
                   .tokenizer_hash = "",
                   .end_of_text = kRecallStart,
                   .train_documents = options.windows,
                   .validation_documents = options.validation_windows,
                   .unigram_loss = {},
                   .bigram_loss = {},
                   .shards = {}};
  ShardWriter train(options.directory, "train", "train", width_for(kRecallVocabulary), kMaxShardTokens),
      validation(options.directory, "val", "validation", width_for(kRecallVocabulary), kMaxShardTokens);
  write_windows(train, options, "train", options.windows);
  write_windows(validation, options, "validation", options.validation_windows);
  publish_dataset(options.directory, info, train, validation, "");
  return info;
}

}  // namespace keen
