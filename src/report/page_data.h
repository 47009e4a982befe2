// The curves of a comparison in few bytes, for the page that draws them.
//
// {"comparison": comparison_json,
//  "config", "results": {header, rows: [{key, label, cells: [{text, missing}]}]}   as in the console,
//  "notes": comparison_notes, "baseline": index in `runs`, "columns": [{label, members: indices in `runs`}],
//  "figures": [{title, svg: BASE64 of the file}],
//  "smoothing": kSmoothing, "runs": [{   beside those of "comparison"
//    "look": {colour, dark_colour, dash, marker}   (report/chart.h), "fork_of": index in `runs` or null,
//    "origin": {steps, tokens, seconds, flops}     what had been done before (Origin in report/run.h),
//    "start": {steps, tokens, seconds, flops}      where its own counts began (report/curves.h),
//    "train": {rows, rows_per_point, step, tokens, seconds, loss, low, high, grad_norm, lr},
//    "validation": {rows, step, tokens, seconds, loss},
//    "attention": {rows, step, layers: [{layer, heads, s, b}]} or null   (rows, heads) }]}
//
// `low` and `high` are there where points stand for several rows, `b` is null where a layer has none. Every
// series is a column: {"f32": BASE64}, little-endian float32 with NaN for what is not known, or
// {"knots": [index, value, ...]}, between which values lie on straight lines.
#pragma once

#include <nlohmann/json.hpp>
#include <span>

#include "report/compare.h"
#include "report/svg_file.h"

namespace keen {

// The smaller one of the two encodings. Knots are used where all values are finite and straight lines between
// some of them miss none of the others by more than `tolerance`; the chosen ones are kept exactly.
Json page_column(std::span<const double> values, double tolerance);

// Rows of a run's training as points of a curve. Up to `limit` rows every point is a row, and `low` and
// `high` are empty. Of more rows, each point stands for `rows_per_point` neighbours: their mean loss, their
// lowest and highest one (of those that are finite; NaN when none is), the highest gradient norm, the last
// learning rate, and the mean of their steps, tokens and seconds. Then there are at most limit / 2 points,
// which take as much room as `limit` rows.
struct PagePoints {
  int64_t rows_per_point = 1;
  std::vector<double> step, tokens, seconds, loss, low, high, grad_norm, lr;
};
PagePoints page_points(const std::vector<TrainPoint>& rows, size_t limit);

Json page_data(const Comparison& comparison, const std::vector<SvgFile>& figures = {});

}  // namespace keen
