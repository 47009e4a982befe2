#include "report/loss_text.h"

#include <fmt/format.h>

#include <cmath>

namespace keen {

namespace {
constexpr double kDiverged = 1e5;
}

std::string loss_text(double loss) {
  return std::abs(loss) < kDiverged ? fmt::format("{:.4f}", loss) : fmt::format("{:.4g}", loss);
}

std::string loss_difference_text(double difference) {
  return std::abs(difference) < kDiverged ? fmt::format("{:+.4f}", difference)
                                          : fmt::format("{:+.4g}", difference);
}

}  // namespace keen
