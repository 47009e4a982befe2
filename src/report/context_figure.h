// A score by context as a picture.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace keen {

struct ContextPoint {
  double context;    // tokens
  double score;      // from 0 to 1
  double error = 0;  // to both sides; NaN where it is not known
};
struct ContextCurve {
  std::string name;
  int64_t trained_context = 0;
  std::vector<ContextPoint> points;  // by rising context
};

// An SVG file: for each model a line, in percent, over the logarithm of the context, with a band of its
// errors (`error_label` says what they are, below the picture), and where the training context ends (of each
// model whose context differs), if it lies in the picture.
std::string context_figure(const std::string& title, const std::string& error_label,
                           const std::vector<ContextCurve>& curves);

}  // namespace keen
