// keen compare RUN...
#include "report/compare.h"

#include "cli/commands.h"
#include "core/console.h"
#include "io/file.h"
#include "report/figures.h"
#include "report/page.h"

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
               "Validation loss to reach (the baseline's final one): tokens and time that each run took")
        ->type_name("LOSS")
        ->check(positive());
    add_flag("--json", json_, "Print one JSON document");
    add_option("--html", html_,
               "Also write one self-contained page: the tables, and curves to look at closely")
        ->type_name("FILE");
    add_option("--figure", figure_paths_,
               "Show this SVG file on the page of --html, below the curves (may be repeated): one that eval, "
               "recall, needle or compare has drawn, or any other")
        ->type_name("FILE")
        ->allow_extra_args(false)
        ->needs("--html");
    add_option("--svg", svg_, "Also write the curves as SVG figures into this directory")->type_name("DIR");
    add_flag("--ungrouped", ungrouped_,
             "A column for every run, also for those that differ only in their seeds");
    add_flag("--assert-equal", assert_equal_,
             "Fail (exit code 3) unless all runs logged the losses of the baseline, step by step");
    add_option("--tolerance", tolerance_, "Largest difference of two losses that counts as equal (0)")
        ->type_name("X")
        ->check(within(0, 1e300))
        ->needs("--assert-equal");
    footer(
        "Numbers with ~ lie on the straight line between two validation points; nothing is extrapolated. "
        "Runs "
        "that differ only in their seeds share a column: mean and standard deviation.");
  }

  void run() override {
    for (const std::string& path : figure_paths_) figures_.push_back(read_svg(path));
    std::vector<RunRecord> runs = read_runs();  // finds the baseline among them, too
    Comparison comparison = compare_runs(std::move(runs), baseline_index_, target_loss_, !ungrouped_);
    if (assert_equal_) {
      if (comparison.runs.size() < 2) fail(Exit::usage, "compare: --assert-equal needs two runs or more");
      comparison.equality = compare_losses(comparison.runs, comparison.baseline, tolerance_);
    }
    if (json_)
      write_out(json_pages(comparison_json(comparison)) + "\n");
    else
      write_out(comparison_text(comparison, colour_wanted(stdout)));
    write_files(comparison);
    if (comparison.equality) {
      if (comparison.equality->difference) fail(Exit::data, "{}", equality_text(comparison));
      write_err(equality_text(comparison) + "\n");
    }
    if (!unread_.empty())
      fail(Exit::data, "compare: {} could not be read and {} left out above: {}",
           unread_.size() == 1 ? "one RUN" : fmt::format("{} RUNs", unread_.size()),
           unread_.size() == 1 ? "is" : "are", fmt::join(unread_, ", "));
  }

 private:
  // Where they are is told on standard error, so that --json stays one document.
  void write_files(const Comparison& comparison) const {
    std::vector<std::filesystem::path> written;
    if (!html_.empty()) {
      const std::filesystem::path page = html_;
      if (page.has_parent_path()) make_directories(page.parent_path());
      replace_file(page, comparison_page(comparison, figures_));
      written.push_back(page);
    }
    Figures figures;
    if (!svg_.empty()) figures = write_figures(comparison, svg_);
    written.insert(written.end(), figures.written.begin(), figures.written.end());
    std::fflush(stdout);  // the table comes first, where both go to one file
    for (const auto& path : written) {
      std::error_code ignored;
      write_err(fmt::format("Wrote {} ({})\n", path.string(),
                            short_bytes(static_cast<int64_t>(std::filesystem::file_size(path, ignored)))));
    }
    for (const std::string& sentence : figures.left_out) write_warning(sentence);
    if (!svg_.empty() && figures.written.empty())
      write_warning(svg_ + ": no run has logged anything to draw");
  }

  // A directory of runs in the place of a run is an easy slip.
  static std::string hint_at_runs_inside(const std::filesystem::path& directory) {
    const size_t inside = runs_inside(directory).size();
    if (inside == 0) return "";
    return fmt::format("{}: no run itself, but a directory that holds {}; did you mean {}?",
                       directory.string(), inside == 1 ? "a run" : fmt::format("{} runs", inside),
                       (directory / "*/").string());
  }

  // What cannot be read is told and left out, as long as something is left and nothing is asserted of it; in
  // the end the exit status tells it too.
  std::vector<RunRecord> read_runs() {
    namespace fs = std::filesystem;
    std::vector<fs::path> paths(paths_.begin(), paths_.end());
    const auto same = [](const fs::path& a, const fs::path& b) {
      std::error_code ignored;
      return fs::equivalent(a, b, ignored) || a.lexically_normal() == b.lexically_normal();
    };
    const bool named = !baseline_.empty();
    const auto is_baseline = [&](const fs::path& path) { return named && same(path, baseline_); };
    if (named && std::none_of(paths.begin(), paths.end(), is_baseline))
      paths.insert(paths.begin(), baseline_);
    std::vector<RunRecord> runs;
    bool found = false;
    for (const auto& path : paths) {
      try {
        runs.push_back(read_run(path));
        if (is_baseline(path) && !std::exchange(found, true)) baseline_index_ = runs.size() - 1;
      } catch (const Error& error) {
        const std::string hint = hint_at_runs_inside(path);
        const std::string reason = hint.empty() ? error.what() : hint;
        if (is_baseline(path) || assert_equal_ || paths.size() == 1) fail(error.exit, "{}", reason);
        write_warning(reason);
        unread_.push_back(path.string());
      }
    }
    if (runs.empty()) fail(Exit::data, "compare: none of the runs could be read");
    if (!named && unread_.size() > 0 && unread_[0] == paths[0].string())
      write_warning(
          fmt::format("the baseline is {}, since {} could not be read", runs[0].path.string(), unread_[0]));
    for (const RunRecord& run : runs)
      for (const std::string& problem : run.problems) write_warning(problem);
    return runs;
  }

  std::vector<std::string> paths_, figure_paths_, unread_;
  std::vector<SvgFile> figures_;
  std::string baseline_, html_, svg_;
  std::optional<double> target_loss_;
  double tolerance_ = 0;
  bool json_ = false, assert_equal_ = false, ungrouped_ = false;
  size_t baseline_index_ = 0;
};

}  // namespace

void add_compare_command(CLI::App& app) { add_command<CompareCommand>(app); }

}  // namespace keen
