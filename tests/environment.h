// Variables of the environment, for the length of a test.
#pragma once

#include <cstdlib>
#include <optional>
#include <string>

#include "temporary_directory.h"

namespace keen::testing {

class EnvironmentVariable {
 public:
  EnvironmentVariable(const char* name, const std::string& value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    setenv(name, value.c_str(), 1);
  }
  ~EnvironmentVariable() { before_ ? setenv(name_, before_->c_str(), 1) : unsetenv(name_); }
  EnvironmentVariable(const EnvironmentVariable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> before_;
};

// A cache of GEMM choices of its own. Where CUDA is emulated, products that do what goes along with them in
// one kernel then win (`ahead_ms` above 0) or lose (below 0) against kernels apart; on a GPU the faster ones
// do.
class FreshGemmChoices {
 public:
  explicit FreshGemmChoices(int ahead_ms)
      : cache_("XDG_CACHE_HOME", directory_.path().string()),
        clock_("KEEN_EMULATOR_EPILOGUE_MS", std::to_string(-ahead_ms)) {}

 private:
  TemporaryDirectory directory_;
  EnvironmentVariable cache_, clock_;
};

}  // namespace keen::testing
