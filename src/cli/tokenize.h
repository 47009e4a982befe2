// `keen tokenize`, the one subcommand with subcommands of its own, which share their way to name texts.
#pragma once

#include <CLI/CLI.hpp>

namespace keen {

// keen tokenize vocab | encode | needle | recall: from text to a vocabulary and to the shards that training
// reads, and shards of tasks.
void add_tokenize_command(CLI::App& app);
// The last two of them.
void add_task_commands(CLI::App& tokenize);

}  // namespace keen
