#include "report/compare.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/console.h"
#include "report/compare_columns.h"

namespace keen {

namespace {

// The names of the runs, made different by more of the path, and in the end by a number.
std::vector<std::string> labels_of(const std::vector<RunRecord>& runs) {
  std::vector<std::string> labels;
  std::set<std::string> taken;
  for (const RunRecord& run : runs) {
    const bool twice =
        std::count_if(runs.begin(), runs.end(), [&](const RunRecord& r) { return r.name == run.name; }) > 1;
    const std::string first = twice ? run.path.lexically_normal().string() : run.name;
    std::string label = first;
    for (int copy = 2; !taken.insert(label).second; ++copy) label = fmt::format("{} ({})", first, copy);
    labels.push_back(label);
  }
  return labels;
}

template <class T> Measured measured(const std::optional<T>& value, const char* why) {
  return value ? Measured{static_cast<double>(*value), true, ""} : Measured{std::nullopt, true, why};
}

Measured train_loss_of(const RunRecord& run) {
  if (run.train.empty()) return {std::nullopt, true, "none yet"};
  double mean = 0;  // of those so far: a sum of diverged losses would overflow
  int64_t count = 0;
  for (auto point = run.train.rbegin(); point != run.train.rend() && count < kTrainLossRows; ++point) {
    if (!point->loss) continue;
    mean += (*point->loss - mean) / static_cast<double>(++count);
  }
  if (count == 0) return {std::nullopt, true, "not finite"};
  return {mean, true, ""};
}

// Why a run has no validation loss at all.
const char* without_validation(const RunRecord& run) {
  if (!run.validation.empty()) return "not finite";
  if (!run.config.is_object()) return "none";
  const auto part = [&](const char* name, const char* key) {
    const auto object = run.config.find(name);
    return object != run.config.end() && object->is_object() ? object->value(key, Json()) : Json();
  };
  const bool never = part("data", "validation").is_null() || part("evaluate", "every") == 0;
  return never ? "not measured" : "none yet";
}

const Point* last_finite(const std::vector<Point>& curve) {
  const auto last =
      std::find_if(curve.rbegin(), curve.rend(), [](const Point& p) { return p.loss.has_value(); });
  return last == curve.rend() ? nullptr : &*last;
}

Measured loss_at_tokens(const RunRecord& run, std::optional<int64_t> tokens) {
  if (!last_finite(run.validation)) return {std::nullopt, true, without_validation(run)};
  if (!tokens) return {std::nullopt, true, "nothing common"};
  if (const auto at = loss_at(run.validation, *tokens)) return {at->loss, at->exact, ""};
  const int64_t first = run.validation.front().tokens, last = run.validation.back().tokens;
  const auto count = [](int64_t n) { return short_count(static_cast<double>(n)); };
  return {std::nullopt, true,
          *tokens > last    ? "ends at " + count(last)
          : *tokens < first ? "from " + count(first) + " on"
                            : "not finite"};
}

// At which token count most runs can be compared, the baseline among them.
std::optional<int64_t> common_tokens_of(const std::vector<RunRecord>& runs, size_t baseline) {
  const bool needs_baseline = last_finite(runs[baseline].validation) != nullptr;
  std::optional<int64_t> best;
  std::ptrdiff_t most = 0;
  for (const RunRecord& run : runs) {
    const Point* last = last_finite(run.validation);
    if (last == nullptr) continue;
    const int64_t tokens = last->tokens;
    if (needs_baseline && !loss_at(runs[baseline].validation, tokens)) continue;
    const auto count = std::count_if(runs.begin(), runs.end(), [&](const RunRecord& other) {
      return loss_at(other.validation, tokens).has_value();
    });
    if (count < most || (count == most && best && *best >= tokens)) continue;
    most = count;
    best = tokens;
  }
  return best;
}

Measured final_validation_of(const RunRecord& run) {
  const auto loss = run.final_validation();
  return measured(loss, without_validation(run));
}

void measure_alone(Summary& summary, const RunRecord& run) {
  const auto set = [&](Quantity quantity, Measured value) {
    summary.measured[static_cast<size_t>(quantity)] = std::move(value);
  };
  set(Quantity::steps, measured(run.steps, "none yet"));
  set(Quantity::tokens, measured(run.tokens, "none yet"));
  set(Quantity::training_s, measured(run.training_s, "none yet"));
  set(Quantity::parameters, measured(run.parameters, run.config.is_object() ? "unknown model" : "no config"));
  set(Quantity::tokens_per_s, measured(run.tokens_per_s, "none yet"));
  set(Quantity::train_loss, train_loss_of(run));
  set(Quantity::final_validation_loss, final_validation_of(run));
  set(Quantity::best_validation_loss, measured(run.best_validation(), without_validation(run)));
}

void measure_target(Summary& summary, const RunRecord& run, std::optional<double> target) {
  Measured &tokens = summary.measured[static_cast<size_t>(Quantity::tokens_to_target_loss)],
           &seconds = summary.measured[static_cast<size_t>(Quantity::seconds_to_target_loss)];
  if (!target || last_finite(run.validation) == nullptr) {
    tokens.why = seconds.why = target ? without_validation(run) : "no target";
    return;
  }
  const auto reached = tokens_to_reach(run.validation, *target);
  tokens = seconds = {std::nullopt, true, "not reached"};
  if (!reached) return;
  tokens = {static_cast<double>(reached->tokens), reached->exact, ""};
  seconds = {reached->seconds, reached->exact, ""};
  if (run.train.empty()) seconds = {std::nullopt, true, "time unknown"};
}

Spread spread_of(const std::vector<const Measured*>& values) {
  Spread spread;
  double sum = 0;
  for (const Measured* value : values) {
    if (!value->value) continue;
    ++spread.n;
    sum += *value->value;
    spread.exact = spread.exact && value->exact;
  }
  if (spread.n == 0) {
    spread.why = values.front()->why;
    return spread;
  }
  spread.mean = sum / static_cast<double>(spread.n);
  if (spread.n < 2) return spread;
  double squares = 0;
  for (const Measured* value : values)
    if (value->value) squares += (*value->value - *spread.mean) * (*value->value - *spread.mean);
  const double deviation = std::sqrt(squares / static_cast<double>(spread.n - 1));
  if (std::isfinite(deviation)) spread.deviation = deviation;  // diverged losses overflow when squared
  return spread;
}

void measure_column(Column& column, const std::vector<Summary>& summaries, Quantity quantity) {
  std::vector<const Measured*> values;
  for (const size_t member : column.members) values.push_back(&summaries[member][quantity]);
  column.measured[static_cast<size_t>(quantity)] = spread_of(values);
}

// With the member of the baseline column that was trained on the same batches, if there is one.
Paired paired_with_baseline(const Comparison& comparison, size_t run) {
  Paired result;
  const std::vector<size_t>& partners = comparison.columns[comparison.baseline_column].members;
  if (std::find(partners.begin(), partners.end(), run) != partners.end()) {
    result.why = "baseline";
    return result;
  }
  for (const size_t partner : partners) {
    Paired pair = paired_difference(comparison.runs[run], comparison.runs[partner]);
    if (pair.mean) {
      pair.partner = partner;
      return pair;
    }
    if (result.why.empty() || result.why == "other seed") result = std::move(pair);
  }
  return result;
}

Spread paired_of(const Column& column, const std::vector<Summary>& summaries) {
  std::vector<Measured> values;
  const Paired* only = nullptr;
  for (const size_t member : column.members) {
    const Paired& paired = summaries[member].paired;
    values.push_back({paired.mean, true, paired.why});
    if (paired.mean) only = &paired;
  }
  std::vector<const Measured*> pointers;
  for (const Measured& value : values) pointers.push_back(&value);
  Spread spread = spread_of(pointers);
  if (spread.n == 1)
    spread.deviation = only->standard_error;
  else if (spread.deviation)
    *spread.deviation /= std::sqrt(static_cast<double>(spread.n));
  return spread;
}

// A number of the config, or nothing.
std::optional<int64_t> number_of(const RunRecord& run, const char* object, const char* key) {
  const auto part = run.config.is_object() ? run.config.find(object) : run.config.end();
  if (!run.config.is_object() || part == run.config.end() || !part->is_object()) return std::nullopt;
  const auto at = part->find(key);
  return at != part->end() && at->is_number_integer() ? std::optional(at->get<int64_t>()) : std::nullopt;
}

// Reasons why validation losses of different runs are no losses of the same text.
std::vector<std::string> cautions_of(const std::vector<RunRecord>& runs) {
  std::set<std::string> data;
  std::set<int64_t> vocabularies, contexts, windows;
  for (const RunRecord& run : runs) {
    if (run.validation.empty()) continue;
    if (run.validation_fingerprint) data.insert(*run.validation_fingerprint);
    if (const auto size = number_of(run, "model", "vocab_size")) vocabularies.insert(*size);
    const auto context = number_of(run, "model", "context"), batches = number_of(run, "evaluate", "batches"),
               sequences = number_of(run, "batch", "micro_sequences");
    if (context) contexts.insert(*context);
    if (context && batches && sequences) windows.insert(*context * *batches * *sequences);
  }
  std::vector<std::string> cautions;
  if (vocabularies.size() > 1)
    cautions.push_back("The vocabularies differ in size: a loss per token is not the same measure in both.");
  if (data.size() > 1) cautions.push_back("The runs have different validation data.");
  if (contexts.size() > 1)
    cautions.push_back("The contexts differ: the loss is lower where more tokens are visible.");
  else if (windows.size() > 1)
    cautions.push_back(
        "Validation reads different amounts of data (evaluate.batches x batch.micro_sequences).");
  return cautions;
}

}  // namespace

std::string_view name_of(Quantity quantity) {
  constexpr std::array<std::string_view, kQuantities> names = {"steps",
                                                               "tokens",
                                                               "training_s",
                                                               "parameters",
                                                               "tokens_per_s",
                                                               "train_loss",
                                                               "final_validation_loss",
                                                               "best_validation_loss",
                                                               "loss_at_common_tokens",
                                                               "difference_at_common_tokens",
                                                               "tokens_to_target_loss",
                                                               "seconds_to_target_loss"};
  return names[static_cast<size_t>(quantity)];
}

Comparison compare_runs(std::vector<RunRecord> runs, size_t baseline, std::optional<double> target_loss,
                        bool group) {
  check(baseline < runs.size(), "compare_runs: the baseline is one of the runs");
  Comparison comparison;
  comparison.runs = std::move(runs);
  comparison.baseline = baseline;
  comparison.differences = config_differences(comparison.runs);
  comparison.common_tokens = common_tokens_of(comparison.runs, baseline);
  comparison.cautions = cautions_of(comparison.runs);
  std::vector<Summary>& summaries = comparison.summaries;
  for (std::string& label : labels_of(comparison.runs)) {
    summaries.push_back({.label = std::move(label), .measured = {}, .paired = {}});
    const RunRecord& run = comparison.runs[summaries.size() - 1];
    measure_alone(summaries.back(), run);
    summaries.back().measured[static_cast<size_t>(Quantity::loss_at_common_tokens)] =
        loss_at_tokens(run, comparison.common_tokens);
  }
  comparison.columns = columns_of(comparison.runs, summaries, group);
  for (size_t c = 0; c < comparison.columns.size(); ++c) {
    const std::vector<size_t>& members = comparison.columns[c].members;
    if (std::find(members.begin(), members.end(), baseline) != members.end()) comparison.baseline_column = c;
    measure_column(comparison.columns[c], summaries, Quantity::final_validation_loss);
    measure_column(comparison.columns[c], summaries, Quantity::loss_at_common_tokens);
  }

  const Column& base = comparison.columns[comparison.baseline_column];
  comparison.target_is_baselines = !target_loss && base[Quantity::final_validation_loss].mean;
  comparison.target_loss = target_loss ? target_loss : base[Quantity::final_validation_loss].mean;
  const Spread& reference = base[Quantity::loss_at_common_tokens];
  for (size_t i = 0; i < summaries.size(); ++i) {
    measure_target(summaries[i], comparison.runs[i], comparison.target_loss);
    Measured difference = summaries[i][Quantity::loss_at_common_tokens];
    if (difference.value && reference.mean) {
      *difference.value -= *reference.mean;
      difference.exact = difference.exact && reference.exact;
    } else if (difference.value) {
      difference = {std::nullopt, true, "no baseline"};
    }
    summaries[i].measured[static_cast<size_t>(Quantity::difference_at_common_tokens)] = difference;
    summaries[i].paired = paired_with_baseline(comparison, i);
  }
  for (Column& column : comparison.columns) {
    for (size_t q = 0; q < kQuantities; ++q) measure_column(column, summaries, static_cast<Quantity>(q));
    column.paired = paired_of(column, summaries);
    for (const size_t member : column.members)
      for (const std::string& key : summaries[member].paired.differs_also)
        if (std::find(column.differs_also.begin(), column.differs_also.end(), key) ==
            column.differs_also.end())
          column.differs_also.push_back(key);
  }
  return comparison;
}

}  // namespace keen
