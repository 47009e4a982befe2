#include "eval/utf8_pieces.h"

#include <gtest/gtest.h>

namespace keen {
namespace {

TEST(Utf8Pieces, ACharacterWaitsForItsLastByte) {
  const std::string text = "aé€😀z";
  Utf8Pieces pieces;
  std::string shown;
  for (const char byte : text) {
    const std::string piece = pieces.add({&byte, 1});
    shown += piece;
    // Everything shown so far is a prefix that ends with a character.
    EXPECT_EQ(text.substr(0, shown.size()), shown);
    EXPECT_TRUE(shown.size() == text.size() ||
                (static_cast<unsigned char>(text[shown.size()]) & 0xc0) != 0x80);
  }
  EXPECT_EQ(shown, text);
  EXPECT_EQ(pieces.finish(), "");
}

TEST(Utf8Pieces, BytesOfNoCharacterAreReplacedAtOnce) {
  Utf8Pieces pieces;
  EXPECT_EQ(pieces.add("a\x80z"), "a\xef\xbf\xbdz");
  EXPECT_EQ(pieces.add("\xff"), "\xef\xbf\xbd");
  EXPECT_EQ(pieces.add("\xc3"), "");
  EXPECT_EQ(pieces.add("\xc3"), "\xef\xbf\xbd") << "the first of them can be completed no more";
  EXPECT_EQ(pieces.add("\xa9"), "é");
  // Surrogates and overlong forms are none, and show it at their second byte.
  EXPECT_EQ(pieces.add("\xed"), "");
  EXPECT_EQ(pieces.add("\xa0"), "\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(pieces.add("\xe0"), "");
  EXPECT_EQ(pieces.add("\x80"), "\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(pieces.add("\xf4\x90"), "\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(pieces.add("\xf0\x9f\x98"), "");
  EXPECT_EQ(pieces.finish(), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(pieces.finish(), "");
}

}  // namespace
}  // namespace keen
