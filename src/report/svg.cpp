#include "report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/console.h"
#include "io/json.h"

namespace keen {

namespace {

constexpr std::string_view kGrid = "#e4e4e4", kAxis = "#8a8a8a", kWords = "#444444";

// A length in tenths of a pixel, which no eye tells from the exact one.
long tenths(double length) { return std::lround(length * 10); }
std::string tenths_text(long value) {
  std::string text = fmt::format("{}.{}", std::labs(value) / 10, std::labs(value) % 10);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  if (text.starts_with("0.")) text.erase(0, 1);
  return value < 0 ? "-" + text : text;
}
std::string px(double length) { return tenths_text(tenths(length)); }

std::string stroke(const LineStyle& style) {
  std::string text = fmt::format(" stroke=\"{}\"", style.colour);
  if (style.width != 1) text += fmt::format(" stroke-width=\"{:g}\"", style.width);
  if (style.opacity != 1) text += fmt::format(" stroke-opacity=\"{:g}\"", style.opacity);
  if (!style.dash.empty()) text += fmt::format(" stroke-dasharray=\"{}\"", style.dash);
  return text;
}

}  // namespace

std::string xml_escaped(std::string_view text) {
  // The JSON writer replaces what is not UTF-8; parsed back, only the replacement is left of it.
  const std::string clean = parse_json(json_line(Json(text)), "text", Exit::internal).get<std::string>();
  std::string escaped;
  for (const char c : clean) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '&')
      escaped += "&amp;";
    else if (c == '<')
      escaped += "&lt;";
    else if (c == '>')
      escaped += "&gt;";
    else if (c == '"')
      escaped += "&quot;";
    else if (byte < 0x20 && c != '\t' && c != '\n')
      escaped += "\xEF\xBF\xBD";
    else
      escaped += c;
  }
  return escaped;
}

double text_width(std::string_view text, double size) {
  return 0.54 * size * static_cast<double>(display_width(text));
}

Svg::Svg(double width, double height, std::string_view title)
    : width_(width), height_(height), title_(xml_escaped(title)) {}

void Svg::close(std::string_view element, std::string_view hint) {
  body_ += hint.empty() ? "/>\n" : fmt::format("><title>{}</title></{}>\n", xml_escaped(hint), element);
}

void Svg::line(double x1, double y1, double x2, double y2, const LineStyle& style) {
  body_ += fmt::format("<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"{}/>\n", px(x1), px(y1), px(x2), px(y2),
                       stroke(style));
}

namespace {

// The `d` of a path: each point relative to the one before, which is shorter; both are rounded first, so that
// errors do not add.
std::string path_data(const std::vector<CurvePoint>& points) {
  std::string data;
  long last_x = 0, last_y = 0;
  bool pen_down = false;
  for (size_t i = 0; i < points.size(); ++i) {
    if (!std::isfinite(points[i].y)) {
      pen_down = false;
      continue;
    }
    const long x = tenths(points[i].x), y = tenths(points[i].y);
    if (!pen_down) {
      data += fmt::format("M{} {}", tenths_text(x), tenths_text(y));
      const bool alone = i + 1 == points.size() || !std::isfinite(points[i + 1].y);
      if (alone) data += "h0";
    } else if (x != last_x || y != last_y) {
      const std::string dy = tenths_text(y - last_y);
      data += fmt::format("l{}{}{}", tenths_text(x - last_x), dy.starts_with('-') ? "" : " ", dy);
    }
    pen_down = true;
    last_x = x;
    last_y = y;
  }
  return data;
}

}  // namespace

void Svg::path(const std::vector<CurvePoint>& points, const LineStyle& style, std::string_view hint) {
  const std::string data = path_data(points);
  if (data.empty()) return;
  body_ += fmt::format("<path d=\"{}\"{}", data, stroke(style));
  close("path", hint);
}

void Svg::area(const std::vector<CurvePoint>& points, std::string_view colour, double opacity) {
  if (points.empty()) return;
  body_ += fmt::format("<path d=\"{}z\" fill=\"{}\" fill-opacity=\"{:g}\"/>\n", path_data(points), colour,
                       opacity);
}

