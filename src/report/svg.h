// Drawing by hand: SVG text from lines, markers and words, and a panel that maps data to pixels and has axes.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "report/curves.h"

namespace keen {

// `text` as XML content or attribute value. Bytes that are not UTF-8, and the control characters that XML
// cannot hold, become U+FFFD.
std::string xml_escaped(std::string_view text);

// About how wide `text` is when a sans-serif face of this size draws it: fonts are the reader's.
double text_width(std::string_view text, double size);

enum class Anchor : uint8_t { start, middle, end };
struct TextStyle {
  double size = 13;
  std::string_view colour = "#222222";
  Anchor anchor = Anchor::start;
  bool bold = false;
};
struct LineStyle {
  std::string_view colour = "#222222";
  double width = 1, opacity = 1;
  std::string_view dash = "";
};
enum class Marker : uint8_t { circle, square, triangle, diamond, down_triangle, cross, bar, ring };

// A picture of fixed size on a white ground of its own, so that it reads on light and dark pages. All lengths
// are pixels, y goes down, and text is escaped here. A `hint` is what a browser shows under the pointer.
class Svg {
 public:
  // `title` says what the picture shows, to those who cannot see it.
  Svg(double width, double height, std::string_view title);

  double height() const { return height_; }
  void line(double x1, double y1, double x2, double y2, const LineStyle& style);
  // Points whose y is not finite interrupt the line; one between two interruptions is a dot.
  void path(const std::vector<CurvePoint>& points, const LineStyle& style, std::string_view hint = "");
  // The inside of a closed line, whose points have finite y.
  void area(const std::vector<CurvePoint>& points, std::string_view colour, double opacity);
  void marker(Marker marker, double x, double y, double size, std::string_view colour,
              std::string_view hint = "");
  void text(double x, double y, std::string_view text, const TextStyle& style = {});
  // What `draw` draws shows only inside this rectangle.
  template <class Draw> void clipped(double x, double y, double width, double height, Draw&& draw) {
    begin_clip(x, y, width, height);
    draw();
    end_clip();
  }

  std::string str() const;  // a whole file

 private:
  void begin_clip(double x, double y, double width, double height);
  void end_clip();
  void close(std::string_view element, std::string_view hint);

  double width_, height_;
  std::string title_, body_;
};

// Round values inside [low, high] at steps of 1, 2 or 5 times a power of ten, about `count` of them, and how
// many decimals they need.
struct Ticks {
  std::vector<double> values;
  int decimals = 0;
};
Ticks ticks_of(double low, double high, int count);
// The same on a logarithmic axis, whose ends are 10^low and 10^high: powers of ten, and where that makes no
// more than `count` of them also their doubles and fives.
Ticks log_ticks_of(double low, double high, int count);
// A tick as it is printed: with a true minus sign, and never "-0"; from 1e7 on as "1.5e+38".
std::string tick_text(double value, int decimals);

// A rectangle of a picture in which data is drawn.
class Panel {
 public:
  // The pixels of its corners, and the data there.
  Panel(double left, double top, double right, double bottom, Extent x, Extent y);

  double x(double value) const;  // to pixels; values outside the extent lie outside the panel
  double y(double value) const;
  bool contains(double x, double y) const;  // of data
  double left() const { return left_; }
  double right() const { return right_; }
  double top() const { return top_; }
  double bottom() const { return bottom_; }

  struct Axes {
    int x_ticks = 7, y_ticks = 6;  // x_ticks 0: none
    bool x_labels = true, y_labels = true;
    double x_unit = 1;   // what a tick of 1 stands for
    bool x_log = false;  // the panel's x are decimal logarithms, the ticks' labels are not
    double text_size = 12;
    std::vector<double> x_at = {};  // whole numbers where ticks are wanted, instead of round ones
  };
  // A faint grid, and the ticks' labels below and to the left.
  void axes(Svg& svg, const Axes& axes) const;
  // What `draw` draws shows only inside of the panel.
  template <class Draw> void clipped(Svg& svg, Draw&& draw) const {
    svg.clipped(left_, top_ - 1, right_ - left_ + 1, bottom_ - top_ + 2, draw);
  }
  // A curve, thinned to at most `columns` columns.
  void curve(Svg& svg, const Curve& curve, const LineStyle& style, size_t columns,
             std::string_view hint = "") const;

  // What lies between two curves.
  void band(Svg& svg, const Curve& low, const Curve& high, std::string_view colour, size_t columns) const;

 private:
  std::vector<CurvePoint> pixels(const Curve& curve, size_t columns) const;

  double left_, top_, right_, bottom_;
  Extent x_, y_;
};

}  // namespace keen
