#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "report/heat_maps.h"
#include "report/position_figure.h"
#include "report/svg.h"

namespace keen {
namespace {

size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST(LogTicks, AreRoundNumbers) {
  EXPECT_EQ(log_ticks_of(0, 3, 16).values, (std::vector<double>{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000}));
  EXPECT_EQ(log_ticks_of(0, 3, 9).values, (std::vector<double>{1, 10, 100, 1000}));
  const Ticks small = log_ticks_of(std::log10(0.04), std::log10(0.3), 9);
  EXPECT_EQ(small.values.size(), 3u);
  EXPECT_NEAR(small.values[0], 0.05, 1e-12);
  EXPECT_EQ(small.decimals, 2);
}

PositionCurve curve(const std::string& name, int64_t trained, double offset, double error) {
  PositionCurve curve{name, trained, {}};
  for (double first = 1; first <= 1000; first = std::floor(first * 1.2) + 1)
    curve.points.push_back({first, std::floor(first * 1.2), offset + 1 / first, error});
  return curve;
}

TEST(PositionFigure, ShowsEveryModelAndWhereItsTrainingEnds) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::string svg = position_figure(
      {curve("runs/a", 256, 3, 0.1), curve("runs/b & c", 256, 2, nan), curve("d", 4096, 2.5, 0.2)});
  EXPECT_NE(svg.find("runs/a"), svg.npos);
  EXPECT_NE(svg.find("runs/b &amp; c"), svg.npos);
  EXPECT_EQ(count(svg, "trained on"), 1u) << "one mark for equal contexts, none beyond the picture";
  EXPECT_NE(svg.find("trained on 256"), svg.npos);
  EXPECT_EQ(count(svg, "fill-opacity"), 2u) << "a band where there are standard errors";
  for (const char* tick : {">1<", ">10<", ">100<", ">1000<", ">500<"})
    EXPECT_NE(svg.find(tick), svg.npos) << tick;
  EXPECT_EQ(svg.find("nan"), svg.npos);
  // One point alone is a picture too.
  EXPECT_TRUE(position_figure({{"x", 1, {{1, 1, 2.5, nan}}}}).starts_with("<svg"));
}

TEST(HeatMapFigure, EveryCellBearsItsValue) {
  HeatMaps maps{.title = "Needles found",
                .row_label = "depth",
                .column_label = "context",
                .rows = {"0 %", "100 %"},
                .columns = {"256", "1,024", "4,096"},
                .maps = {{"a<b", {{1, 0.5, 0}, {0.96, 0.123, 0}}}, {"second", {{0, 0, 0}, {0, 0, 0.07}}}}};
  const std::string svg = heat_map_figure(maps);
  for (const char* part : {">100<", ">50<", ">96<", ">12<", ">7<", "a&lt;b", ">1,024<", "#f7fbff", "#08306b"})
    EXPECT_NE(svg.find(part), svg.npos) << part;
  EXPECT_EQ(count(svg, ">0 %<"), 1u) << "rows are named once where maps lie side by side";
  EXPECT_EQ(count(svg, "second"), 1u);
  // Too many to lie side by side: they go on below, with their own row names.
  for (int i = 0; i < 6; ++i) maps.maps.push_back(maps.maps[1]);
  EXPECT_GT(count(heat_map_figure(maps), ">0 %<"), 1u);
}

}  // namespace
}  // namespace keen
