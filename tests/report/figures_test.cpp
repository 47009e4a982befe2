#include "report/figures.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "core/philox.h"
#include "report/svg.h"
#include "run_files.h"

namespace keen {
namespace {

using testing::content_of;
using testing::event_row;
using testing::kConfig;
using testing::make_run;
using testing::TemporaryDirectory;
using testing::train_row;
using testing::validation_row;

struct Element {
  std::string name, text;  // the text directly inside
  std::map<std::string, std::string> attributes;
  double number(const std::string& key) const { return std::stod(attributes.at(key)); }
};

std::string unescaped(std::string text) {
  for (const auto& [entity, c] : {std::pair{"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}, {"&amp;", "&"}})
    for (size_t at; (at = text.find(entity)) != text.npos;) text.replace(at, std::strlen(entity), c);
  return text;
}

// All elements in their order. Fails where the text is no well-formed XML.
std::vector<Element> elements_of(const std::string& xml) {
  std::vector<Element> elements;
  std::vector<size_t> open;
  size_t at = 0;
  while (at < xml.size()) {
    const size_t tag = xml.find('<', at);
    const std::string text = xml.substr(at, tag - at);
    for (size_t amp = text.find('&'); amp != text.npos; amp = text.find('&', amp + 1))
      EXPECT_LT(text.find(';', amp), amp + 6) << "a bare & in " << text;
    for (const char c : text)
      EXPECT_TRUE(static_cast<unsigned char>(c) >= 0x20 || c == '\n') << static_cast<int>(c);
    if (!open.empty()) elements[open.back()].text += unescaped(text);
    if (tag == xml.npos) break;
    const size_t end = xml.find('>', tag);
    if (end == xml.npos) {
      ADD_FAILURE() << "a tag without an end";
      break;
    }
    at = end + 1;
    std::string inside = xml.substr(tag + 1, end - tag - 1);
    if (inside.front() == '/') {
      EXPECT_FALSE(open.empty());
      if (open.empty()) break;
      EXPECT_EQ(elements[open.back()].name, inside.substr(1));
      open.pop_back();
      continue;
    }
    const bool empty = inside.back() == '/';
    if (empty) inside.pop_back();
    Element element;
    size_t space = std::min(inside.find(' '), inside.size());
    element.name = inside.substr(0, space);
    while (space < inside.size()) {
      const size_t equals = inside.find("=\"", space), close = inside.find('"', equals + 2);
      if (equals == inside.npos || close == inside.npos) {
        ADD_FAILURE() << "attributes: " << inside;
        break;
      }
      EXPECT_TRUE(element.attributes
                      .emplace(inside.substr(space + 1, equals - space - 1),
                               inside.substr(equals + 2, close - equals - 2))
                      .second)
          << inside;
      space = close + 1;
    }
    elements.push_back(element);
    if (!empty) open.push_back(elements.size() - 1);
  }
  EXPECT_TRUE(open.empty());
  return elements;
}

std::vector<std::string> names_of(const std::vector<std::filesystem::path>& paths) {
  std::vector<std::string> names;
  for (const auto& path : paths) names.push_back(path.filename().string());
  return names;
}

Comparison compare(std::vector<RunRecord> runs) { return compare_runs(std::move(runs), 0, std::nullopt); }

// 100 tokens a step; s from 0.2 upwards.
RunRecord small_run(const std::filesystem::path& path, double shift, bool ssmax = false) {
  std::string rows = event_row("start", R"("step":0)");
  for (int step = 1; step <= 30; ++step) {
    rows += train_row(step, fmt::format("{}", 4 + shift - 0.05 * step));
    if (step % 10 != 0) continue;
    rows += validation_row(step, step * 100, fmt::format("{}", 4.25 + shift - 0.05 * step));
    if (ssmax)
      rows +=
          fmt::format(
              R"({{"kind":"attention","step":{},"layers":[{{"layer":1,"s":[{},0.3],"b":[0,1]}},{{"layer":3,"s":[0.2,0.4]}}]}})",
              step, 0.2 + 0.001 * step) +
          "\n";
  }
  return read_run(make_run(path, kConfig, rows));
}

TEST(WriteFigures, WritesWhatTheRunsHaveDataFor) {
  TemporaryDirectory tmp;
  const RunRecord plain = small_run(tmp / "plain", 0), ssmax = small_run(tmp / "ssmax", -0.1, true);
  EXPECT_EQ(names_of(write_figures(compare({plain}), tmp / "a" / "b").written),
            (std::vector<std::string>{"training-loss.svg", "validation-loss.svg"}));
  EXPECT_EQ(names_of(write_figures(compare({plain, ssmax}), tmp / "c").written),
            (std::vector<std::string>{"training-loss.svg", "validation-loss.svg", "difference.svg",
                                      "learned-s.svg", "learned-b.svg"}));
  const RunRecord nothing = read_run(make_run(tmp / "nothing", kConfig, event_row("start", R"("step":0)")));
  EXPECT_TRUE(write_figures(compare({nothing}), tmp / "d").written.empty());
  const auto learned = elements_of(content_of(tmp / "c" / "learned-s.svg"));
  std::set<std::string> texts;
  for (const Element& element : learned) texts.insert(element.text);
  for (const char* text : {"layer 1", "layer 3", "ssmax", "ssmax, head 0: 0.23", "ssmax, head 1: 0.4"})
    EXPECT_TRUE(texts.contains(text)) << text;
  EXPECT_FALSE(texts.contains("plain")) << "a run without s is not in its legend";
}

// Ticks and markers must agree on where a value lies.
TEST(WriteFigures, PointsLieWhereTheAxesSay) {
  TemporaryDirectory tmp;
  const auto written =
      write_figures(compare({small_run(tmp / "r", 0), small_run(tmp / "q", -0.2)}), tmp / "out").written;
  std::map<double, double> x, y;  // pixels by value
  std::vector<Element> circles;
  for (const Element& element : elements_of(content_of(written.at(1)))) {
    if (element.name == "circle") circles.push_back(element);
    if (element.name != "text" || element.number("font-size") != 12) continue;
    const bool left = element.attributes.at("text-anchor") == "end";
    (left ? y : x)[std::stod(element.text)] = element.number(left ? "y" : "x") - (left ? 0.35 * 12 : 0);
  }
  ASSERT_GE(x.size(), 3u);
  ASSERT_GE(y.size(), 3u);
  const auto value = [](const std::map<double, double>& ticks, double pixel) {
    const auto [v1, p1] = *ticks.begin();
    const auto [v2, p2] = *ticks.rbegin();
    return v1 + (pixel - p1) / (p2 - p1) * (v2 - v1);
  };
  for (const auto& [tick, pixel] : y) EXPECT_NEAR(value(y, pixel), tick, 0.002);
  ASSERT_EQ(circles.size(), 4u);  // the legend's, and three validations
  for (size_t i = 1; i <= 3; ++i) {
    const double tokens = 1000.0 * static_cast<double>(i);
    EXPECT_NEAR(value(x, circles[i].number("cx")), tokens, 3);
    EXPECT_NEAR(value(y, circles[i].number("cy")), 4.25 - 0.0005 * tokens, 0.002);
  }
}

TEST(WriteFigures, AForkStartsOnItsParentsCurve) {
  TemporaryDirectory tmp;
  const RunRecord parent = small_run(tmp / "parent", 0);
  std::filesystem::create_directories(tmp / "parent" / "checkpoints" / "step_00000020");
  std::string rows = event_row("fork", fmt::format(R"("step":0,"parent":"{}","parent_step":20)",
                                                   (tmp / "parent/checkpoints/step_00000020").string()));
  for (int step = 1; step <= 10; ++step) rows += train_row(step, "3");
  rows += event_row("resume", R"("step":5)");
  for (int step = 6; step <= 10; ++step) rows += train_row(step, "3");
  rows += validation_row(10, 1000, "3");
  const RunRecord fork = read_run(make_run(tmp / "fork", kConfig, rows));
  ASSERT_EQ(fork.origin.tokens, 2000);
  const Comparison comparison = compare({parent, fork});
  EXPECT_EQ(parent_of(comparison.runs, 1), 0u);
  EXPECT_EQ(parent_of(comparison.runs, 0), std::nullopt);
  const auto elements = elements_of(content_of(write_figures(comparison, tmp / "out").written.at(1)));
  double ring = 0, second_validation = 0;
  for (size_t i = 0; i + 1 < elements.size(); ++i) {
    if (elements[i].name != "circle") continue;
    if (elements[i + 1].text == "fork: fork of parent at step 20") ring = elements[i].number("cx");
    if (elements[i + 1].text == "parent: 3.2500") second_validation = elements[i].number("cx");
  }
  EXPECT_GT(ring, 0);
  EXPECT_EQ(ring, second_validation) << "the fork leaves its parent where that had 2000 tokens";
  const std::string training = content_of(tmp / "out" / "training-loss.svg");
  EXPECT_NE(training.find("<title>fork, step 5: resumed"), std::string::npos);
  EXPECT_NE(training.find(">resumed</text>"), std::string::npos);
}

TEST(WriteFigures, SeedsAreAMeanWithABand) {
  TemporaryDirectory tmp;
  std::vector<RunRecord> runs = {small_run(tmp / "plain", 0)};
  for (const int seed : {1, 2, 3}) {
    runs.push_back(small_run(tmp / fmt::format("s{}", seed), 0.1 * seed, true));
    runs.back().config["seed"] = seed;
    runs.back().config["model"]["attention"] = "ssmax";
    if (seed == 3) runs.back().config["model"]["heads"] = 1;  // no seed of the two before
  }
  const auto count = [&](const std::string& file, const std::string& text) {
    const std::string svg = content_of(tmp / file);
    size_t found = 0;
    for (size_t at = svg.find(text); at != svg.npos; at = svg.find(text, at + 1)) ++found;
    return found;
  };
  write_figures(compare(runs), tmp / "grouped");
  for (const char* file : {"grouped/training-loss.svg", "grouped/validation-loss.svg"}) {
    EXPECT_EQ(count(file, "fill-opacity"), 1u) << file << ": one band";
    EXPECT_EQ(count(file, ">s* (2 seeds)</text>"), 1u) << file;
    EXPECT_EQ(count(file, ">s1</text>"), 0u) << file;
    EXPECT_EQ(count(file, ">s3</text>"), 1u) << file;
    EXPECT_EQ(count(file, ">band: from the lowest to the highest seed</text>"), 1u) << file;
  }
  // 0.1 and 0.2 above, which ends at 2.75.
  EXPECT_EQ(count("grouped/validation-loss.svg", "<title>s* (2 seeds): 2.9000</title>"), 1u);
  EXPECT_EQ(count("grouped/difference.svg", "<title>s* (2 seeds): 0.1500</title>"), 3u);
  // A layer's heads of both seeds are one band, those of the run alone are lines.
  EXPECT_EQ(count("grouped/learned-s.svg", "fill-opacity"), 2u);
  EXPECT_EQ(count("grouped/learned-s.svg", "<title>s3, head 0"), 2u);
  EXPECT_EQ(count("grouped/learned-s.svg", "<title>s1, head 0"), 0u);
  write_figures(compare_runs(runs, 0, std::nullopt, false), tmp / "each");
  EXPECT_EQ(count("each/training-loss.svg", "fill-opacity"), 0u);
  EXPECT_EQ(count("each/training-loss.svg", ">s1</text>"), 1u);
}

TEST(WriteFigures, SayWhyThereIsNoDifference) {
  TemporaryDirectory tmp;
  RunRecord early = small_run(tmp / "early", 0), late = small_run(tmp / "late", 0);
  for (TrainPoint& point : late.train) point.tokens += 10'000;
  for (Point& point : late.validation) point.tokens += 10'000;
  const Figures figures = write_figures(compare({early, late}), tmp / "out");
  EXPECT_EQ(names_of(figures.written),
            (std::vector<std::string>{"training-loss.svg", "validation-loss.svg"}));
  ASSERT_EQ(figures.left_out.size(), 1u);
  EXPECT_EQ(figures.left_out[0], "difference.svg: left out, since early has no loss where another has one");
  EXPECT_TRUE(write_figures(compare({early, early}), tmp / "both").left_out.empty());
  EXPECT_TRUE(write_figures(compare({early}), tmp / "one").left_out.empty());
}

TEST(WriteFigures, DivergedLossesAreDrawnInFewDigits) {
  TemporaryDirectory tmp;
  RunRecord run = small_run(tmp / "r", 0), other = small_run(tmp / "q", 0);
  for (size_t i = 5; i < run.train.size(); ++i) run.train[i].loss = 1e308;
  for (Point& point : run.validation) point.loss = 1.7e308;
  for (const auto& path : write_figures(compare({run, other}), tmp / "out").written) {
    const std::string svg = content_of(path);
    EXPECT_EQ(svg.find("0000000000"), svg.npos) << path;
    EXPECT_EQ(svg.find("inf"), svg.npos) << path;
    EXPECT_EQ(svg.find("nan"), svg.npos) << path;
    EXPECT_GT(elements_of(svg).size(), 20u);
  }
}

TEST(WriteFigures, NamesCannotBreakThePicture) {
  TemporaryDirectory tmp;
  const std::string name = "a<b>&\"c'\x01\xff ü " + std::string(120, 'w');
  write_figures(compare({small_run(tmp / name, 0), small_run(tmp / "<script>", 0, true)}), tmp / "out");
  for (const char* file : {"training-loss.svg", "validation-loss.svg", "difference.svg", "learned-s.svg"}) {
    const std::string svg = content_of(tmp / "out" / file);
    std::set<std::string> kinds;
    for (const Element& element : elements_of(svg)) kinds.insert(element.name);
    for (const std::string& kind : kinds)
      EXPECT_TRUE(
          (std::set<std::string>{"svg", "title", "rect", "line", "path", "circle", "text"}.contains(kind)))
          << kind;
    EXPECT_EQ(svg.find("href"), svg.npos);
  }
  EXPECT_EQ(xml_escaped("<&>\"\x02\xff\n"), "&lt;&amp;&gt;&quot;\xEF\xBF\xBD\xEF\xBF\xBD\n");
}

// As long and as wide as anybody's: the file stays small, and a single spike stays in it.
TEST(WriteFigures, LongRunsStayBelow200kB) {
  TemporaryDirectory tmp;
  std::vector<RunRecord> runs;
  for (uint64_t r = 0; r < 4; ++r) {
    const Philox random(r);
    RunRecord run;
    run.name = fmt::format("run-{}", r);
    run.path = tmp / run.name;
    for (int64_t step = 1; step <= 60'000; ++step) {
      TrainPoint point;
      point.step = step;
      point.tokens = 1000 * step;
      point.loss = 3 + 8 * std::exp(-static_cast<double>(step) / 900) +
                   0.1 * random.normal(static_cast<uint64_t>(step));
      if (r == 0 && step == 43'210) point.loss = 40;
      run.train.push_back(point);
      if (step % 100 != 0) continue;
      run.validation.push_back(Point{.step = step, .tokens = 1000 * step, .seconds = 0, .loss = point.loss});
      if (step % 400 != 0) continue;
      AttentionRow row{.step = step, .layers = {}};
      for (int64_t layer = 0; layer < 48; ++layer) {
        row.layers.push_back({.layer = layer, .s = {}, .b = {}});
        for (uint64_t head = 0; head < 16; ++head)
          row.layers.back().s.push_back(random.normal(head, static_cast<uint64_t>(step + layer)));
      }
      run.attention.push_back(std::move(row));
    }
    runs.push_back(std::move(run));
  }
  const auto written = write_figures(compare(std::move(runs)), tmp / "out").written;
  ASSERT_EQ(written.size(), 4u);
  for (const auto& path : written) {
    EXPECT_LT(std::filesystem::file_size(path), 200'000u) << path;
    EXPECT_GT(elements_of(content_of(path)).size(), 20u);
  }
  const std::string training = content_of(written[0]);
  EXPECT_NE(training.find("up to 40 above"), training.npos);
}

TEST(Ticks, AreRoundAndInside) {
  EXPECT_EQ(ticks_of(0, 10, 5).values, (std::vector<double>{0, 2, 4, 6, 8, 10}));
  const Ticks fine = ticks_of(-0.013, 0.021, 6);
  EXPECT_EQ(fine.decimals, 3);
  std::string texts;
  for (const double value : fine.values) texts += tick_text(value, fine.decimals) + " ";
  EXPECT_EQ(texts,
            "\xE2\x88\x92"
            "0.010 \xE2\x88\x92"
            "0.005 0.000 0.005 0.010 0.015 0.020 ");
  EXPECT_EQ(ticks_of(3.21, 3.24, 3).values.size(), 4u) << "both edges count";
}

}  // namespace
}  // namespace keen
