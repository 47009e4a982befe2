// What happened to a run, to be marked on its curves.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "train/spikes.h"

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

// Spikes (train/spikes.h) and stretches without a finite value of a training loss: `steps` and `losses` side
// by side, in order. A spike is one mark, at its first step; so is a stretch.
std::vector<Mark> marks_of_losses(const std::vector<int64_t>& steps,
                                  const std::vector<std::optional<double>>& losses);

}  // namespace keen
