#include "report/compare.h"

#include <algorithm>
#include <functional>
#include <set>

#include "core/console.h"

namespace keen {

namespace {

constexpr const char* kNone = "-";
constexpr size_t kNarrowestColumn = 12;

// Every leaf of a config by its dotted key; lists are leaves.
void flatten(const Json& value, const std::string& key,
             std::vector<std::pair<std::string, std::string>>& out) {
  if (!value.is_object()) return out.emplace_back(key, json_line(value)), void();
  for (const auto& [name, inner] : value.items()) flatten(inner, key.empty() ? name : key + "." + name, out);
}

// The names of the runs, made different by more of the path where two are the same.
std::vector<std::string> labels_of(const std::vector<RunRecord>& runs) {
  std::vector<std::string> labels;
  for (const RunRecord& run : runs) {
    const bool twice =
        std::count_if(runs.begin(), runs.end(), [&](const RunRecord& r) { return r.name == run.name; }) > 1;
    labels.push_back(twice ? run.path.lexically_normal().string() : run.name);
  }
  return labels;
}

std::string loss_text(std::optional<double> loss, bool exact = true) {
  return loss ? fmt::format("{}{:.4f}", exact ? "" : "~", *loss) : kNone;
}

std::string count_text(std::optional<int64_t> count) {
  return count ? short_count(static_cast<double>(*count)) : kNone;
}

// A line of the table: a label, and a cell for every run.
struct Line {
  std::string label;
  std::function<std::string(const RunRecord&)> cell;
};

std::string steps_text(const RunRecord& run) {
  if (!run.steps) return kNone;
  if (!run.planned_steps || *run.planned_steps == *run.steps) return with_commas(*run.steps);
  return fmt::format("{} of {}", with_commas(*run.steps), with_commas(*run.planned_steps));
}

std::string last_validation_text(const RunRecord& run) {
  if (run.validation.empty()) return kNone;
  return run.validation.back().loss ? loss_text(run.validation.back().loss) : "not finite";
}

std::vector<Line> lines_of(const Comparison& comparison) {
  const RunRecord& baseline = comparison.runs[comparison.baseline];
  std::vector<Line> lines = {
      {"steps", steps_text},
      {"tokens", [](const RunRecord& run) { return count_text(run.tokens); }},
      {"time", [](const RunRecord& run) { return run.elapsed_s ? duration(*run.elapsed_s) : kNone; }},
      {"parameters", [](const RunRecord& run) { return count_text(run.parameters); }},
      {"tokens/s",
       [](const RunRecord& run) { return run.tokens_per_s ? short_count(*run.tokens_per_s) : kNone; }},
      {"final val. loss", last_validation_text},
      {"best val. loss", [](const RunRecord& run) { return loss_text(run.best_validation()); }},
  };
  if (comparison.common_tokens) {
    lines.push_back(
        {fmt::format("at {} tokens", count_text(comparison.common_tokens)), [&](const RunRecord& run) {
           const auto at = comparison.loss_at_common(run);
           return at ? loss_text(at->loss, at->exact) : kNone;
         }});
    if (comparison.runs.size() > 1)
      lines.push_back(
          {"  against baseline", [&](const RunRecord& run) {
             const auto own = comparison.loss_at_common(run), other = comparison.loss_at_common(baseline);
             if (&run == &baseline || !own || !other) return std::string(kNone);
             return fmt::format("{}{:+.4f}", own->exact && other->exact ? "" : "~", own->loss - other->loss);
           }});
  }
  if (comparison.target_loss)
    lines.push_back({fmt::format("tokens to {:.6g}", *comparison.target_loss), [&](const RunRecord& run) {
                       const auto reached = tokens_to_reach(run.validation, *comparison.target_loss);
                       return reached ? (reached->exact ? "" : "~") + count_text(reached->tokens)
                                      : "not reached";
                     }});
  if (std::any_of(comparison.runs.begin(), comparison.runs.end(),
                  [](const RunRecord& run) { return run.parent.has_value(); })) {
    const auto parent = [](const RunRecord& run) {
      const std::filesystem::path path = std::filesystem::path(run.parent.value_or("")).lexically_normal();
      // RUN/checkpoints/step_N, or a bare checkpoint: its run, if it has one.
      for (auto at = path; at.has_relative_path(); at = at.parent_path())
        if (at.filename() == "checkpoints") return at.parent_path().filename().string();
      return path.filename().string();
    };
    lines.push_back({"fork of", [parent](const RunRecord& run) { return run.parent ? parent(run) : kNone; }});
    lines.push_back({"  at step", [](const RunRecord& run) {
                       return run.parent_step ? with_commas(*run.parent_step) : kNone;
                     }});
  }
  return lines;
}

// The columns [begin, end) of a table whose first column are labels, none wider than fits.
Table columns(const std::vector<std::vector<std::string>>& rows, size_t begin, size_t end, size_t width) {
  const auto pick = [&](const std::vector<std::string>& row) {
    std::vector<std::string> cells = {row[0]};
    for (size_t i = begin; i < end; ++i) cells.push_back(shortened(row[i + 1], width));
    return cells;
  };
  Table table(pick(rows[0]));
  for (size_t i = 1; i < rows.size(); ++i) table.add(pick(rows[i]));
  return table;
}

// One column a run, as many side by side as fit.
std::string side_by_side(const std::vector<std::vector<std::string>>& rows, bool colour) {
  size_t label = 0;
  for (const auto& row : rows) label = std::max(label, display_width(row[0]));
  const size_t runs = rows[0].size() - 1,
               space = kConsoleWidth - std::min(label, kConsoleWidth - 2 - kNarrowestColumn);
  const size_t at_once = std::clamp<size_t>(space / (2 + kNarrowestColumn), 1, runs);
  std::string text;
  for (size_t begin = 0; begin < runs; begin += at_once) {
    const size_t end = std::min(begin + at_once, runs);
    if (begin > 0) text += "\n";
    text += columns(rows, begin, end, space / (end - begin) - 2).str(0, colour);
  }
  return text;
}

template <class T> Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

}  // namespace

std::vector<ConfigDifference> config_differences(const std::vector<RunRecord>& runs) {
  std::vector<std::map<std::string, std::string>> values(runs.size());
  std::vector<std::string> order;
  std::set<std::string> known;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (!runs[i].config.is_object()) continue;
    std::vector<std::pair<std::string, std::string>> leaves;
    flatten(runs[i].config, "", leaves);
    for (const auto& [key, value] : leaves) {
      values[i][key] = value;
      if (known.insert(key).second) order.push_back(key);
    }
  }
  std::vector<ConfigDifference> differences;
  for (const std::string& key : order) {
    ConfigDifference difference{key, {}};
    std::set<std::string> distinct;
    for (size_t i = 0; i < runs.size(); ++i) {
      const auto at = values[i].find(key);
      difference.values.push_back(at == values[i].end() ? kNone : at->second);
      if (runs[i].config.is_object()) distinct.insert(difference.values.back());
    }
    if (distinct.size() > 1 && key != "name") differences.push_back(std::move(difference));
  }
  return differences;
}