void Svg::marker(Marker marker, double x, double y, double size, std::string_view colour,
                 std::string_view hint) {
  const double r = size / 2;
  const auto polygon = [&](const char* points) {
    // `points` are in units of r around the middle.
    body_ += fmt::format(
        "<path d=\"{}\" transform=\"translate({} {}) scale({:.3g})\" fill=\"{}\" stroke=\"#ffffff\" "
        "stroke-width=\"{:.2g}\"",
        points, px(x), px(y), r, colour, 0.8 / r);
    close("path", hint);
  };
  switch (marker) {
    case Marker::circle:
      body_ += fmt::format(
          "<circle cx=\"{}\" cy=\"{}\" r=\"{:.3g}\" fill=\"{}\" stroke=\"#ffffff\" stroke-width=\"0.8\"",
          px(x), px(y), r, colour);
      return close("circle", hint);
    case Marker::ring:
      body_ += fmt::format(
          "<circle cx=\"{}\" cy=\"{}\" r=\"{:.3g}\" fill=\"#ffffff\" stroke=\"{}\" stroke-width=\"1.8\"",
          px(x), px(y), r, colour);
      return close("circle", hint);
    case Marker::square:
      return polygon("M-.9-.9h1.8v1.8h-1.8z");
    case Marker::triangle:
      return polygon("M0-1.15L1.1 .8H-1.1z");
    case Marker::down_triangle:
      return polygon("M0 1.15L1.1-.8H-1.1z");
    case Marker::diamond:
      return polygon("M0-1.25L1.25 0L0 1.25L-1.25 0z");
    case Marker::cross:
    case Marker::bar: {
      const char* shape = marker == Marker::cross ? "M{0} {1}l{2} {2}m0-{2}l-{2} {2}" : "M{3} {1}v{2}";
      body_ += fmt::format(fmt::runtime("<path d=\"" + std::string(shape) + "\"{4}"), px(x - r), px(y - r),
                           px(2 * r), px(x), stroke({.colour = colour, .width = 1.8}));
      return close("path", hint);
    }
  }
}

void Svg::text(double x, double y, std::string_view text, const TextStyle& style) {
  body_ += fmt::format("<text x=\"{}\" y=\"{}\" font-size=\"{:g}\" fill=\"{}\"", px(x), px(y), style.size,
                       style.colour);
  if (style.anchor != Anchor::start)
    body_ += style.anchor == Anchor::middle ? " text-anchor=\"middle\"" : " text-anchor=\"end\"";
  if (style.bold) body_ += " font-weight=\"bold\"";
  body_ += fmt::format(">{}</text>\n", xml_escaped(text));
}

// An inner picture clips what is outside of it, and needs no name that another picture could have too.
void Svg::begin_clip(double x, double y, double width, double height) {
  body_ += fmt::format("<svg x=\"{0}\" y=\"{1}\" width=\"{2}\" height=\"{3}\" viewBox=\"{0} {1} {2} {3}\">\n",
                       px(x), px(y), px(width), px(height));
}

void Svg::end_clip() { body_ += "</svg>\n"; }

std::string Svg::str() const {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
      "role=\"img\" font-family=\"sans-serif\" fill=\"none\" stroke-linejoin=\"round\" "
      "stroke-linecap=\"round\">\n<title>{2}</title>\n<rect width=\"{0}\" height=\"{1}\" "
      "fill=\"#ffffff\"/>\n{3}</svg>\n",
      px(width_), px(height_), title_, body_);
}

Ticks ticks_of(double low, double high, int count) {
  check(high > low && count > 0, "ticks_of: an extent and a number of ticks");
  const double rough = (high - low) / count, power = std::pow(10.0, std::floor(std::log10(rough)));
  const double part = rough / power;
  const double factor = part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10;
  const double step = factor * power;
  Ticks ticks;
  ticks.decimals = std::max(0, -static_cast<int>(std::floor(std::log10(step) + 1e-9)));
  // A tick on the very edge counts, whatever its last bit says.
  const double slack = 1e-9 * (high - low);
  const auto first = std::llround(std::ceil((low - slack) / step));
  for (auto i = first; static_cast<double>(i) * step <= high + slack; ++i)
    ticks.values.push_back(static_cast<double>(i) * step);
  return ticks;
}

