// What happened to a run, to be marked on its curves.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"

namespace keen {

struct Mark {
  enum class Kind : uint8_t { resume, fork, spike, non_finite, signal, save_failed };
  Kind kind;
  int64_t step = 0;
  std::string text;  // for people: "resumed; changed log.every 1 -> 10"
};
std::string_view name_of(Mark::Kind kind);  // "resume", "fork", "spike", ...

// From the events of metrics.jsonl, in their order. What lies beyond the step of a later start, resume or
// fork belongs to a course that the run has left, and is left out. Batches of one step that were left out one
// after the other are one mark.
std::vector<Mark> marks_of_events(const std::vector<Json>& events);

// Spikes and stretches without a finite value of a training loss: `steps` and `losses` side by side, in
// order.
//
// A spike is a loss above the median m of the kSpikeWindow finite losses before it by more than
//   limit = max(kLeastSpike, kSpikeDeviations * 1.4826 * median |loss - m|),
// the second being robust standard deviations, so that neither one outlier nor a falling curve moves the
// rule. It takes kFewestBefore losses to judge by. An excursion lasts until the loss is below m + limit / 2
// again; it is one mark at its first step, and its losses are no part of the window. A loss that stays up for
// kSpikeWindow steps is the new normal, and ends the excursion too. Losses that are not finite take part in
// nothing but their own marks, one for each stretch of them.
inline constexpr int64_t kSpikeWindow = 50, kFewestBefore = 20;
inline constexpr double kSpikeDeviations = 6, kLeastSpike = 0.1;  // nats
std::vector<Mark> marks_of_losses(const std::vector<int64_t>& steps,
                                  const std::vector<std::optional<double>>& losses);

}  // namespace keen