std::optional<Interpolated> Comparison::loss_at_common(const RunRecord& run) const {
  return common_tokens ? loss_at(run.validation, *common_tokens) : std::nullopt;
}

Comparison compare_runs(std::vector<RunRecord> runs, size_t baseline, std::optional<double> target_loss) {
  check(baseline < runs.size(), "compare_runs: the baseline is one of the runs");
  Comparison comparison;
  comparison.runs = std::move(runs);
  comparison.baseline = baseline;
  comparison.target_loss = target_loss;
  comparison.differences = config_differences(comparison.runs);
  std::optional<int64_t> least;
  for (const RunRecord& run : comparison.runs)
    if (!run.validation.empty())
      least = std::min(least.value_or(run.validation.back().tokens), run.validation.back().tokens);
  comparison.common_tokens = least;
  return comparison;
}

std::string comparison_text(const Comparison& comparison, bool colour) {
  const std::vector<std::string> labels = labels_of(comparison.runs);
  std::string text;
  const auto header = [&](const std::string& first) {
    std::vector<std::string> row = {first};
    row.insert(row.end(), labels.begin(), labels.end());
    return row;
  };
  if (!comparison.differences.empty()) {
    std::vector<std::vector<std::string>> rows = {header("config")};
    for (const ConfigDifference& difference : comparison.differences) {
      rows.push_back({difference.key});
      rows.back().insert(rows.back().end(), difference.values.begin(), difference.values.end());
    }
    text += side_by_side(rows, colour) + "\n";
  } else if (std::count_if(comparison.runs.begin(), comparison.runs.end(),
                           [](const RunRecord& run) { return run.config.is_object(); }) > 1) {
    text += "The configs are equal.\n\n";
  }
  std::vector<std::vector<std::string>> rows = {header("run")};
  bool interpolated = false;
  for (const Line& line : lines_of(comparison)) {
    rows.push_back({line.label});
    for (const RunRecord& run : comparison.runs) {
      rows.back().push_back(line.cell(run));
      interpolated = interpolated || rows.back().back().starts_with('~');
    }
  }
  text += side_by_side(rows, colour);
  if (comparison.runs.size() > 1)
    text += "\n" +
            styled(fmt::format("Baseline: {}.{}", labels[comparison.baseline],
                               interpolated ? " ~ lies between two validation points." : ""),
                   Style::dim, colour) +
            "\n";
  else if (interpolated)
    text += "\n" + styled("~ lies between two validation points.", Style::dim, colour) + "\n";
  return text;
}

