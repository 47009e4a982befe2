// The curves of a comparison as static pictures, for papers and README files.
#pragma once

#include <filesystem>
#include <vector>

#include "report/compare.h"
#include "report/curves.h"

namespace keen {

// Writes those of these files into `directory` (created where missing) for which the runs have data, and
// returns their paths:
//
//   training-loss.svg     every run's training loss: the logged values faint, smoothed ones on top
//   validation-loss.svg   its validation losses, never smoothed
//   difference.svg        both, minus those of the baseline where it had come as far
//   learned-s.svg         s of each head over training, a panel a layer; learned-b.svg where there is any b
//
// Everything is drawn over `measure`; a fork starts where it left its parent's curve. Each file stays below
// 200 kB, whatever the length of the runs, and has neither links nor scripts. Files that are there already
// are replaced. Raises Exit::storage.
std::vector<std::filesystem::path> write_figures(const Comparison& comparison,
                                                 const std::filesystem::path& directory,
                                                 Measure measure = Measure::tokens);

}  // namespace keen
