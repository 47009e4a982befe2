// The one error type, and the two ways to raise it.
#pragma once

#include <fmt/format.h>

#include <source_location>
#include <stdexcept>
#include <string>

namespace keen {

// Exit codes of the program. Every Error carries the one that `main` returns for it.
enum class Exit : int {
  done = 0,
  internal = 1,  // a broken promise between our own functions
  usage = 2,     // command line or config
  data = 3,
  checkpoint = 4,
  non_finite = 5,
  device = 6,  // device or out of memory
  communication = 7,
  storage = 8,   // disk full, I/O
  stopped = 75,  // stopped by a signal after saving
};

struct Error : std::runtime_error {
  Exit exit;
  Error(Exit exit, const std::string& message) : std::runtime_error(message), exit(exit) {}
};

// Raises what a user can act on: what failed, where (file, key, offset, step), and what to do.
template <class... Args>
[[noreturn]] void fail(Exit exit, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(exit, fmt::format(format, std::forward<Args>(args)...));
}

// States what must hold between our own functions: check(ok, "op: what should hold").
inline void check(bool ok, const char* what, std::source_location at = std::source_location::current()) {
  if (!ok) [[unlikely]]
    fail(Exit::internal, "{} ({}:{})", what, at.file_name(), at.line());
}

}  // namespace keen
