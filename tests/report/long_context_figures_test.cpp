#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "report/context_figure.h"
#include "report/heat_maps.h"
#include "report/needle_figure.h"
#include "report/position_figure.h"
#include "report/svg.h"
#include "report/svg_file.h"

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
      "one standard error over windows",
      {curve("runs/a", 256, 3, 0.1), curve("runs/b & c", 256, 2, nan), curve("d", 4096, 2.5, 0.2)});
  EXPECT_NE(svg.find("runs/a"), svg.npos);
  EXPECT_NE(svg.find("runs/b &amp; c"), svg.npos);
  EXPECT_EQ(count(svg, "trained on"), 1u) << "one mark for equal contexts, none beyond the picture";
  EXPECT_NE(svg.find("trained on 256"), svg.npos);
  EXPECT_EQ(count(svg, "fill-opacity"), 2u) << "a band where there are standard errors";
  EXPECT_EQ(count(svg, "band: one standard error over windows"), 1u);
  for (const char* tick : {">1<", ">10<", ">100<", ">1000<", ">500<"})
    EXPECT_NE(svg.find(tick), svg.npos) << tick;
  EXPECT_EQ(svg.find("nan"), svg.npos);
  // One point alone is a picture too.
  EXPECT_TRUE(position_figure("", {{"x", 1, {{1, 1, 2.5, nan}}}}).starts_with("<svg"));
}

// Whether the words stand somewhere in the picture, as they would in a text element.
bool says(const std::string& svg, const std::string& words) { return svg.find(words + "<") != svg.npos; }

TEST(ContextFigure, ShowsEveryModelInPercentAndWhereItsTrainingEnds) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<ContextCurve> curves = {
      {"runs/a", 128, {{128, 1, 0.01}, {512, 0.75, 0.02}, {2048, 0.25, 0.05}}},
      {"runs/b & c", 128, {{128, 0.9, nan}, {512, 0.5, nan}, {2048, 0, nan}}},
      {"d", 256, {{128, 0.8, 0.5}, {512, 0.1, 0.5}, {2048, 0.1, nan}}}};
  const std::string svg = context_figure("Recall < all", "one standard error", curves);
  EXPECT_EQ(parse_svg(svg, "figure").title, "Recall < all");
  for (const char* name : {"runs/a", "runs/b &amp; c"})
    EXPECT_EQ(count(svg, name), 2u) << "in the legend and at its curve: " << name;
  EXPECT_TRUE(says(svg, "context, tokens"));
  EXPECT_EQ(count(svg, "band: one standard error"), 1u);
  EXPECT_EQ(count(svg, "fill-opacity"), 2u) << "a band where errors are known";
  EXPECT_EQ(count(svg, "trained on"), 2u) << "one mark for equal contexts";
  EXPECT_TRUE(says(svg, "trained on 128"));
  EXPECT_TRUE(says(svg, "trained on 256"));
  for (const char* tick : {">0<", ">20<", ">100<", ">128<", ">512<", ">2048<"})
    EXPECT_NE(svg.find(tick), svg.npos) << tick;
  EXPECT_EQ(svg.find("nan"), svg.npos);
  EXPECT_EQ(svg.find("inf"), svg.npos);
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

// The points of a path that begins with M and goes on by l.
std::vector<std::pair<double, double>> points_of(const std::string& path) {
  std::vector<std::pair<double, double>> points;
  const char* at = path.c_str();
  const auto number = [&] {
    while (*at == ' ' || *at == 'M' || *at == 'l') ++at;
    char* end = nullptr;
    const double value = std::strtod(at, &end);
    at = end;
    return value;
  };
  while (*at != '\0') {
    const double x = number(), y = number();
    points.emplace_back(points.empty() ? std::pair(x, y)
                                       : std::pair(points.back().first + x, points.back().second + y));
  }
  return points;
}

TEST(ContextFigure, IsLogarithmicToTheRightAndLinearUpwards) {
  const std::string svg =
      context_figure("t", "e", {{"a", 128, {{128, 1, 0.5}, {512, 0.75, 0.5}, {2048, 0.25, 0.5}}}});
  const std::vector<std::string> lines = paths_of_width(svg, "2.2");
  ASSERT_EQ(lines.size(), 1u);
  const auto line = points_of(lines[0]);
  ASSERT_EQ(line.size(), 3u);
  EXPECT_NEAR(line[1].first - line[0].first, line[2].first - line[1].first, 0.3) << "four times each";
  EXPECT_NEAR(2 * (line[1].second - line[0].second), line[2].second - line[1].second, 0.3);
  EXPECT_GT(line[1].second, line[0].second) << "a lower score stands lower";
  // The band ends at 100 % and at 0 %: above and below there is nothing.
  const size_t begin = svg.rfind("<path d=\"", svg.find("fill-opacity")) + 9;
  const auto band = points_of(svg.substr(begin, svg.find('z', begin) - begin));
  const auto [highest, lowest] = std::ranges::minmax(band, {}, &std::pair<double, double>::second);
  EXPECT_NEAR(highest.second, line[0].second, 0.2) << "no higher than 100 %";
  const double hundred = 4.0 / 3 * (line[2].second - line[0].second);
  EXPECT_NEAR(lowest.second, line[0].second + hundred, 0.3) << "no lower than 0 %";
}

TEST(ContextFigure, OnePointWithoutAnErrorIsAPictureToo) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::string svg = context_figure("t", "one standard error", {{"x", 256, {{256, 0.5, nan}}}});
  parse_svg(svg, "figure");
  EXPECT_EQ(count(svg, "band"), 0u);
  EXPECT_EQ(count(svg, "fill-opacity"), 0u);
  EXPECT_EQ(paths_of_width(svg, "2.2").size(), 1u);
  EXPECT_TRUE(says(svg, "trained on 256"));
  EXPECT_EQ(svg.find("nan"), svg.npos);
  EXPECT_EQ(svg.find("inf"), svg.npos);
}

// A mark outside of the panel would lie in its margin, or beyond the picture.
TEST(ContextFigure, MarksNoContextOutsideOfThePicture) {
  const auto marks = [](int64_t trained) {
    return count(context_figure("t", "e", {{"x", trained, {{512, 0.5, 0.1}, {2048, 0.4, 0.1}}}}),
                 "trained on");
  };
  EXPECT_EQ(marks(512), 1u);
  EXPECT_EQ(marks(2048), 1u);
  EXPECT_EQ(marks(128), 0u);
  EXPECT_EQ(marks(16), 0u);
  EXPECT_EQ(marks(65536), 0u);
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
