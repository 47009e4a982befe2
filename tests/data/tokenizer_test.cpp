#include "data/tokenizer.h"

#include <cstdio>
#include <sstream>

#include "core/philox.h"
#include "data_test.h"

namespace keen {
namespace {

using namespace testing;

class TokenizerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = std::make_unique<TemporaryDirectory>();
    model_ = train_english(*directory_);
  }
  static void TearDownTestSuite() { directory_.reset(); }
  static inline std::unique_ptr<TemporaryDirectory> directory_;
  static inline std::filesystem::path model_;
};

// Strings that tokenizers are known to stumble over.
std::vector<std::string> nasty_strings() {
  using namespace std::string_literals;
  return {"",
          " ",
          "  ",
          "\n",
          "\n\n\n",
          "\t",
          "\r\n",
          "a",
          " a",
          "a ",
          "a  b",
          "   a   ",
          "the cat\tsat",
          "the cat\r\nsat\r\n",
          "the\0cat"s,
          "\0"s,
          "\x01\x02\x7f",
          "😀",
          "the 😀cat",
          "naïve café",
          "日本語 テキスト",
          "e\xcc\x81",
          "\xef\xbb\xbfthe",
          "\xef\xbf\xbd",
          "▁",
          "the▁cat",
          " ▁ ",
          "▁▁",
          "<s></s><unk><|endoftext|><0x0A>",
          "\xff\xfe",
          "the \x80 cat",
          "\xc3",
          "\xe2\x96",
          "\xe2\x96\x81\xe2\x96",
          "\xed\xa0\x80",
          "\xf4\x90\x80\x80",
          "\xc0\x80",
          "\xf0\x9f\x98",
          "1234567890",
          std::string(5000, ' '),
          std::string(3000, 'a') + "\n" + std::string(100, '\n'),
          "line one\nline two\n\n  indented"};
}

TEST_F(TokenizerTest, DecodingGivesBackAnyBytes) {
  const Tokenizer tokenizer(model_);
  EXPECT_TRUE(tokenizer.lossless());
  EXPECT_EQ(tokenizer.vocab_size(), 320);
  EXPECT_EQ(tokenizer.end_of_text(), 1);
  Encoder encoder(tokenizer);
  const auto round_trip = [&](const std::string& text) {
    const std::vector<int32_t> ids = tokenizer.encode(text);
    EXPECT_EQ(tokenizer.decode(ids), text) << ::testing::PrintToString(text);
    for (const int32_t id : ids) EXPECT_GE(id, 2) << "neither <unk> nor end-of-text comes from text";
    // Twice: with and without remembered words.
    for (int pass = 0; pass < 2; ++pass) {
      std::vector<int32_t> again;
      encoder.encode(text, again);
      EXPECT_EQ(again, ids) << ::testing::PrintToString(text);
    }
  };
  for (const std::string& text : nasty_strings()) round_trip(text);
  round_trip(english());
  // Random bytes, and random mixtures of letters, spaces and fragments of characters.
  const Philox random(7);
  for (uint64_t trial = 0; trial < 300; ++trial) {
    std::string bytes, mixture;
    constexpr std::string_view kAlphabet = "aehtn  \t\n\r.\xe2\x96\x81\xc3\xa9\xf0";
    for (uint64_t i = 0; i < 40; ++i) {
      const auto number = random.bits(i, trial);
      bytes += static_cast<char>(number[0] & 0xff);
      mixture += kAlphabet[number[1] % kAlphabet.size()];
    }
    round_trip(bytes);
    round_trip(mixture);
  }
}

TEST_F(TokenizerTest, PartsDecodeToParts) {
  const Tokenizer tokenizer(model_);
  const std::string text = " the cat 😀\n mat";
  std::string joined;
  for (const int32_t id : tokenizer.encode(text)) joined += tokenizer.decode(std::vector<int32_t>{id});
  EXPECT_EQ(joined, text);
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{1}), "");
  expect_error(Exit::data, {"320"}, [&] { tokenizer.decode(std::vector<int32_t>{320}); });
  expect_error(Exit::data, {"-1"}, [&] { tokenizer.decode(std::vector<int32_t>{-1}); });
}

TEST_F(TokenizerTest, LinesHaveTheTokensOfSpmEncode) {
  if (std::system("command -v spm_encode >/dev/null 2>&1") != 0)
    GTEST_SKIP() << "spm_encode is not installed";
  const std::vector<std::string> lines = {
      "the cat sat on  a mat", " leading",  "trailing  ",        "\ttab\tand more",      "42 cattle",
      "naïve 😀 日本",          "the cat\r", "<s> <|endoftext|>", "thenceforth mattering"};
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  put(*directory_ / "lines.txt", text + english());
  const std::string command = "spm_encode --model='" + model_.string() + "' --output_format=id '" +
                              (*directory_ / "lines.txt").string() + "' > '" +
                              (*directory_ / "ids.txt").string() + "'";
  ASSERT_EQ(std::system(command.c_str()), 0);
  const Tokenizer tokenizer(model_);
  Encoder encoder(tokenizer);
  std::istringstream all(text + english()), ids_of_lines(content_of(*directory_ / "ids.txt"));
  std::string line, ids_of_line;
  int compared = 0;
  while (std::getline(all, line)) {
    ASSERT_TRUE(std::getline(ids_of_lines, ids_of_line));
    std::istringstream numbers(ids_of_line);
    const std::vector<int32_t> expected{std::istream_iterator<int32_t>(numbers), {}};
    std::vector<int32_t> ids;
    encoder.encode(line, ids);
    EXPECT_EQ(ids, expected) << line;
    EXPECT_EQ(tokenizer.encode(line), expected) << line;
    ++compared;
  }
  EXPECT_GT(compared, 400);
}

