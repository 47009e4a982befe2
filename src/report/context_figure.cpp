#include "report/context_figure.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "report/chart.h"

namespace keen {

namespace {

struct Line {
  Curve score, low, high;
};

Line line_of(const ContextCurve& from) {
  Line line;
  for (const ContextPoint& point : from.points) {
    const double x = std::log10(point.context);
    line.score.push_back({x, 100 * point.score});
    if (!std::isfinite(point.error)) continue;
    line.low.push_back({x, 100 * std::max(0.0, point.score - point.error)});
    line.high.push_back({x, 100 * std::min(1.0, point.score + point.error)});
  }
  return line;
}

}  // namespace

std::string context_figure(const std::string& title, const std::string& error_label,
                           const std::vector<ContextCurve>& curves) {
  ChartPlan plan;
  plan.title = title;
  plan.markers = true;
  plan.unit.label = "context, tokens";
  plan.x_log = true;
  plan.y = {-3, 113};  // room for words above 100 %
  std::vector<Line> lines;
  std::vector<int64_t> trained;
  std::set<double> contexts;
  double first = INFINITY, last = 1;
  for (const ContextCurve& curve : curves) {
    lines.push_back(line_of(curve));
    plan.looks.push_back(look_of(plan.looks.size(), curve.name));
    trained.push_back(curve.trained_context);
    for (const ContextPoint& point : curve.points) {
      first = std::min(first, point.context);
      last = std::max(last, point.context);
      contexts.insert(point.context);
    }
  }
  plan.x = {std::log10(std::min(first, last) / 1.1), std::log10(last * 1.1)};
  // Ticks where something was asked, unless their numbers would run into each other.
  constexpr double kTickShare = 0.06;  // of the axis, about 40 pixels
  double nearest = 1;
  for (auto context = contexts.begin(); std::next(context) != contexts.end(); ++context)
    nearest = std::min(nearest, std::log10(*std::next(context) / *context) / (plan.x.high - plan.x.low));
  if (nearest > kTickShare) plan.x_at.assign(contexts.begin(), contexts.end());
  Chart chart(plan);
  mark_contexts(chart, trained);
  const Panel& panel = chart.panels[0];
  const size_t columns = columns_for(3 * curves.size());
  panel.clipped(chart.svg, [&] {
    for (size_t i = 0; i < lines.size(); ++i)
      panel.band(chart.svg, lines[i].low, lines[i].high, plan.looks[i].colour, columns);
    for (size_t i = 0; i < lines.size(); ++i) {
      const Look& look = plan.looks[i];
      panel.curve(chart.svg, lines[i].score, {.colour = look.colour, .width = 2.2, .dash = look.dash},
                  columns, look.name);
      for (const CurvePoint& point : lines[i].score)
        chart.svg.marker(look.marker, panel.x(point.x), panel.y(point.y), 8, look.colour);
    }
  });
  if (std::ranges::any_of(lines, [](const Line& line) { return !line.low.empty(); }))
    chart.note("band: " + error_label);
  return chart.svg.str();
}

}  // namespace keen
