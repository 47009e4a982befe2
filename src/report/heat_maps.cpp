#include "report/heat_maps.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/check.h"
#include "core/console.h"
#include "report/chart.h"

namespace keen {

namespace {

constexpr double kCellWidth = 56, kCellHeight = 30, kLeft = 64, kTop = 44, kGap = 26, kCaption = 24,
                 kBelow = 44, kMargin = 16, kWidest = 760;
constexpr std::string_view kFaint = "#6a6a6a", kWords = "#444444";

// From white to the first of the colours of curves and on to a dark one: lightness falls evenly.
std::string shade(double value) {
  using Colour = std::array<double, 3>;
  constexpr std::array<Colour, 3> kSteps = {Colour{247, 251, 255}, {86, 160, 206}, {8, 48, 107}};
  const double at = std::clamp(value, 0.0, 1.0) * 2;
  const size_t step = at < 1 ? 0 : 1;
  const double part = at - static_cast<double>(step);
  std::string text = "#";
  for (size_t i = 0; i < 3; ++i)
    text +=
        fmt::format("{:02x}", std::lround(kSteps[step][i] + part * (kSteps[step + 1][i] - kSteps[step][i])));
  return text;
}

struct Layout {
  size_t across, down;                                      // maps beside and below each other
  double map_width, map_height, slot_width, width, height;  // a slot has room for a map and for its name
};

Layout layout_of(const HeatMaps& maps) {
  Layout layout{};
  layout.map_width = static_cast<double>(maps.columns.size()) * kCellWidth;
  layout.map_height = static_cast<double>(maps.rows.size()) * kCellHeight;
  layout.slot_width = layout.map_width;
  for (const HeatMap& map : maps.maps)
    layout.slot_width = std::max(layout.slot_width, std::min(bold_width(map.name), kWidest / 2));
  const auto fitting = static_cast<size_t>((kWidest - kLeft - kMargin + kGap) / (layout.slot_width + kGap));
  layout.across = std::clamp<size_t>(fitting, 1, maps.maps.size());
  layout.down = (maps.maps.size() + layout.across - 1) / layout.across;
  const auto across = static_cast<double>(layout.across), down = static_cast<double>(layout.down);
  layout.width = std::max(kLeft + across * (layout.slot_width + kGap) - kGap + kMargin,
                          kMargin + text_width(maps.title, 15) + kMargin);
  layout.height = kTop + down * (kCaption + layout.map_height + kBelow) + kMargin / 2;
  return layout;
}

void draw_map(Svg& svg, const HeatMaps& maps, const HeatMap& map, double left, double top,
              const Layout& layout, bool leftmost) {
  svg.text(left, top - 7, with_its_end(map.name, layout.slot_width), {.size = 12, .bold = true});
  for (size_t row = 0; row < maps.rows.size(); ++row) {
    const double y = top + static_cast<double>(row) * kCellHeight;
    if (leftmost)
      svg.text(left - 7, y + kCellHeight / 2 + 4, maps.rows[row],
               {.size = 12, .colour = kWords, .anchor = Anchor::end});
    for (size_t column = 0; column < maps.columns.size(); ++column) {
      const double x = left + static_cast<double>(column) * kCellWidth, value = map.cells[row][column];
      svg.area({{x, y}, {x + kCellWidth, y}, {x + kCellWidth, y + kCellHeight}, {x, y + kCellHeight}},
               shade(value), 1);
      svg.text(x + kCellWidth / 2, y + kCellHeight / 2 + 4, fmt::format("{:.0f}", 100 * value),
               {.size = 12, .colour = value > 0.55 ? "#ffffff" : "#222222", .anchor = Anchor::middle});
    }
  }
  const double bottom = top + layout.map_height, right = left + layout.map_width;
  for (const auto& [x1, y1, x2, y2] : {std::array{left, top, right, top},
                                       {right, top, right, bottom},
                                       {left, bottom, right, bottom},
                                       {left, top, left, bottom}})
    svg.line(x1, y1, x2, y2, {.colour = "#8a8a8a"});
  for (size_t column = 0; column < maps.columns.size(); ++column)
    svg.text(left + (static_cast<double>(column) + 0.5) * kCellWidth, bottom + 16, maps.columns[column],
             {.size = 11, .colour = kWords, .anchor = Anchor::middle});
  svg.text((left + right) / 2, bottom + 33, maps.column_label,
           {.size = 12, .colour = kFaint, .anchor = Anchor::middle});
}

}  // namespace

std::string heat_map_figure(const HeatMaps& maps) {
  check(!maps.maps.empty() && !maps.rows.empty() && !maps.columns.empty(),
        "heat_map_figure: something to draw");
  const Layout layout = layout_of(maps);
  Svg svg(layout.width, layout.height, maps.title);
  svg.text(kMargin, 24, maps.title, {.size = 15, .bold = true});
  for (size_t i = 0; i < maps.maps.size(); ++i) {
    const auto column = static_cast<double>(i % layout.across), row = static_cast<double>(i / layout.across);
    const double left = kLeft + column * (layout.slot_width + kGap),
                 top = kTop + kCaption + row * (kCaption + layout.map_height + kBelow);
    if (i % layout.across == 0)
      svg.text(left - 7, top - 7, maps.row_label, {.size = 12, .colour = kFaint, .anchor = Anchor::end});
    draw_map(svg, maps, maps.maps[i], left, top, layout, i % layout.across == 0);
  }
  return svg.str();
}

}  // namespace keen
