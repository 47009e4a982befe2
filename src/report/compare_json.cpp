#include <cmath>

#include "report/compare.h"

namespace keen {

namespace {

template <class T> Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

bool is_count(Quantity quantity) {
  return quantity == Quantity::steps || quantity == Quantity::tokens || quantity == Quantity::parameters ||
         quantity == Quantity::tokens_to_target_loss;
}

Json number(Quantity quantity, std::optional<double> value) {
  if (!value) return nullptr;
  return is_count(quantity) ? Json(static_cast<int64_t>(*value)) : Json(*value);
}

Json step_of(const Point* point) { return point != nullptr ? Json(point->step) : Json(nullptr); }

const Point* best_point(const RunRecord& run) {
  const Point* best = nullptr;
  for (const Point& point : run.validation)
    if (point.loss && (best == nullptr || *point.loss < *best->loss)) best = &point;
  return best;
}

Json paired_json(const Paired& paired, const Comparison& comparison) {
  if (!paired.mean) return nullptr;
  return {{"with", comparison.summaries[*paired.partner].label},
          {"mean", *paired.mean},
          {"standard_error", or_null(paired.standard_error)},
          {"pairs", paired.pairs},
          {"blocks", paired.blocks},
          {"first_step", paired.first_step},
          {"last_step", paired.last_step},
          {"differs_also", paired.differs_also}};
}

Json marks_json(const RunRecord& run) {
  Json marks = Json::array();
  for (const Mark& mark : run.marks)
    marks.push_back({{"kind", name_of(mark.kind)}, {"step", mark.step}, {"text", mark.text}});
  return marks;
}

Json run_json(const Comparison& comparison, size_t index) {
  const RunRecord& run = comparison.runs[index];
  const Summary& summary = comparison.summaries[index];
  Json entry = {{"name", summary.label}, {"path", run.path.string()}};
  Json missing = Json::object(), interpolated = Json::array();
  for (size_t q = 0; q < kQuantities; ++q) {
    const auto quantity = static_cast<Quantity>(q);
    const Measured& measured = summary[quantity];
    const std::string key(name_of(quantity));
    entry[key] = number(quantity, measured.value);
    if (!measured.value) missing[key] = measured.why;
    if (measured.value && !measured.exact) interpolated.push_back(key);
  }
  entry["paired_difference"] = paired_json(summary.paired, comparison);
  if (!summary.paired.mean) missing["paired_difference"] = summary.paired.why;
  entry["missing"] = std::move(missing);
  entry["interpolated"] = std::move(interpolated);
  entry["planned_steps"] = or_null(run.planned_steps);
  entry["elapsed_s"] = or_null(run.elapsed_s);
  entry["flops_per_token"] = or_null(run.flops_per_token);
  entry["final_validation_step"] = step_of(run.validation.empty() ? nullptr : &run.validation.back());
  entry["best_validation_step"] = step_of(best_point(run));
  entry["parent"] = or_null(run.parent);
  entry["parent_step"] = or_null(run.parent_step);
  if (run.parent)
    entry["origin"] = {{"known", run.origin.known},
                       {"step", run.origin.step},
                       {"tokens", run.origin.tokens},
                       {"seconds", run.origin.seconds},
                       {"flops", run.origin.flops}};
  else
    entry["origin"] = nullptr;
  entry["marks"] = marks_json(run);
  entry["last_event"] = run.last_event;
  entry["problems"] = run.problems;
  return entry;
}

Json spread_json(const Spread& spread, const char* deviation) {
  return {{"mean", or_null(spread.mean)},
          {deviation, or_null(spread.deviation)},
          {"n", spread.n},
          {"interpolated", !spread.exact}};
}

Json group_json(const Comparison& comparison, const Column& column) {
  Json names = Json::array(), seeds = Json::array();
  for (const size_t member : column.members) {
    names.push_back(comparison.summaries[member].label);
    seeds.push_back(comparison.runs[member].config["seed"]);
  }
  Json group = {{"name", column.label}, {"runs", std::move(names)}, {"seeds", std::move(seeds)}};
  for (size_t q = 0; q < kQuantities; ++q) {
    const auto quantity = static_cast<Quantity>(q);
    group[std::string(name_of(quantity))] = spread_json(column[quantity], "deviation");
  }
  group["paired_difference"] = spread_json(column.paired, "standard_error");
  group["paired_difference"]["differs_also"] = column.differs_also;
  return group;
}

Json equality_json(const Comparison& comparison) {
  const Equality& equality = *comparison.equality;
  Json result = {{"equal", !equality.difference},          {"tolerance", equality.tolerance},
                 {"train_losses", equality.train},         {"validation_losses", equality.validation},
                 {"largest_difference", equality.largest}, {"first_difference", nullptr}};
  if (!equality.difference) return result;
  const LossDifference& at = *equality.difference;
  result["first_difference"] = {{"run", comparison.summaries[at.run].label},
                                {"kind", at.kind},
                                {"step", at.step},
                                {"baseline_logged", at.in_baseline},
                                {"run_logged", at.in_run},
                                {"baseline_loss", or_null(at.baseline_loss)},
                                {"loss", or_null(at.loss)}};
  return result;
}

}  // namespace

Json comparison_json(const Comparison& comparison) {
  Json runs = Json::array(), groups = Json::array(), differences = Json::object();
  for (size_t i = 0; i < comparison.runs.size(); ++i) runs.push_back(run_json(comparison, i));
  for (const Column& column : comparison.columns)
    if (column.members.size() > 1) groups.push_back(group_json(comparison, column));
  for (const ConfigDifference& difference : comparison.differences) {
    Json values = Json::array();
    for (const std::optional<std::string>& value : difference.values)
      values.push_back(value ? Json::parse(*value) : Json(nullptr));
    differences[difference.key] = std::move(values);
  }
  Json result = {{"baseline", comparison.summaries[comparison.baseline].label},
                 {"common_tokens", or_null(comparison.common_tokens)},
                 {"target_loss", or_null(comparison.target_loss)},
                 {"config_differences", std::move(differences)},
                 {"runs", std::move(runs)},
                 {"groups", std::move(groups)},
                 {"cautions", comparison.cautions}};
  if (comparison.equality) result["equality"] = equality_json(comparison);
  return result;
}

}  // namespace keen
