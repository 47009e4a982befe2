// Loss by position as a picture.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace keen {

// The loss of one model over a range of positions.
struct PositionPoint {
  double first, last;           // 1-based
  double loss, standard_error;  // nats a token; NaN where there is one window alone
};
struct PositionCurve {
  std::string name;
  int64_t trained_context = 0;
  std::vector<PositionPoint> points;  // by rising position
};

// An SVG file: a line for each model over the logarithm of the position, a band of its standard errors around
// it
// (`error_label` says what they are, below the picture), and where the training context ends (of each model
// whose context differs).
std::string position_figure(const std::string& error_label, const std::vector<PositionCurve>& curves);

}  // namespace keen
