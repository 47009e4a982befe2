#include "report/position_figure.h"

#include <algorithm>
#include <cmath>

#include "core/console.h"
#include "report/chart.h"

namespace keen {

namespace {

// The first tokens of a text are hard for every model and would press the rest flat: they alone may leave the
// picture.
constexpr double kFirstTokens = 16;

struct Line {
  Curve mean, low, high;
};

Line line_of(const PositionCurve& from) {
  Line line;
  for (const PositionPoint& point : from.points) {
    const double x = std::log10(std::sqrt(point.first * point.last));
    line.mean.push_back({x, point.loss});
    if (!std::isfinite(point.standard_error)) continue;
    line.low.push_back({x, point.loss - point.standard_error});
    line.high.push_back({x, point.loss + point.standard_error});
  }
  return line;
}

}  // namespace

std::string position_figure(const std::string& error_label, const std::vector<PositionCurve>& curves) {
  std::vector<Line> lines;
  std::vector<Look> looks;
  std::vector<double> losses, first_losses;
  std::vector<int64_t> trained;
  double last = 1;
  for (const PositionCurve& curve : curves) {
    lines.push_back(line_of(curve));
    looks.push_back(look_of(looks.size(), curve.name));
    for (const PositionPoint& point : curve.points)
      (point.last < kFirstTokens ? first_losses : losses).push_back(point.loss);
    if (!curve.points.empty()) last = std::max(last, curve.points.back().last);
  }
  for (const PositionCurve& curve : curves) trained.push_back(curve.trained_context);

  if (losses.empty()) losses.swap(first_losses);
  const auto [low, high] = std::ranges::minmax(losses);
  const Extent y{low, high};
  const double margin = std::max(0.06 * (y.high - y.low), 0.001);
  ChartPlan plan;
  plan.title = "Loss by position, nats a token";
  plan.looks = looks;
  plan.markers = true;
  plan.x = {0, std::log10(std::max(last, 2.0))};
  plan.y = {y.low - margin, y.high + margin};
  plan.unit.label = "position: tokens that the model sees";
  plan.x_log = true;
  Chart chart(plan);
  const Panel& panel = chart.panels[0];
  mark_contexts(chart, trained);
  panel.clipped(chart.svg, [&] {
    for (size_t i = 0; i < lines.size(); ++i)
      if (!lines[i].low.empty())
        panel.band(chart.svg, lines[i].low, lines[i].high, looks[i].colour, columns_for(3 * curves.size()));
    for (size_t i = 0; i < lines.size(); ++i) {
      panel.curve(chart.svg, lines[i].mean, {.colour = looks[i].colour, .width = 2.2, .dash = looks[i].dash},
                  columns_for(3 * curves.size()), looks[i].name);
      // Some points of each, not the same of all.
      for (size_t at = 4 + 3 * i; at < lines[i].mean.size(); at += 12) {
        const CurvePoint& point = lines[i].mean[at];
        if (panel.contains(point.x, point.y))
          chart.svg.marker(looks[i].marker, panel.x(point.x), panel.y(point.y), 8, looks[i].colour);
      }
    }
  });
  if (!first_losses.empty() && std::ranges::max(first_losses) > y.high + margin)
    chart.note(fmt::format("first tokens: up to {:.4g}", std::ranges::max(first_losses)));
  if (std::ranges::any_of(lines, [](const Line& line) { return !line.low.empty(); }))
    chart.note("band: " + error_label);
  return chart.svg.str();
}

}  // namespace keen
