// Several runs side by side: in what they differ, how far each has come, and what one is better by. Every
// number that the table, the JSON document and the page show is worked out here, once.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "report/run.h"

namespace keen {

// A dotted key in which runs differ: of their configs, or "environment.KEY" of what they ran on (device,
// precision, ranks, threads, revision, and the fingerprints of the data, which tell what a path does not).
struct ConfigDifference {
  std::string key;
  std::vector<std::optional<std::string>> values;  // of every run, compact JSON; empty where it has none
};
// A run without the file takes no part in its keys. A run's name is no difference.
std::vector<ConfigDifference> config_differences(const std::vector<RunRecord>& runs);

// What is measured of a run. Losses are nats per token.
enum class Quantity : uint8_t {
  steps,
  tokens,
  training_s,  // Point::seconds
  parameters,
  tokens_per_s,                 // the median over train rows
  train_loss,                   // the mean of the last kTrainLossRows finite ones
  final_validation_loss,        // of the last validation
  best_validation_loss,         // the lowest
  loss_at_common_tokens,        // validation loss at Comparison::common_tokens
  difference_at_common_tokens,  // the same, minus the baseline column's mean of it
  tokens_to_target_loss,        // until the validation loss first came down to Comparison::target_loss
  seconds_to_target_loss,       // of training, likewise
};
inline constexpr size_t kQuantities = 12;
inline constexpr int64_t kTrainLossRows = 50;
// As it is called in JSON: "steps", "tokens", "training_s", ...
std::string_view name_of(Quantity quantity);

struct Measured {
  std::optional<double> value;
  bool exact = true;  // false: it lies on the straight line between two validation points
  std::string why;    // where there is no value, the reason in a few words: "not reached"
};

// The difference of two runs' training losses on the same batches: where the runs have the same data (by
// fingerprint), seed, context, batch.sequences and Origin::step, the rows that read the same place in the
// order of the data are paired, so that what makes a batch easy or hard drops out of the difference.
//
// The mean is over the last quarter of the pairs, but at least kFewestPairs (or all there are). Neighbouring
// differences are correlated, since weights change slowly; the standard error is therefore that of the means
// of consecutive blocks (batch means: blocks of floor(sqrt(n)) pairs, the oldest pairs that fill no block are
// left out of both mean and error; deviation of the block means / sqrt(number of blocks)), and empty below 4
// blocks. A difference that still grows or shrinks makes it larger. It says how well the mean is known for
// these two runs, not what another seed would give.
inline constexpr int64_t kFewestPairs = 64;
struct Paired {
  std::optional<double> mean;  // nats; the run's loss minus its partner's
  std::optional<double> standard_error;
  int64_t pairs = 0, blocks = 0;
  int64_t first_step = 0, last_step = 0;  // the run's, of the pairs in the mean
  std::optional<size_t> partner;          // the run of the baseline column on whose batches it was trained
  std::string why;                        // where there is no mean: "baseline", "other seed", ...
  // What else may have made the difference: dotted keys of the config, other than model.attention, that
  // change training and differ between the two. Keys that neither run uses (schedule.decay_fraction without
  // wsd), and those that change at most the order of additions, are none of them.
  std::vector<std::string> differs_also;
  bool attention_differs = false;
};
Paired paired_difference(const RunRecord& run, const RunRecord& partner);

struct Summary {
  std::string label;  // its name, made different by more of its path where two are the same
  std::array<Measured, kQuantities> measured;
  Paired paired;
  const Measured& operator[](Quantity q) const { return measured[static_cast<size_t>(q)]; }
};

// One name for runs that differ in their seeds: "tiny-1", "tiny-2", "tiny-10" as "tiny-*".
std::string shared_label(const std::vector<std::string>& labels);

// A column of the table: one run, or runs that differ in nothing but their seeds (and names, and what cannot
// change numbers: the keys of log and checkpoint, paths of the same data). A second run of a seed is no
// sample of its own: no column has a seed twice.
struct Spread {
  std::optional<double> mean;       // over the members that have a value
  std::optional<double> deviation;  // sample standard deviation (n - 1); empty for fewer than two
  int64_t n = 0;
  bool exact = true;
  std::string why;  // where no member has a value: the first one's reason
};
struct Column {
  std::string label;            // of several runs what their labels share, with "*" for the rest
  std::vector<size_t> members;  // in `runs`
  std::array<Spread, kQuantities> measured;
  // Over the members' paired differences; with one such pair it is that pair's mean. `deviation` holds the
  // standard error: of one pair its own, of several seeds deviation / sqrt(n).
  Spread paired;
  std::vector<std::string> differs_also;  // of all members' paired differences
  const Spread& operator[](Quantity q) const { return measured[static_cast<size_t>(q)]; }
};

// The first difference of the first run that differs from the baseline. A step that only one of the two has
// logged differs, and a loss that is not finite equals only another such.
struct LossDifference {
  size_t run = 0;
  std::string kind;  // "train" or "validation"; empty when a run logged no loss at all
  int64_t step = 0;
  bool in_baseline = true, in_run = true;  // logged there
  std::optional<double> baseline_loss, loss;
};

// Whether the runs logged the same losses.
struct Equality {
  double tolerance = 0;               // largest difference that still counts as equal
  int64_t train = 0, validation = 0;  // losses compared, over all runs
  double largest = 0;                 // difference among them
  std::optional<LossDifference> difference;
};
// Every run against the baseline.
Equality compare_losses(const std::vector<RunRecord>& runs, size_t baseline, double tolerance);

struct Comparison {
  std::vector<RunRecord> runs;
  size_t baseline = 0;
  std::vector<ConfigDifference> differences;
  std::vector<Summary> summaries;  // of the runs
  std::vector<Column> columns;     // in the order of their first members
  size_t baseline_column = 0;
  // The largest token count at which as many runs as possible have a validation loss, or lie between two; the
  // baseline is one of them if it has any.
  std::optional<int64_t> common_tokens;
  std::optional<double> target_loss;  // what was asked for, or the baseline column's final validation loss
  bool target_is_baselines = false;
  std::vector<std::string> cautions;  // sentences: why some numbers here must not be compared
  std::optional<Equality> equality;   // where it was asked for
};

// Without a target the baseline's final validation loss is taken. `group` makes columns of several seeds;
// otherwise every run has its own.
Comparison compare_runs(std::vector<RunRecord> runs, size_t baseline, std::optional<double> target_loss,
                        bool group = true);

// The tables as people read them, the same in the console and on the page: a label for every column, then
// rows with as many cells.
struct Cell {
  enum class Kind : uint8_t { value, interpolated, missing };
  std::string text;  // of a missing value the reason; an interpolated one starts with "~"
  Kind kind = Kind::value;
};
struct CellRow {
  std::string key, label;  // the key is the one in JSON
  std::vector<Cell> cells;
};
struct CellTable {
  std::vector<std::string> header;
  std::vector<CellRow> rows;
};
CellTable comparison_table(const Comparison& comparison);
CellTable config_table(const Comparison& comparison);  // no rows: the configs are equal
// What the signs in the tables mean, and the cautions: a sentence or two each.
std::vector<std::string> comparison_notes(const Comparison& comparison);

// For people: the differences, then the table; at most kConsoleWidth wide, columns that do not fit side by
// side follow below.
std::string comparison_text(const Comparison& comparison, bool colour);
// "a and b differ first at step 12: ...", or what was found equal.
std::string equality_text(const Comparison& comparison);
// For programs: the same numbers, unrounded, null where there is none (README, "keen compare --json").
Json comparison_json(const Comparison& comparison);

}  // namespace keen
