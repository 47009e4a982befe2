#include "report/figures.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "io/file.h"
#include "report/chart.h"
#include "report/loss_text.h"

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

// What a figure draws of a column: the curve of its run, or of several seeds their mean and the band between
// the lowest and the highest of them.
struct Line {
  Curve curve, low, high;
};

Line line_of(const std::vector<Curve>& members) {
  if (members.size() == 1) return {members[0], {}, {}};
  return {mean_across(members), lowest_across(members), highest_across(members)};
}

// Of every column, from a curve of every run.
std::vector<Line> lines_of(const Comparison& comparison, const std::vector<Curve>& curves) {
  std::vector<Line> lines;
  for (const Column& column : comparison.columns) {
    std::vector<Curve> members;
    for (const size_t member : column.members) members.push_back(curves[member]);
    lines.push_back(line_of(members));
  }
  return lines;
}

bool has_seeds(const Column& column) { return column.members.size() > 1; }
void note_seeds(Chart& chart, const Comparison& comparison) {
  if (std::ranges::any_of(comparison.columns, has_seeds))
    chart.note("band: from the lowest to the highest seed");
}

// How many curves take room in the file.
size_t curves_in(const Comparison& comparison) {
  return comparison.columns.size() +
         2 * static_cast<size_t>(std::ranges::count_if(comparison.columns, has_seeds));
}

size_t column_of(const Comparison& comparison, size_t run) {
  size_t column = 0;
  while (std::ranges::count(comparison.columns[column].members, run) == 0) ++column;
  return column;
}

// The looks of the columns whose curves have points.
std::vector<Look> shown(const std::vector<Look>& looks, const std::vector<Line>& lines) {
  std::vector<Look> list;
  for (size_t i = 0; i < lines.size(); ++i)
    if (!lines[i].curve.empty()) list.push_back(looks[i]);
  return list;
}

// Bands below, lines above them.
void draw_lines(Chart& chart, const std::vector<Line>& lines, const std::vector<Look>& looks, double width,
                size_t columns, std::string_view hint = "") {
  const Panel& panel = chart.panels[0];
  panel.clipped(chart.svg, [&] {
    for (size_t i = 0; i < lines.size(); ++i)
      panel.band(chart.svg, lines[i].low, lines[i].high, looks[i].colour, columns);
    for (size_t i = 0; i < lines.size(); ++i)
      panel.curve(chart.svg, lines[i].curve,
                  {.colour = looks[i].colour, .width = width, .dash = looks[i].dash}, columns,
                  fmt::format("{}{}", looks[i].name, hint));
  });
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
                       fmt::format("{}: {}", look.name, loss_text(y)));
  }
}

