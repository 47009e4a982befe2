// The loss of a checkpoint on data, also beyond its training context, as a whole and by position.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "eval/checkpoint_config.h"

namespace keen {

struct EvaluateOptions {
  std::string data;                  // glob of shards
  int64_t context = 0;               // tokens a window; 0: the training context
  std::optional<double> rope_theta;  // instead of the trained one
  int64_t batches = 0;               // groups of micro_sequences windows, the first checkpoint's; 0: all
  std::vector<std::string>
      sets;  // KEY=VALUE over the checkpoint's config: device, precision, model.attention
};

// The loss at one position, over all windows.
struct PositionLoss {
  int64_t position;       // 1-based: keys that the row sees
  double loss;            // mean, nats
  double standard_error;  // of the mean over windows; NaN for one window
};

// The mean loss of a range of positions, for plots. The standard error is that of a window's mean over the
// range: neighbouring positions of one text are not independent.
struct BucketLoss {
  int64_t first, last;  // 1-based, both included
  double loss, standard_error;
};
// Positions 1 to T in ranges that grow with the position, about eight to each doubling.
std::vector<std::pair<int64_t, int64_t>> position_buckets(int64_t T);

struct Evaluation {
  std::string checkpoint;
  int64_t step = 0, trained_context = 0, context = 0, windows = 0, tokens = 0;
  double loss = 0, perplexity = 0;  // nats a token; exp of it
  std::vector<PositionLoss> positions;
  std::vector<BucketLoss> buckets;
  std::vector<std::string> swapped;  // swapped_tensors
  Sample sample;
};

// Evaluates one checkpoint after the other. Each reads consecutive windows of context + 1 tokens from the
// start of each shard, stride context, and all read equally many, as long as there are: `batches` counts
// groups of the first one's batch.micro_sequences. Memory does not grow with the number of layers'
// activations: one layer's are held at a time. Before the first one is evaluated raises, for any of them,
// Exit::usage for a context beyond learned positions, Exit::data when no shard holds a window,
// Exit::checkpoint and Exit::device.
std::vector<Evaluation> evaluate_checkpoints(const std::vector<std::string>& checkpoints,
                                             const EvaluateOptions& options);

// A header and one row a position; with several checkpoints a first column says which.
std::string positions_csv(const std::vector<Evaluation>& evaluations);

}  // namespace keen
