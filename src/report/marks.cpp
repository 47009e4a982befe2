#include "report/marks.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "report/loss_text.h"

namespace keen {

namespace {

std::string text_in(const Json& object, const char* key) {
  const auto at = object.find(key);
  return at != object.end() && at->is_string() ? at->get<std::string>() : "";
}

int64_t step_of(const Json& event) {
  const auto at = event.find("step");
  return at != event.end() && at->is_number_integer() ? at->get<int64_t>() : 0;
}

// "; changed log.every 1 -> 10, threads 2 -> 4", or nothing.
std::string changes_in(const Json& event) {
  const auto changed = event.find("changed");
  if (changed == event.end() || !changed->is_object()) return "";
  const auto plain = [](const Json& value) {
    return value.is_string() ? value.get<std::string>() : json_line(value);
  };
  std::string text;
  for (const auto& [key, values] : changed->items()) {
    text += (text.empty() ? "; changed " : ", ") + key;
    if (values.is_array() && values.size() == 2) text += " " + plain(values[0]) + " -> " + plain(values[1]);
  }
  return text;
}

std::string fork_text(const Json& event) {
  const auto number = [&](const char* key) {
    const auto at = event.find(key);
    return at != event.end() && at->is_number() ? std::optional(at->get<double>()) : std::nullopt;
  };
  std::string text = "fork of " + text_in(event, "parent");
  const auto before = number("loss_before"), after = number("loss_after");
  if (before && after)
    text += fmt::format("; loss on one same batch {} before the swap, {} after", loss_text(*before),
                        loss_text(*after));
  return text;
}

std::string non_finite_text(const Json& event, int64_t batches) {
  const std::string parameter = text_in(event, "first_bad");
  std::string text = parameter.empty() ? "loss not finite" : "gradient of " + parameter + " not finite";
  if (batches > 1) text += fmt::format("; {} batches in a row", batches);
  return text;
}

// A spike in progress.
struct Excursion {
  int64_t first_step = 0, peak_step = 0;
  double peak = 0, median = 0;
};

Mark mark_of(const Excursion& excursion) {
  std::string text = fmt::format("spike: loss {}, {} above the recent ones", loss_text(excursion.peak),
                                 loss_text(excursion.peak - excursion.median));
  if (excursion.peak_step != excursion.first_step) text += fmt::format(", at step {}", excursion.peak_step);
  return {Mark::Kind::spike, excursion.first_step, text};
}

}  // namespace

std::string_view name_of(Mark::Kind kind) {
  constexpr std::array<std::string_view, 6> names = {"resume",     "fork",   "spike",
                                                     "non_finite", "signal", "save_failed"};
  return names[static_cast<size_t>(kind)];
}

std::vector<Mark> marks_of_events(const std::vector<Json>& events) {
  std::vector<Mark> marks;
  int64_t batches = 0;  // left out one after the other at the last mark
  for (const Json& event : events) {
    const std::string name = text_in(event, "event");
    const int64_t step = step_of(event);
    if (name == "start" || name == "resume" || name == "fork")
      std::erase_if(marks, [step](const Mark& mark) { return mark.step > step; });
    if (name == "resume") {
      marks.push_back({Mark::Kind::resume, step, "resumed" + changes_in(event)});
    } else if (name == "fork") {
      marks.push_back({Mark::Kind::fork, step, fork_text(event)});
    } else if (name == "non_finite") {
      const bool again =
          !marks.empty() && marks.back().kind == Mark::Kind::non_finite && marks.back().step == step;
      batches = again ? batches + 1 : 1;
      if (again) marks.pop_back();
      marks.push_back({Mark::Kind::non_finite, step, non_finite_text(event, batches)});
    } else if (name == "stop" && text_in(event, "reason") == "signal") {
      const auto signal = event.find("signal");
      marks.push_back(
          {Mark::Kind::signal, step,
           signal != event.end() ? "stopped by signal " + json_line(*signal) : "stopped by a signal"});
    } else if (name == "save_failed") {
      marks.push_back({Mark::Kind::save_failed, step, "save failed: " + text_in(event, "reason")});
    }
  }
  return marks;
}

std::vector<Mark> marks_of_losses(const std::vector<int64_t>& steps,
                                  const std::vector<std::optional<double>>& losses) {
  std::vector<Mark> marks;
  SpikeDetector detector;
  std::optional<Excursion> excursion;
  const auto end_excursion = [&] {
    marks.push_back(mark_of(*excursion));
    excursion.reset();
  };
  bool finite = true;
  for (size_t i = 0; i < losses.size(); ++i) {
    const bool was_finite = std::exchange(finite, losses[i].has_value());
    if (!finite) {
      if (was_finite) marks.push_back({Mark::Kind::non_finite, steps[i], "loss not finite"});
      continue;
    }
    const double loss = *losses[i];
    if (const auto spike = detector.take(loss)) {
      excursion = {.first_step = steps[i], .peak_step = steps[i], .peak = loss, .median = spike->median};
    } else if (detector.in_spike() && loss > excursion->peak) {
      excursion->peak = loss;
      excursion->peak_step = steps[i];
    }
    if (excursion && !detector.spike_is_open()) end_excursion();
  }
  if (excursion) end_excursion();
  std::stable_sort(marks.begin(), marks.end(), [](const Mark& a, const Mark& b) { return a.step < b.step; });
  return marks;
}

}  // namespace keen
