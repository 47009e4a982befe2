// keen inspect RUN: where it stands, what happened to it, and whether its checkpoints are whole.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>

#include "report/inspect_kinds.h"
#include "report/run.h"
#include "train/checkpoint.h"

namespace keen {

namespace {

namespace fs = std::filesystem;

// Whether a process holds the lock of a run directory: it is training.
bool is_locked(const fs::path& directory) {
  const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return false;
  const bool locked = flock(descriptor, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  ::close(descriptor);
  return locked;
}

int64_t step_in(const Json& event) {
  const auto at = event.find("step");
  return at != event.end() && at->is_number_integer() ? at->get<int64_t>() : 0;
}
std::string text_in(const Json& event, const char* key) {
  const auto at = event.find(key);
  if (at == event.end()) return "";
  return at->is_string() ? at->get<std::string>() : json_line(*at);
}

std::string loss_text(const std::optional<double>& loss) {
  return loss && std::isfinite(*loss) ? fmt::format("{:.4f}", *loss) : "-";
}
std::string loss_in(const Json& event, const char* key) {
  const auto at = event.find(key);
  return at != event.end() && at->is_number() ? loss_text(at->get<double>()) : "-";
}

// "; changed log.every 1 -> 10, ...".
std::string changes_of(const Json& event) {
  const auto changed = event.find("changed");
  if (changed == event.end() || !changed->is_object() || changed->empty()) return "";
  std::string text;
  for (const auto& [key, values] : changed->items()) {
    const bool pair =
        values.is_array() && values.size() == 2 && values[0].is_string() && values[1].is_string();
    text += fmt::format("{} {}", text.empty() ? "; changed" : ",", key);
    if (pair) text += fmt::format(" {} -> {}", values[0].get<std::string>(), values[1].get<std::string>());
  }
  return text;
}

std::string signal_of(const Json& event) {
  const std::string signal = text_in(event, "signal");
  return signal.empty() ? "a signal" : "signal " + signal;
}

// One event in words; empty for those that other lines tell.
std::string told(const Json& event) {
  const std::string name = text_in(event, "event");
  const std::string step = with_commas(step_in(event));
  if (name == "start") return "started";
  if (name == "resume") return fmt::format("resumed after step {}{}", step, changes_of(event));
  if (name == "fork")
    return fmt::format("forked from {}, step {}; loss {} before the swap, {} after", text_in(event, "parent"),
                       text_in(event, "parent_step"), loss_in(event, "loss_before"),
                       loss_in(event, "loss_after"));
  if (name == "stop" && text_in(event, "reason") == "signal")
    return fmt::format("stopped by {} after step {}", signal_of(event), step);
  if (name == "stop") return fmt::format("ended after step {}", step);
  if (name == "non_finite")
    return fmt::format("step {}: not finite{}", step,
                       text_in(event, "first_bad").empty()
                           ? std::string(" (the loss)")
                           : fmt::format(" (first in the gradient of {})", text_in(event, "first_bad")));
  if (name == "loss_spike")
    return fmt::format("step {}: loss {} jumped above the recent {}", step, loss_in(event, "loss"),
                       loss_in(event, "median"));
  if (name == "save_failed")
    return fmt::format("could not save after step {}: {}", step, text_in(event, "reason"));
  return fmt::format("{} at step {}", name, step);
}

// The steps of several events: "step 5" where they are all of one, "steps 5 and 6" of two, "steps 5 to 9".
std::string steps_of(size_t count, const std::string& first, const std::string& last) {
  if (first == last) return "step " + first;
  return fmt::format("steps {} {} {}", first, count == 2 ? "and" : "to", last);
}

// What happened, in order, a line each; saves and batches left out that follow each other are one line.
Facts history_of(const std::vector<Json>& events) {
  Facts history;
  for (size_t i = 0; i < events.size();) {
    const std::string name = text_in(events[i], "event");
    size_t end = i + 1;
    if (name == "save" || name == "non_finite")
      while (end < events.size() && text_in(events[end], "event") == name) ++end;
    const std::string first = with_commas(step_in(events[i])), last = with_commas(step_in(events[end - 1]));
    if (name == "save")
      history.add("", end == i + 1
                          ? fmt::format("saved after step {}", first)
                          : fmt::format("saved {} times, after {}", end - i, steps_of(end - i, first, last)));
    else if (end > i + 1)
      history.add(
          "", fmt::format("{} batches that were not finite, in {}", end - i, steps_of(end - i, first, last)));
    else
      history.add("", told(events[i]));
    i = end;
  }
  return history;
}

// In which state it is, as a user would ask: training, finished, stopped, or gone without a word.
std::string state_of(const RunRecord& run, const std::vector<Json>& events, bool training) {
  if (training) return "training now";
  if (events.empty()) return "not begun";
  const Json& last = events.back();
  const bool stopped = text_in(last, "event") == "stop";
  if (stopped && text_in(last, "reason") == "signal")
    return fmt::format("stopped by {}; the same command goes on", signal_of(last));
  if (stopped && run.planned_steps && step_in(last) < *run.planned_steps)
    return "stopped where stop_after said; the schedule goes on";
  if (stopped) return "finished";
  return "not training, and it did not say goodbye: killed, or ended by an error; the same command goes on";
}

class RunInspector {
 public:
  RunInspector(const fs::path& path, const InspectOptions& options)
      : path_(path), options_(options), run_(read_run(path)), result_(begin_inspection("run", path)) {
    try {
      metrics_ = read_metrics(path / "metrics.jsonl");
    } catch (const Error&) {
      // There is none: run_.problems has said so.
    }
  }

  Inspection run() {
    add_facts();
    Json events = Json::array();
    for (const Json& event : metrics_.events) events.push_back(event);
    result_.json["events"] = std::move(events);
    result_.text = title(path_, "a run", options_) + facts_.str();
    for (const std::string& problem : run_.problems)
      result_.text += "note: " + without_controls(problem) + "\n";
    if (!metrics_.events.empty())
      result_.text += heading("history", options_) + history_of(metrics_.events).str();
    add_checkpoints();
    return std::move(result_);
  }

 private:
  void add_facts() {
    Json& json = result_.json;
    const std::string state = state_of(run_, metrics_.events, is_locked(path_));
    facts_.add("state", state);
    json["state"] = state;
    if (fs::exists(path_ / "config.json")) add_config();
    facts_.add("step", fmt::format("{} of {}", with_commas(run_.steps.value_or(0)),
                                   run_.planned_steps ? with_commas(*run_.planned_steps) : "-"));
    if (run_.tokens) facts_.add("tokens", short_count(static_cast<double>(*run_.tokens)));
    if (run_.training_s && run_.elapsed_s)
      facts_.add(
          "time",
          fmt::format("{} of training{}; {} with evaluation and saving", duration(*run_.training_s),
                      run_.tokens_per_s ? fmt::format(" ({} tokens/s)", short_count(*run_.tokens_per_s)) : "",
                      duration(*run_.elapsed_s)));
    json["steps"] = run_.steps ? Json(*run_.steps) : Json(nullptr);
    json["planned_steps"] = run_.planned_steps ? Json(*run_.planned_steps) : Json(nullptr);
    json["tokens"] = run_.tokens ? Json(*run_.tokens) : Json(nullptr);
    json["training_s"] = number_or_null(run_.training_s);
    json["elapsed_s"] = number_or_null(run_.elapsed_s);
    json["tokens_per_s"] = number_or_null(run_.tokens_per_s);
    add_losses();
    json["parent"] = run_.parent ? Json(*run_.parent) : Json(nullptr);
    json["problems"] = Json(run_.problems);
  }

  // A config of another version still leaves everything else to be told.
  void add_config() {
    try {
      add_model_facts(facts_, result_.json,
                      load_run_config(path_ / "config.json", {}, FileKind::regular).model);
    } catch (const Error& error) {
      run_.problems.push_back(error.what());
    }
  }

  void add_losses() {
    Json& json = result_.json;
    if (!metrics_.train.empty()) {
      const TrainRow& row = metrics_.train.back();
      facts_.add("last step", fmt::format("loss {}, gradient norm {:.3g}, lr {:.2g}", loss_text(row.loss),
                                          row.grad_norm, row.lr));
      json["last"] = {{"step", row.step},
                      {"loss", number_or_null(row.loss)},
                      {"grad_norm", number_or_null(row.grad_norm)},
                      {"lr", number_or_null(row.lr)}};
    }
    json["final_validation_loss"] = number_or_null(run_.final_validation());
    json["best_validation_loss"] = number_or_null(run_.best_validation());
    if (run_.validation.empty()) return;
    const auto best = std::find_if(run_.validation.begin(), run_.validation.end(),
                                   [&](const Point& p) { return p.loss == run_.best_validation(); });
    facts_.add("validation", fmt::format("loss {} after step {}", loss_text(run_.validation.back().loss),
                                         with_commas(run_.validation.back().step)) +
                                 (best == run_.validation.end() || best + 1 == run_.validation.end()
                                      ? ", the lowest so far"
                                      : fmt::format("; lowest {} after step {}", loss_text(best->loss),
                                                    with_commas(best->step))));
  }

  struct Row {
    std::string name, problem;
    int64_t bytes = 0;
  };

  // All of them are read, whole or not; of many whole ones the newest are shown.
  void add_checkpoints() {
    std::vector<fs::path> directories;
    std::vector<std::string> aside;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(path_ / "checkpoints", ignored)) {
      const std::string name = entry.path().filename().string();
      if (step_of_name(name) >= 0) directories.push_back(entry.path());
      if (name.starts_with(".damaged-")) aside.push_back(name);
    }
    std::sort(directories.begin(), directories.end());
    std::sort(aside.begin(), aside.end());
    std::vector<Row> rows;
    std::string damaged;
    Json checkpoints = Json::array();
    for (const fs::path& directory : directories) {
      Row& row = rows.emplace_back(Row{directory.filename().string(), "", 0});
      try {
        for (const CheckpointFile& file : verify_checkpoint(directory).files) row.bytes += file.size_bytes;
      } catch (const Error& error) {
        row.problem = error.what();
        damaged += "\n  " + row.problem;
      }
      checkpoints.push_back({{"name", row.name},
                             {"step", step_of_name(row.name)},
                             {"whole", row.problem.empty()},
                             {"bytes", row.bytes},
                             {"problem", row.problem.empty() ? Json(nullptr) : Json(row.problem)}});
    }
    // One that was killed at its birth has no log yet.
    const bool newborn = rows.empty() && !fs::exists(path_ / "metrics.jsonl");
    if (!newborn)
      for (const std::string& problem : run_.problems) damaged += "\n  " + problem;
    result_.json["whole"] = damaged.empty();
    result_.json["checkpoints"] = std::move(checkpoints);
    result_.json["set_aside"] = Json(aside);
    result_.text += rows.empty() ? std::string("\nNo checkpoints yet.\n") : table_of(rows);
    for (const std::string& name : aside)
      result_.text +=
          fmt::format("{}: damaged, and set aside for the one that took its place\n", without_controls(name));
    if (!damaged.empty())
      result_.problem =
          Error(Exit::checkpoint, fmt::format("{}: not everything is whole:{}", path_.string(), damaged));
  }

  std::string table_of(const std::vector<Row>& rows) const {
    Table table({"checkpoint", "size", "state"});
    table.left_aligned(2);
    const size_t first = options_.all || rows.size() <= kMostRows ? 0 : rows.size() - kMostRows;
    size_t hidden = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      const bool whole = rows[i].problem.empty();
      if (whole && i < first) {
        ++hidden;
        continue;
      }
      table.add({rows[i].name, whole ? short_bytes(rows[i].bytes) : "-",
                 whole ? "whole" : styled("damaged", Style::red, options_.colour)});
    }
    return "\n" + table.str(0, options_.colour) +
           (hidden == 0 ? ""
                        : fmt::format("and {} older one{}, whole (--all shows them)\n", hidden,
                                      hidden == 1 ? "" : "s"));
  }

  const fs::path& path_;
  const InspectOptions& options_;
  RunRecord run_;
  Metrics metrics_;
  Inspection result_;
  Facts facts_;
};

}  // namespace

Inspection inspect_run(const fs::path& path, const InspectOptions& options) {
  return RunInspector(path, options).run();
}

}  // namespace keen