TEST_F(TokenizerTest, NewlineIsItsBytePiece) {
  const Tokenizer tokenizer(model_);
  std::vector<int32_t> expected = tokenizer.encode("the cat");
  expected.push_back(2 + '\n');  // after <unk> and end-of-text come the bytes
  for (const int32_t id : tokenizer.encode(" sat")) expected.push_back(id);
  EXPECT_EQ(tokenizer.encode("the cat\n sat"), expected);
}

TEST_F(TokenizerTest, RefusesWhatIsNoModel) {
  const auto refused = [&](const std::string& content) {
    put(*directory_ / "bad.model", content);
    expect_error(Exit::data, {"bad.model"}, [&] { Tokenizer tokenizer(*directory_ / "bad.model"); });
  };
  refused("");
  refused("no model at all");
  const std::string good = content_of(model_);
  refused(std::string(1000, '\0'));
  refused(good.substr(0, 100));
  refused(good.substr(0, good.size() / 2));
  expect_error(Exit::data, {"absent.model"}, [&] { Tokenizer tokenizer(*directory_ / "absent.model"); });
  expect_error(Exit::data, {"directory"}, [&] { Tokenizer tokenizer(directory_->path()); });
}

TEST_F(TokenizerTest, SaysWhenAModelChangesTextOrLacksBytes) {
  if (std::system("command -v spm_train >/dev/null 2>&1") != 0) GTEST_SKIP() << "spm_train is not installed";
  const auto train = [&](const std::string& name, const std::string& options) {
    const std::string command = "spm_train --minloglevel=2 --model_type=bpe --vocab_size=320 --input='" +
                                (*directory_ / "english.txt").string() + "' --model_prefix='" +
                                (*directory_ / name).string() + "' " + options + " 2>/dev/null";
    EXPECT_EQ(std::system(command.c_str()), 0);
    return *directory_ / (name + ".model");
  };
  const Tokenizer normalizing(train("nfkc", "--byte_fallback=true"));
  EXPECT_FALSE(normalizing.lossless());
  // Even so, words are encoded as SentencePiece does, dummy prefix included.
  std::vector<int32_t> ids;
  Encoder(normalizing).encode("the  cat", ids);
  EXPECT_EQ(ids, normalizing.encode("the  cat"));
  EXPECT_EQ(normalizing.decode(ids), " the cat");
  // Merges over spaces: nothing may be remembered word by word.
  const Tokenizer crossing(
      train("crossing",
            "--byte_fallback=true --split_by_whitespace=false --normalization_rule_name=identity "
            "--add_dummy_prefix=false --remove_extra_whitespaces=false"));
  ids.clear();
  Encoder(crossing).encode(english(), ids);
  EXPECT_EQ(ids, crossing.encode(english()));
  EXPECT_EQ(crossing.decode(ids), english());
  const auto without_bytes = train("nobytes", "--hard_vocab_limit=false");
  expect_error(Exit::data, {"nobytes.model", "byte"}, [&] { Tokenizer tokenizer(without_bytes); });
  const auto without_end = train("noend", "--byte_fallback=true --eos_id=-1");
  expect_error(Exit::data, {"noend.model", "end-of-text"}, [&] { Tokenizer tokenizer(without_end); });
}

TEST_F(TokenizerTest, TheSameTextGivesTheSameVocabulary) {
  TemporaryDirectory other;
  EXPECT_EQ(content_of(train_english(other)), content_of(model_));
  EXPECT_NE(content_of(train_english(other, 319)), content_of(model_));
}

TEST_F(TokenizerTest, RefusesImpossibleVocabularySizes) {
  TemporaryDirectory directory;
  expect_error(Exit::usage, {"--size 258", "256 bytes"}, [&] { train_english(directory, 258); });
  expect_error(Exit::usage, {"--size 260", "too small"}, [&] { train_english(directory, 260); });
  expect_error(Exit::usage, {"--size 30000", "lower the size"}, [&] { train_english(directory, 30000); });
  VocabularyOptions options;
  options.size = 300;
  options.model = directory / "m.model";
  options.inputs = {(directory / "absent.txt").string()};
  expect_error(Exit::data, {"absent.txt"}, [&] { train_vocabulary(options); });
  put(directory / "empty.txt", "\n\n");
  options.inputs = {(directory / "empty.txt").string()};
  expect_error(Exit::data, {"no text"}, [&] { train_vocabulary(options); });
}

TEST_F(TokenizerTest, TrainsOnASampleOfALargeCorpus) {
  TemporaryDirectory directory;
  put(directory / "large.txt", english() + english() + english());
  VocabularyOptions options;
  options.inputs = {(directory / "large.txt").string()};
  options.model = directory / "sample.model";
  options.size = 300;
  options.sample_bytes = 4000;
  train_vocabulary(options);
  EXPECT_EQ(Tokenizer(options.model).vocab_size(), 300);
}

}  // namespace
}  // namespace keen
