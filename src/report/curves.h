// Curves as every picture of a comparison draws them, the SVG figures and the HTML page alike: what they are
// drawn over, how they are smoothed and thinned, which range of y is shown, and which colours they get.
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include "report/run.h"

namespace keen {

// What a curve is drawn over. Seconds are those of training, FLOPs the model's (README, "What is counted").
enum class Measure : uint8_t { steps, tokens, seconds, flops };
inline constexpr std::array<std::string_view, 4> kMeasureNames = {"steps", "tokens", "seconds", "flops"};

// By rising x. y is NaN where the run logged a number that was not finite: the curve has a gap there.
struct CurvePoint {
  double x = 0, y = 0;
};
using Curve = std::vector<CurvePoint>;

// How far a run had come at a point, with what its ancestors had done (RunRecord::origin). Empty for FLOPs
// where the model is not known.
std::optional<double> x_of(const RunRecord& run, const Point& point, Measure measure);
// Where a run's own counts began: 0, or of a fork that counts on from its parent, what that had done.
Point beginning_of(const RunRecord& run);
// x at the end of a step, between two logged ones (or the beginning) by a straight line. Empty outside of
// what was logged.
std::optional<double> x_of_step(const RunRecord& run, int64_t step, Measure measure);

// Points whose x is not known are left out. Losses beyond 1e300 are drawn as that, so that sums of them stay
// finite.
Curve train_curve(const RunRecord& run, Measure measure);
Curve validation_curve(const RunRecord& run, Measure measure);

// The place in `runs` of the run that runs[fork] left, where that is among them.
std::optional<size_t> parent_of(const std::vector<RunRecord>& runs, size_t fork);

// A learned number of one head over training.
struct HeadCurve {
  int64_t layer = 0, head = 0;
  Curve curve;
};
// One for every head that a layer ever logged, by layer and head. `values` is &LayerScale::s or
// &LayerScale::b.
std::vector<HeadCurve> head_curves(const RunRecord& run, std::vector<double> LayerScale::*values,
                                   Measure measure);
// At every x the mean, lowest and highest y of the curves that have a finite one there.
Curve mean_of(const std::vector<HeadCurve>& curves);
Curve lowest_of(const std::vector<HeadCurve>& curves);
Curve highest_of(const std::vector<HeadCurve>& curves);

// One curve for several runs, at the points of all of them as far as every one reaches, each between its own
// points by a straight line. Empty curves take no part; where one is not finite, the result is not either.
Curve mean_across(const std::vector<Curve>& curves);
Curve lowest_across(const std::vector<Curve>& curves);
Curve highest_across(const std::vector<Curve>& curves);

// Exponential smoothing in units of x, debiased, so that the first values are not drawn towards anything:
//
//   y'_i = sum_j w_j y_j / sum_j w_j over the finite y_j with j <= i,   w_j = exp(-(x_i - x_j) / scale)
//
// Where y is not finite, y' is not either. A scale of 0 leaves the curve as it is.
Curve smoothed(const Curve& curve, double scale);
// The scale of smoothing unless somebody asks for another, as a part of the longest curve's extent in x.
inline constexpr double kSmoothing = 0.01;

// y at x, between two points by a straight line. NaN outside the curve and beside a gap.
double y_at(const Curve& curve, double x);
// y - baseline(x) at the points of `curve` where both are finite.
Curve difference(const Curve& curve, const Curve& baseline);

// The range of y that is worth its ink: of all finite values, or cut off where a few of them would press the
// others flat. With q the distance between the 10 % and the 90 % quantile, `above` cuts what lies more than
// q / 4 above the latter (the first steps of a loss, its spikes), and `both_sides` what lies more than q
// outside of either (a difference). Empty when no value is finite; never of extent 0.
struct Extent {
  double low = 0, high = 1;
};
enum class Cut : uint8_t { none, above, both_sides };
std::optional<Extent> robust_range(std::vector<double> values, Cut cut);

// A curve of many points in few: the range [low, high] of x is divided into `columns` equal parts, and of
// each part the first, lowest, highest and last point stay, so that a picture with as many pixels shows the
// same. Gaps stay gaps.
Curve thinned(const Curve& curve, double low, double high, size_t columns);

// Colours that people with any colour vision tell apart (Okabe and Ito, "Color Universal Design", 2008), the
// darker ones first; yellow, which no white page carries, is left out.
inline constexpr std::array<std::string_view, 7> kColours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                             "#e69f00", "#56b4e9", "#000000"};
// Strokes and blanks in pixels: what tells curves apart without colour.
inline constexpr std::array<std::string_view, 5> kDashes = {"", "7 3", "2 2.5", "9 3 2 3", "9 3 2 3 2 3"};

}  // namespace keen
