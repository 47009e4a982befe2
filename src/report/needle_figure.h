// Needle scores as a picture: how much attention heads pay to a number that a model is asked for.
#pragma once

#include <string>
#include <vector>

namespace keen {

struct NeedleScores {
  std::string name;           // of the model
  std::vector<double> heads;  // the mean score of each head, from the highest to the lowest
  // The highest score of any head in each trial, for each of NeedleFigure::outcomes; any may be empty.
  std::vector<std::vector<double>> trials;
};
struct NeedleFigure {
  std::vector<std::string> outcomes;  // what a model answered, in a few words
  std::vector<NeedleScores> models;
};

// An SVG file of two parts. Above, the heads of each model as a line over their rank. Below, for each model
// and outcome a point for every trial, scattered sideways the further the more trials have about that score,
// and a bar at their mean. Of more than kMostPoints trials an outcome, as many are shown, evenly over all of
// them by score, and the picture says so; means are always those of all. Scores lie between 0 and 1.
inline constexpr size_t kMostPoints = 1000;
std::string needle_figure(const NeedleFigure& figure);

}  // namespace keen
