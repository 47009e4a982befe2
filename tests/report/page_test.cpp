#include "report/page.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "report/page_data.h"

namespace keen {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// --- an independent reader of what the page holds ---

std::string read_base64(const std::string& text) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = bits << 6 | static_cast<uint32_t>(digits.find(c));
    if ((count += 6) < 8) continue;
    count -= 8;
    bytes += static_cast<char>(bits >> count);
  }
  return bytes;
}

std::vector<double> read_base64_floats(const std::string& text) {
  const std::string bytes = read_base64(text);
  std::vector<double> values;
  for (size_t at = 0; at + 4 <= bytes.size(); at += 4) {
    float value;
    std::memcpy(&value, bytes.data() + at, 4);
    values.push_back(value);
  }
  return values;
}

std::vector<double> read_column(const Json& column) {
  if (column.contains("f32")) return read_base64_floats(column["f32"].get<std::string>());
  const std::vector<double> knots = column["knots"].get<std::vector<double>>();
  std::vector<double> values(static_cast<size_t>(knots[knots.size() - 2]) + 1);
  for (size_t k = 2; k < knots.size(); k += 2)
    for (double i = knots[k - 2]; i <= knots[k]; ++i)
      values[static_cast<size_t>(i)] =
          knots[k - 1] + (knots[k + 1] - knots[k - 1]) * (i - knots[k - 2]) / (knots[k] - knots[k - 2]);
  if (knots.size() == 2) values[0] = knots[1];
  return values;
}

// The JSON between the page's data tags, and the page without it.
struct Page {
  std::string html, around;
  Json data;

  explicit Page(const Comparison& comparison, const std::vector<SvgFile>& figures = {})
      : html(comparison_page(comparison, figures)) {
    const std::string open = "<script type=\"application/json\" id=\"data\">", close = "</script>";
    const size_t begin = html.find(open) + open.size(), end = html.find(close, begin);
    data = Json::parse(html.substr(begin, end - begin));
    around = html.substr(0, begin) + html.substr(end);
  }
};

RunRecord made_up_run(const std::string& name, int64_t steps) {
  RunRecord run;
  run.path = name;
  run.name = name;
  run.config = Json{{"model", {{"attention", "ssmax"}}}};
  run.steps = steps;
  run.tokens = 1000 * steps;
  run.flops_per_token = 1e9;
  for (int64_t step = 1; step <= steps; ++step) {
    TrainPoint point;
    point.step = step;
    point.tokens = 1000 * step;
    point.seconds = 0.1 * static_cast<double>(step) + 0.5 * std::sin(0.02 * static_cast<double>(step));
    point.loss =
        3 + 7.0 / static_cast<double>(step) + 0.1 * std::sin(12.9898 * static_cast<double>(step * step));
    point.grad_norm = 0.5 + 0.1 * std::cos(78.233 * static_cast<double>(step * step));
    point.lr = 1e-3 * (1 + std::cos(3.14159 * static_cast<double>(step) / static_cast<double>(steps)));
    run.train.push_back(point);
    if (step % 250 == 0) run.validation.push_back(point);
  }
  return run;
}

void add_attention(RunRecord& run, int64_t rows, int64_t layers, int64_t heads) {
  for (int64_t row = 0; row < rows; ++row) {
    AttentionRow attention{.step = 250 * (row + 1), .layers = {}};
    for (int64_t layer = 0; layer < layers; ++layer) {
      LayerScale scale{.layer = layer, .s = {}, .b = {}};
      for (int64_t head = 0; head < heads; ++head)
        scale.s.push_back(0.2 + 0.001 * static_cast<double>((row * 31 + layer * 7 + head * 3) % 101));
      attention.layers.push_back(scale);
    }
    run.attention.push_back(attention);
  }
}

// --- columns ---

