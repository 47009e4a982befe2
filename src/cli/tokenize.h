// `keen tokenize`, the one subcommand with subcommands of its own, which share their way to name texts.
#pragma once

#include <CLI/CLI.hpp>

namespace keen {

// keen tokenize vocab | encode: from text to a vocabulary, and to the shards that training reads.
void add_tokenize_command(CLI::App& app);

}  // namespace keen