// A ring where a fork leaves its parent's curve, and a dotted line to its own first point. Of several seeds
// the first one says where that is.
bool draw_forks(Chart& chart, const Comparison& comparison, const std::vector<Look>& looks,
                const std::vector<Line>& lines, Measure measure) {
  const Panel& panel = chart.panels[0];
  bool any = false;
  for (size_t i = 0; i < lines.size(); ++i) {
    const size_t member = comparison.columns[i].members[0];
    const auto parent = parent_of(comparison.runs, member);
    const RunRecord& run = comparison.runs[member];
    const auto x = x_of(run, beginning_of(run), measure);
    if (!run.parent || !x || lines[i].curve.empty()) continue;
    const double y = parent ? y_at(lines[column_of(comparison, *parent)].curve, *x) : NAN;
    const CurvePoint first = lines[i].curve.front();
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
                const std::vector<Curve>& raw, const std::vector<Line>& lines, Measure measure) {
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
      const size_t column = column_of(comparison, i);
      double last = -INFINITY;
      for (const Mark& mark : comparison.runs[i].marks) {
        const auto x =
            mark.kind == kind.kind ? x_of_step(comparison.runs[i], mark.step, measure) : std::nullopt;
        if (!x || panel.x(*x) - last < kMarkDistance) continue;
        last = panel.x(*x);
        const double y = y_at(kind.kind == Mark::Kind::spike ? raw[i] : lines[column].curve, *x);
        const double at = kind.kind == Mark::Kind::non_finite || !std::isfinite(y)
                              ? panel.top() + 5
                              : std::clamp(panel.y(y), panel.top() + 5, panel.bottom() - 5);
        chart.svg.marker(kind.marker, last, at, kind.kind == Mark::Kind::resume ? 13 : 8,
                         looks[column].colour,
                         fmt::format("{}, step {}: {}", comparison.summaries[i].label, mark.step, mark.text));
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
  const std::vector<Look> looks = looks_of_columns(comparison);
  const std::vector<Line> lines = lines_of(comparison, smooth);
  const Extent y = padded(*range);
  Chart chart({.title = "Training loss (nats per token)",
               .looks = shown(looks, lines),
               .x = *x,
               .y = y,
               .unit = unit_of(measure, x->high)});
  const Panel& panel = chart.panels[0];
  const size_t columns = columns_for(curves_in(comparison) + raw.size());
  // A band stands in the place of its members' noise.
  panel.clipped(chart.svg, [&] {
    for (size_t i = 0; i < lines.size(); ++i)
      if (const Column& column = comparison.columns[i]; !has_seeds(column))
        panel.curve(chart.svg, raw[column.members[0]], {.colour = looks[i].colour, .opacity = kRawOpacity},
                    columns);
  });
  draw_lines(chart, lines, looks, kBold, columns);
  const bool any_faint = !std::ranges::all_of(comparison.columns, has_seeds);
  chart.note(fmt::format("{}smoothed over {}", any_faint ? "faint: as logged; bold: " : "",
                         amount_text(measure, scale)));
  note_seeds(chart, comparison);
  if (draw_forks(chart, comparison, looks, lines, measure)) chart.note(Marker::ring, "fork");
  draw_marks(chart, comparison, looks, raw, lines, measure);
  note_cut(chart, raw, y);
  return chart.svg.str();
}

std::string validation_loss(const Comparison& comparison, Measure measure) {
  const auto curves =
      curve_of_each(comparison, [&](const RunRecord& run) { return validation_curve(run, measure); });
  const auto x = extent_of_x(curves);
  const auto range = robust_range(values_of(curves), Cut::above);
  if (!x || !range) return "";
  const std::vector<Look> looks = looks_of_columns(comparison);
  const std::vector<Line> lines = lines_of(comparison, curves);
  const Extent y = padded(*range);
  Chart chart({.title = "Validation loss (nats per token)",
               .looks = shown(looks, lines),
               .markers = true,
               .x = *x,
               .y = y,
               .unit = unit_of(measure, x->high)});
  draw_lines(chart, lines, looks, 1.8, columns_for(curves_in(comparison)));
  for (size_t i = 0; i < lines.size(); ++i) draw_markers(chart, lines[i].curve, looks[i], 25);
  note_seeds(chart, comparison);
  if (draw_forks(chart, comparison, looks, lines, measure)) chart.note(Marker::ring, "fork");
  note_cut(chart, curves, y);
  return chart.svg.str();
}

// The runs' curves minus those of the baseline: of the run that read the same batches, else the mean of the
// baseline's column. The baseline's own are empty.
std::vector<Curve> minus_baseline(const Comparison& comparison, Curve (*curve_of)(const RunRecord&, Measure),
                                  Measure measure) {
  std::vector<Curve> base;
  const std::vector<size_t>& partners = comparison.columns[comparison.baseline_column].members;
  for (const size_t member : partners) base.push_back(curve_of(comparison.runs[member], measure));
  const Curve mean = line_of(base).curve;
  std::vector<Curve> curves;
  for (size_t i = 0; i < comparison.runs.size(); ++i) {
    const auto partner = comparison.summaries[i].paired.partner;
    curves.push_back(std::ranges::count(partners, i) > 0
                         ? Curve{}
                         : difference(curve_of(comparison.runs[i], measure),
                                      partner ? curve_of(comparison.runs[*partner], measure) : mean));
  }
  return curves;
}

std::string difference_to_baseline(const Comparison& comparison, Measure measure) {
  std::vector<Curve> train = minus_baseline(comparison, train_curve, measure);
  const std::vector<Curve> validation = minus_baseline(comparison, validation_curve, measure);
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

  const std::vector<Look> looks = looks_of_columns(comparison);
  const std::vector<Line> lines = lines_of(comparison, train), markers = lines_of(comparison, validation);
  std::vector<Look> legend;
  std::string beyond;
  for (size_t i = 0; i < looks.size(); ++i)
    if (!lines[i].curve.empty() || !markers[i].curve.empty())
      legend.push_back(looks[i]);
    else if (i != comparison.baseline_column)
      beyond += (beyond.empty() ? "" : ", ") + looks[i].name;
  Chart chart(
      {.title = fmt::format("Loss minus that of {} (nats per token)", looks[comparison.baseline_column].name),
       .looks = legend,
       .markers = true,
       .x = *x,
       .y = padded(y),
       .unit = unit_of(measure, x->high)});
  const Panel& panel = chart.panels[0];
  chart.svg.line(panel.left(), panel.y(0), panel.right(), panel.y(0), {.colour = "#222222", .width = 1.2});
  draw_lines(chart, lines, looks, 1.6, columns_for(curves_in(comparison)), ", training");
  for (size_t i = 0; i < looks.size(); ++i) draw_markers(chart, markers[i].curve, looks[i], 100);
  chart.note(fmt::format("lines: training, smoothed over {}", amount_text(measure, scale)));
  chart.note("markers: validation");
  note_seeds(chart, comparison);
  if (!beyond.empty()) chart.note("beyond the baseline: " + beyond);
  return chart.svg.str();
}

// What the heads of one layer learned in the runs of a column: a thin line for each, or a band around all; a
// bold one for their mean. Heads of different seeds have nothing in common, so that those are a band.
void draw_heads(Chart& chart, const Panel& panel, const std::vector<std::vector<HeadCurve>>& runs,
                const Look& look, bool as_band, size_t columns) {
  std::vector<Curve> means, lowest, highest;
  size_t heads = 0;
  for (const std::vector<HeadCurve>& run : runs) {
    heads += run.size();
    means.push_back(mean_of(run));
    lowest.push_back(lowest_of(run));
    highest.push_back(highest_of(run));
  }
  if (as_band || runs.size() > 1)
    panel.band(chart.svg, lowest_across(lowest), highest_across(highest), look.colour, columns);
  else
    for (const HeadCurve& head : runs[0])
      panel.curve(chart.svg, head.curve, {.colour = look.colour, .opacity = kHeadOpacity}, columns,
                  fmt::format("{}, head {}: {:.4g}", look.name, head.head, head.curve.back().y));
  if (heads > 1)
    panel.curve(chart.svg, mean_across(means), {.colour = look.colour, .width = kBold, .dash = look.dash},
                columns);
}

// The heads of a layer: of every column, of every run of it.
using LayerHeads = std::vector<std::vector<std::vector<HeadCurve>>>;

std::map<int64_t, LayerHeads> heads_by_layer(const Comparison& comparison, Measure measure,
                                             std::vector<double> LayerScale::*values) {
  std::map<int64_t, LayerHeads> layers;
  for (size_t c = 0; c < comparison.columns.size(); ++c) {
    const std::vector<size_t>& members = comparison.columns[c].members;
    for (size_t m = 0; m < members.size(); ++m)
      for (HeadCurve& head : head_curves(comparison.runs[members[m]], values, measure)) {
        LayerHeads& here = layers[head.layer];
        here.resize(comparison.columns.size());
        here[c].resize(members.size());
        here[c][m].push_back(std::move(head));
      }
  }
  return layers;
}

std::string learned(const Comparison& comparison, Measure measure, std::vector<double> LayerScale::*values,
                    const char* name) {
  const std::vector<Look> looks = looks_of_columns(comparison);
  const std::map<int64_t, LayerHeads> layers = heads_by_layer(comparison, measure, values);
  std::vector<bool> has_heads(looks.size());
  std::vector<Curve> all;
  std::vector<std::string> captions;
  bool any_seeds = false, any_single = false;
  for (const auto& [layer, columns] : layers) {
    captions.push_back(fmt::format("layer {}", layer));
    for (size_t c = 0; c < columns.size(); ++c) {
      if (!columns[c].empty()) has_heads[c] = true;
      if (!columns[c].empty()) (columns[c].size() > 1 ? any_seeds : any_single) = true;
      for (const auto& run : columns[c])
        for (const HeadCurve& head : run) all.push_back(head.curve);
    }
  }
  std::vector<Look> legend;
  for (size_t c = 0; c < looks.size(); ++c)
    if (has_heads[c]) legend.push_back(looks[c]);
  const auto x = extent_of_x(all);
  const auto range = robust_range(values_of(all), Cut::none);
  if (!x || !range) return "";
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
  for (const auto& [layer, by_column] : layers) {
    const Panel& at = chart.panels[panel++];
    at.clipped(chart.svg, [&] {
      for (size_t c = 0; c < by_column.size(); ++c)
        if (!by_column[c].empty()) draw_heads(chart, at, by_column[c], looks[c], as_bands, columns);
    });
  }
  const char* band = any_seeds ? "band: from the lowest to the highest head of all seeds"
                               : "band: from the lowest to the highest head";
  if (any_single && !as_bands) chart.note("thin: heads; bold: their mean");
  if (any_seeds || as_bands) chart.note(fmt::format("{}; bold: the mean", band));
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

Figures write_figures(const Comparison& comparison, const std::filesystem::path& directory, Measure measure) {
  make_directories(directory);
  Figures figures;
  for (const Figure& figure : kFigures) {
    const std::string text = figure.draw(comparison, measure);
    if (text.empty()) {
      if (figure.draw == difference_to_baseline && comparison.columns.size() > 1 && !figures.written.empty())
        figures.left_out.push_back(fmt::format("{}: left out, since {} has no loss where another has one",
                                               figure.file,
                                               comparison.columns[comparison.baseline_column].label));
      continue;
    }
    figures.written.push_back(directory / figure.file);
    replace_file(figures.written.back(), text);
  }
  return figures;
}

}  // namespace keen
