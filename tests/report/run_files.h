// Run directories written by hand.
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "report/run.h"
#include "temporary_directory.h"

namespace keen::testing {

inline std::string validation_row(int64_t step, int64_t tokens, const std::string& loss) {
  return fmt::format(R"({{"kind":"validation","step":{},"tokens":{},"loss":{},"perplexity":null}})", step,
                     tokens, loss) +
         "\n";
}
// 100 tokens a step.
inline std::string train_row(int64_t step, const std::string& loss = "3.5", double step_ms = 5,
                             double speed = 60) {
  return fmt::format(
             R"({{"kind":"train","step":{},"tokens":{},"loss":{},"grad_norm":1.5,"lr":0.001,"step_ms":{},"tokens_per_s":{},"mfu":null,"elapsed_s":{}}})",
             step, step * 100, loss, step_ms, speed, static_cast<double>(step) * 0.5) +
         "\n";
}
// `more` are further members: R"("step":3)".
inline std::string event_row(const std::string& event, const std::string& more) {
  return fmt::format(R"({{"kind":"event","event":"{}",{}}})", event, more) + "\n";
}

constexpr const char* kConfig =
    R"({"name": "a", "seed": 1, "model": {"attention": "softmax"}, "schedule": {"steps": 30}})";

// A run directory with this config and these rows.
inline std::filesystem::path make_run(const std::filesystem::path& path, const std::string& config,
                                      const std::string& metrics) {
  std::filesystem::create_directories(path);
  put(path / "config.json", config);
  put(path / "metrics.jsonl", metrics);
  return path;
}

}  // namespace keen::testing
