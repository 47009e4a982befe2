#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "report/heat_maps.h"
#include "report/needle_figure.h"
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

// The y of every dot of a path, in tenths of a pixel.
std::vector<double> dots(const std::string& path) {
  std::vector<double> y;
  for (size_t at = path.find('M'); at != path.npos; at = path.find('M', at + 1))
    y.push_back(std::stod(path.substr(path.find(' ', at))));
  return y;
}
// The data of all paths of this width of stroke.
std::vector<std::string> paths_of_width(const std::string& svg, const std::string& width) {
  std::vector<std::string> paths;
  for (size_t at = svg.find("<path d=\""); at != svg.npos; at = svg.find("<path d=\"", at + 1)) {
    const std::string element = svg.substr(at, svg.find('>', at) - at);
    if (element.find("stroke-width=\"" + width + "\"") != element.npos)
      paths.push_back(element.substr(9, element.find('"', 9) - 9));
  }
  return paths;
}

NeedleFigure needle_scores() {
  return {.outcomes = {"all digits", "first digit", "not even that"},
          .models = {{"runs/a", {0.9, 0.4, 0.1, 0}, {{0.75, 1, 0.5}, {}, {0}}},
                     {"runs/b & c", {0.2, 0.1, 0.1, 0}, {{}, {0.25}, {0, 0.125, 0.25, 0.125}}}}};
}

TEST(NeedleFigure, ShowsHeadsByRankAndEveryTrialByItsOutcome) {
  const std::string svg = needle_figure(needle_scores());
  EXPECT_EQ(count(svg, "runs/a"), 3u) << "in the legend, at its curve, under its columns";
  EXPECT_EQ(count(svg, "runs/b &amp; c"), 3u);
  EXPECT_EQ(paths_of_width(svg, "2.2").size(), 2u) << "a curve of heads each";
  for (const char* rank : {">1<", ">2<", ">3<", ">4<"}) EXPECT_EQ(count(svg, rank), 1u) << rank;
  EXPECT_EQ(count(svg, ">1.5<"), 0u) << "there is no rank between two ranks";
  EXPECT_EQ(count(svg, ">not even that<"), 2u);
  for (const auto& [words, times] : {std::pair{">3 trials<", 1u}, {">0 trials<", 2u}, {">1 trial<", 2u}})
    EXPECT_EQ(count(svg, words), times) << words;
  for (const char* mean : {">0.75<", ">0.25<", ">0.12<", ">0.00<"}) EXPECT_EQ(count(svg, mean), 1u) << mean;
  const std::vector<std::string> columns = paths_of_width(svg, "5.5");
  ASSERT_EQ(columns.size(), 4u) << "a column for each outcome that happened";
  // By score: 0.5, 0.75 and 1 lie equally far from each other, and 0 as far below 0.5 as 1 lies above.
  const std::vector<double> found = dots(columns[0]), lost = dots(columns[1]);
  ASSERT_EQ(found.size(), 3u);
  ASSERT_EQ(lost.size(), 1u);
  EXPECT_NEAR(found[0] - found[1], found[1] - found[2], 0.2);
  EXPECT_NEAR(lost[0] - found[0], found[0] - found[2], 0.2);
  EXPECT_EQ(svg, needle_figure(needle_scores())) << "scattered by no chance";
}

TEST(NeedleFigure, ManyTrialsAreThinnedEvenlyAndSayIt) {
  NeedleFigure figure = needle_scores();
  EXPECT_EQ(count(needle_figure(figure), "stand for all"), 0u);
  std::vector<double>& many = figure.models[0].trials[2];
  for (int i = 0; i < 50'000; ++i) many.push_back(i % 10 == 0 ? 1 : 0.2);
  const std::string svg = needle_figure(figure);
  EXPECT_LT(svg.size(), 60'000u);
  EXPECT_EQ(count(svg, "stand for all"), 1u);
  EXPECT_EQ(count(svg, ">50,001 trials<"), 1u);
  const std::vector<double> shown = dots(paths_of_width(svg, "3").front());
  ASSERT_EQ(shown.size(), kMostPoints);
  const double highest = *std::ranges::min_element(shown);
  EXPECT_NEAR(static_cast<double>(std::ranges::count(shown, highest)), 0.1 * kMostPoints, 1)
      << "a tenth of them as of all";
  EXPECT_EQ(count(svg, ">0.28<"), 1u) << "the mean of all";
}

TEST(NeedleFigure, OneHeadAndNoTrialsArePicturesToo) {
  const NeedleFigure figure{.outcomes = {"a"}, .models = {{"x", {0.5}, {{}}}}};
  EXPECT_EQ(needle_figure(figure).find("nan"), std::string::npos);
  NeedleFigure many = needle_scores();
  for (int i = 0; i < 5; ++i) many.models.push_back(many.models[0]);
  // Seven of them lie in three rows, each with its own axis of scores, and the heads have one.
  EXPECT_EQ(count(needle_figure(many), ">0.6<"), 4u);
}

}  // namespace
}  // namespace keen