TEST(PageColumn, WhatLiesOnLinesBecomesKnots) {
  std::vector<double> steps;
  for (int i = 0; i < 500; ++i) steps.push_back(i < 300 ? 10 + i : 1000 + 2 * i);
  const Json column = page_column(steps, 0);
  ASSERT_TRUE(column.contains("knots"));
  EXPECT_EQ(column["knots"].size(), 2 * 4u) << column;
  EXPECT_EQ(read_column(column), steps);
  EXPECT_EQ(read_column(page_column(std::vector<double>{42}, 0)), std::vector<double>{42});
  EXPECT_TRUE(page_column({}, 0)["knots"].empty());
}

TEST(PageColumn, KeepsTheTolerance) {
  std::vector<double> values;
  for (int i = 0; i < 2000; ++i) values.push_back(std::sin(i * 0.003) + 0.0004 * std::sin(i * 17.0));
  const Json column = page_column(values, 0.001);
  ASSERT_TRUE(column.contains("knots"));
  EXPECT_LT(column["knots"].size(), 200u);
  const std::vector<double> read = read_column(column);
  ASSERT_EQ(read.size(), values.size());
  for (size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(read[i], values[i], 0.001 + 1e-12) << i;
}

TEST(PageColumn, OtherValuesAreFloats) {
  std::vector<double> values;
  for (int i = 0; i < 101; ++i) values.push_back(i == 7 ? kNan : std::sin(i * i * 12.9898));
  const Json column = page_column(values, 0);
  ASSERT_TRUE(column.contains("f32"));
  const std::vector<double> read = read_column(column);
  ASSERT_EQ(read.size(), values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (i == 7)
      EXPECT_TRUE(std::isnan(read[i]));
    else
      EXPECT_EQ(read[i], static_cast<double>(static_cast<float>(values[i])));
  }
}

// --- points ---

TEST(PagePoints, ShortRunsAreKeptAsTheyAre) {
  RunRecord run = made_up_run("a", 10);
  run.train[3].loss.reset();
  run.train[4].grad_norm.reset();
  const PagePoints points = page_points(run.train, 10);
  EXPECT_EQ(points.rows_per_point, 1);
  EXPECT_TRUE(points.low.empty());
  ASSERT_EQ(points.loss.size(), 10u);
  EXPECT_EQ(points.loss[9], *run.train[9].loss);
  EXPECT_TRUE(std::isnan(points.loss[3]));
  EXPECT_TRUE(std::isnan(points.grad_norm[4]));
  EXPECT_EQ(points.seconds[2], run.train[2].seconds);
}

TEST(PagePoints, LongRunsKeepMeansAndExtremes) {
  std::vector<TrainPoint> rows(11);
  for (int i = 0; i < 11; ++i) {
    rows[static_cast<size_t>(i)].step = i + 1;
    rows[static_cast<size_t>(i)].tokens = 10 * (i + 1);
    rows[static_cast<size_t>(i)].loss = i == 4 ? 9.0 : 2.0;
    rows[static_cast<size_t>(i)].grad_norm = i == 1 ? 5.0 : 1.0;
    rows[static_cast<size_t>(i)].lr = i;
  }
  rows[3].loss.reset();
  rows[6].loss = 1.0;
  rows[9].loss.reset();
  rows[10].loss.reset();
  const PagePoints points = page_points(rows, 8);  // 11 rows as 4 points of 3, the last one shorter
  EXPECT_EQ(points.rows_per_point, 3);
  ASSERT_EQ(points.loss.size(), 4u);
  EXPECT_EQ(points.step, (std::vector<double>{2, 5, 8, 10.5}));
  EXPECT_EQ(points.tokens, (std::vector<double>{20, 50, 80, 105}));
  EXPECT_EQ(points.loss[1], 5.5);  // of 9 and 2; the third was not finite
  EXPECT_EQ(points.low[1], 2.0);
  EXPECT_EQ(points.high[1], 9.0);
  EXPECT_EQ(points.low[2], 1.0);
  EXPECT_EQ(points.high[2], 2.0);
  EXPECT_TRUE(std::isnan(points.loss[3]) && std::isnan(points.low[3]) && std::isnan(points.high[3]));
  EXPECT_EQ(points.grad_norm, (std::vector<double>{5, 1, 1, 1}));
  EXPECT_EQ(points.lr, (std::vector<double>{2, 5, 8, 10}));
}

// --- the page ---

TEST(Page, HoldsWhatTheRunsLogged) {
  RunRecord run = made_up_run("a", 1000);
  add_attention(run, 4, 2, 3);
  const std::vector<TrainPoint> train = run.train;
  const std::vector<AttentionRow> attention = run.attention;
  const Page page(compare_runs({std::move(run), made_up_run("b", 500)}, 0, std::nullopt));
  EXPECT_EQ(page.data["comparison"]["runs"][0]["name"], "a");
  const Json& read = page.data["runs"][0];
  const std::vector<double> loss = read_column(read["train"]["loss"]),
                            seconds = read_column(read["train"]["seconds"]),
                            tokens = read_column(read["train"]["tokens"]),
                            lr = read_column(read["train"]["lr"]);
  ASSERT_EQ(loss.size(), train.size());
  for (size_t i = 0; i < train.size(); ++i) {
    ASSERT_EQ(loss[i], static_cast<double>(static_cast<float>(*train[i].loss))) << i;
    ASSERT_EQ(tokens[i], static_cast<double>(train[i].tokens)) << i;
    ASSERT_NEAR(seconds[i], train[i].seconds, 1e-4 * train.back().seconds) << i;
    ASSERT_NEAR(lr[i], *train[i].lr, 1e-6) << i;
  }
  EXPECT_EQ(read["validation"]["rows"], 4);
  const Json& layer = read["attention"]["layers"][1];
  EXPECT_EQ(layer["heads"], 3);
  EXPECT_TRUE(layer["b"].is_null());
  const std::vector<double> s = read_column(layer["s"]);
  ASSERT_EQ(s.size(), 12u);
  EXPECT_NEAR(s[3 * 2 + 1], attention[2].layers[1].s[1], 1e-7);
  EXPECT_TRUE(page.data["runs"][1]["attention"].is_null());
}

TEST(Page, FiveRunsHaveFiveMarkers) {
  std::vector<RunRecord> runs;
  for (const char* name : {"a", "b", "c", "d", "e"}) runs.push_back(made_up_run(name, 10));
  const Page page(compare_runs(std::move(runs), 0, std::nullopt));
  std::set<std::string> markers;
  for (const Json& run : page.data["runs"]) markers.insert(run["look"]["marker"].get<std::string>());
  EXPECT_EQ(markers, (std::set<std::string>{"circle", "square", "triangle", "diamond", "down_triangle"}));
}

TEST(Page, IsSmallForThreeLongRuns) {
  std::vector<RunRecord> runs;
  for (const char* name : {"a", "b", "c"}) {
    runs.push_back(made_up_run(name, 20'000));
    add_attention(runs.back(), 80, 12, 12);
  }
  const Page page(compare_runs(std::move(runs), 0, std::nullopt));
  EXPECT_LT(page.html.size(), 1'000'000u);
  for (const Json& run : page.data["runs"]) {
    EXPECT_EQ(run["train"]["rows"], 20'000);
    EXPECT_EQ(run["attention"]["rows"], 80);
  }
}

TEST(Page, ThinsWhatIsLonger) {
  RunRecord run = made_up_run("a", 100'000);
  run.train[51'234].loss = 11.0;
  add_attention(run, 1000, 12, 12);
  const Page page(compare_runs({std::move(run)}, 0, std::nullopt));
  EXPECT_LT(page.html.size(), 1'500'000u);
  const Json& read = page.data["runs"][0];
  EXPECT_EQ(read["train"]["rows_per_point"], 4);
  const std::vector<double> high = read_column(read["train"]["high"]),
                            step = read_column(read["train"]["step"]),
                            attention = read_column(read["attention"]["step"]);
  ASSERT_EQ(high.size(), 25'000u);
  EXPECT_EQ(high[51'234 / 4], 11.0);
  EXPECT_EQ(step.front(), 2.5);
  EXPECT_LT(attention.size(), 200u);
  EXPECT_EQ(attention.front(), 250);
  EXPECT_EQ(attention.back(), 250'000);
}

TEST(Page, TextOfRunsIsOnlyText) {
  const std::string hostile = "</script><b onclick=\"boom()\">&amp;<!--<script>{{data}}{{script}}";
  RunRecord run = made_up_run(hostile, 100);
  run.marks.push_back({.kind = Mark::Kind::resume, .step = 10, .text = hostile});
  run.problems.push_back(hostile);
  RunRecord other = made_up_run("caf\xe9", 100);  // a file name need not be UTF-8
  other.config["data"]["train"] = hostile;
  const Page page(compare_runs({std::move(run), std::move(other)}, 0, std::nullopt));
  EXPECT_EQ(page.data["comparison"]["runs"][0]["name"], hostile);
  EXPECT_EQ(page.data["comparison"]["runs"][1]["name"], "caf\xef\xbf\xbd");
  EXPECT_EQ(page.around.find("<b onclick"), std::string::npos);
  EXPECT_EQ(page.around.find('\xe9'), std::string::npos) << "the title is UTF-8, too";
  const Page plain(compare_runs({made_up_run("a", 100)}, 0, std::nullopt));
  const auto tags = [](const Page& p) { return std::count(p.html.begin(), p.html.end(), '<'); };
  EXPECT_EQ(tags(page), tags(plain)) << "no name opens a tag";
}

TEST(Page, AsksForNothingFromOutside) {
  const Page page(compare_runs({made_up_run("a", 10)}, 0, std::nullopt));
  for (const char* wanted :
       {"src=", "href=", "url(", "@import", "fetch(", "XMLHttpRequest", "eval(", "innerHTML"})
    EXPECT_EQ(page.around.find(wanted), std::string::npos) << wanted;
  EXPECT_NE(page.around.find("default-src 'none'"), std::string::npos);
  EXPECT_EQ(page.around.find("{{"), std::string::npos) << "every place of the template is filled";
}

TEST(Page, HoldsFiguresAsTheyAre) {
  std::vector<SvgFile> figures = {
      parse_svg("<svg xmlns='http://www.w3.org/2000/svg'><title>a</title><script>boom()</script></svg>", "a"),
      {.title = "\"</script><b onerror=\"boom()\">{{script}}", .bytes = "caf\xe9</script>"}};
  const Page page(compare_runs({made_up_run("a", 10)}, 0, std::nullopt), figures);
  ASSERT_EQ(page.data["figures"].size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(page.data["figures"][i]["title"], figures[i].title);
    EXPECT_EQ(read_base64(page.data["figures"][i]["svg"].get<std::string>()), figures[i].bytes);
  }
  const Page plain(compare_runs({made_up_run("a", 10)}, 0, std::nullopt));
  EXPECT_TRUE(plain.data["figures"].empty());
  EXPECT_EQ(page.around, plain.around) << "nothing of a figure stands outside of the data";
  const auto tags = [](const Page& p) { return std::count(p.html.begin(), p.html.end(), '<'); };
  EXPECT_EQ(tags(page), tags(plain)) << "no figure opens a tag";
}

TEST(Page, RunsWithoutRowsStillMakeAPage) {
  RunRecord nothing;
  nothing.path = nothing.name = "nothing";
  const Page page(compare_runs({nothing}, 0, std::nullopt));
  EXPECT_EQ(page.data["runs"][0]["train"]["rows"], 0);
  EXPECT_TRUE(page.data["runs"][0]["attention"].is_null());
}

}  // namespace
}  // namespace keen
