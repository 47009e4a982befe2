// A chart: one panel or a grid of them under a title and a legend, with notes below; and how runs look in it.
#pragma once

#include <string>
#include <vector>

#include "report/compare.h"
#include "report/curves.h"
#include "report/svg.h"

namespace keen {

// A run in every figure of a comparison, told apart by colour, dash and marker alike.
struct Look {
  std::string name;
  std::string_view colour, dash;
  Marker marker;
};
Look look_of(size_t i, const std::string& name);  // of the i-th thing in a figure
std::vector<Look> looks_of(const Comparison& comparison);
// Of the columns: the same where each is one run. The name of a group says how many seeds it has.
std::vector<Look> looks_of_columns(const Comparison& comparison);

// Where everything lies in a picture of curves: its width, and the margins of its panels, title and legend.
inline constexpr double kFigureWidth = 760, kFigureLeft = 58, kFigureRight = 20;

// The names of a figure, side by side below its title in as many rows as they take. `draw_legend` draws the
// title, too, and returns where the panels begin.
double legend_height(const std::vector<Look>& looks);
double draw_legend(Svg& svg, std::string_view title, const std::vector<Look>& looks, bool markers);

// The width of a bold name of size 12, and as much of its end as fits into `width`: what tells names apart is
// their end.
double bold_width(std::string_view name);
std::string with_its_end(const std::string& name, double width);

// What ticks count: `factor` of x make one.
struct Unit {
  double factor = 1;
  std::string label;  // "tokens (millions)"
};
Unit unit_of(Measure measure, double highest);
// An amount of x in words: "41k tokens", "3 min 05 s".
std::string amount_text(Measure measure, double amount);

// A number of columns for Panel::curve with which this many curves stay well below 200 kB.
size_t columns_for(size_t curves);

struct ChartPlan {
  std::string title;
  std::vector<Look> looks;  // the legend
  bool markers = false;     // whether the legend shows them
  Extent x, y;
  Unit unit;
  bool x_log = false;                        // x are decimal logarithms (Panel::Axes)
  std::vector<double> x_at = {};             // where ticks are wanted (Panel::Axes)
  std::vector<std::string> captions = {""};  // of the panels, row by row; all of them have the same axes
};

class Chart {
 public:
  explicit Chart(const ChartPlan& plan);  // draws all but curves

  Svg svg;
  std::vector<Panel> panels;

  // Below the panels, side by side: words, with the marker that they explain.
  void note(std::string_view words);
  void note(Marker marker, std::string_view words);

 private:
  void grid(const ChartPlan& plan, double top);

  double note_x_;
};

// A dashed line where each of these training contexts ends, in the only panel of a chart whose x are the
// logarithms of positions or contexts; those outside of it are left out.
void mark_contexts(Chart& chart, std::vector<int64_t> contexts);

}  // namespace keen
