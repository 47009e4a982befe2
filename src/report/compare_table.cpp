#include <algorithm>
#include <cmath>

#include "core/console.h"
#include "report/compare.h"
#include "report/loss_text.h"

namespace keen {

namespace {

constexpr std::string_view kDagger = "†";

std::string number_text(Quantity quantity, double x) {
  switch (quantity) {
    case Quantity::steps:
      return x == std::floor(x) ? with_commas(static_cast<int64_t>(x)) : fmt::format("{:.1f}", x);
    case Quantity::tokens:
    case Quantity::parameters:
    case Quantity::tokens_per_s:
    case Quantity::tokens_to_target_loss:
      return short_count(x);
    case Quantity::training_s:
    case Quantity::seconds_to_target_loss:
      return duration(x);
    case Quantity::difference_at_common_tokens:
      return loss_difference_text(x);
    case Quantity::train_loss:
    case Quantity::final_validation_loss:
    case Quantity::best_validation_loss:
    case Quantity::loss_at_common_tokens:
      return loss_text(x);
  }
  return "";
}

bool is_loss(Quantity quantity) {
  return quantity == Quantity::train_loss || quantity == Quantity::final_validation_loss ||
         quantity == Quantity::best_validation_loss || quantity == Quantity::loss_at_common_tokens;
}

// A deviation says nothing of what is the same in all members, nor of members whose baseline is their own
// mean.
std::string deviation_text(Quantity quantity, const Spread& spread) {
  if (!spread.deviation || quantity == Quantity::difference_at_common_tokens) return "";
  if (*spread.deviation == 0 && !is_loss(quantity)) return "";
  return " ± " + number_text(quantity, *spread.deviation);
}

Cell spread_cell(Quantity quantity, const Column& column) {
  const Spread& spread = column[quantity];
  if (!spread.mean) return {spread.why, Cell::Kind::missing};
  Cell cell{number_text(quantity, *spread.mean), Cell::Kind::value};
  const auto members = std::ssize(column.members);
  cell.text +=
      spread.n < members ? fmt::format(" ({} of {})", spread.n, members) : deviation_text(quantity, spread);
  if (spread.exact) return cell;
  return {"~" + cell.text, Cell::Kind::interpolated};
}

// "540 of 1,000" while there are steps to come.
Cell steps_cell(const Comparison& comparison, const Column& column) {
  Cell cell = spread_cell(Quantity::steps, column);
  const RunRecord& run = comparison.runs[column.members[0]];
  if (cell.kind == Cell::Kind::missing || column.members.size() > 1 || !run.planned_steps) return cell;
  if (*run.planned_steps != run.steps) cell.text += " of " + with_commas(*run.planned_steps);
  return cell;
}

Cell paired_cell(const Column& column) {
  const Spread& paired = column.paired;
  if (!paired.mean) return {paired.why, Cell::Kind::missing};
  std::string text = loss_difference_text(*paired.mean);
  if (paired.deviation) text += " ± " + loss_text(*paired.deviation);
  if (const auto members = std::ssize(column.members); paired.n < members && members > 1)
    text += fmt::format(" ({} of {})", paired.n, members);
  if (!column.differs_also.empty()) text += " " + std::string(kDagger);
  return {std::move(text), Cell::Kind::value};
}

// Whether the runs of a column have other attention than their partners.
bool attention_differs(const Comparison& comparison, const Column& column) {
  return std::any_of(column.members.begin(), column.members.end(),
                     [&](size_t member) { return comparison.summaries[member].paired.attention_differs; });
}

std::string count_text(std::optional<double> count) { return count ? short_count(*count) : ""; }

// The rows of one table, made one after the other.
class Rows {
 public:
  explicit Rows(const Comparison& comparison) : comparison_(comparison) {}

  template <class F> void add(std::string key, std::string label, F cell) {
    CellRow row{std::move(key), std::move(label), {}};
    for (const Column& column : comparison_.columns) row.cells.push_back(cell(column));
    rows.push_back(std::move(row));
  }
  void add(Quantity quantity, std::string label) {
    add(std::string(name_of(quantity)), std::move(label),
        [quantity](const Column& column) { return spread_cell(quantity, column); });
  }

