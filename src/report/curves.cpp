#include "report/curves.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

namespace keen {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(), kHighest = 1e300;

double number(int64_t count) { return static_cast<double>(count); }

// Both measures of a run are needed to draw; what the run lacks is left out.
template <class P> Curve curve_of(const RunRecord& run, const std::vector<P>& points, Measure measure) {
  Curve curve;
  for (const P& point : points)
    if (const auto x = x_of(run, point, measure))
      curve.push_back({*x, point.loss ? std::clamp(*point.loss, -kHighest, kHighest) : kNaN});
  return curve;
}

// One number for the finite y of all curves at each x, NaN where there is none.
template <class Reduce> Curve over_heads(const std::vector<HeadCurve>& curves, Reduce&& reduce) {
  std::map<double, std::vector<double>> values;
  for (const HeadCurve& head : curves)
    for (const CurvePoint& point : head.curve) {
      auto& here = values[point.x];
      if (std::isfinite(point.y)) here.push_back(point.y);
    }
  Curve curve;
  for (const auto& [x, ys] : values) curve.push_back({x, ys.empty() ? kNaN : reduce(ys)});
  return curve;
}

template <class Reduce> Curve across(const std::vector<Curve>& curves, Reduce&& reduce) {
  double low = -INFINITY, high = INFINITY;
  std::vector<double> xs;
  for (const Curve& curve : curves) {
    if (curve.empty()) continue;
    low = std::max(low, curve.front().x);
    high = std::min(high, curve.back().x);
    for (const CurvePoint& point : curve) xs.push_back(point.x);
  }
  std::sort(xs.begin(), xs.end());
  xs.erase(std::unique(xs.begin(), xs.end()), xs.end());
  Curve result;
  for (const double x : xs) {
    if (x < low || x > high) continue;
    std::vector<double> ys;
    bool finite = true;
    for (const Curve& curve : curves) {
      if (curve.empty()) continue;
      ys.push_back(y_at(curve, x));
      finite = finite && std::isfinite(ys.back());
    }
    result.push_back({x, finite ? reduce(ys) : kNaN});
  }
  return result;
}

double mean(const std::vector<double>& ys) {
  return std::accumulate(ys.begin(), ys.end(), 0.0) / number(static_cast<int64_t>(ys.size()));
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

Point beginning_of(const RunRecord& run) {
  const auto& train = run.train;
  const bool counts_on =
      run.parent_step && run.origin.step == 0 && !train.empty() && train[0].step > *run.parent_step;
  if (!counts_on) return {};
  const int64_t steps = train.back().step - train[0].step;
  const double tokens_per_step =
      steps > 0 ? number(train.back().tokens - train[0].tokens) / number(steps) : 0;
  return {
      .step = *run.parent_step,
      .tokens = train[0].tokens - std::llround(tokens_per_step * number(train[0].step - *run.parent_step)),
      .seconds = 0,
      .loss = std::nullopt};
}

std::optional<double> x_of_step(const RunRecord& run, int64_t step, Measure measure) {
  const Point beginning = beginning_of(run);
  if (step == beginning.step) return x_of(run, beginning, measure);
  const auto inside = [&](const auto& points) -> std::optional<double> {
    const auto after = std::lower_bound(points.begin(), points.end(), step,
                                        [](const Point& point, int64_t at) { return point.step < at; });
    if (after == points.end() || step < beginning.step) return std::nullopt;
    const Point& before = after == points.begin() ? beginning : *std::prev(after);
    const auto low = x_of(run, before, measure), high = x_of(run, *after, measure);
    if (!low || !high) return std::nullopt;
    return *low + number(step - before.step) / number(after->step - before.step) * (*high - *low);
  };
  const auto trained = inside(run.train);
  return trained ? trained : inside(run.validation);
}

std::optional<size_t> parent_of(const std::vector<RunRecord>& runs, size_t fork) {
  const std::filesystem::path& parent = runs[fork].parent_directory;
  std::error_code ignored;
  for (size_t i = 0; !parent.empty() && i < runs.size(); ++i)
    if (i != fork && std::filesystem::equivalent(runs[i].path, parent, ignored)) return i;
  return std::nullopt;
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

Curve mean_of(const std::vector<HeadCurve>& curves) { return over_heads(curves, mean); }
Curve lowest_of(const std::vector<HeadCurve>& curves) {
  return over_heads(curves, [](const std::vector<double>& ys) { return std::ranges::min(ys); });
}
Curve highest_of(const std::vector<HeadCurve>& curves) {
  return over_heads(curves, [](const std::vector<double>& ys) { return std::ranges::max(ys); });
}

Curve mean_across(const std::vector<Curve>& curves) { return across(curves, mean); }
Curve lowest_across(const std::vector<Curve>& curves) {
  return across(curves, [](const std::vector<double>& ys) { return std::ranges::min(ys); });
}
Curve highest_across(const std::vector<Curve>& curves) {
  return across(curves, [](const std::vector<double>& ys) { return std::ranges::max(ys); });
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
  const double q10 = quantile(values, 0.1), q90 = quantile(values, 0.9), q = q90 - q10;
  Extent range{values.front(), values.back()};
  if (cut == Cut::above) range.high = std::min(range.high, q90 + q / 4);
  if (cut == Cut::both_sides) range = {std::max(range.low, q10 - q), std::min(range.high, q90 + q)};
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
