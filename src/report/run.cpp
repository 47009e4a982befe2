#include "report/run.h"

#include <algorithm>
#include <cmath>

#include "io/file.h"
#include "model/gpt.h"
#include "train/metrics.h"
#include "train/run_config.h"

namespace keen {

namespace {

namespace fs = std::filesystem;

std::optional<int64_t> integer_in(const Json& object, const char* key) {
  const auto at = object.find(key);
  if (at == object.end() || !at->is_number_integer()) return std::nullopt;
  return at->get<int64_t>();
}

std::string text_in(const Json& object, const char* key) {
  const auto at = object.find(key);
  return at != object.end() && at->is_string() ? at->get<std::string>() : "";
}

template <class Row> std::vector<Point> curve_of(const std::vector<Row>& rows) {
  std::vector<Point> curve;
  for (const Row& row : rows)
    curve.push_back({row.step, row.tokens, std::isfinite(row.loss) ? std::optional(row.loss) : std::nullopt});
  return curve;
}

std::optional<double> median(std::vector<double> values) {
  if (values.empty()) return std::nullopt;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void read_metrics_file(RunRecord& run, const fs::path& path) {
  std::string text = read_file(path, Exit::data);
  // What follows the last newline is being written.
  text.erase(text.find_last_of('\n') + 1);
  const Metrics metrics = parse_metrics(text);
  if (const int64_t lines = metrics.unreadable_lines; lines > 0)
    run.problems.push_back(fmt::format("{}: {} unreadable {} left out", path.string(), lines,
                                       lines == 1 ? "line is" : "lines are"));

  run.train = curve_of(metrics.train);
  run.validation = curve_of(metrics.validation);
  for (const auto* curve : {&run.train, &run.validation}) {
    if (curve->empty() || curve->back().step < run.steps.value_or(-1)) continue;
    run.steps = curve->back().step;
    run.tokens = curve->back().tokens;
  }
  std::vector<double> speeds;
  for (const TrainRow& row : metrics.train) {
    if (std::isfinite(row.tokens_per_s)) speeds.push_back(row.tokens_per_s);
    if (std::isfinite(row.elapsed_s)) run.elapsed_s = row.elapsed_s;
  }
  run.tokens_per_s = median(std::move(speeds));
  for (const Json& event : metrics.events) {
    run.last_event = text_in(event, "event");
    if (run.last_event != "fork") continue;
    run.parent = text_in(event, "parent");
    run.parent_step = integer_in(event, "parent_step");
  }
}

void read_config(RunRecord& run, const fs::path& path) {
  const std::string text = read_file(path, Exit::data);
  run.config = parse_json(text, path.string(), Exit::data);
  if (!run.config.is_object()) fail(Exit::data, "{}: not a JSON object", path.string());
  const auto schedule = run.config.find("schedule");
  if (schedule != run.config.end() && schedule->is_object())
    run.planned_steps = integer_in(*schedule, "steps");
  try {
    run.parameters = Gpt(parse_run_config(text, path.string()).model, DType::f32).params.count();
  } catch (const Error&) {
    // Another version's config is still compared key by key; only the count is not known.
  }
}

}  // namespace

std::optional<double> RunRecord::final_validation() const {
  return validation.empty() ? std::nullopt : validation.back().loss;
}

std::optional<double> RunRecord::best_validation() const {
  std::optional<double> best;
  for (const Point& point : validation)
    if (point.loss && !(best && *best <= *point.loss)) best = point.loss;
  return best;
}

RunRecord read_run(const fs::path& directory) {
  std::error_code ignored;
  if (!fs::is_directory(directory, ignored))
    fail(Exit::data, "{}: no such run directory", directory.string());
  RunRecord run;
  run.path = directory;
  const fs::path clean = fs::absolute(directory).lexically_normal();
  run.name = (clean.has_filename() ? clean : clean.parent_path()).filename().string();

  int found = 0;
  const auto attempt = [&](const char* file, void (*read)(RunRecord&, const fs::path&)) {
    if (!fs::exists(directory / file, ignored))
      return run.problems.push_back(fmt::format("{}: not there", (directory / file).string()));
    try {
      read(run, directory / file);
      ++found;
    } catch (const Error& error) {
      run.problems.push_back(error.what());
    }
  };
  attempt("config.json", read_config);
  attempt("metrics.jsonl", read_metrics_file);
  if (found == 0) {
    std::string reasons;
    for (const std::string& problem : run.problems) reasons += "\n  " + problem;
    fail(Exit::data, "{}: not a run directory that can be read:{}", directory.string(), reasons);
  }
  return run;
}

std::optional<Interpolated> loss_at(const std::vector<Point>& curve, int64_t tokens) {
  const auto after =
      std::find_if(curve.begin(), curve.end(), [&](const Point& p) { return p.tokens >= tokens; });
  if (after == curve.end() || !after->loss) return std::nullopt;
  if (after->tokens == tokens) return Interpolated{*after->loss, true};
  if (after == curve.begin() || !std::prev(after)->loss) return std::nullopt;
  const Point& before = *std::prev(after);
  const double share =
      static_cast<double>(tokens - before.tokens) / static_cast<double>(after->tokens - before.tokens);
  return Interpolated{*before.loss + share * (*after->loss - *before.loss), false};
}

std::optional<Reached> tokens_to_reach(const std::vector<Point>& curve, double loss) {
  const auto after =
      std::find_if(curve.begin(), curve.end(), [&](const Point& p) { return p.loss && *p.loss <= loss; });
  if (after == curve.end()) return std::nullopt;
  if (after == curve.begin() || !std::prev(after)->loss || *after->loss == loss)
    return Reached{after->tokens, true};
  const Point& before = *std::prev(after);
  const double share = (*before.loss - loss) / (*before.loss - *after->loss);
  const double tokens =
      static_cast<double>(before.tokens) + share * static_cast<double>(after->tokens - before.tokens);
  return Reached{static_cast<int64_t>(std::llround(tokens)), false};
}

}  // namespace keen
