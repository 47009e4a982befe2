#include "io/fields.h"

#include <gtest/gtest.h>

#include <array>

namespace keen {
namespace {

enum class Color : uint8_t { red, green };
constexpr std::array<std::string_view, 2> kColorNames = {"red", "green"};

struct Inner {
  double rate = 0.5;
  int64_t count = 3, twice = 6;
  void fields(Fields& f) {
    f.number("rate", rate, {.low = 0, .high = 1, .low_open = true}, "how fast");
    f.integer("count", count, between<int64_t>(1, 100), "how many").fix().also_called({"number", "num"});
    f.integer("twice", twice, at_least<int64_t>(1), "two for each").when_absent("2 count", [this] {
      twice = 2 * count;
    });
    f.check([this, &f] {
      f.demand(twice >= count, {"twice", "count"},
               fmt::format("twice ({}) should be at least count ({})", twice, count));
    });
  }
};

struct Outer {
  bool on = false;
  std::string path = "x";
  std::optional<std::string> other;
  std::optional<int64_t> limit;
  std::vector<int64_t> list;
  Color color = Color::red;
  Inner inner;
  void fields(Fields& f) {
    f.flag("on", on, "a switch");
    f.text("path", path, "a path", "where").require();
    f.text("other", other, "a path", "where else");
    f.integer("limit", limit, at_least<int64_t>(0), "an end").also_called({"number"});
    f.integers("list", list, at_least<int64_t>(0), "some");
    f.choice("color", color, kColorNames, "of it");
    f.section("inner", inner);
  }
};

// Reads the text and the flags; "" or the error.
std::string read(Outer& out, const std::string& text, const std::vector<std::string>& sets = {}) {
  Fields fields;
  out.fields(fields);
  try {
    fields.read(parse_json(text, "f.json", Exit::usage), "f.json");
    for (const std::string& assignment : sets) fields.set(assignment);
    fields.finish();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit, Exit::usage);
    return error.what();
  }
  return "";
}
std::string error_of(const std::string& text, const std::vector<std::string>& sets = {}) {
  Outer out;
  return read(out, text, sets);
}

TEST(Fields, ReadsEveryType) {
  Outer out;
  EXPECT_EQ(read(out, R"({"on": true, "path": "p", "other": "o", "limit": 7, "list": [1, 2], "color": "green",
                          "inner": {"rate": 1, "count": 5}})"),
            "");
  EXPECT_TRUE(out.on);
  EXPECT_EQ(out.path, "p");
  EXPECT_EQ(out.other, "o");
  EXPECT_EQ(out.limit, 7);
  EXPECT_EQ(out.list, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(out.color, Color::green);
  EXPECT_EQ(out.inner.rate, 1.0);
  EXPECT_EQ(out.inner.twice, 10);
}

TEST(Fields, NullEmptiesWhatIsOptionalOrDerived) {
  Outer out;
  EXPECT_EQ(read(out, R"({"path": "p", "other": "o", "limit": 7, "inner": {"twice": 50}})",
                 {"other=null", "limit=null", "inner.twice=null", "inner.count=4"}),
            "");
  EXPECT_FALSE(out.other || out.limit);
  EXPECT_EQ(out.inner.twice, 8);
}

TEST(Fields, RefusesEveryWrongValueByFileKeyValueAndWhatIsValid) {
  const std::string p = R"({"path": "p", )";
  EXPECT_EQ(error_of(p + R"("on": 1})"), "f.json: on = 1: should be true or false");
  EXPECT_EQ(error_of(p + R"("color": "gren"})"),
            "f.json: color = \"gren\": should be one of red, green; the nearest is green");
  EXPECT_EQ(error_of(p + R"("limit": -1})"), "f.json: limit = -1: should be an integer, at least 0, or null");
  EXPECT_EQ(error_of(p + R"("inner": {"count": 101}})"),
            "f.json: inner.count = 101: should be an integer from 1 to 100");
  EXPECT_EQ(error_of(p + R"("inner": {"count": "4"}})"),
            "f.json: inner.count = \"4\": should be an integer from 1 to 100");
  EXPECT_EQ(error_of(p + R"("inner": {"count": 3.0}})"),
            "f.json: inner.count = 3.0: should be an integer from 1 to 100; write it without a point or "
            "exponent, as 3");
  EXPECT_EQ(error_of(p + R"("inner": {"count": 18446744073709551615}})"),
            "f.json: inner.count = 18446744073709551615: should be an integer from 1 to 100");
  EXPECT_EQ(error_of(p + R"("inner": {"rate": 0}})"),
            "f.json: inner.rate = 0: should be a number above 0, at most 1");
  EXPECT_EQ(error_of(p + R"("inner": {"rate": null}})"),
            "f.json: inner.rate = null: should be a number above 0, at most 1");
  EXPECT_EQ(error_of(p + R"("inner": 4})"), "f.json: inner = 4: should be an object, {\"key\": value, ...}");
  EXPECT_EQ(error_of(p + R"("list": [1, -2]})"),
            "f.json: list = [1, -2]: should be a list, each element an integer, at least 0; -2 is not");
  EXPECT_EQ(error_of(R"({"path": ""})"), "f.json: path = \"\": should be a path; it is empty");
  EXPECT_EQ(error_of(R"({"path": "a\nb"})"),
            "f.json: path = \"a\\nb\": should be a path; it holds a control character");
  EXPECT_EQ(error_of("{}"), "f.json: path: missing; should be a path");
  EXPECT_TRUE(error_of("[1]").starts_with("f.json: [1]: should be an object"));
}

TEST(Fields, ListsAllProblemsAtOnce) {
  EXPECT_EQ(error_of(R"({"on": 1, "colour": 2, "inner": {"count": 0, "rat": 1}})", {"limit=x"}),
            "f.json: on = 1: should be true or false\n"
            "f.json: colour = 2: unknown key; the nearest known key is color\n"
            "f.json: inner.count = 0: should be an integer from 1 to 100\n"
            "f.json: inner.rat = 1: unknown key; the nearest known key is inner.rate\n"
            "--set limit=x: should be an integer, at least 0, or null\n"
            "f.json: path: missing; should be a path");
}

TEST(Fields, FindsTheNearestKeyAlsoAtAnotherLevel) {
  const auto one = [](const std::string& item) { return error_of(R"({"path": "p", )" + item + "}"); };
  EXPECT_EQ(one(R"("rate": 1)"), "f.json: rate = 1: unknown key here; did you mean inner.rate?");
  EXPECT_EQ(one(R"("inner": {"color": "red"})"),
            "f.json: inner.color = \"red\": unknown key here; did you mean color?");
  EXPECT_EQ(one(R"("iner": {"rate": 1})"),
            "f.json: iner = {\"rate\": 1}: unknown key; the nearest known key is inner");
  EXPECT_EQ(one(R"("inner.rate": 1)").substr(0, 37), "f.json: inner.rate = 1: unknown key; ");
  EXPECT_EQ(one(R"("iner.rat": 1)"),
            "f.json: iner.rat = 1: unknown key; the nearest known key is inner.rate");
  for (const std::string far : {"a.b", "b", "model.foobar", "temperature"})
    EXPECT_EQ(one(fmt::format("\"{}\": 1", far)),
              fmt::format("f.json: {} = 1: unknown key; keen train --help-config lists all keys", far));
  EXPECT_LT(one("\"" + std::string(100'000, 'k') + "\": 1").size(), 1000u);
}

TEST(Fields, KnowsWhatOthersCallAKey) {
  const auto one = [](const std::string& item) { return error_of(R"({"path": "p", )" + item + "}"); };
  EXPECT_EQ(one(R"("num": 1)"), "f.json: num = 1: unknown key; did you mean inner.count?");
  EXPECT_EQ(one(R"("inner": {"num": 1})"), "f.json: inner.num = 1: unknown key; did you mean inner.count?");
  EXPECT_EQ(one(R"("any": {"num": 1})").find("inner.count"), std::string::npos) << "any is what is unknown";
  EXPECT_EQ(one(R"("number": 1)"), "f.json: number = 1: unknown key; did you mean limit or inner.count?");
  EXPECT_EQ(error_of(R"({"path": "p"})", {"train.num=4"}),
            "--set train.num=4: unknown key; did you mean inner.count?");
}

TEST(Fields, SetTakesJsonOrText) {
  Outer out;
  EXPECT_EQ(read(out, R"({"path": "p"})",
                 {"on=true", "path=runs/a=b", "list=[3]", "color=green", "color=\"red\"",
                  "inner={\"count\": 9}", "inner.rate=1e-3"}),
            "");
  EXPECT_EQ(out.path, "runs/a=b");
  EXPECT_EQ(out.list, std::vector<int64_t>{3});
  EXPECT_EQ(out.color, Color::red);  // the last one counts
  EXPECT_EQ(out.inner.count, 9);
  EXPECT_EQ(out.inner.rate, 1e-3);
}

TEST(Fields, ErrorsOfSetNameTheFlag) {
  const std::string p = R"({"path": "p"})";
  EXPECT_EQ(error_of(p, {"inner.cont=4"}),
            "--set inner.cont=4: unknown key; the nearest known key is inner.count");
  EXPECT_EQ(error_of(p, {"inner.count=four"}), "--set inner.count=four: should be an integer from 1 to 100");
  EXPECT_EQ(error_of(p, {"inner={\"count\":0}"}),
            "--set inner={\"count\":0}: inner.count = 0: should be an integer from 1 to 100");
  EXPECT_TRUE(error_of(p, {"on"}).starts_with("--set on: should be KEY=VALUE"));
  EXPECT_TRUE(error_of(p, {"=1"}).starts_with("--set =1: should be KEY=VALUE"));
  EXPECT_TRUE(error_of(p, {"inner=3"}).starts_with("--set inner=3: is a group of keys"));
  EXPECT_EQ(error_of(p, {"path=\xff"}), "--set path=\xff: should be a path; it is not UTF-8");
  // A check across keys names the flag where one of them came from it.
  EXPECT_EQ(error_of(R"({"path": "p", "inner": {"twice": 4}})", {"inner.count=5"}),
            "--set inner.count=5: twice (4) should be at least count (5)");
  EXPECT_EQ(error_of(R"({"path": "p", "inner": {"twice": 4, "count": 5}})"),
            "f.json: inner.twice = 4: twice (4) should be at least count (5)");
  // It says nothing about a key that has a problem of its own.
  EXPECT_EQ(error_of(R"({"path": "p", "inner": {"twice": 2, "count": "5"}})"),
            "f.json: inner.count = \"5\": should be an integer from 1 to 100");
}

TEST(Fields, WritesInOrderAndReadsBack) {
  Outer out;
  out.limit = 4;
  Fields fields;
  out.fields(fields);
  EXPECT_EQ(json_line(fields.write()),
            R"({"on": false, "path": "x", "other": null, "limit": 4, "list": [], "color": "red", )"
            R"("inner": {"rate": 0.5, "count": 3, "twice": 6}})");
  Outer back;
  EXPECT_EQ(read(back, json_line(fields.write())), "");
  EXPECT_EQ(back.limit, 4);
}

TEST(Fields, DifferencesCarryBothValues) {
  Outer a, b;
  b.inner.count = 4;
  b.color = Color::green;
  Fields x, y;
  a.fields(x);
  b.fields(y);
  const auto found = differences(x, y);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].key + found[0].left + found[0].right, "color\"red\"\"green\"");
  EXPECT_FALSE(found[0].fixed);
  EXPECT_EQ(found[1].key + found[1].left + found[1].right, "inner.count34");
  EXPECT_TRUE(found[1].fixed);
}

TEST(Fields, HelpNamesDefaultRangeAndMeaning) {
  Outer out;
  Fields fields;
  out.fields(fields);
  const std::string help = fields.help();
  EXPECT_NE(help.find("inner.rate = 0.5\n    how fast (a number above 0, at most 1)\n"), std::string::npos)
      << help;
  EXPECT_NE(help.find("inner.twice = 2 count\n"), std::string::npos) << help;
  EXPECT_NE(help.find("path = (required)\n"), std::string::npos) << help;
}

}  // namespace
}  // namespace keen
