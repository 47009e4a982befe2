// The curves of a comparison as static pictures, for papers and README files.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "report/compare.h"
#include "report/curves.h"

namespace keen {

struct Figures {
  std::vector<std::filesystem::path> written;
  std::vector<std::string> left_out;  // sentences: which one is missing although runs could have it, and why
};

// Writes those of these files into `directory` (created where missing) for which the runs have data:
//
//   training-loss.svg     every run's training loss: the logged values faint, smoothed ones on top
//   validation-loss.svg   its validation losses, never smoothed
//   difference.svg        both, minus those of the baseline where it had come as far: of the run that read
//                         the same batches (Paired), else of the mean of the baseline's column
//   learned-s.svg         s of each head over training, a panel a layer; learned-b.svg where there is any b
//
// The runs of a column are one line: their mean, with a band from the lowest to the highest, as far as all of
// them have come. Everything is drawn over `measure`; a fork starts where it left its parent's curve. Each
// file stays below 200 kB, whatever the length of the runs, and has neither links nor scripts. Files that are
// there already are replaced. Raises Exit::storage.
Figures write_figures(const Comparison& comparison, const std::filesystem::path& directory,
                      Measure measure = Measure::tokens);

}  // namespace keen
