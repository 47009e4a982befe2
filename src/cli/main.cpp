// keen SUBCOMMAND: the one place where errors become exit codes.
#include <poll.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <iostream>
#include <new>
#include <span>

#include "cli/commands.h"
#include "cli/tokenize.h"
#include "core/build.h"
#include "core/check.h"
#include "core/console.h"
#include "core/version.h"
#include "io/fields.h"

namespace {

using keen::Exit;

// A stop that was asked for is told, not complained about.
int report(Exit exit, std::string_view message) {
  if (message.empty()) return static_cast<int>(exit);  // another rank has said it
  // What was printed before the error stays before it where both go to one file.
  std::fflush(stdout);
  const bool colour = keen::colour_wanted(stderr);
  const std::string head =
      exit == Exit::stopped ? "" : keen::styled("error:", keen::Style::red, colour) + " ";
  keen::write_err(
      fmt::format("{}keen: {}{}\n", keen::clear_line(stderr), head, keen::without_controls(message)));
  return static_cast<int>(exit);
}

// "  train     Train a model ...", a line for each subcommand of a command.
std::string subcommands_of(const CLI::App& app) {
  keen::Table table;
  table.left_aligned(1);
  for (const CLI::App* subcommand : app.get_subcommands({}))
    table.add({subcommand->get_name(), subcommand->get_description()});
  return table.str(2);
}

// Says what is wrong with the command line, and points to the help of the command that was meant.
int usage_error(const CLI::App& app, const CLI::ParseError& error, std::span<char* const> arguments) {
  std::string command = "keen";
  const CLI::App* at = &app;
  size_t depth = 1;
  for (; !at->get_subcommands().empty(); ++depth) {
    at = at->get_subcommands().front();
    command += " " + at->get_name();
  }
  std::string message = error.what();
  const std::vector<const CLI::App*> subcommands = at->get_subcommands({});
  if (!subcommands.empty()) {
    const std::string_view word = depth < arguments.size() ? arguments[depth] : "";
    std::vector<std::string> names;
    for (const CLI::App* subcommand : subcommands) names.push_back(subcommand->get_name());
    const std::vector<std::string_view> views(names.begin(), names.end());
    if (word.empty())
      message = fmt::format("{} needs a subcommand:\n{}", command, subcommands_of(*at));
    else if (!word.starts_with('-'))
      message = fmt::format("there is no subcommand \"{}\"; the nearest is \"{}\"", word,
                            keen::nearest_name(word, views));
  }
  while (message.ends_with('\n')) message.pop_back();
  return report(Exit::usage, fmt::format("{}\nSee \"{} -h\".", message, command));
}

int run(int argc, char** argv) {
  CLI::App app(
      "keen pretrains GPTs from a JSON config, with softmax or Scalable-Softmax (SSMax) attention in each "
      "layer.",
      "keen");
  app.formatter(keen::help_formatter());
  app.set_help_flag("-h,--help", "Print this help and exit");
  app.set_version_flag(
      "--version", fmt::format("keen {} ({}), {}, CUDA {}, MPI {}, NCCL {}", keen::kVersion, keen::kRevision,
                               keen::kCompiler, keen::kCudaBuilt ? "yes" : "no",
                               keen::kMpiBuilt ? "yes" : "no", keen::kNcclBuilt ? "yes" : "no"));
  app.require_subcommand(1);
  keen::add_train_command(app);
  keen::add_eval_command(app);
  keen::add_needle_command(app);
  keen::add_recall_command(app);
  keen::add_sample_command(app);
  keen::add_tokenize_command(app);
  keen::add_compare_command(app);
  keen::add_inspect_command(app);
  app.footer(
      "\"keen SUBCOMMAND -h\" explains each of them. Exit codes: 0 done, 2 usage or config, "
      "3 data, 4 checkpoint, 5 non-finite loss or gradient, 6 device or out of memory, "
      "7 communication, 8 storage, 75 stopped by a signal after saving.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) return usage_error(app, error, {argv, static_cast<size_t>(argc)});
    app.exit(error);  // prints the help or the version that was asked for
  }
  return static_cast<int>(Exit::done);
}

// What could not be written to standard output is an error of storage, unless the reader of a pipe has left:
// then it has seen what it wanted.
int close_output(int status) {
  std::cout.flush();
  if (std::fflush(stdout) == 0 && !std::ferror(stdout) && std::cout.good()) return status;
  pollfd out = {STDOUT_FILENO, POLLOUT, 0};
  if (poll(&out, 1, 0) == 1 && (out.revents & (POLLERR | POLLHUP)) != 0) return status;
  if (status != 0) return status;
  return report(Exit::storage, "standard output could not be written in full; is the disk full?");
}

}  // namespace

int main(int argc, char** argv) {
  // A write to a closed pipe fails as any other write, instead of ending the program in the middle of its
  // work.
  std::signal(SIGPIPE, SIG_IGN);
  int status = static_cast<int>(Exit::internal);
  try {
    status = run(argc, argv);
  } catch (const keen::Error& error) {
    status =
        report(error.exit, error.exit == Exit::internal
                               ? fmt::format("{}\nThis is a defect of keen; please report it.", error.what())
                               : error.what());
  } catch (const std::bad_alloc&) {
    status = report(
        Exit::device,
        "out of memory. Lower batch.micro_sequences or model.context, or set \"recompute\": \"block\"; "
        "\"keen train CONFIG --dry-run\" prints what a run needs.");
  } catch (const std::exception& error) {
    status =
        report(Exit::internal, fmt::format("{}\nThis is a defect of keen; please report it.", error.what()));
  }
  return close_output(status);
}
