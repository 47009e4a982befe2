// The subcommands of `keen`. Each lives in a file of its own and adds itself to the application; main lists
// them.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>
#include <string>
#include <vector>

namespace keen {

void add_train_command(CLI::App& app);
void add_eval_command(CLI::App& app);
void add_needle_command(CLI::App& app);
void add_recall_command(CLI::App& app);
void add_sample_command(CLI::App& app);
void add_compare_command(CLI::App& app);
void add_inspect_command(CLI::App& app);

// How a subcommand is written: a class derived from Command that declares its options in the constructor,
// bound to its own members, and does its work in run(). `description` is one line, `footer` (examples, notes)
// may be several.
class Command : public CLI::App {
 public:
  Command(const std::string& description, const std::string& name);
  virtual void run() = 0;
};

// Adds a command of type C. CLI11 keeps its subcommands in shared pointers; nobody else shares them.
template <class C> C& add_command(CLI::App& app) {
  return static_cast<C&>(*app.add_subcommand(std::make_shared<C>()));
}

// Raises Exit::usage where the file that `option` names could not be written because its directory is
// missing: said before hours of work, not after.
void expect_directory_of(const std::string& option, const std::string& path);

// Ascending, each number once: for lists whose order and repetitions on the command line mean nothing.
template <class Number> void sort_once(std::vector<Number>& numbers) {
  std::ranges::sort(numbers);
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
}

// Breaks the lines of `text` that are longer than `width` between words, and indents what follows as the line
// itself.
std::string wrapped(const std::string& text, size_t width);

// Accepts finite numbers above 0.
CLI::Validator positive();
// Accepts numbers from `low` to `high`, NaN never (CLI::Range does).
CLI::Validator within(double low, double high);

// The options by which a trained model is looked at otherwise than it was trained: --rope-theta, --device,
// --precision and --set, shared by the commands that take a checkpoint.
class ModelOptions {
 public:
  // `example` ends the help of --set.
  void add_to(CLI::App& app, const std::string& example);
  std::optional<double> rope_theta() const { return rope_theta_; }
  // KEY=VALUE over the checkpoint's config, in the order in which they apply.
  std::vector<std::string> sets() const;

 private:
  std::optional<double> rope_theta_;
  std::string device_, precision_;
  std::vector<std::string> sets_;
};

// Help whose lines are at most kConsoleWidth wide.
std::shared_ptr<CLI::Formatter> help_formatter();

}  // namespace keen
