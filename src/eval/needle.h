// Needle retrieval: whether a checkpoint finds a number that is hidden in a long text, and which heads look
// at it.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/run_config.h"

namespace keen {

struct NeedleOptions {
  std::string data;               // glob of shards with the haystacks; empty: the run's data.validation
  std::string tokenizer;          // a SentencePiece model; empty: the config's data.tokenizer
  std::vector<int64_t> contexts;  // tokens of a whole question with its answer (data/needle.h)
  std::vector<double> depths;     // percent of the haystack before the needle
  int64_t trials = 50;            // of each context and depth
  uint64_t seed = 0;
  bool scores = false;               // take needle scores too
  std::optional<double> rope_theta;  // instead of the trained one
  std::vector<std::string> sets;     // KEY=VALUE over the checkpoint's config
};

// What a model wrote, against the 7 digits: all of them, only the first one, or not even that.
enum class Found : uint8_t { number, first_digit, nothing };
inline constexpr std::array<std::string_view, 3> kFoundNames = {"number", "first_digit", "nothing"};
constexpr std::string_view name_of(Found found) { return kFoundNames[static_cast<size_t>(found)]; }

// Spaces before what was written do not count, nor does what comes behind `number`, unless it is a digit.
Found grade(std::string_view written, std::string_view number);

struct NeedleTrial {
  std::string city, number;
  std::string written;  // by the model, chosen greedily: as many tokens as the right answer has
  Found found = Found::nothing;
  // The needle score of each layer and head: the attention that the row which predicts the first digit, the
  // prompt's last one, pays to the tokens of the needle's number, together. Only where it was asked for.
  std::vector<std::vector<double>> scores;
};

struct NeedleCell {
  int64_t context = 0;
  double depth = 0;
  std::vector<NeedleTrial> trials;
  int64_t count(Found found) const;
};

// The Wilson score interval (Wilson, "Probable inference", 1927) of a share, at 95 %.
struct Interval {
  double low = 0, high = 1;
};
Interval wilson_interval(int64_t successes, int64_t trials);

struct HeadScore {
  int64_t layer = 0, head = 0;
  double score = 0;
};

struct NeedleReport {
  std::string checkpoint;
  int64_t step = 0, trained_context = 0;
  std::vector<NeedleCell> cells;     // every depth of the first context, then of the next
  std::vector<std::string> swapped;  // swapped_tensors

  // All heads by their mean score over all trials, the highest first; empty without scores.
  std::vector<HeadScore> ranked_heads() const;
};
// The head with the highest score in a trial that has scores.
HeadScore top_score(const NeedleTrial& trial);

// Asks one checkpoint after the other, the same questions where their tokenizers are the same. Texts are
// read together, as many as a training micro-batch has tokens for. Before the first one is asked
// raises, for any of them, Exit::usage for contexts that are too short or beyond learned positions, and where
// their own validation data is not one and the same; Exit::data (no tokenizer, no text, text too short for a
// context or with needles in it), Exit::checkpoint; and later Exit::non_finite.
std::vector<NeedleReport> find_needles(const std::vector<std::string>& checkpoints,
                                       const NeedleOptions& options);

}  // namespace keen