Ticks log_ticks_of(double low, double high, int count) {
  constexpr double kSlack = 1e-9;
  for (const std::vector<double>& digits : {std::vector<double>{1, 2, 5}, {1}}) {
    Ticks ticks;
    for (double power = std::floor(low); power <= high; ++power)
      for (const double digit : digits) {
        const double value = digit * std::pow(10, power), at = std::log10(value);
        if (low - kSlack > at || at > high + kSlack) continue;
        ticks.values.push_back(value);
        ticks.decimals = std::max(ticks.decimals, static_cast<int>(-power));
      }
    if (std::ssize(ticks.values) <= count || digits.size() == 1) return ticks;
  }
  return {};
}

std::string tick_text(double value, int decimals) {
  const double size = std::abs(value);
  std::string text = size < 1e7 ? fmt::format("{:.{}f}", size, decimals) : fmt::format("{:.4g}", size);
  const bool zero = text.find_first_not_of("0.") == text.npos;
  return value < 0 && !zero ? "\xE2\x88\x92" + text : text;
}

Panel::Panel(double left, double top, double right, double bottom, Extent x, Extent y)
    : left_(left), top_(top), right_(right), bottom_(bottom), x_(x), y_(y) {
  check(x.high > x.low && y.high > y.low, "Panel: an extent of x and of y");
}

double Panel::x(double value) const {
  return left_ + (value - x_.low) / (x_.high - x_.low) * (right_ - left_);
}
double Panel::y(double value) const {
  return bottom_ - (value - y_.low) / (y_.high - y_.low) * (bottom_ - top_);
}
bool Panel::contains(double x, double y) const {
  return x >= x_.low && x <= x_.high && y >= y_.low && y <= y_.high;
}

void Panel::axes(Svg& svg, const Axes& axes) const {
  const Ticks across = !axes.x_at.empty()  ? Ticks{axes.x_at, 0}
                       : axes.x_ticks == 0 ? Ticks()
                       : axes.x_log        ? log_ticks_of(x_.low, x_.high, axes.x_ticks)
                                    : ticks_of(x_.low / axes.x_unit, x_.high / axes.x_unit, axes.x_ticks);
  const Ticks up = ticks_of(y_.low, y_.high, axes.y_ticks);
  for (const double value : up.values) {
    svg.line(left_, y(value), right_, y(value), {.colour = kGrid});
    if (axes.y_labels)
      svg.text(left_ - 7, y(value) + 0.35 * axes.text_size, tick_text(value, up.decimals),
               {.size = axes.text_size, .colour = kWords, .anchor = Anchor::end});
  }
  for (const double value : across.values) {
    const double at = x(axes.x_log ? std::log10(value) : value * axes.x_unit);
    svg.line(at, bottom_, at, bottom_ + 4, {.colour = kAxis});
    if (axes.x_labels)
      svg.text(at, bottom_ + 6 + axes.text_size, tick_text(value, across.decimals),
               {.size = axes.text_size, .colour = kWords, .anchor = Anchor::middle});
  }
  svg.line(left_, bottom_, right_, bottom_, {.colour = kAxis});
}

std::vector<CurvePoint> Panel::pixels(const Curve& curve, size_t columns) const {
  std::vector<CurvePoint> pixels;
  // Far outside is as good as outside, and shorter to write.
  const double far = bottom_ - top_;
  for (const CurvePoint& point : thinned(curve, x_.low, x_.high, columns))
    pixels.push_back(
        {x(point.x), std::isfinite(point.y) ? std::clamp(y(point.y), top_ - far, bottom_ + far) : point.y});
  return pixels;
}

void Panel::curve(Svg& svg, const Curve& curve, const LineStyle& style, size_t columns,
                  std::string_view hint) const {
  svg.path(pixels(curve, columns), style, hint);
}

void Panel::band(Svg& svg, const Curve& low, const Curve& high, std::string_view colour,
                 size_t columns) const {
  std::vector<CurvePoint> around = pixels(high, columns), back = pixels(low, columns);
  around.insert(around.end(), back.rbegin(), back.rend());
  std::erase_if(around, [](const CurvePoint& point) { return !std::isfinite(point.y); });
  svg.area(around, colour, 0.25);
}

}  // namespace keen
