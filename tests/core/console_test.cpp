#include "core/console.h"

#include <gtest/gtest.h>

#include <limits>

namespace keen {
namespace {

TEST(Console, CountsHaveThreeDigits) {
  EXPECT_EQ(short_count(0), "0");
  EXPECT_EQ(short_count(950), "950");
  EXPECT_EQ(short_count(1500), "1.5k");
  EXPECT_EQ(short_count(999499), "999k");
  EXPECT_EQ(short_count(999600), "1M");
  EXPECT_EQ(short_count(162148608), "162M");
  EXPECT_EQ(short_count(2.1e9), "2.1B");
  EXPECT_EQ(short_count(5e15), "5000T");
  EXPECT_EQ(short_count(-1500), "-1.5k");
  EXPECT_EQ(short_count(std::numeric_limits<double>::quiet_NaN()), "-");
}

TEST(Console, CommasFallEveryThreeDigits) {
  EXPECT_EQ(with_commas(0), "0");
  EXPECT_EQ(with_commas(999), "999");
  EXPECT_EQ(with_commas(1000), "1,000");
  EXPECT_EQ(with_commas(-1234567), "-1,234,567");
  EXPECT_EQ(with_commas(-100), "-100");
}

TEST(Console, OneIsSingular) {
  EXPECT_EQ(counted(1, "token"), "1 token");
  EXPECT_EQ(counted(0, "token"), "0 tokens");
  EXPECT_EQ(counted(2048, "token"), "2,048 tokens");
}

TEST(Console, TerminalsGetNoControlCharacters) {
  const std::string box = "\xef\xbf\xbd";
  const std::string plain = "a line\n\tcaf\u00e9 \u00a0\u20ac \U0001F40B";
  EXPECT_EQ(without_controls(plain), plain);
  EXPECT_EQ(without_controls("\033[2J\r\a\x7f!"), box + "[2J" + box + box + box + "!");
  EXPECT_EQ(without_controls("\u0080x\u009b2J\u009f"), box + "x" + box + "2J" + box);
  EXPECT_EQ(without_controls("\x9b"
                             "2J\xc3\xa9\x9b"),
            box + "2J\u00e9" + box)
      << "as a terminal of 8 bits reads it";
  EXPECT_EQ(without_controls("\xc2"), "\xc2");
}

TEST(Console, BytesUseBinaryUnits) {
  EXPECT_EQ(short_bytes(1), "1 byte");
  EXPECT_EQ(short_bytes(512), "512 bytes");
  EXPECT_EQ(short_bytes(1536), "1.5 KiB");
  EXPECT_EQ(short_bytes(int64_t{5} << 40), "5 TiB");
}

TEST(Console, DurationsHaveTwoUnits) {
  EXPECT_EQ(duration(0.3), "0.3 s");
  EXPECT_EQ(duration(42), "42 s");
  EXPECT_EQ(duration(59.6), "1 min 00 s");
  EXPECT_EQ(duration(185), "3 min 05 s");
  EXPECT_EQ(duration(3599.7), "1 h 00 min");
  EXPECT_EQ(duration(8040), "2 h 14 min");
  EXPECT_EQ(duration(3 * 86400 + 4 * 3600), "3 d 04 h");
  EXPECT_EQ(duration(-1), "-");
  EXPECT_EQ(duration(std::numeric_limits<double>::infinity()), "-");
}

TEST(Console, ShortDurationsHaveFiveCharacters) {
  EXPECT_EQ(short_duration(0.3), "0.3s");
  EXPECT_EQ(short_duration(59.6), "1m00s");
  EXPECT_EQ(short_duration(185), "3m05s");
  EXPECT_EQ(short_duration(2521), "42m");
  EXPECT_EQ(short_duration(63000), "17.5h");
  EXPECT_EQ(short_duration(8040), "2h14m");
  EXPECT_EQ(short_duration(3 * 86400 + 4 * 3600), "3d04h");
  EXPECT_EQ(short_duration(92 * 86400), "92d");
  EXPECT_EQ(short_duration(1e12), ">27y");
  EXPECT_EQ(short_duration(-1), "-");
  for (double seconds = 0.01; seconds < 1e12; seconds *= 1.07)
    EXPECT_LE(short_duration(seconds).size(), 5u) << seconds;
}

TEST(Console, FactsAreAlignedAndBrokenWhereTheyReadBest) {
  Facts facts;
  facts.add("a", "short");
  facts.add("memory",
            "10 GiB: weights 1 GiB, gradients 1 GiB, moments 2 GiB, activations 5 GiB, scratch 1 GiB");
  facts.add("long", std::string(100, 'x') + " y");
  EXPECT_EQ(facts.str(1),
            " a       short\n"
            " memory  10 GiB: weights 1 GiB, gradients 1 GiB, moments 2 GiB,\n"
            "         activations 5 GiB, scratch 1 GiB\n"
            " long    " +
                std::string(100, 'x') + " y\n");
  Facts early;
  early.add("", "a, " + std::string(60, 'b') + " " + std::string(20, 'c'));
  EXPECT_EQ(early.str(), "  a, " + std::string(60, 'b') + "\n  " + std::string(20, 'c') + "\n")
      << "a line is not broken after its first word";
}

TEST(Console, WidthCountsWhatIsSeen) {
  EXPECT_EQ(display_width("naïve"), 5u);
  EXPECT_EQ(display_width(styled("red", Style::red, true)), 3u);
  EXPECT_EQ(styled("red", Style::red, false), "red");
  EXPECT_EQ(shortened("a long name", 6), "a lon…");
  EXPECT_EQ(shortened("ééééé", 3), "éé…");
  EXPECT_EQ(shortened("short", 5), "short");
}

TEST(Console, TablesAlignNumbersToTheRight) {
  Table table({"run", "steps", "kind"});
  table.left_aligned(2);
  table.add({"softmax", "5", "a"});
  table.add({"é", "1,000", "long"});
  EXPECT_EQ(table.str(1),
            " run      steps  kind\n"
            " softmax      5  a\n"
            " é        1,000  long\n");
}

TEST(Console, CellsKeepOurStylesAndNoOtherCommands) {
  Table table;
  table.add({"a\033[2Jb\u009b1mc\r", styled("damaged", Style::red, true)});
  EXPECT_EQ(table.str(), "a\uFFFD[2Jb\uFFFD1mc\uFFFD  \033[1;31mdamaged\033[0m\n");
}

TEST(Console, ShortRowsOfATableAreComplete) {
  Table table;
  table.add({"a"});
  table.add({"b", "1"});
  EXPECT_EQ(table.str(), "a\nb  1\n");
}

}  // namespace
}  // namespace keen
