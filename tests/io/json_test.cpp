#include "io/json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace keen {
namespace {

std::string error_of(std::string_view text) {
  try {
    parse_json(text, "file.json", Exit::usage);
  } catch (const Error& error) {
    EXPECT_EQ(error.exit, Exit::usage);
    return error.what();
  }
  return "";
}

TEST(Json, KeepsTheOrderOfKeysAndSkipsComments) {
  const Json value =
      parse_json("// first\n{\"b\": 1, // one\n \"a\": [true, null, \"x // y\", 2.5]}\n", "f", Exit::usage);
  EXPECT_EQ(json_line(value), R"({"b": 1, "a": [true, null, "x // y", 2.5]})");
}

TEST(Json, NamesFileLineAndColumn) {
  EXPECT_TRUE(error_of("{\n  \"a\": tru\n}").starts_with("file.json:2:11: "))
      << error_of("{\n  \"a\": tru\n}");
  EXPECT_TRUE(error_of("").starts_with("file.json:1:1: ")) << error_of("");
  EXPECT_TRUE(error_of("{\"a\": 1,}").starts_with("file.json:1:9: ")) << error_of("{\"a\": 1,}");
  EXPECT_TRUE(error_of("{} x").starts_with("file.json:1:4: ")) << error_of("{} x");
}

TEST(Json, RefusesAKeyThatAppearsTwice) {
  const std::string error = error_of("{\"a\": 1,\n \"b\": {\"a\": 2},\n \"a\": 3}");
  EXPECT_EQ(error, "file.json:3:4: the key \"a\" appears twice");
}

TEST(Json, BoundsTheDepth) {
  const std::string deepest = std::string(kMaxJsonDepth, '[') + std::string(kMaxJsonDepth, ']');
  EXPECT_EQ(error_of(deepest), "");
  EXPECT_NE(error_of('[' + deepest + ']').find("nested deeper than 64 levels"), std::string::npos);
  EXPECT_NE(error_of(std::string(1'000'000, '[')).find("nested deeper"), std::string::npos);
}

TEST(Json, RefusesWhatIsNoJson) {
  EXPECT_NE(error_of("{\"a\": 1e999}"), "");
  EXPECT_NE(error_of("{\"a\": NaN}"), "");
  EXPECT_NE(error_of("{'a': 1}"), "");
  EXPECT_NE(error_of("{\"a\": \"\xff\"}"), "");
  EXPECT_NE(error_of(std::string_view("{\"a\": \0}", 8)), "");
  EXPECT_LT(error_of("[\"" + std::string(100'000, 'x')).size(), 1000u);
}

TEST(Json, NumbersKeepTheirKindAndValue) {
  const Json value = parse_json("[9223372036854775807, -1, 1.0, 6e-4]", "f", Exit::usage);
  EXPECT_TRUE(value[0].is_number_integer());
  EXPECT_EQ(value[0].get<int64_t>(), INT64_MAX);
  EXPECT_TRUE(value[2].is_number_float());
  EXPECT_EQ(json_line(value), "[9223372036854775807, -1, 1.0, 0.0006]");
}

TEST(Json, CountsAreNotConverted) {
  const Json value = parse_json(
      R"({"zero": 0, "most": 9007199254740992, "more": 9007199254740993, "huge": 18446744073709551615,
          "less": -1, "real": 1e300, "whole": 2.0, "yes": true, "word": "2", "none": null})",
      "f", Exit::usage);
  EXPECT_EQ(integer_in(value, "zero", "f", Exit::data), 0);
  EXPECT_EQ(integer_in(value, "most", "f", Exit::data), kMostCount);
  EXPECT_EQ(integer_in(value, "more", "f", Exit::data, 0, INT64_MAX), kMostCount + 1);
  EXPECT_EQ(integer_in(value, "less", "f", Exit::data, -1), -1);
  for (const char* key : {"more", "huge", "less", "real", "whole", "yes", "word", "none", "absent"}) try {
      integer_in(value, key, "f", Exit::data);
      ADD_FAILURE() << key;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit, Exit::data);
      EXPECT_NE(std::string(error.what()).find(fmt::format("f: \"{}\" is ", key)), std::string::npos)
          << error.what();
    }
  EXPECT_THROW(integer_in(Json::array({1}), "zero", "f", Exit::data), Error);
}

TEST(Json, LineNeverFails) { EXPECT_EQ(json_line(Json("a\xff")), "\"a\xEF\xBF\xBD\""); }

TEST(Json, PagesBreakOnlyWhatIsLong) {
  const Json value =
      parse_json(R"({"a": {"b": 1, "c": [1, 2]}, "d": [], "e": ["a long text", "another long text"]})", "f",
                 Exit::usage);
  EXPECT_EQ(json_pages(value, 30),
            "{\n  \"a\": {\"b\": 1, \"c\": [1, 2]},\n  \"d\": [],\n  \"e\": [\n    \"a long text\",\n    "
            "\"another long "
            "text\"\n  ]\n}");
  EXPECT_EQ(parse_json(json_pages(value, 10), "f", Exit::usage), value);
}

}  // namespace
}  // namespace keen
