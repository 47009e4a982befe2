// Losses as people read them.
#pragma once

#include <string>

namespace keen {

// Four decimals; from 1e5 on, where a run has diverged, four significant digits: "3.4567", "1.2e+38". "nan"
// and "inf" as such.
std::string loss_text(double loss);
// The same of a difference, always with its sign: "-0.0123".
std::string loss_difference_text(double difference);

}  // namespace keen
