#include "report/chart.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/console.h"

namespace keen {

namespace {

constexpr double kWidth = kFigureWidth, kLeft = kFigureLeft, kRight = kFigureRight,
                 kTop = 48;                                         // the legend's first row
constexpr double kPanelHeight = 320, kLegendRow = 20, kBelow = 68;  // kBelow: tick labels, x label, notes
constexpr double kNarrowGap = 24, kCaption = 26;                    // between the panels of a grid
constexpr std::string_view kFaint = "#6a6a6a";

// Room for curves in a file, and about what a curve and each of its points take.
constexpr size_t kCurvesBytes = 165'000, kCurveBytes = 170, kPointBytes = 9;

// 10^3, 10^6, ... in small raised digits.
constexpr std::array<std::string_view, 10> kPowers = {
    "FLOPs",        "FLOPs (10³)",  "FLOPs (10⁶)",  "FLOPs (10⁹)",  "FLOPs (10¹²)",
    "FLOPs (10¹⁵)", "FLOPs (10¹⁸)", "FLOPs (10²¹)", "FLOPs (10²⁴)", "FLOPs (10²⁷)"};

double entry_width(const Look& look) { return 36 + text_width(shortened(look.name, 80), 13) + 22; }

size_t legend_rows(const std::vector<Look>& looks) {
  double x = kLeft;
  size_t rows = 1;
  for (const Look& look : looks) {
    if (x > kLeft && x + entry_width(look) > kWidth) x = kLeft, ++rows;
    x += entry_width(look);
  }
  return rows;
}

// How many panels lie side by side, how high one is, and how high all are.
struct Grid {
  size_t columns, rows;
  double panel_height, caption, height;
};
Grid grid_of(size_t panels) {
  const size_t columns = panels <= 1 ? 1 : panels <= 4 ? 2 : panels <= 9 ? 3 : 4;
  const size_t rows = (panels + columns - 1) / columns;
  const double panel = panels <= 1    ? kPanelHeight
                       : columns == 2 ? 150
                                      : 112,
               caption = panels <= 1 ? 0 : kCaption;
  return {columns, rows, panel, caption, static_cast<double>(rows) * (panel + caption)};
}

double height_of(const ChartPlan& plan) {
  return legend_height(plan.looks) + grid_of(plan.captions.size()).height + kBelow;
}

}  // namespace

Look look_of(size_t i, const std::string& name) {
  constexpr std::array kMarkers = {Marker::circle, Marker::square, Marker::triangle, Marker::diamond,
                                   Marker::down_triangle};
  return {name, kColours[i % kColours.size()], kDashes[i % kDashes.size()], kMarkers[i % kMarkers.size()]};
}

std::vector<Look> looks_of(const Comparison& comparison) {
  std::vector<Look> looks;
  for (const Summary& summary : comparison.summaries) looks.push_back(look_of(looks.size(), summary.label));
  return looks;
}

std::vector<Look> looks_of_columns(const Comparison& comparison) {
  std::vector<Look> looks;
  for (const Column& column : comparison.columns) {
    const size_t seeds = column.members.size();
    looks.push_back(
        look_of(looks.size(), seeds == 1 ? column.label : fmt::format("{} ({} seeds)", column.label, seeds)));
  }
  return looks;
}

Unit unit_of(Measure measure, double highest) {
  if (measure == Measure::seconds) {
    if (highest < 300) return {1, "training time (seconds)"};
    if (highest < 3 * 3600) return {60, "training time (minutes)"};
    return highest < 3 * 86400 ? Unit{3600, "training time (hours)"} : Unit{86400, "training time (days)"};
  }
  if (measure == Measure::flops) {
    const double power = std::clamp(std::floor(std::log10(std::max(highest, 1.0)) / 3), 0.0, 9.0);
    return {std::pow(1000.0, power), std::string(kPowers[static_cast<size_t>(power)])};
  }
  const std::string name(kMeasureNames[static_cast<size_t>(measure)]);
  if (highest >= 2e12) return {1e12, name + " (trillions)"};
  if (highest >= 2e9) return {1e9, name + " (billions)"};
  if (highest >= 2e6) return {1e6, name + " (millions)"};
  return highest >= 2e4 ? Unit{1e3, name + " (thousands)"} : Unit{1, name};
}

std::string amount_text(Measure measure, double amount) {
  if (measure == Measure::seconds) return duration(amount);
  if (measure == Measure::flops) return fmt::format("{:.2g} FLOPs", amount);
  return fmt::format("{} {}", short_count(amount), kMeasureNames[static_cast<size_t>(measure)]);
}

double legend_height(const std::vector<Look>& looks) {
  return kTop + static_cast<double>(legend_rows(looks)) * kLegendRow;
}

double draw_legend(Svg& svg, std::string_view title, const std::vector<Look>& looks, bool markers) {
  svg.text(kLeft, 24, title, {.size = 15, .bold = true});
  double x = kLeft, y = kTop;
  for (const Look& look : looks) {
    if (x > kLeft && x + entry_width(look) > kWidth) x = kLeft, y += kLegendRow;
    svg.line(x, y, x + 28, y, {.colour = look.colour, .width = 2.2, .dash = look.dash});
    if (markers) svg.marker(look.marker, x + 14, y, 8, look.colour);
    svg.text(x + 36, y + 4.5, shortened(look.name, 80));
    x += entry_width(look);
  }
  return y + kLegendRow;
}

double bold_width(std::string_view name) { return text_width(name, 13.5); }

std::string with_its_end(const std::string& name, double width) {
  if (bold_width(name) <= width) return name;
  const auto continues = [&](size_t at) { return (static_cast<unsigned char>(name[at]) & 0xC0) == 0x80; };
  size_t begin = 1;
  while (begin < name.size() && (continues(begin) || bold_width("…" + name.substr(begin)) > width)) ++begin;
  return "…" + name.substr(begin);
}

size_t columns_for(size_t curves) {
  const size_t bytes = kCurvesBytes / std::max<size_t>(curves, 1);
  const size_t points = bytes > kCurveBytes ? (bytes - kCurveBytes) / kPointBytes : 0;
  return std::clamp<size_t>(points / 4, 3, static_cast<size_t>(kWidth - kLeft - kRight));
}

Chart::Chart(const ChartPlan& plan) : svg(kWidth, height_of(plan), plan.title), note_x_(kLeft) {
  grid(plan, draw_legend(svg, plan.title, plan.looks, plan.markers));
  svg.text((kLeft + kWidth - kRight) / 2, svg.height() - kBelow + 38, plan.unit.label,
           {.anchor = Anchor::middle});
}

void Chart::grid(const ChartPlan& plan, double top) {
  const Grid grid = grid_of(plan.captions.size());
  const double width =
      (kWidth - kLeft - kRight + kNarrowGap) / static_cast<double>(grid.columns) - kNarrowGap;
  for (size_t i = 0; i < plan.captions.size(); ++i) {
    const size_t row = i / grid.columns, column = i % grid.columns;
    const double left = kLeft + static_cast<double>(column) * (width + kNarrowGap);
    const double upper = top + static_cast<double>(row) * (grid.panel_height + grid.caption) + grid.caption;
    const Panel panel(left, upper, left + width, upper + grid.panel_height, plan.x, plan.y);
    const bool lowest = i + grid.columns >= plan.captions.size(), alone = plan.captions.size() == 1;
    panel.axes(svg, {.x_ticks = alone ? (plan.x_log ? 16 : 7) : 3,
                     .y_ticks = alone ? 6 : 4,
                     .x_labels = lowest,
                     .y_labels = column == 0,
                     .x_unit = plan.unit.factor,
                     .x_log = plan.x_log,
                     .text_size = alone ? 12.0 : 11.0,
                     .x_at = plan.x_at});
    if (!alone) svg.text(left, upper - 5, plan.captions[i], {.size = 12, .colour = kFaint});
    panels.push_back(panel);
  }
}

void Chart::note(std::string_view words) {
  const double space = std::max(0.0, kWidth - 6 - note_x_);
  const std::string fitting = shortened(words, static_cast<size_t>(space / text_width("x", 11)));
  svg.text(note_x_, svg.height() - 10, fitting, {.size = 11, .colour = kFaint});
  note_x_ += text_width(fitting, 11) + 14;
}

void Chart::note(Marker marker, std::string_view words) {
  svg.marker(marker, note_x_ + 4, svg.height() - 14, 8, kFaint);
  note_x_ += 14;
  note(words);
}

void mark_contexts(Chart& chart, std::vector<int64_t> contexts) {
  std::ranges::sort(contexts);
  contexts.erase(std::unique(contexts.begin(), contexts.end()), contexts.end());
  const Panel& panel = chart.panels[0];
  double y = panel.top() + 12;
  for (const int64_t context : contexts) {
    const double x = panel.x(std::log10(static_cast<double>(context)));
    if (x < panel.left() || x > panel.right()) continue;
    chart.svg.line(x, panel.top(), x, panel.bottom(), {.colour = kFaint, .width = 1.2, .dash = "4 3"});
    // Beside the line, on the side with more room; below each other, so that near ones do not overlap.
    const bool left = x - panel.left() > panel.right() - x;
    chart.svg.text(left ? x - 5 : x + 5, y, fmt::format("trained on {}", with_commas(context)),
                   {.size = 11, .colour = "#444444", .anchor = left ? Anchor::end : Anchor::start});
    y += 13;
  }
}

}  // namespace keen
