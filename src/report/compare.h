// Several runs side by side: in what their configs differ, and how far each has come.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "report/run.h"

namespace keen {

// A dotted key in which the configs differ, with the value of every run as compact JSON ("-" where it is
// absent).
struct ConfigDifference {
  std::string key;
  std::vector<std::string> values;
};
// Runs without a config take no part, and show "-". A run's name is no difference.
std::vector<ConfigDifference> config_differences(const std::vector<RunRecord>& runs);

struct Comparison {
  std::vector<RunRecord> runs;
  size_t baseline = 0;
  std::vector<ConfigDifference> differences;
  // The largest token count at which every run that has validation points has (or lies between) two of them.
  std::optional<int64_t> common_tokens;
  std::optional<double> target_loss;

  std::optional<Interpolated> loss_at_common(const RunRecord& run) const;
};

Comparison compare_runs(std::vector<RunRecord> runs, size_t baseline, std::optional<double> target_loss);

// For people: the differences, then one column a run; at most kConsoleWidth wide, runs that do not fit side
// by side follow below. Interpolated numbers are marked with "~".
std::string comparison_text(const Comparison& comparison, bool colour);
// For programs: the same numbers, unrounded, null where there is none.
Json comparison_json(const Comparison& comparison);

}  // namespace keen
