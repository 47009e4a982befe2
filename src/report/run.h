// A run as its directory tells it, read while it may still be written.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "io/fields.h"
#include "report/marks.h"
#include "train/metrics.h"

namespace keen {

// One value, and how far the run had come, in every measure that a curve can be drawn over. Of a fork these
// are its own steps; `Origin` says what came before. (FLOPs are tokens * flops_per_token.)
struct Point {
  int64_t step = 0, tokens = 0;
  // Of training: the sum of step_ms, without evaluation, saving and pauses. What has no row of its own, a
  // batch left out or a step whose row is lost, counts as long as the row after it.
  double seconds = 0;
  std::optional<double> loss;  // nats per token; empty where the run logged a number that was not finite
};
struct TrainPoint : Point {
  std::optional<double> grad_norm, lr;
  int64_t batch = 0;  // its batch's place in the order of the data, from 0; batches left out count too
};

// What a fork's parent had done, its own ancestors included, when the fork left it; zero for other runs. A
// fork that counts on from its parent (init.step: keep) has the parent's own origin in steps, tokens and
// FLOPs.
struct Origin {
  int64_t step = 0, tokens = 0;
  double seconds = 0, flops = 0;
  bool known = true;  // false: neither the parent's run directory nor the checkpoint could be read
};

struct RunRecord {
  std::filesystem::path path;
  std::string name;                      // the last part of its path
  Json config;                           // config.json, or null
  std::vector<TrainPoint> train;         // by step; of several rows of a step the last one counts
  std::vector<Point> validation;         // likewise
  std::vector<AttentionRow> attention;   // likewise: the learned s and b
  std::vector<Mark> marks;               // by step
  std::optional<int64_t> steps, tokens;  // of the last row
  std::optional<int64_t> planned_steps;  // schedule.steps
  std::optional<int64_t> parameters;     // of the model that the config describes
  std::optional<double> flops_per_token;
  std::optional<double> elapsed_s;     // of the last train row: wall time, evaluation and saving included
  std::optional<double> training_s;    // of the last train row: Point::seconds
  std::optional<double> tokens_per_s;  // the median over train rows
  std::optional<std::string> parent;   // of a fork: the checkpoint that it started from, as the run wrote it
  std::optional<int64_t> parent_step;
  std::filesystem::path parent_directory;  // the parent's run directory, where it was found; else empty
  Origin origin;
  // The data that it read, whatever their paths (environment.json).
  std::optional<std::string> train_fingerprint, validation_fingerprint;
  Json environment;                   // environment.json, or null
  std::string last_event;             // start, resume, save, stop, ...
  std::vector<std::string> problems;  // what could not be read, each naming its file

  std::optional<double> final_validation() const;  // of the last validation row
  std::optional<double> best_validation() const;   // the lowest one
  // The name of the run that a fork left, or of a checkpoint that lies alone; empty for other runs.
  std::string parent_name() const;
};

// Reads config.json, metrics.jsonl and environment.json. Any may be missing, and single lines may be
// unreadable: that is noted in `problems` (but a missing environment.json is none: it is written last); a
// last line without newline is one that is being written, and is left out. Raises Exit::data when the
// directory is not there or holds neither of the first two.
//
// A fork's parent is looked for where its path leads from the directories above the fork and from the current
// one, and beside the fork. It is read too, and so its own parent; a run that is its own ancestor is read
// once.
RunRecord read_run(const std::filesystem::path& directory);

// Whether a directory is a run's: it has a log, or a config and is no checkpoint. And those right inside of a
// directory whose names do not begin with a dot, by name.
bool is_run(const std::filesystem::path& directory);
std::vector<std::filesystem::path> runs_inside(const std::filesystem::path& directory);

// The loss of a curve at a token count, between two of its points by a straight line, never outside them.
// Empty when there is no such value, or one of the two points is not finite.
struct Interpolated {
  double loss = 0;
  bool exact = false;  // the curve has a point just there
};
std::optional<Interpolated> loss_at(const std::vector<Point>& curve, int64_t tokens);

// The token count at which a curve first comes down to `loss`, by a straight line from the point before (at
// the point itself when that one is not finite), and the seconds of training, by the same line. Empty when it
// never does.
struct Reached {
  int64_t tokens = 0;
  double seconds = 0;
  bool exact = false;  // the curve has a point just there
};
std::optional<Reached> tokens_to_reach(const std::vector<Point>& curve, double loss);

}  // namespace keen
