#include "data/recall.h"

#include <algorithm>
#include <numeric>

#include "core/console.h"
#include "data/draws.h"

namespace keen {

namespace {

// The share of values among the noise.
constexpr double kDistractors = 0.25;

int32_t one_of(Draws& draws, RecallIds ids) {
  return ids.first + static_cast<int32_t>(draws.below(ids.count));
}

void expect_possible(const RecallShape& shape) {
  const auto [context, pairs, questions] = shape;
  if (pairs < 1 || pairs > kRecallKeys.count || questions < 1)
    fail(Exit::usage, "{} pairs, {} questions: from 1 to {} pairs and 1 question or more are possible", pairs,
         questions, kRecallKeys.count);
  const int64_t least = 1 + 2 * pairs + 2 * questions;
  if (context < least)
    fail(Exit::usage,
         "context {}: {} pairs and {} take {} tokens without any noise; use a longer context or fewer pairs",
         context, pairs, counted(questions, "question"), least);
}

}  // namespace

std::vector<int32_t> recall_window(const RecallShape& shape, uint64_t seed, std::string_view stream,
                                   int64_t index) {
  expect_possible(shape);
  Draws draws(Philox(seed, fmt::format("{} {} {} {}", stream, shape.context, shape.pairs, shape.questions)),
              index);
  std::vector<int32_t> keys(static_cast<size_t>(kRecallKeys.count)), values;
  std::iota(keys.begin(), keys.end(), kRecallKeys.first);
  draws.shuffle(keys);
  keys.resize(static_cast<size_t>(shape.pairs));
  for (size_t i = 0; i < keys.size(); ++i) values.push_back(one_of(draws, kRecallValues));

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
      window.push_back(one_of(draws, draws.uniform() < kDistractors ? kRecallValues : kRecallNoise));
  }
  for (int64_t asked = 0; asked < shape.questions; ++asked) {
    const size_t at = static_cast<size_t>(asked) % order.size();
    if (at == 0) draws.shuffle(order);
    add_pair(order[at]);
  }
  return window;
}

RecallShape recall_lesson(int64_t context, int64_t most_pairs, uint64_t seed, std::string_view stream,
                          int64_t index) {
  expect_possible({context, most_pairs, most_pairs});
  Draws draws(Philox(seed, fmt::format("{} lesson", stream)), index);
  const int64_t pairs = draws.log_uniform(most_pairs);
  const int64_t most_questions = (context - 1 - 2 * pairs) / 2;
  return {context, pairs, most_pairs + draws.below(most_questions - most_pairs + 1)};
}

DatasetInfo write_recall_data(int64_t most_pairs, const TaskOptions& options) {
  const Task task{.vocab_size = kRecallVocabulary,
                  .first_token = kRecallStart,
                  .tokenizer_hash = "",
                  .tokenizer = "",
                  .window =
                      [&](std::string_view kind, int64_t index) {
                        const RecallShape shape =
                            recall_lesson(options.context, most_pairs, options.seed, kind, index);
                        return recall_window(shape, options.seed, kind, index);
                      },
                  .text_bytes = {}};
  return write_task_data(task, options);
}

}  // namespace keen
