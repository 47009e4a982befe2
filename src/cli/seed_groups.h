// How checkpoints are named in figures.
#pragma once

#include <string>
#include <vector>

#include "eval/checkpoint_config.h"

namespace keen {

// Paths without the directories that all of them begin with: "runs/a", "runs/b/checkpoints/step_00000100" as
// "a", "b/checkpoints/step_00000100".
std::vector<std::string> short_names(const std::vector<std::string>& paths);

// Checkpoints that are samples of one thing, and a name for them: "a-1", "a-2", "a-3" as "a-* (3 seeds)".
struct SeedGroup {
  std::string name;
  std::vector<size_t> members;  // places among the checkpoints
};

// Whether curves of one checkpoint get bands of their errors over windows too. Among many curves they do not:
// all models read the same windows, and bands of what windows do to all alike would hide the differences.
bool with_bands_over_windows(const std::vector<SeedGroup>& groups);
// What the bands around the curves of these groups are.
std::string error_label(const std::vector<SeedGroup>& groups);

std::vector<SeedGroup> seed_groups(const std::vector<std::string>& checkpoints,
                                   const std::vector<Sample>& samples);

// Of reports that have a `checkpoint` and a `sample`.
template <class Report> std::vector<SeedGroup> seed_groups(const std::vector<Report>& reports) {
  std::vector<std::string> checkpoints;
  std::vector<Sample> samples;
  for (const Report& report : reports) {
    checkpoints.push_back(report.checkpoint);
    samples.push_back(report.sample);
  }
  return seed_groups(checkpoints, samples);
}

}  // namespace keen
