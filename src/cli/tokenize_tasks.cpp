// keen tokenize needle | recall: data that tests of long contexts are learned from.
#include "cli/commands.h"
#include "cli/tokenize.h"
#include "core/console.h"
#include "data/needle_data.h"
#include "data/recall.h"

namespace keen {

namespace {

// The options that all tasks have.
void add_common(CLI::App& app, TaskOptions& options) {
  app.add_option("--windows", options.windows, "Windows to train on")
      ->check(within(1, 1e9))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--validation-windows", options.validation_windows, "Windows to validate on")
      ->check(within(1, 1e9))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Equal seeds write equal data")
      ->type_name("N")
      ->capture_default_str();
  app.add_option_function<std::string>(
         "--out", [&](const std::string& path) { options.directory = path; }, "The directory for the dataset")
      ->type_name("DIR")
      ->required();
  app.add_flag("--force", options.force, "Replace a dataset that is already in DIR");
}

std::string summary(const std::filesystem::path& directory, const DatasetInfo& info) {
  return fmt::format("Wrote {}: {} windows to train on ({} tokens), {} to validate\n", directory.string(),
                     with_commas(info.train_documents),
                     short_count(static_cast<double>(info.tokens("train"))),
                     with_commas(info.validation_documents));
}

class NeedleDataCommand final : public Command {
 public:
  NeedleDataCommand()
      : Command("Hide numbers in text, and ask for them: data for \"keen needle\"", "needle") {
    add_option_function<std::string>(
        "DATASET", [this](const std::string& path) { source_ = path; },
        "The directory of a dataset of text, from \"keen tokenize encode\"")
        ->required();
    add_option("--context", options_.context, "The model's context, in tokens")
        ->check(within(1, 1e8))
        ->type_name("N")
        ->required();
    add_common(*this, options_);
    footer(
        "Each window is a text as \"keen needle\" shows it, but with up to as many needles as find room, and "
        "several questions and answers at its end: with one answer a window a small model learns next to "
        "nothing.\n\n"
        "  keen tokenize needle data/gcide --context 256 --out data/needle-256\n"
        "  keen train configs/quickstart-needle.json");
  }

  void run() override { write_err(summary(options_.directory, write_needle_data(source_, options_))); }

 private:
  std::filesystem::path source_;
  TaskOptions options_;
};

class RecallDataCommand final : public Command {
 public:
  RecallDataCommand()
      : Command("Keys and values in noise, and questions: data for \"keen recall\"", "recall") {
    options_.context = kRecallContext;
    add_option("--context", options_.context, "The model's context, in tokens")
        ->check(within(1, 1e8))
        ->type_name("N")
        ->capture_default_str();
    add_option("--pairs", most_pairs_, "Keys with a value that a window has at most")
        ->check(within(1, kRecallKeys.count))
        ->type_name("N")
        ->capture_default_str();
    add_common(*this, options_);
    footer(
        "A window is noise in which keys stand with a value behind them, and at its end questions: a key, "
        "and behind it its value. Windows of one pair and of many are mixed, which is what makes the task "
        "learnable.\n\n"
        "  keen tokenize recall --out data/recall-128\n"
        "  keen train configs/recall-softmax.json");
  }

  void run() override { write_err(summary(options_.directory, write_recall_data(most_pairs_, options_))); }

 private:
  int64_t most_pairs_ = kRecallPairs;
  TaskOptions options_;
};

}  // namespace

void add_task_commands(CLI::App& tokenize) {
  add_command<NeedleDataCommand>(tokenize);
  add_command<RecallDataCommand>(tokenize);
}

}  // namespace keen
