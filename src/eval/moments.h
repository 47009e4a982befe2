// Mean and variance of a stream of numbers.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace keen {

// One number after the other (Welford, "Note on a method for calculating corrected sums of squares and
// products", 1962).
struct Moments {
  int64_t count = 0;
  double mean = 0, square = 0;
  void add(double x) {
    const double before = x - mean;
    mean += before / static_cast<double>(++count);
    square += before * (x - mean);
  }
  // Of the mean; NaN below two numbers.
  double standard_error() const {
    if (count < 2) return std::numeric_limits<double>::quiet_NaN();
    return std::sqrt(square / static_cast<double>(count - 1) / static_cast<double>(count));
  }
};

}  // namespace keen
