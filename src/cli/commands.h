// The subcommands of `keen`. Each lives in a file of its own and adds itself to the application; main lists
// them.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace keen {

void add_train_command(CLI::App& app);
void add_eval_command(CLI::App& app);
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

// Breaks the lines of `text` that are longer than `width` between words, and indents what follows as the line
// itself.
std::string wrapped(const std::string& text, size_t width);

// Accepts finite numbers above 0.
CLI::Validator positive();
// Accepts numbers from `low` to `high`, NaN never (CLI::Range does).
CLI::Validator within(double low, double high);

// Help whose lines are at most kConsoleWidth wide.
std::shared_ptr<CLI::Formatter> help_formatter();

}  // namespace keen
