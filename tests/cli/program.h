// Runs the program from outside, as a user does.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "temporary_directory.h"

namespace keen::testing {

struct Outcome {
  int exit = -1;  // 128 + the signal that ended it
  std::string out, err;

  bool says(const std::string& text) const { return err.find(text) != std::string::npos; }
  nlohmann::json json() const { return nlohmann::json::parse(out); }
};

// A directory of its own, in which commands run and to which relative paths refer.
class Shell {
 public:
  explicit Shell(Medium medium = Medium::disk) : tmp_(medium) {}
  const TemporaryDirectory& tmp() const { return tmp_; }
  std::filesystem::path operator/(const std::string& name) const { return tmp_ / name; }

  // keen ARGUMENTS..., with no input unless input_from says otherwise, its output going to files.
  // `environment` has NAME=VALUE entries to add.
  Outcome keen(std::vector<std::string> arguments, const std::vector<std::string>& environment = {}) const {
    const pid_t child = start(std::move(arguments), environment);
    return wait(child);
  }

  // As above, without waiting for its end.
  pid_t start(std::vector<std::string> arguments, const std::vector<std::string>& environment = {}) const {
    return start_program(KEEN_PROGRAM, std::move(arguments), environment);
  }
  // Likewise any other program.
  pid_t start_program(const std::string& program, std::vector<std::string> arguments,
                      const std::vector<std::string>& environment = {}) const {
    arguments.insert(arguments.begin(), program);
    const pid_t child = fork();
    if (child != 0) return child;
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    setenv("OMP_NUM_THREADS", "1", 0);  // tests run beside each other, and their models are tiny
    for (const std::string& entry : environment) putenv(const_cast<char*>(entry.c_str()));
    if (chdir(tmp_.path().c_str()) != 0) _exit(126);
    redirect(in_, O_RDONLY, 0);
    redirect(out_, O_WRONLY | O_CREAT | O_TRUNC, 1);
    redirect(err_, O_WRONLY | O_CREAT | O_TRUNC, 2);
    execv(argv[0], argv.data());
    _exit(127);
  }

  Outcome wait(pid_t child) const {
    int status = 0;
    waitpid(child, &status, 0);
    Outcome outcome;
    outcome.exit = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    outcome.out = content_of(tmp_ / out_);
    outcome.err = content_of(tmp_ / err_);
    return outcome;
  }

  // Standard input comes from this file from now on.
  void input_from(const std::string& path) { in_ = path; }
  // Standard output, or error, goes to this file (a name in the directory, or an absolute path) from now on.
  void output_to(const std::string& path) { out_ = path; }
  void errors_to(const std::string& path) { err_ = path; }

 private:
  static void redirect(const std::string& path, int flags, int descriptor) {
    const int opened = open(path.c_str(), flags, 0644);
    if (opened < 0 || dup2(opened, descriptor) < 0) _exit(125);
    close(opened);
  }

  TemporaryDirectory tmp_;
  std::string in_ = "/dev/null", out_ = ".out", err_ = ".err";
};

// Nothing looks like a crash.
inline void expect_polite(const Outcome& outcome) {
  for (const char* rude : {"terminate called", "Assertion", "Sanitizer", "core dumped", "defect of keen"})
    EXPECT_FALSE(outcome.says(rude)) << outcome.err;
  EXPECT_LT(outcome.exit, 128) << outcome.err;
}

// It ended with this exit code, one polite message, and nothing on standard output.
inline void expect_error(const Outcome& outcome, int exit, const std::vector<std::string>& words) {
  expect_polite(outcome);
  EXPECT_EQ(outcome.exit, exit) << outcome.err;
  EXPECT_TRUE(outcome.says("keen: error: ")) << outcome.err;
  for (const std::string& word : words)
    EXPECT_TRUE(outcome.says(word)) << "no \"" << word << "\" in: " << outcome.err;
}

// A shard of 16-bit tokens 0, 1, ..., vocab - 1, 0, 1, ...
inline std::string shard_bytes(int64_t tokens, int vocab) {
  std::string bytes(1024 + 2 * static_cast<size_t>(tokens), '\0');
  const int32_t header[] = {20240520, 1, static_cast<int32_t>(tokens)};
  std::memcpy(bytes.data(), header, sizeof header);
  for (int64_t i = 0; i < tokens; ++i) {
    const auto token = static_cast<uint16_t>(i % vocab);
    std::memcpy(bytes.data() + 1024 + 2 * i, &token, 2);
  }
  return bytes;
}

}  // namespace keen::testing
