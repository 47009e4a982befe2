// keen inspect DIRECTORY of runs: where each stands, a line each.
#include "report/inspect_kinds.h"
#include "report/loss_text.h"
#include "report/run.h"

namespace keen {

namespace {

namespace fs = std::filesystem;

// The state of a run without what it means for the user.
std::string in_short(const std::string& state) { return state.substr(0, state.find_first_of(",;")); }

std::string count_of(const Json& count) { return count.is_null() ? "-" : with_commas(count.get<int64_t>()); }

std::string checkpoints_of(const Json& checkpoints) {
  size_t whole = 0;
  for (const Json& checkpoint : checkpoints) whole += checkpoint.at("whole").get<bool>() ? 1 : 0;
  if (whole == checkpoints.size()) return fmt::format("{}", whole);
  return fmt::format("{} of {} whole", whole, checkpoints.size());
}

std::vector<std::string> row_of(const std::string& name, const Json& run) {
  const Json& loss = run.at("final_validation_loss");
  const Json& tokens = run.at("tokens");
  return {name,
          in_short(run.at("state").get<std::string>()),
          fmt::format("{} of {}", count_of(run.at("steps")), count_of(run.at("planned_steps"))),
          tokens.is_null() ? "-" : short_count(tokens.get<double>()),
          loss.is_null() ? "-" : loss_text(loss.get<double>()),
          checkpoints_of(run.at("checkpoints"))};
}

}  // namespace

// A run that cannot be read at all is a line too.
Inspection inspect_runs(const fs::path& path, const InspectOptions& options) {
  Inspection result = begin_inspection("runs", path);
  Table table({"run", "state", "step", "tokens", "val. loss", "checkpoints"});
  table.left_aligned(1);
  std::string problems;
  Json runs = Json::array();
  const std::vector<fs::path> directories = runs_inside(path);
  Progress progress("reading " + path.string(), std::ssize(directories), "runs");
  for (const fs::path& directory : directories) {
    const std::string name = directory.filename().string();
    try {
      Inspection run = inspect_run(directory, options);
      table.add(row_of(name, run.json));
      runs.push_back(std::move(run.json));
      if (run.problem) problems += fmt::format("\n{}", run.problem->what());
    } catch (const Error& error) {
      table.add({name, "cannot be read"});
      runs.push_back(
          {{"kind", "run"}, {"path", directory.string()}, {"whole", false}, {"problem", error.what()}});
      problems += fmt::format("\n{}", error.what());
    }
    progress.update(std::ssize(runs));
  }
  result.json["runs"] = std::move(runs);
  result.json["whole"] = problems.empty();
  result.text =
      title(path, fmt::format("a directory of {}", counted(std::ssize(directories), "run")), options) +
      table.str(0, options.colour);
  if (!problems.empty())
    result.problem =
        Error(Exit::checkpoint, fmt::format("{}: not every run is whole:{}", path.string(), problems));
  return result;
}

}  // namespace keen
