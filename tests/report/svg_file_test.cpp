#include "report/svg_file.h"

#include <gtest/gtest.h>

#include "core/check.h"
#include "report/heat_maps.h"
#include "report/svg.h"

namespace keen {
namespace {

const std::string kOpen = "<svg xmlns=\"http://www.w3.org/2000/svg\">";

TEST(SvgFile, ReadsTheTitlesThatKeenWrites) {
  for (const std::string title :
       {"Loss by position, nats a token", "a < b & \"c\" > 'd'", "größer → ∞", ""}) {
    Svg svg(10, 10, title);
    svg.marker(Marker::circle, 1, 1, 4, "#000000", "the hint of a marker is not the title");
    EXPECT_EQ(parse_svg(svg.str(), "x").title, title);
    EXPECT_EQ(parse_svg(svg.str(), "x").bytes, svg.str());
  }
  const HeatMaps maps{.title = "Needles",
                      .row_label = "",
                      .column_label = "",
                      .rows = {"0"},
                      .columns = {"1"},
                      .maps = {{"a", {{1}}}}};
  EXPECT_EQ(parse_svg(heat_map_figure(maps), "x").title, "Needles");
}

TEST(SvgFile, ReadsWhatOthersWrite) {
  const std::string other =
      "\xEF\xBB\xBF<?xml version='1.0' encoding='UTF-8' standalone='no'?>\n"
      "<!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN' 'http://www.w3.org/svg11.dtd' [ <!ENTITY ns '>'> ]>\n"
      "<!-- made by > hand -->\n"
      "<svg\n  version='1.1'\n  xmlns='http://www.w3.org/2000/svg' data-note='a > b'>"
      "<g id='a'><title>of a group</title><path d='M0 0'/></g>\n"
      "<title id='t'>\n  the &#8220;own&#x201d;\n  one <![CDATA[<1>]]> &lt;&unknown; &#xD800; </title >"
      "<title>a second one</title></svg>\n<!-- end -->\n";
  EXPECT_EQ(parse_svg(other, "x").title, "the “own” one <1> <&unknown; \xEF\xBF\xBD");
  EXPECT_EQ(parse_svg("<svg xmlns='http://www.w3.org/2000/svg'/>", "x").title, "");
}

TEST(SvgFile, RefusesWhatIsNone) {
  const std::pair<std::string, std::string> cases[] = {
      {"", "does not begin with <svg"},
      {"\n", "does not begin with <svg"},
      {"{\"model\": {}}", "does not begin with <svg"},
      {"<!doctype html><html></html>", "does not begin with <svg"},
      {"<!-- only a comment -->", "does not begin with <svg"},
      {std::string("\0\0\1<svg", 7), "does not begin with <svg"},
      {"<svg></svg>", "namespace"},
      {kOpen, "ends before </svg>"},
      {kOpen + "<g>", "ends before </g>"},
      {kOpen + "<g", "inside of a tag"},
      {kOpen + "<g id='a></g></svg>", "inside of a tag"},
      {kOpen + "<!-- </svg>", "inside of a tag"},
      {kOpen + "<g></svg></g>", "</svg> closes nothing"},
      {kOpen + "</svg></svg>", "</svg> closes nothing"},
      {kOpen + "</svg>" + kOpen + "</svg>", "follows its end"},
      {kOpen + "</svg><b/>", "follows its end"},
      {kOpen + "</svg>more", "follows its end"},
      {kOpen + "</svg><![CDATA[more]]>", "outside"},
  };
  for (const auto& [bytes, why] : cases) {
    try {
      parse_svg(bytes, "some/file.svg");
      FAIL() << bytes;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit, Exit::data);
      EXPECT_TRUE(std::string(error.what()).starts_with("some/file.svg: no SVG file: ")) << error.what();
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what() << " of " << bytes;
    }
  }
}

}  // namespace
}  // namespace keen
