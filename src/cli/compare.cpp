// keen compare RUN...
#include "report/compare.h"

#include "cli/commands.h"
#include "core/console.h"

namespace keen {

namespace {

class CompareCommand final : public Command {
 public:
  CompareCommand()
      : Command("Compare runs: in what their configs differ, and how far each has come", "compare") {
    add_option("RUN", paths_, "Run directories; they may still be training")->required();
    add_option("--baseline", baseline_, "The run that the others are measured against (the first one)")
        ->type_name("RUN");
    add_option("--target-loss", target_loss_,
               "Also show the tokens that each run took to this validation loss")
        ->type_name("LOSS");
    add_flag("--json", json_, "Print one JSON document");
    footer(
        "A number with ~ lies on the straight line between two validation points. Nothing is "
        "extrapolated: runs are compared at the largest token count that all have reached.");
  }

  void run() override {
    std::vector<std::filesystem::path> paths(paths_.begin(), paths_.end());
    const auto same = [](const std::filesystem::path& a, const std::filesystem::path& b) {
      std::error_code ignored;
      return std::filesystem::equivalent(a, b, ignored) || a.lexically_normal() == b.lexically_normal();
    };
    std::vector<RunRecord> runs;
    std::string last_problem;
    size_t baseline = 0;
    const bool named = !baseline_.empty();
    const bool listed =
        std::any_of(paths.begin(), paths.end(), [&](const auto& path) { return same(path, baseline_); });
    if (named && !listed) paths.insert(paths.begin(), baseline_);
    for (const auto& path : paths) {
      try {
        runs.push_back(read_run(path));
        if (named && same(path, baseline_)) baseline = runs.size() - 1;
      } catch (const Error& error) {
        if (named && same(path, baseline_)) throw;
        last_problem = error.what();
        write_warning(last_problem);
      }
    }
    if (runs.empty()) fail(Exit::data, "compare: none of the runs could be read");
    for (const RunRecord& run : runs)
      for (const std::string& problem : run.problems) write_warning(problem);

    const Comparison comparison = compare_runs(std::move(runs), baseline, target_loss_);
    if (json_)
      write_out(json_pages(comparison_json(comparison)) + "\n");
    else
      write_out(comparison_text(comparison, colour_wanted(stdout)));
  }

 private:
  std::vector<std::string> paths_;
  std::string baseline_;
  std::optional<double> target_loss_;
  bool json_ = false;
};

}  // namespace

void add_compare_command(CLI::App& app) { add_command<CompareCommand>(app); }

}  // namespace keen