  std::vector<CellRow> rows;

 private:
  const Comparison& comparison_;
};

bool is_baseline(const Comparison& comparison, const Column& column) {
  return &column == &comparison.columns[comparison.baseline_column];
}

void add_fork_rows(const Comparison& comparison, Rows& rows) {
  const auto first = [&](const Column& column) -> const RunRecord& {
    return comparison.runs[column.members[0]];
  };
  const auto is_fork = [](const RunRecord& run) { return run.parent.has_value(); };
  if (std::none_of(comparison.runs.begin(), comparison.runs.end(), is_fork)) return;
  rows.add("parent", "fork of", [&](const Column& column) -> Cell {
    const RunRecord& run = first(column);
    if (!run.parent) return {"no fork", Cell::Kind::missing};
    return {run.parent_name(), Cell::Kind::value};
  });
  rows.add("parent_step", "  at step", [&](const Column& column) -> Cell {
    const RunRecord& run = first(column);
    if (!run.parent_step) return {run.parent ? "unknown" : "", Cell::Kind::missing};
    return {with_commas(*run.parent_step), Cell::Kind::value};
  });
}

template <class P> bool any_cell(const CellTable& table, P wanted) {
  return std::any_of(table.rows.begin(), table.rows.end(), [&](const CellRow& row) {
    return std::any_of(row.cells.begin(), row.cells.end(),
                       [&](const Cell& cell) { return wanted(row, cell); });
  });
}

std::string paired_note(const Comparison& comparison) {
  int64_t seeds = 0;
  for (const Column& column : comparison.columns) seeds = std::max(seeds, column.paired.n);
  return std::string(
             "Paired: the mean difference of the training losses on identical batches, over the last "
             "quarter of the common ones, ± its standard error") +
         (seeds > 1 ? " over seeds, of block means where there is one."
                    : " (of block means). Another seed would give another mean.");
}

// What else than attention the paired differences may come from, columns of the same kind together.
std::vector<std::string> also_notes(const Comparison& comparison) {
  std::vector<std::pair<std::string, std::string>> by_text;  // what differs, and in which columns
  for (const Column& column : comparison.columns) {
    const auto& keys = column.differs_also;
    if (!column.paired.mean || keys.empty()) continue;
    const std::string differ =
        fmt::format("{} {}", fmt::join(keys, ", "), keys.size() == 1 ? "differs" : "differ");
    const std::string text = attention_differs(comparison, column)
                                 ? fmt::format("not of attention alone: {} too.", differ)
                                 : fmt::format("not of attention, which is the same: {}.", differ);
    const auto known = std::ranges::find(by_text, text, &std::pair<std::string, std::string>::first);
    if (known != by_text.end())
      known->second += ", " + column.label;
    else
      by_text.emplace_back(text, column.label);
  }
  std::vector<std::string> notes;
  for (const auto& [text, columns] : by_text)
    notes.push_back(fmt::format("{} {}: {}", kDagger, columns, text));
  return notes;
}

}  // namespace

CellTable comparison_table(const Comparison& comparison) {
  Rows rows(comparison);
  const bool several = comparison.columns.size() > 1;
  rows.add("steps", "steps", [&](const Column& column) { return steps_cell(comparison, column); });
  rows.add(Quantity::tokens, "tokens");
  rows.add(Quantity::training_s, "training time");
  rows.add(Quantity::parameters, "parameters");
  rows.add(Quantity::tokens_per_s, "tokens/s");
  rows.add(Quantity::train_loss, fmt::format("train loss, last {}", kTrainLossRows));
  rows.add(Quantity::final_validation_loss, "final val. loss");
  rows.add(Quantity::best_validation_loss, "best val. loss");
  if (comparison.common_tokens && several) {
    rows.add(Quantity::loss_at_common_tokens,
             fmt::format("val. at {} tokens", count_text(static_cast<double>(*comparison.common_tokens))));
    rows.add(std::string(name_of(Quantity::difference_at_common_tokens)), "  minus baseline",
             [&](const Column& column) -> Cell {
               if (is_baseline(comparison, column)) return {"baseline", Cell::Kind::missing};
               return spread_cell(Quantity::difference_at_common_tokens, column);
             });
  }
  if (comparison.target_loss && (several || !comparison.target_is_baselines)) {
    const std::string target = loss_text(*comparison.target_loss);
    rows.add(Quantity::tokens_to_target_loss, "tokens to " + target);
    rows.add(Quantity::seconds_to_target_loss, "time to " + target);
  }
  if (several)
    rows.add("paired_difference", "paired difference",
             [](const Column& column) { return paired_cell(column); });
  add_fork_rows(comparison, rows);
  CellTable table;
  for (const Column& column : comparison.columns) table.header.push_back(column.label);
  table.rows = std::move(rows.rows);
  return table;
}

CellTable config_table(const Comparison& comparison) {
  CellTable table;
  for (const Column& column : comparison.columns) table.header.push_back(column.label);
  for (const ConfigDifference& difference : comparison.differences) {
    CellRow row{difference.key, difference.key, {}};
    const bool of_environment = difference.key.starts_with("environment.");
    for (const Column& column : comparison.columns) {
      std::vector<std::string> values;
      for (const size_t member : column.members) {
        const RunRecord& run = comparison.runs[member];
        const bool readable = (of_environment ? run.environment : run.config).is_object();
        const std::optional<std::string>& value = difference.values[member];
        const std::string text = value ? *value : readable ? "absent" : "unknown";
        if (std::find(values.begin(), values.end(), text) == values.end()) values.push_back(text);
      }
      const bool missing = values.size() == 1 && !difference.values[column.members[0]];
      row.cells.push_back(
          {fmt::format("{}", fmt::join(values, ", ")), missing ? Cell::Kind::missing : Cell::Kind::value});
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::vector<std::string> comparison_notes(const Comparison& comparison) {
  const CellTable table = comparison_table(comparison);
  std::vector<std::string> notes;
  const bool several = comparison.columns.size() > 1;
  if (several) notes.push_back("Baseline: " + comparison.columns[comparison.baseline_column].label + ".");
  if (any_cell(table, [](const CellRow&, const Cell& cell) { return cell.kind == Cell::Kind::interpolated; }))
    notes.push_back("~ lies on the straight line between two validation points.");
  if (several && comparison.target_is_baselines)
    notes.push_back(loss_text(*comparison.target_loss) + " is the baseline's final validation loss.");
  else if (several && !comparison.target_loss)
    notes.push_back("The baseline has no final validation loss that the others could reach.");
  for (const Column& column : comparison.columns) {
    if (column.members.size() < 2) continue;
    std::vector<std::string> labels;
    for (const size_t member : column.members) labels.push_back(comparison.summaries[member].label);
    notes.push_back(fmt::format("{}: mean ± standard deviation of {} seeds ({}).", column.label,
                                labels.size(), fmt::join(labels, ", ")));
    if (column[Quantity::steps].deviation.value_or(0) > 0)
      notes.push_back(fmt::format("The runs of {} have not come equally far.", column.label));
  }
  if (any_cell(table, [](const CellRow& row, const Cell& cell) {
        return row.key == "paired_difference" && cell.kind == Cell::Kind::value;
      }))
    notes.push_back(paired_note(comparison));
  for (std::string& note : also_notes(comparison)) notes.push_back(std::move(note));
  const bool timed = std::any_of(comparison.runs.begin(), comparison.runs.end(),
                                 [](const RunRecord& run) { return !run.train.empty(); });
  if (several && timed) notes.push_back("Time and tokens/s depend on what else the machine did meanwhile.");
  const bool forks = std::any_of(comparison.runs.begin(), comparison.runs.end(), [](const RunRecord& run) {
    return run.parent && run.parent_step.value_or(0) > 0;
  });
  if (forks && several)
    notes.push_back("Time is a fork's own; so are its steps and tokens unless init.step is \"keep\".");
  notes.insert(notes.end(), comparison.cautions.begin(), comparison.cautions.end());
  return notes;
}

}  // namespace keen
