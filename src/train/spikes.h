// Spikes of a training loss: what a run logs as loss_spike, and what its curves are marked with.
//
// A spike is a loss above the median m of the kSpikeWindow finite losses before it by more than
// kSpikeDeviations deviations, a deviation being the robust one, 1.4826 * median |loss - m|, but at least
// kLeastSpike / kSpikeDeviations: so neither one outlier nor a falling curve moves the rule. It takes
// kFewestBefore losses to judge by. A spike lasts until the loss is below m by half of that limit again, and
// its losses are no part of the window. A loss that stays up for kSpikeWindow steps is the new normal, and
// ends the spike too.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

namespace keen {

inline constexpr int64_t kSpikeWindow = 50, kFewestBefore = 20;
inline constexpr double kSpikeDeviations = 6, kLeastSpike = 0.1;  // nats

// The first loss of a spike, and what it is judged by.
struct LossSpike {
  double loss = 0, median = 0, deviation = 0;
  double z() const { return (loss - median) / deviation; }
};

class SpikeDetector {
 public:
  // The next loss of a run; the spike that begins with it, if one does. A loss that is not finite takes no
  // part in anything.
  std::optional<LossSpike> take(double loss);

  // Whether the last loss taken belongs to a spike, and whether that one may go on.
  bool in_spike() const { return in_spike_; }
  bool spike_is_open() const { return spike_.has_value(); }

 private:
  void judge(double loss);

  std::deque<double> recent_;
  std::optional<LossSpike> spike_;
  std::vector<double> losses_of_spike_;
  bool in_spike_ = false;
};

}  // namespace keen
