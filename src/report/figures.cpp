#include "report/figures.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "io/file.h"
#include "report/chart.h"

namespace keen {

namespace {

constexpr double kRawOpacity = 0.2, kHeadOpacity = 0.5, kBold = 2.2;
constexpr size_t kMostHeadLines = 450;  // of more heads only their range is drawn
constexpr double kMarkDistance = 4;     // pixels; nearer ones of a kind are drawn as one

// From the start of all training, unless everything shown lies far from it.
std::optional<Extent> extent_of_x(const std::vector<Curve>& curves) {
  double low = INFINITY, high = -INFINITY;
  for (const Curve& curve : curves) {
    if (curve.empty()) continue;
    low = std::min(low, curve.front().x);
    high = std::max(high, curve.back().x);
  }
  if (low > high) return std::nullopt;
  if (low < 0.5 * high || low == high) low = 0;
  return Extent{low, high > low ? high : low + 1};
}

double longest(const std::vector<Curve>& curves) {
  double extent = 0;
  for (const Curve& curve : curves)
    if (!curve.empty()) extent = std::max(extent, curve.back().x - curve.front().x);
  return extent;
}

std::vector<double> values_of(const std::vector<Curve>& curves) {
  std::vector<double> values;
  for (const Curve& curve : curves)
    for (const CurvePoint& point : curve) values.push_back(point.y);
  return values;
}

Extent padded(Extent range) {
  const double margin = 0.04 * (range.high - range.low);
  return {range.low - margin, range.high + margin};
}

// The looks of the runs whose curves have points.
std::vector<Look> shown(const std::vector<Look>& looks, const std::vector<Curve>& curves) {
  std::vector<Look> list;
  for (size_t i = 0; i < curves.size(); ++i)
    if (!curves[i].empty()) list.push_back(looks[i]);
  return list;
}

template <class Make> std::vector<Curve> curve_of_each(const Comparison& comparison, Make&& make) {
  std::vector<Curve> curves;
  for (const RunRecord& run : comparison.runs) curves.push_back(make(run));
  return curves;
}

// Says how far the curves go on above the panel.
void note_cut(Chart& chart, const std::vector<Curve>& curves, Extent y) {
  double highest = -INFINITY;
  for (const double value : values_of(curves))
    if (std::isfinite(value)) highest = std::max(highest, value);
  if (highest > y.high) chart.note(fmt::format("up to {:.4g} above", highest));
}

// Markers at points of a curve: at all, or evenly at some of many.
void draw_markers(Chart& chart, const Curve& curve, const Look& look, size_t most) {
  const Panel& panel = chart.panels[0];
  const size_t every = (curve.size() + most - 1) / most;
  for (size_t i = 0; i < curve.size(); ++i) {
    const auto [x, y] = curve[i];
    if ((curve.size() - 1 - i) % every == 0 && panel.contains(x, y))
      chart.svg.marker(look.marker, panel.x(x), panel.y(y), 7, look.colour,
                       fmt::format("{}: {:.4f}", look.name, y));
  }
}

// A ring where a fork leaves its parent's curve, and a dotted line to its own first point.
bool draw_forks(Chart& chart, const Comparison& comparison, const std::vector<Look>& looks,
                const std::vector<Curve>& curves, Measure measure) {
  const Panel& panel = chart.panels[0];
  bool any = false;
  for (size_t i = 0; i < curves.size(); ++i) {
    const auto parent = parent_of(comparison.runs, i);
    const RunRecord& run = comparison.runs[i];
    const auto x = x_of(run, beginning_of(run), measure);
    if (!run.parent || !x || curves[i].empty()) continue;
    const double y = parent ? y_at(curves[*parent], *x) : NAN;
    const CurvePoint first = curves[i].front();
    // A parent that goes on to be drawn is left where it was; otherwise the fork's own beginning is marked.
    const CurvePoint at = std::isfinite(y) ? CurvePoint{*x, y} : first;
    if (!panel.contains(at.x, at.y)) continue;
    panel.clipped(chart.svg, [&] {
      chart.svg.path({{panel.x(at.x), panel.y(at.y)}, {panel.x(first.x), panel.y(first.y)}},
                     {.colour = looks[i].colour, .width = 1.2, .dash = "1 3"});
    });
    chart.svg.marker(Marker::ring, panel.x(at.x), panel.y(at.y), 9, looks[i].colour,
                     fmt::format("{}: fork of {} at step {}", looks[i].name, run.parent_name(),
                                 run.parent_step.value_or(0)));
    any = true;
  }
  return any;
}

// Resumes on the smoothed curve, spikes at the logged value (at the panel's edge where that lies outside),
// and losses that were not finite at the upper edge.
void draw_marks(Chart& chart, const Comparison& comparison, const std::vector<Look>& looks,
                const std::vector<Curve>& raw, const std::vector<Curve>& smooth, Measure measure) {
  struct Kind {
    Mark::Kind kind;
    Marker marker;
    const char* words;
  };
  constexpr std::array kKinds = {Kind{Mark::Kind::resume, Marker::bar, "resumed"},
                                 Kind{Mark::Kind::spike, Marker::cross, "spike"},
                                 Kind{Mark::Kind::non_finite, Marker::down_triangle, "not finite"}};
  const Panel& panel = chart.panels[0];
  for (const Kind& kind : kKinds) {
    bool any = false;
    for (size_t i = 0; i < raw.size(); ++i) {
      double last = -INFINITY;
      for (const Mark& mark : comparison.runs[i].marks) {
        const auto x =
            mark.kind == kind.kind ? x_of_step(comparison.runs[i], mark.step, measure) : std::nullopt;
        if (!x || panel.x(*x) - last < kMarkDistance) continue;
        last = panel.x(*x);
        const double y = y_at(kind.kind == Mark::Kind::spike ? raw[i] : smooth[i], *x);
        const double at = kind.kind == Mark::Kind::non_finite || !std::isfinite(y)
                              ? panel.top() + 5
                              : std::clamp(panel.y(y), panel.top() + 5, panel.bottom() - 5);
        chart.svg.marker(kind.marker, last, at, kind.kind == Mark::Kind::resume ? 13 : 8, looks[i].colour,
                         fmt::format("{}, step {}: {}", looks[i].name, mark.step, mark.text));
        any = true;
      }
    }
    if (any) chart.note(kind.marker, kind.words);
  }
}

// --- the figures: each draws itself, or returns nothing where the runs lack its data ---

std::string training_loss(const Comparison& comparison, Measure measure) {
  const auto raw = curve_of_each(comparison, [&](const RunRecord& run) { return train_curve(run, measure); });
  const auto x = extent_of_x(raw);
  const double scale = kSmoothing * longest(raw);
  std::vector<Curve> smooth;
  for (const Curve& curve : raw) smooth.push_back(smoothed(curve, scale));
  const auto range = robust_range(values_of(smooth), Cut::above);
  if (!x || !range) return "";
  const std::vector<Look> looks = looks_of(comparison);
  const Extent y = padded(*range);
  Chart chart({.title = "Training loss (nats per token)",
               .looks = shown(looks, raw),
               .x = *x,
               .y = y,
               .unit = unit_of(measure, x->high)});
  const Panel& panel = chart.panels[0];
  const size_t columns = columns_for(2 * raw.size());
  panel.clipped(chart.svg, [&] {
    for (size_t i = 0; i < raw.size(); ++i)
      panel.curve(chart.svg, raw[i], {.colour = looks[i].colour, .opacity = kRawOpacity}, columns);
    for (size_t i = 0; i < raw.size(); ++i)
      panel.curve(chart.svg, smooth[i], {.colour = looks[i].colour, .width = kBold, .dash = looks[i].dash},
                  columns, looks[i].name);
  });
  chart.note(fmt::format("faint: as logged; bold: smoothed over {}", amount_text(measure, scale)));
  if (draw_forks(chart, comparison, looks, smooth, measure)) chart.note(Marker::ring, "fork");
  draw_marks(chart, comparison, looks, raw, smooth, measure);
  note_cut(chart, raw, y);
  return chart.svg.str();
}

std::string validation_loss(const Comparison& comparison, Measure measure) {
  const auto curves =
      curve_of_each(comparison, [&](const RunRecord& run) { return validation_curve(run, measure); });
  const auto x = extent_of_x(curves);
  const auto range = robust_range(values_of(curves), Cut::above);
  if (!x || !range) return "";
  const std::vector<Look> looks = looks_of(comparison);
  const Extent y = padded(*range);
  Chart chart({.title = "Validation loss (nats per token)",
               .looks = shown(looks, curves),
               .markers = true,
               .x = *x,
               .y = y,
               .unit = unit_of(measure, x->high)});
  const Panel& panel = chart.panels[0];
  panel.clipped(chart.svg, [&] {
    for (size_t i = 0; i < curves.size(); ++i)
      panel.curve(chart.svg, curves[i], {.colour = looks[i].colour, .width = 1.8, .dash = looks[i].dash},
                  columns_for(curves.size()), looks[i].name);
  });
  for (size_t i = 0; i < curves.size(); ++i) draw_markers(chart, curves[i], looks[i], 25);
  if (draw_forks(chart, comparison, looks, curves, measure)) chart.note(Marker::ring, "fork");
  note_cut(chart, curves, y);
  return chart.svg.str();
}

std::string difference_to_baseline(const Comparison& comparison, Measure measure) {
  const RunRecord& baseline = comparison.runs[comparison.baseline];
  const auto minus_baseline = [&](Curve (*curve_of)(const RunRecord&, Measure)) {
    const Curve base = curve_of(baseline, measure);
    return curve_of_each(comparison, [&](const RunRecord& run) {
      return &run == &baseline ? Curve{} : difference(curve_of(run, measure), base);
    });
  };
  std::vector<Curve> train = minus_baseline(train_curve);
  const std::vector<Curve> validation = minus_baseline(validation_curve);
  // What is left of the noise weighs more beside so small a difference.
  const double scale = 2 * kSmoothing * longest(train);
  for (Curve& curve : train) curve = smoothed(curve, scale);
  std::vector<Curve> all = train;
  all.insert(all.end(), validation.begin(), validation.end());
  const auto x = extent_of_x(all);
  if (!x) return "";
  Extent y{0, 0};
  for (const auto& curves : {train, validation})
    if (const auto range = robust_range(values_of(curves), Cut::both_sides))
      y = Extent{std::min(y.low, range->low), std::max(y.high, range->high)};

  const std::vector<Look> looks = looks_of(comparison);
  std::vector<Look> legend;
  std::string beyond;
  for (size_t i = 0; i < looks.size(); ++i)
    if (!train[i].empty() || !validation[i].empty())
      legend.push_back(looks[i]);
    else if (i != comparison.baseline)
      beyond += (beyond.empty() ? "" : ", ") + looks[i].name;
  Chart chart(
      {.title = fmt::format("Loss minus that of {} (nats per token)", looks[comparison.baseline].name),
       .looks = legend,
       .markers = true,
       .x = *x,
       .y = padded(y),
       .unit = unit_of(measure, x->high)});
  const Panel& panel = chart.panels[0];
  panel.clipped(chart.svg, [&] {
    chart.svg.line(panel.left(), panel.y(0), panel.right(), panel.y(0), {.colour = "#222222", .width = 1.2});
    for (size_t i = 0; i < looks.size(); ++i)
      panel.curve(chart.svg, train[i], {.colour = looks[i].colour, .width = 1.6, .dash = looks[i].dash},
                  columns_for(looks.size()), looks[i].name + ", training");
  });
  for (size_t i = 0; i < looks.size(); ++i) draw_markers(chart, validation[i], looks[i], 100);
  chart.note(fmt::format("lines: training, smoothed over {}", amount_text(measure, scale)));
  chart.note("markers: validation");
  if (!beyond.empty()) chart.note("beyond the baseline: " + beyond);
  return chart.svg.str();
}

// What the heads of one layer of a run learned: a thin line for each, or a band around all; a bold one for
// their mean.
void draw_heads(Chart& chart, const Panel& panel, const std::vector<HeadCurve>& heads, const Look& look,
                bool as_band, size_t columns) {
  if (as_band) panel.band(chart.svg, lowest_of(heads), highest_of(heads), look.colour, columns);
  for (const HeadCurve& head : heads)
    if (!as_band)
      panel.curve(chart.svg, head.curve, {.colour = look.colour, .opacity = kHeadOpacity}, columns,
                  fmt::format("{}, head {}: {:.4g}", look.name, head.head, head.curve.back().y));
  if (heads.size() > 1)
    panel.curve(chart.svg, mean_of(heads), {.colour = look.colour, .width = kBold, .dash = look.dash},
                columns);
}

std::string learned(const Comparison& comparison, Measure measure, std::vector<double> LayerScale::*values,
                    const char* name) {
  const std::vector<Look> looks = looks_of(comparison);
  std::vector<Look> legend;
  std::vector<Curve> all;
  std::map<int64_t, std::vector<std::vector<HeadCurve>>> layers;  // of each the heads by run
  for (size_t i = 0; i < looks.size(); ++i) {
    const std::vector<HeadCurve> heads = head_curves(comparison.runs[i], values, measure);
    if (!heads.empty()) legend.push_back(looks[i]);
    for (const HeadCurve& head : heads) {
      auto& by_run = layers[head.layer];
      by_run.resize(looks.size());
      by_run[i].push_back(head);
      all.push_back(head.curve);
    }
  }
  const auto x = extent_of_x(all);
  const auto range = robust_range(values_of(all), Cut::none);
  if (!x || !range) return "";
  std::vector<std::string> captions;
  for (const auto& [layer, heads] : layers) captions.push_back(fmt::format("layer {}", layer));
  Chart chart({.title = fmt::format("Learned {} by layer", name),
               .looks = legend,
               .x = *x,
               .y = padded(*range),
               .unit = unit_of(measure, x->high),
               .captions = captions});
  const bool as_bands = all.size() > kMostHeadLines;
  const size_t means = layers.size() * legend.size(),
               columns = columns_for((as_bands ? 2 * means : all.size()) + means);
  size_t panel = 0;
  for (const auto& [layer, by_run] : layers) {
    const Panel& at = chart.panels[panel++];
    at.clipped(chart.svg, [&] {
      for (size_t i = 0; i < by_run.size(); ++i)
        draw_heads(chart, at, by_run[i], looks[i], as_bands, columns);
    });
  }
  chart.note(as_bands ? "band: from the lowest to the highest head; bold: their mean"
                      : "thin: heads; bold: their mean");
  return chart.svg.str();
}

struct Figure {
  const char* file;
  std::string (*draw)(const Comparison& comparison, Measure measure);
};

constexpr std::array kFigures = {
    Figure{"training-loss.svg", training_loss},
    Figure{"validation-loss.svg", validation_loss},
    Figure{"difference.svg", difference_to_baseline},
    Figure{"learned-s.svg",
           [](const Comparison& comparison, Measure measure) {
             return learned(comparison, measure, &LayerScale::s, "s");
           }},
    Figure{"learned-b.svg",
           [](const Comparison& comparison, Measure measure) {
             return learned(comparison, measure, &LayerScale::b, "b");
           }},
};

}  // namespace

std::vector<std::filesystem::path> write_figures(const Comparison& comparison,
                                                 const std::filesystem::path& directory, Measure measure) {
  make_directories(directory);
  std::vector<std::filesystem::path> written;
  for (const Figure& figure : kFigures) {
    const std::string text = figure.draw(comparison, measure);
    if (text.empty()) continue;
    written.push_back(directory / figure.file);
    replace_file(written.back(), text);
  }
  return written;
}

}  // namespace keen
