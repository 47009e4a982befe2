#include "report/curves.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

namespace keen {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

double number(int64_t count) { return static_cast<double>(count); }

// Both measures of a run are needed to draw; what the run lacks is left out.
template <class P> Curve curve_of(const RunRecord& run, const std::vector<P>& points, Measure measure) {
  Curve curve;
  for (const P& point : points)
    if (const auto x = x_of(run, point, measure)) curve.push_back({*x, point.loss.value_or(kNaN)});
  return curve;
}

// The first point of `points` at this step or later.
template <class P> auto at_or_after(const std::vector<P>& points, int64_t step) {
  return std::lower_bound(points.begin(), points.end(), step,
                          [](const P& point, int64_t at) { return point.step < at; });
}

template <class P> std::optional<Point> between(const std::vector<P>& points, int64_t step) {
  const auto after = at_or_after(points, step);
  if (after == points.end()) return std::nullopt;
  if (after->step == step) return *after;
  const Point before = after == points.begin() ? Point{} : Point(*std::prev(after));
  const double share = number(step - before.step) / number(after->step - before.step);
  return Point{.step = step,
               .tokens = before.tokens + std::llround(share * number(after->tokens - before.tokens)),
               .seconds = before.seconds + share * (after->seconds - before.seconds),
               .loss = std::nullopt};
}

// The value below which this share of the sorted values lies, between two of them by a straight line.
double quantile(const std::vector<double>& sorted, double share) {
  const double at = share * number(static_cast<int64_t>(sorted.size()) - 1);
  const size_t below = static_cast<size_t>(at), above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - std::floor(at)) * (sorted[above] - sorted[below]);
}

}  // namespace

std::optional<double> x_of(const RunRecord& run, const Point& point, Measure measure) {
  switch (measure) {
    case Measure::steps:
      return number(run.origin.step + point.step);
    case Measure::tokens:
      return number(run.origin.tokens + point.tokens);
    case Measure::seconds:
      return run.origin.seconds + point.seconds;
    case Measure::flops:
      if (!run.flops_per_token) return std::nullopt;
      return run.origin.flops + *run.flops_per_token * number(point.tokens);
  }
  return std::nullopt;
}

std::optional<double> x_of_step(const RunRecord& run, int64_t step, Measure measure) {
  if (step == 0) return x_of(run, Point{}, measure);
  std::optional<Point> point = between(run.train, step);
  if (!point) point = between(run.validation, step);
  return point ? x_of(run, *point, measure) : std::nullopt;
}

Curve train_curve(const RunRecord& run, Measure measure) { return curve_of(run, run.train, measure); }
Curve validation_curve(const RunRecord& run, Measure measure) {
  return curve_of(run, run.validation, measure);
}

std::vector<HeadCurve> head_curves(const RunRecord& run, std::vector<double> LayerScale::*values,
                                   Measure measure) {
  std::map<std::pair<int64_t, int64_t>, Curve> curves;
  for (const AttentionRow& row : run.attention) {
    const auto x = x_of_step(run, row.step, measure);
    if (!x) continue;
    for (const LayerScale& layer : row.layers)
      for (size_t head = 0; head < (layer.*values).size(); ++head)
        curves[{layer.layer, static_cast<int64_t>(head)}].push_back({*x, (layer.*values)[head]});
  }
  std::vector<HeadCurve> list;
  for (auto& [place, curve] : curves) list.push_back({place.first, place.second, std::move(curve)});
  return list;
}

Curve mean_of(const std::vector<HeadCurve>& curves) {
  std::map<double, std::pair<double, int64_t>> sums;
  for (const HeadCurve& head : curves)
    for (const CurvePoint& point : head.curve) {
      auto& [sum, count] = sums[point.x];
      if (!std::isfinite(point.y)) continue;
      sum += point.y;
      ++count;
    }
  Curve mean;
  for (const auto& [x, sum] : sums)
    mean.push_back({x, sum.second > 0 ? sum.first / number(sum.second) : kNaN});
  return mean;
}

Curve smoothed(const Curve& curve, double scale) {
  if (!(scale > 0)) return curve;
  Curve smooth;
  smooth.reserve(curve.size());
  double sum = 0, weight = 0, last_x = 0;  // of the finite points so far, as seen from last_x
  for (const CurvePoint& point : curve) {
    if (!std::isfinite(point.y)) {
      smooth.push_back({point.x, kNaN});
      continue;
    }
    const double decay = weight > 0 ? std::exp(-(point.x - last_x) / scale) : 0;
    sum = decay * sum + point.y;
    weight = decay * weight + 1;
    last_x = point.x;
    smooth.push_back({point.x, sum / weight});
  }
  return smooth;
}

double y_at(const Curve& curve, double x) {
  const auto after = std::lower_bound(curve.begin(), curve.end(), x,
                                      [](const CurvePoint& point, double at) { return point.x < at; });
  if (after == curve.end()) return kNaN;
  if (after->x == x) return after->y;
  if (after == curve.begin()) return kNaN;
  const CurvePoint& before = *std::prev(after);
  return before.y + (x - before.x) / (after->x - before.x) * (after->y - before.y);
}

Curve difference(const Curve& curve, const Curve& baseline) {
  Curve result;
  for (const CurvePoint& point : curve)
    if (const double y = point.y - y_at(baseline, point.x); std::isfinite(y)) result.push_back({point.x, y});
  return result;
}

std::optional<Extent> robust_range(std::vector<double> values, Cut cut) {
  std::erase_if(values, [](double value) { return !std::isfinite(value); });
  if (values.empty()) return std::nullopt;
  std::sort(values.begin(), values.end());
  const double q10 = quantile(values, 0.1), q90 = quantile(values, 0.9), margin = (q90 - q10) / 4;
  Extent range{values.front(), std::min(values.back(), q90 + margin)};
  if (cut == Cut::both_sides) range.low = std::max(values.front(), q10 - margin);
  if (range.high > range.low) return range;
  // All values that count are equal: something around them.
  const double around = range.low == 0 ? 1 : std::abs(range.low) * 0.05;
  return Extent{range.low - around, range.low + around};
}

Curve thinned(const Curve& curve, double low, double high, size_t columns) {
  if (curve.size() <= 4 * columns || !(high > low)) return curve;
  const auto column_of = [&](double x) {
    return std::clamp(std::floor((x - low) / (high - low) * number(static_cast<int64_t>(columns))), 0.0,
                      number(static_cast<int64_t>(columns) - 1));
  };
  Curve few;
  for (auto begin = curve.begin(); begin != curve.end();) {
    const bool gap = !std::isfinite(begin->y);
    const double column = column_of(begin->x);
    auto end = begin;
    while (end != curve.end() && column_of(end->x) == column && std::isfinite(end->y) != gap) ++end;
    const auto by_y = [](const CurvePoint& a, const CurvePoint& b) { return a.y < b.y; };
    std::array kept = {begin, std::prev(end), std::prev(end), std::prev(end)};
    if (gap)
      kept.fill(begin);  // one is enough
    else
      std::tie(kept[1], kept[2]) = std::minmax_element(begin, end, by_y);
    std::sort(kept.begin(), kept.end());
    const auto kept_end = std::unique(kept.begin(), kept.end());
    for (auto at = kept.begin(); at != kept_end; ++at) few.push_back(**at);
    begin = end;
  }
  return few;
}

}  // namespace keen