Json comparison_json(const Comparison& comparison) {
  const std::vector<std::string> labels = labels_of(comparison.runs);
  Json runs = Json::array();
  for (size_t i = 0; i < comparison.runs.size(); ++i) {
    const RunRecord& run = comparison.runs[i];
    const auto common = comparison.loss_at_common(run);
    Json entry = {{"name", labels[i]},
                  {"path", run.path.string()},
                  {"steps", or_null(run.steps)},
                  {"planned_steps", or_null(run.planned_steps)},
                  {"tokens", or_null(run.tokens)},
                  {"elapsed_s", or_null(run.elapsed_s)},
                  {"parameters", or_null(run.parameters)},
                  {"tokens_per_s", or_null(run.tokens_per_s)},
                  {"final_validation_loss", or_null(run.final_validation())},
                  {"best_validation_loss", or_null(run.best_validation())},
                  {"loss_at_common_tokens", common ? Json(common->loss) : Json(nullptr)},
                  {"interpolated", common ? Json(!common->exact) : Json(nullptr)},
                  {"parent", or_null(run.parent)},
                  {"parent_step", or_null(run.parent_step)},
                  {"last_event", run.last_event},
                  {"problems", run.problems}};
    if (comparison.target_loss) {
      const auto reached = tokens_to_reach(run.validation, *comparison.target_loss);
      entry["tokens_to_target_loss"] = reached ? Json(reached->tokens) : Json(nullptr);
    }
    runs.push_back(std::move(entry));
  }
  Json differences = Json::object();
  for (const ConfigDifference& difference : comparison.differences) {
    Json values = Json::array();
    for (const std::string& value : difference.values)
      values.push_back(value == kNone ? Json(nullptr) : Json::parse(value));
    differences[difference.key] = std::move(values);
  }
  Json result = {{"baseline", labels[comparison.baseline]},
                 {"common_tokens", or_null(comparison.common_tokens)},
                 {"config_differences", std::move(differences)},
                 {"runs", std::move(runs)}};
  if (comparison.target_loss) result["target_loss"] = *comparison.target_loss;
  return result;
}

}  // namespace keen
