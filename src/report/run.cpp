#include "report/run.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "io/file.h"
#include "model/gpt.h"
#include "train/checkpoint_manifest.h"
#include "train/metrics.h"
#include "train/run_config.h"

namespace keen {

namespace {

namespace fs = std::filesystem;

std::optional<int64_t> integer_in(const Json& object, const char* key) {
  const auto at = object.find(key);
  if (at == object.end() || !at->is_number_integer() || *at < 0 || *at > kMostCount) return std::nullopt;
  return at->get<int64_t>();
}

std::optional<double> number_in(const Json& object, const char* key) {
  const auto at = object.find(key);
  if (at == object.end() || !at->is_number()) return std::nullopt;
  return at->get<double>();
}

const Json* object_in(const Json& object, const char* key) {
  const auto at = object.find(key);
  return at != object.end() && at->is_object() ? &*at : nullptr;
}

std::string text_in(const Json& object, const char* key) {
  const auto at = object.find(key);
  return at != object.end() && at->is_string() ? at->get<std::string>() : "";
}

std::optional<double> finite(double x) { return std::isfinite(x) ? std::optional(x) : std::nullopt; }

std::optional<double> median(std::vector<double> values) {
  if (values.empty()) return std::nullopt;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// The last point that is not behind `step`, or nothing.
const TrainPoint* point_until(const std::vector<TrainPoint>& curve, int64_t step) {
  const auto after = std::upper_bound(curve.begin(), curve.end(), step,
                                      [](int64_t s, const TrainPoint& point) { return s < point.step; });
  return after == curve.begin() ? nullptr : &*std::prev(after);
}

// Where the run's own steps begin, and which steps read one batch more because one before was left out.
struct Course {
  std::optional<int64_t> first_step;  // of its start or fork
  std::vector<int64_t> skipped_at;    // the step that was being tried, for every batch left out
};

// A resume undoes what came after its checkpoint, and a checkpoint that was saved after a batch was left out
// knows of it.
Course course_of(const std::vector<Json>& events) {
  Course course;
  std::map<int64_t, size_t> known_at_save;
  for (const Json& event : events) {
    const std::string name = text_in(event, "event");
    const int64_t step = integer_in(event, "step").value_or(0);
    if (name == "start" || name == "fork") {
      course = {.first_step = step, .skipped_at = {}};
    } else if (name == "non_finite") {
      course.skipped_at.push_back(step);
    } else if (name == "save") {
      known_at_save[step] = course.skipped_at.size();
    } else if (name == "resume") {
      const auto known = known_at_save.find(step);
      const auto later = std::find_if(course.skipped_at.begin(), course.skipped_at.end(),
                                      [=](int64_t s) { return s > step; });
      const auto keep = known != known_at_save.end() ? std::min(known->second, course.skipped_at.size())
                                                     : static_cast<size_t>(later - course.skipped_at.begin());
      course.skipped_at.resize(keep);
    }
  }
  return course;
}

void fill_train(RunRecord& run, const Metrics& metrics) {
  const Course course = course_of(metrics.events);
  double seconds = 0;
  size_t skipped = 0;
  for (const TrainRow& row : metrics.train) {
    const int64_t before =
        !run.train.empty() ? run.train.back().step : course.first_step.value_or(row.step - 1);
    const size_t skipped_before = skipped;
    while (skipped < course.skipped_at.size() && course.skipped_at[skipped] <= row.step) ++skipped;
    const int64_t batches =
        std::max<int64_t>(row.step - before, 1) + static_cast<int64_t>(skipped - skipped_before);
    if (std::isfinite(row.step_ms)) seconds += row.step_ms / 1e3 * static_cast<double>(batches);
    TrainPoint point;
    point.step = row.step;
    point.tokens = row.tokens;
    point.seconds = seconds;
    point.loss = finite(row.loss);
    point.grad_norm = finite(row.grad_norm);
    point.lr = finite(row.lr);
    point.batch = row.step - 1 + static_cast<int64_t>(skipped);
    run.train.push_back(point);
  }
  if (!run.train.empty()) run.training_s = seconds;
}

void fill_marks(RunRecord& run, const Metrics& metrics) {
  run.marks = marks_of_events(metrics.events);
  std::vector<int64_t> steps;
  std::vector<std::optional<double>> losses;
  for (const TrainPoint& point : run.train) {
    steps.push_back(point.step);
    losses.push_back(point.loss);
  }
  for (Mark& mark : marks_of_losses(steps, losses)) run.marks.push_back(std::move(mark));
  std::stable_sort(run.marks.begin(), run.marks.end(),
                   [](const Mark& a, const Mark& b) { return a.step < b.step; });
}

void read_metrics_file(RunRecord& run, const fs::path& path) {
  std::string text = read_file(path, Exit::data, FileKind::regular);
  // What follows the last newline is being written.
  text.erase(text.find_last_of('\n') + 1);
  const Metrics metrics = parse_metrics(text);
  if (const int64_t lines = metrics.unreadable_lines; lines > 0)
    run.problems.push_back(fmt::format("{}: {} unreadable {} left out", path.string(), lines,
                                       lines == 1 ? "line is" : "lines are"));

  fill_train(run, metrics);
  for (const ValidationRow& row : metrics.validation) {
    const TrainPoint* trained = point_until(run.train, row.step);
    run.validation.push_back({.step = row.step,
                              .tokens = row.tokens,
                              .seconds = trained != nullptr ? trained->seconds : 0,
                              .loss = finite(row.loss)});
  }
  run.attention = metrics.attention;
  const auto reached = [&](const Point& last) {
    if (last.step < run.steps.value_or(-1)) return;
    run.steps = last.step;
    run.tokens = last.tokens;
  };
  if (!run.train.empty()) reached(run.train.back());
  if (!run.validation.empty()) reached(run.validation.back());
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
  fill_marks(run, metrics);
}

// What the model of this config has, where the config can be read: another version's is still compared key by
// key.
void fill_model(RunRecord& run, const std::string& text, const fs::path& path) {
  try {
    const ModelConfig model = parse_run_config(text, path.string()).model;
    const Gpt gpt(model, DType::f32);
    run.parameters = gpt.params.count();
    run.flops_per_token = gpt.flops_per_token(model.context);
  } catch (const Error&) {
  }
}

void read_config(RunRecord& run, const fs::path& path) {
  const std::string text = read_file(path, Exit::data, FileKind::regular);
  run.config = parse_json(text, path.string(), Exit::data);
  if (!run.config.is_object()) fail(Exit::data, "{}: not a JSON object", path.string());
  if (const Json* schedule = object_in(run.config, "schedule"))
    run.planned_steps = integer_in(*schedule, "steps");
  fill_model(run, text, path);
}

void read_environment(RunRecord& run, const fs::path& path) {
  Json environment = parse_json(read_file(path, Exit::data, FileKind::regular), path.string(), Exit::data);
  if (!environment.is_object()) fail(Exit::data, "{}: not a JSON object", path.string());
  const auto fingerprint = [&](const char* split) -> std::optional<std::string> {
    const Json* data = object_in(environment, "data");
    const Json* part = data != nullptr ? object_in(*data, split) : nullptr;
    const std::string text = part != nullptr ? text_in(*part, "fingerprint") : "";
    return text.empty() ? std::nullopt : std::optional(text);
  };
  run.train_fingerprint = fingerprint("train");
  run.validation_fingerprint = fingerprint("validation");
  if (!run.parameters) run.parameters = integer_in(environment, "parameters");
  if (!run.flops_per_token) run.flops_per_token = number_in(environment, "flops_per_token");
  run.environment = std::move(environment);
}

// --- the parent of a fork ---

// The places that a parent's path, which was relative to the directory of the training command, may mean.
std::vector<fs::path> places_of(const fs::path& parent, const fs::path& fork) {
  std::vector<fs::path> places;
  const fs::path fork_directory = fs::absolute(fork).lexically_normal();
  for (fs::path above = fork_directory; above.has_relative_path();) {
    above = above.parent_path();
    if (parent.is_relative()) places.push_back(above / parent);
  }
  places.push_back(parent);
  // RUN/checkpoints/step_N, where all runs were moved together.
  const fs::path run = parent.parent_path().parent_path();
  if (parent.parent_path().filename() == "checkpoints" && run.has_filename()) {
    const fs::path clean = fork_directory.has_filename() ? fork_directory : fork_directory.parent_path();
    places.push_back(clean.parent_path() / run.filename() / "checkpoints" / parent.filename());
  }
  return places;
}

// The run directory that a checkpoint belongs to, or nothing.
fs::path run_directory_of(const fs::path& checkpoint) {
  const fs::path run = checkpoint.parent_path().parent_path();
  std::error_code ignored;
  return checkpoint.parent_path().filename() == "checkpoints" && fs::exists(run / "metrics.jsonl", ignored)
             ? run
             : fs::path();
}

// What the checkpoint itself says of its run: the state where it is still there, or null.
Json state_of(const fs::path& checkpoint) {
  std::error_code ignored;
  if (!fs::exists(checkpoint / "state.json", ignored)) return nullptr;
  try {
    return parse_json(read_file(checkpoint / "state.json", Exit::data, FileKind::own), "state.json",
                      Exit::data);
  } catch (const Error&) {
    return nullptr;
  }
}

RunRecord read_run_below(const fs::path& directory, std::vector<fs::path> descendants);

// The parent's record, its own ancestors included; nothing where it cannot be read or is a descendant.
std::optional<RunRecord> read_parent(const fs::path& directory, const std::vector<fs::path>& descendants) {
  std::error_code ignored;
  const bool again = std::any_of(descendants.begin(), descendants.end(), [&](const fs::path& path) {
    return fs::equivalent(path, directory, ignored);
  });
  if (directory.empty() || again) return std::nullopt;
  try {
    return read_run_below(directory, descendants);
  } catch (const Error&) {
    return std::nullopt;
  }
}

// Whether the fork counts its steps and tokens on from its parent's.
bool keeps_step(const RunRecord& run) {
  const Json* init = run.config.is_object() ? object_in(run.config, "init") : nullptr;
  return init != nullptr && text_in(*init, "step") == "keep";
}

// The batches before the fork's first one, as a difference to its step count.
void shift_batches(RunRecord& run, const Json& state, const TrainPoint* at) {
  const Json* batch = run.config.is_object() ? object_in(run.config, "batch") : nullptr;
  const int64_t sequences = batch != nullptr ? integer_in(*batch, "sequences").value_or(0) : 0;
  const auto consumed = state.is_object() ? integer_in(state, "sequences") : std::nullopt;
  const int64_t step = run.parent_step.value_or(0);
  int64_t before = step;
  if (consumed && sequences > 0)
    before = *consumed / sequences;
  else if (at != nullptr && at->step == step)
    before = at->batch + 1;
  for (TrainPoint& point : run.train) point.batch += before - step;
}

void find_origin(RunRecord& run, const std::vector<fs::path>& descendants) {
  if (!run.parent) return;
  fs::path checkpoint = *run.parent;
  std::error_code ignored;
  for (const fs::path& place : places_of(*run.parent, run.path)) {
    run.parent_directory = run_directory_of(place);
    if (run.parent_directory.empty() && !fs::is_directory(place, ignored)) continue;
    checkpoint = place;
    break;
  }
  const std::optional<RunRecord> parent = read_parent(run.parent_directory, descendants);
  const Json state = state_of(checkpoint);
  const int64_t step = run.parent_step.value_or(0);
  const TrainPoint* at = parent ? point_until(parent->train, step) : nullptr;
  const auto stored_tokens = state.is_object() ? integer_in(state, "tokens") : std::nullopt;

  Origin& origin = run.origin;
  origin = parent ? parent->origin : Origin();
  origin.known = parent || state.is_object();
  // The checkpoint of step 0 has no row; what a run logged of another step is only the next best.
  const bool logged = at != nullptr && (at->step == step || !stored_tokens);
  const int64_t tokens = logged ? at->tokens : stored_tokens.value_or(0);
  double flops_per_token = parent ? parent->flops_per_token.value_or(0) : 0;
  if (!parent) {
    RunRecord alone;  // a checkpoint has the config of its run
    try {
      read_config(alone, checkpoint / "config.json");
      flops_per_token = alone.flops_per_token.value_or(0);
    } catch (const Error&) {
    }
  }
  if (at != nullptr)
    origin.seconds += at->seconds;
  else if (!parent && state.is_object())
    origin.seconds += number_in(state, "elapsed_s").value_or(0);
  origin.step += step;
  origin.tokens += tokens;
  origin.flops += static_cast<double>(tokens) * flops_per_token;
  if (!keeps_step(run)) return;
  shift_batches(run, state, at);
  const Origin earlier = parent ? parent->origin : Origin();
  origin.step = earlier.step;
  origin.tokens = earlier.tokens;
  origin.flops = earlier.flops;
}

RunRecord read_run_below(const fs::path& directory, std::vector<fs::path> descendants) {
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
  if (fs::exists(directory / "environment.json", ignored)) attempt("environment.json", read_environment);
  descendants.push_back(directory);
  find_origin(run, descendants);
  return run;
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

std::string RunRecord::parent_name() const {
  if (!parent) return "";
  // RUN/checkpoints/step_N, or a bare checkpoint.
  const fs::path path = fs::path(*parent).lexically_normal();
  const fs::path run = path.parent_path().parent_path();
  const bool in_run = path.parent_path().filename() == "checkpoints" && run.has_filename();
  return (in_run ? run : path).filename().string();
}

RunRecord read_run(const fs::path& directory) { return read_run_below(directory, {}); }

bool is_run(const fs::path& directory) {
  std::error_code ignored;
  const auto has = [&](std::string_view name) { return fs::exists(directory / name, ignored); };
  return has("metrics.jsonl") || (has("config.json") && !has(kManifestFile));
}

std::vector<fs::path> runs_inside(const fs::path& directory) {
  std::vector<fs::path> runs;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error))
    if (!entry->path().filename().native().starts_with('.') && is_run(entry->path()))
      runs.push_back(entry->path());
  std::sort(runs.begin(), runs.end());
  return runs;
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
    return Reached{after->tokens, after->seconds, true};
  const Point& before = *std::prev(after);
  const double share = (*before.loss - loss) / (*before.loss - *after->loss);
  const double tokens =
      static_cast<double>(before.tokens) + share * static_cast<double>(after->tokens - before.tokens);
  return Reached{static_cast<int64_t>(std::llround(tokens)),
                 before.seconds + share * (after->seconds - before.seconds), false};
}

}  // namespace keen
