#include "train/spikes.h"

#include <algorithm>
#include <cmath>

namespace keen {

namespace {

double median_of(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

// Sets spike_ where the losses just before make this one the first of a spike.
void SpikeDetector::judge(double loss) {
  if (std::ssize(recent_) < kFewestBefore) return;
  std::vector<double> values(recent_.begin(), recent_.end());
  const double median = median_of(values);
  for (double& value : values) value = std::abs(value - median);
  const double deviation = std::max(kLeastSpike / kSpikeDeviations, 1.4826 * median_of(std::move(values)));
  if (loss > median + kSpikeDeviations * deviation) spike_ = {loss, median, deviation};
}

std::optional<LossSpike> SpikeDetector::take(double loss) {
  if (!std::isfinite(loss)) return std::nullopt;
  const bool was_open = spike_.has_value();
  if (!was_open)
    judge(loss);
  else if (loss < spike_->median + kSpikeDeviations / 2 * spike_->deviation)
    spike_.reset();
  in_spike_ = spike_.has_value();
  if (!in_spike_) {
    losses_of_spike_.clear();
    recent_.push_back(loss);
    if (std::ssize(recent_) > kSpikeWindow) recent_.pop_front();
    return std::nullopt;
  }
  const std::optional<LossSpike> begun = was_open ? std::nullopt : spike_;
  losses_of_spike_.push_back(loss);
  if (std::ssize(losses_of_spike_) == kSpikeWindow) {
    recent_.assign(losses_of_spike_.begin(), losses_of_spike_.end());
    losses_of_spike_.clear();
    spike_.reset();
  }
  return begun;
}

}  // namespace keen
