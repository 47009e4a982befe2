// keen train CONFIG
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "core/console.h"
#include "train/run.h"

namespace keen {

namespace {

class TrainCommand final : public Command {
 public:
  TrainCommand() : Command("Train a model from a config, or go on with a run that was stopped", "train") {
    add_option("CONFIG", config_, "A JSON config; configs/ has examples");
    add_option("--set", sets_, "Change one key, dotted, to a JSON value or a string; may be repeated")
        ->type_name("KEY=VALUE")
        ->allow_extra_args(false);
    add_option("--run-dir", run_dir_, "Where the run is kept (runs/NAME, with the config's name)")
        ->type_name("DIR");
    add_option("--init-from", init_from_, "Fork: start from the weights of this checkpoint or run directory")
        ->type_name("CHECKPOINT");
    add_flag("--dry-run", dry_run_, "Plan memory and print what would be trained; take no step");
    add_flag("--print-config", print_config_, "Print the effective config and exit");
    add_flag("--help-config", help_config_,
             "Print every key of a config, its default and its meaning, and exit");
    footer(
        "The same command continues a stopped run from its newest whole checkpoint. Ctrl-C (or SIGTERM, "
        "SIGUSR1) "
        "saves and stops; a second one stops at once.\n\n"
        "  keen train configs/quickstart-ssmax.json\n"
        "  keen train configs/quickstart-ssmax.json --set optimizer.lr=1e-3 \\\n"
        "      --run-dir runs/lr-1e-3\n"
        "  keen train configs/quickstart-ssmax.json --run-dir runs/fork \\\n"
        "      --init-from runs/NAME");
  }

  void run() override {
    if (help_config_) return write_out(wrapped(help_config(), kConsoleWidth));
    if (config_.empty())
      fail(Exit::usage, "train: CONFIG is required, for example configs/quickstart-ssmax.json");
    const std::string command = config_ + quoted_sets();
    if (!init_from_.empty()) sets_.push_back("init.from=" + json_line(Json(init_from_)));
    const RunConfig config = load_run_config(config_, sets_);
    if (print_config_) return write_out(effective_config(config));
    run_training(config, {.config_path = command, .run_dir = run_dir_, .dry_run = dry_run_});
  }

 private:
  // As a shell would read them again.
  std::string quoted_sets() const {
    std::string text;
    for (const std::string& set : sets_) {
      std::string escaped;
      for (const char c : set) escaped += c == '\'' ? std::string("'\\''") : std::string(1, c);
      text += fmt::format(" --set '{}'", escaped);
    }
    return text;
  }

  std::string config_, run_dir_, init_from_;
  std::vector<std::string> sets_;
  bool dry_run_ = false, print_config_ = false, help_config_ = false;
};

}  // namespace

void add_train_command(CLI::App& app) { add_command<TrainCommand>(app); }

}  // namespace keen
