// keen recall CHECKPOINT...
#include "eval/recall.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/seed_groups.h"
#include "core/console.h"
#include "data/recall.h"
#include "eval/moments.h"
#include "io/file.h"
#include "io/json.h"
#include "report/context_figure.h"

namespace keen {

namespace {

// "96.1 ± 0.4", in percent.
std::string accuracy_text(const MeanOfWindows& accuracy) {
  const std::string mean = fmt::format("{:.1f}", 100 * accuracy.mean);
  if (std::isnan(accuracy.standard_error)) return mean;
  return fmt::format("{} ± {:.1f}", mean, 100 * accuracy.standard_error);
}

class RecallCommand final : public Command {
 public:
  RecallCommand() : Command("Whether checkpoints find values in more and more noise", "recall") {
    add_option("CHECKPOINT", checkpoints_, "Checkpoint or run directories (the newest whole checkpoint)")
        ->required();
    add_option("--contexts", options_.contexts,
               "How long the windows are, in tokens; may exceed the training context, with RoPE")
        ->required()
        ->delimiter(',')
        ->allow_extra_args(false)
        ->check(within(1, 1e8))
        ->type_name("N,...");
    add_option("--pairs", options_.pairs, "Keys with a value in each window, all of them asked for")
        ->check(within(1, kRecallKeys.count))
        ->type_name("N")
        ->capture_default_str();
    add_option("--windows", options_.windows, "Windows of each context")
        ->check(within(1, 1e6))
        ->type_name("N")
        ->capture_default_str();
    add_option("--seed", options_.seed, "Equal seeds ask equal questions")
        ->type_name("N")
        ->capture_default_str();
    add_option(
        "--svg", svg_,
        "Draw the accuracy by context to this file; runs that differ in their seeds alone are one line")
        ->type_name("FILE");
    model_.add_to(*this, "model.attention=ssmax: SSMax swapped in untrained");
    add_flag("--json", json_, "Print one JSON document");
    footer(
        "For models that were trained on the recall task: keys with values stand in random places of a noise "
        "as long as the context, a quarter of which are other values; at the end each key is asked for once. "
        "An answer is right if the value is the most likely token.\n\n"
        "  keen tokenize recall --out data/recall-128\n"
        "  keen train configs/recall-softmax.json\n"
        "  keen recall runs/recall-softmax --contexts 128,256,512,1024 --svg recall.svg");
  }

  void run() override {
    options_.rope_theta = model_.rope_theta();
    options_.sets = model_.sets();
    expect_directory_of("--svg", svg_);
    sort_once(options_.contexts);
    const std::vector<RecallReport> reports = test_recall(checkpoints_, options_);
    for (const RecallReport& report : reports)
      for (const std::string& tensor : report.swapped)
        write_err(fmt::format("{}: {}\n", report.checkpoint, tensor));
    write_out(json_ ? json_pages(json(reports)) + "\n" : text(reports));
    if (!svg_.empty()) replace_file(svg_, figure(reports));
  }

 private:
  std::string text(const std::vector<RecallReport>& reports) const {
    std::vector<std::string> header = {"right answers, %"};
    for (const int64_t context : options_.contexts) header.push_back(with_commas(context));
    Table table(header);
    for (const RecallReport& report : reports) {
      std::vector<std::string> cells = {report.checkpoint};
      for (const RecallScore& score : report.scores) cells.push_back(accuracy_text(score.accuracy));
      table.add(cells);
    }
    return fmt::format("{} of {} a context, by context in tokens; ± one standard error over the windows\n",
                       counted(options_.windows, "window"), counted(options_.pairs, "question")) +
           table.str(0, colour_wanted(stdout));
  }

  // A line for each group of seeds: its mean, with the standard error over the seeds.
  std::string figure(const std::vector<RecallReport>& reports) const {
    std::vector<ContextCurve> curves;
    const std::vector<SeedGroup> groups = seed_groups(reports);
    const bool windows = with_bands_over_windows(groups);
    for (const auto& [name, members] : groups) {
      const RecallReport& first = reports[members.front()];
      ContextCurve& curve = curves.emplace_back(ContextCurve{name, first.trained_context, {}});
      for (size_t i = 0; i < options_.contexts.size(); ++i) {
        Moments accuracy;
        for (const size_t member : members) accuracy.add(reports[member].scores[i].accuracy.mean);
        curve.points.push_back({static_cast<double>(options_.contexts[i]), accuracy.mean,
                                members.size() > 1 || !windows ? accuracy.standard_error()
                                                               : first.scores[i].accuracy.standard_error});
      }
    }
    return context_figure("Recall: right answers, in percent", error_label(groups), curves);
  }

  Json json(const std::vector<RecallReport>& reports) const {
    Json list = Json::array();
    for (const RecallReport& report : reports) {
      Json scores = Json::array();
      for (const RecallScore& score : report.scores)
        scores.push_back({{"context", score.context},
                          {"accuracy", score.accuracy.mean},
                          {"accuracy_stderr", score.accuracy.standard_error},
                          {"loss", score.loss.mean},
                          {"loss_stderr", score.loss.standard_error}});
      list.push_back({{"checkpoint", report.checkpoint},
                      {"step", report.step},
                      {"trained_context", report.trained_context},
                      {"rope_theta", report.rope_theta},
                      {"scores", scores}});
    }
    return {{"seed", options_.seed},
            {"windows", options_.windows},
            {"pairs", options_.pairs},
            {"checkpoints", list}};
  }

  std::vector<std::string> checkpoints_;
  RecallTestOptions options_;
  ModelOptions model_;
  std::string svg_;
  bool json_ = false;
};

}  // namespace

void add_recall_command(CLI::App& app) { add_command<RecallCommand>(app); }

}  // namespace keen
