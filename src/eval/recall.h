// Recall: whether a checkpoint that learned the task of data/recall.h finds values in more and more noise.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/recall.h"
#include "eval/checkpoint_config.h"

namespace keen {

struct RecallTestOptions {
  std::vector<int64_t> contexts;  // tokens of a window, with its questions
  int64_t pairs = kRecallPairs;   // in each window, every key asked for once
  int64_t windows = 50;           // of each context
  uint64_t seed = 0;
  std::optional<double> rope_theta;  // instead of the trained one
  std::vector<std::string> sets;     // KEY=VALUE over the checkpoint's config
};

// A mean over windows, and its standard error (NaN for one window). The answers of one window are not
// independent: they share its noise and its keys.
struct MeanOfWindows {
  double mean = 0, standard_error = 0;
};

struct RecallScore {
  int64_t context = 0;
  MeanOfWindows accuracy;  // share of the answers that are the most likely token
  MeanOfWindows loss;      // of the answers, nats; ln 64 = 4.16 for one who knows that they are values
};

struct RecallReport {
  std::string checkpoint;
  int64_t step = 0, trained_context = 0;
  double rope_theta = 0;             // with which it was asked
  std::vector<RecallScore> scores;   // one a context, as in the options
  std::vector<std::string> swapped;  // swapped_tensors
  Sample sample;
};

// Asks one checkpoint after the other, the same windows. Raises, before the first one is asked, Exit::usage
// (contexts without room for the questions or beyond learned positions), Exit::data (a vocabulary that is not
// the task's), Exit::checkpoint; later Exit::non_finite.
std::vector<RecallReport> test_recall(const std::vector<std::string>& checkpoints,
                                      const RecallTestOptions& options);

}  // namespace keen
