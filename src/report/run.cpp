#include "report/run.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "io/file.h"
#include "model/gpt.h"
#include "train/run_config.h"

namespace keen {

namespace {

namespace fs = std::filesystem;

std::optional<double> number_in(const Json& row, const char* key) {
  const auto at = row.find(key);
  if (at == row.end() || !at->is_number()) return std::nullopt;
  return at->get<double>();
}

std::optional<int64_t> integer_in(const Json& row, const char* key) {
  const auto x = number_in(row, key);
  if (!x || !(std::abs(*x) < 9e18)) return std::nullopt;
  return static_cast<int64_t>(*x);
}

std::string text_in(const Json& row, const char* key) {
  const auto at = row.find(key);
  return at != row.end() && at->is_string() ? at->get<std::string>() : "";
}

// What is gathered line by line. Rows are kept by step, so that what a resumed run did again replaces what it
// did before.
struct Rows {
  std::map<int64_t, Point> train, validation;
  std::map<int64_t, double> speeds;
};

void take_row(RunRecord& run, Rows& rows, const Json& row) {
  const std::string kind = text_in(row, "kind");
  const auto step = integer_in(row, "step"), tokens = integer_in(row, "tokens");
  if (kind == "event") {
    run.last_event = text_in(row, "event");
    if (run.last_event == "fork") {
      run.parent = text_in(row, "parent");
      run.parent_step = integer_in(row, "parent_step");
    }
    return;
  }
  if (!step || !tokens) return;
  if (kind == "validation") rows.validation[*step] = {*step, *tokens, number_in(row, "loss")};
  if (kind != "train") return;
  rows.train[*step] = {*step, *tokens, number_in(row, "loss")};
  if (const auto elapsed_s = number_in(row, "elapsed_s")) run.elapsed_s = elapsed_s;
  if (const auto speed = number_in(row, "tokens_per_s")) rows.speeds[*step] = *speed;
}

std::vector<Point> curve_of(const std::map<int64_t, Point>& rows) {
  std::vector<Point> curve;
  for (const auto& [step, point] : rows) curve.push_back(point);
  return curve;
}

void read_metrics(RunRecord& run, const fs::path& path) {
  const std::string text = read_file(path, Exit::data);
  Rows rows;
  size_t line = 0, unreadable = 0, first_unreadable = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    if (end == std::string::npos) break;
    ++line;
    const std::string_view row = std::string_view(text).substr(at, end - at);
    at = end + 1;
    if (row.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    try {
      const Json parsed = parse_json(row, path.string(), Exit::data);
      if (!parsed.is_object()) fail(Exit::data, "not an object");
      take_row(run, rows, parsed);
    } catch (const Error&) {
      if (unreadable++ == 0) first_unreadable = line;
    }
  }
  if (unreadable > 0)
    run.problems.push_back(fmt::format("{}: {} unreadable {} left out, the first is line {}", path.string(),
                                       unreadable, unreadable == 1 ? "line is" : "lines are",
                                       first_unreadable));
  run.train = curve_of(rows.train);
  run.validation = curve_of(rows.validation);
  for (const auto* curve : {&run.train, &run.validation}) {
    if (curve->empty() || curve->back().step < run.steps.value_or(-1)) continue;
    run.steps = curve->back().step;
    run.tokens = curve->back().tokens;
  }
  if (!rows.speeds.empty()) {
    std::vector<double> speeds;
    for (const auto& [step, speed] : rows.speeds) speeds.push_back(speed);
    const auto middle = speeds.begin() + static_cast<std::ptrdiff_t>(speeds.size() / 2);
    std::nth_element(speeds.begin(), middle, speeds.end());
    run.tokens_per_s = *middle;
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
  attempt("metrics.jsonl", read_metrics);
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
