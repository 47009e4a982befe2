// A run as its directory tells it, read while it may still be written.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "io/fields.h"

namespace keen {

// One value over the tokens seen. Empty where the run logged a number that was not finite.
struct Point {
  int64_t step = 0, tokens = 0;
  std::optional<double> loss;
};

struct RunRecord {
  std::filesystem::path path;
  std::string name;                      // the last part of its path
  Json config;                           // config.json, or null
  std::vector<Point> train, validation;  // by step; of several rows of a step the last one counts
  std::optional<int64_t> steps, tokens;  // of the last row
  std::optional<int64_t> planned_steps;  // schedule.steps
  std::optional<int64_t> parameters;     // of the model that the config describes
  std::optional<double> elapsed_s;       // of the last train row
  std::optional<double> tokens_per_s;    // the median over train rows
  std::optional<std::string> parent;     // of a fork: the checkpoint that it started from
  std::optional<int64_t> parent_step;
  std::string last_event;             // start, resume, save, stop, ...
  std::vector<std::string> problems;  // what could not be read, each naming its file

  std::optional<double> final_validation() const;  // of the last validation row
  std::optional<double> best_validation() const;   // the lowest one
};

// Reads config.json and metrics.jsonl. Either may be missing, and single lines may be unreadable: that is
// noted in `problems`; a last line without newline is one that is being written, and is left out. Raises
// Exit::data when the directory is not there or holds neither file.
RunRecord read_run(const std::filesystem::path& directory);

// The loss of a curve at a token count, between two of its points by a straight line, never outside them.
// Empty when there is no such value, or one of the two points is not finite.
struct Interpolated {
  double loss = 0;
  bool exact = false;  // the curve has a point just there
};
std::optional<Interpolated> loss_at(const std::vector<Point>& curve, int64_t tokens);

// The token count at which a curve first comes down to `loss`, by a straight line from the point before (at
// the point itself when that one is not finite). Empty when it never does.
struct Reached {
  int64_t tokens = 0;
  bool exact = false;
};
std::optional<Reached> tokens_to_reach(const std::vector<Point>& curve, double loss);

}  // namespace keen
