// A recall task without text, for small models: keys that are paired with values in the middle of noise, and
// asked for at the end (associative recall; Arora et al., "Zoology", 2023). Nothing but attention to the
// right place solves it. What `keen recall` asks and what `keen tokenize recall` trains on are built here.
#pragma once

#include <cstdint>
#include <vector>

#include "data/task_data.h"

namespace keen {

// The vocabulary: ids in [first, first + count).
struct RecallIds {
  int32_t first, count;
};
inline constexpr int32_t kRecallStart = 0;
inline constexpr RecallIds kRecallKeys{1, 64}, kRecallValues{65, 64}, kRecallNoise{129, 127};
inline constexpr int64_t kRecallVocabulary = 256, kRecallContext = 128, kRecallPairs = 8;

// One window of `context` tokens:
//
//   start, BODY, QUESTIONS
//
// BODY holds `pairs` times a key and its value behind it, in random places. The rest of it is noise; of that
// a quarter are values that belong to no key, so that a value alone is no answer. QUESTIONS are the last
// 2 * questions tokens: a key and its value, in rounds of random order, until there are enough. Only the
// values there can be known, each of them by the row that reads its key. All keys of a window differ; values
// may repeat.
struct RecallShape {
  int64_t context, pairs, questions;
  int64_t questions_begin() const { return context - 2 * questions; }
};

// A window of that shape. It depends on what is named here alone. Raises Exit::usage where pairs and
// questions do not fit into the context, or there are more pairs than keys.
std::vector<int32_t> recall_window(const RecallShape& shape, uint64_t seed, std::string_view stream,
                                   int64_t index);

// What is learned from: windows of mixed shapes, so that the task is found step by step. Few pairs and many
// questions are learned first, and make the rest learnable within minutes: from windows of one hard shape, or
// among many with next to no questions, a small model long learns no more than which values it has seen. The
// number of pairs is 2^u, rounded, u drawn evenly from 0 to log2(most_pairs); the number of questions is
// drawn evenly from most_pairs to what fits.
RecallShape recall_lesson(int64_t context, int64_t most_pairs, uint64_t seed, std::string_view stream,
                          int64_t index);

// Writes lessons as shards, without a tokenizer. Raises what write_task_data does, and Exit::usage for what
// does not fit.
DatasetInfo write_recall_data(int64_t most_pairs, const TaskOptions& options);

}  // namespace keen
