// A recall task without text, for small models: keys that are paired with values in the middle of noise, and
// asked for again at the end, many in a window, so that it gives many terms of loss (associative recall;
// Arora et al., "Zoology", 2023). Nothing but attention to the right place solves it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "data/dataset.h"

namespace keen {

// The vocabulary: ids in [first, first + count).
struct RecallIds {
  int32_t first, count;
};
inline constexpr int32_t kRecallStart = 0;
inline constexpr RecallIds kRecallKeys{1, 64}, kRecallValues{65, 64}, kRecallNoise{129, 127};
inline constexpr int64_t kRecallVocabulary = 256;

// One window of `context` tokens:
//
//   start, BODY, QUESTIONS
//
// BODY holds `pairs` times a key and its value behind it, in random places. The rest of it is noise; of that
// a quarter are values that belong to no key, so that a value alone is no answer. QUESTIONS are the last
// 2 * pairs * asks tokens: each key and its value `asks` times, in `asks` rounds of random order. Only the
// values there can be known, each of them by the row that reads its key. All keys of a window differ; values
// may repeat.
struct RecallShape {
  int64_t context = 256, pairs = 16, asks = 4;
  int64_t questions_begin() const { return context - 2 * pairs * asks; }
};

// Window `index` of a stream of random windows.
std::vector<int32_t> recall_window(const RecallShape& shape, uint64_t seed, std::string_view stream,
                                   int64_t index);

struct RecallOptions {
  std::filesystem::path directory;
  RecallShape shape;
  int64_t windows = 20'000, validation_windows = 200;
  uint64_t seed = 0;
  bool force = false;
};

// Writes windows one behind the other, and a last start token, as shards with a dataset.json and without a
// tokenizer. Raises Exit::usage (a body without room for its pairs, too many pairs, too many windows, a
// directory that holds a dataset, unless `force`), Exit::storage.
DatasetInfo write_recall_data(const RecallOptions& options);

}  // namespace keen
