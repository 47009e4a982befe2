#include "data/needle.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "data/needle_data.h"
#include "data_test.h"

namespace keen {
namespace {

using namespace testing;

// A dataset of text, and the tokenizer that made it.
struct TextData {
  TemporaryDirectory directory{Medium::memory};
  std::filesystem::path root = directory / "text";
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<Dataset> data;

  explicit TextData(int64_t pieces = 320) {
    EncodeOptions options;
    options.model = train_english(directory, pieces);
    options.inputs = {(directory / "english.txt").string()};
    options.corpus.documents = CorpusOptions::Documents::blank_line;
    options.directory = root;
    options.validation = 0.3;
    encode_corpus(options);
    tokenizer = std::make_unique<Tokenizer>(options.model);
    data = std::make_unique<Dataset>((root / "val_*.bin").string(), tokenizer->vocab_size());
  }
  NeedleMaker maker(uint64_t seed = 0) const { return {*data, *tokenizer, seed, "needle"}; }
  std::string text(std::span<const int32_t> ids) const { return tokenizer->decode(ids); }
};

std::span<const int32_t> part(const Needle& needle, int64_t begin, int64_t end) {
  return std::span(needle.tokens).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
}

TEST(Needle, IsAWholeQuestionOfExactlyTheContext) {
  const TextData text;
  const NeedleMaker maker = text.maker();
  for (const int64_t context : {150, 151, 152, 400})
    for (const double depth : {0.0, 12.5, 50.0, 100.0}) {
      const Needle needle = maker.make(context, depth, 3);
      ASSERT_EQ(std::ssize(needle.tokens), context);
      EXPECT_EQ(needle.tokens[0], text.tokenizer->end_of_text());
      const std::string claim =
          fmt::format(" The special magic {} number is: {}.", needle.city, needle.number);
      const std::string all = text.text(needle.tokens);
      EXPECT_TRUE(all.ends_with(" What is the special magic " + needle.city + " number?" + claim)) << all;
      EXPECT_TRUE(text.text(part(needle, needle.needle_begin, context)).starts_with(claim));
      EXPECT_EQ(needle.number.size(), 7u);
      // The answer begins with the token of the first digit, and the number's tokens are those of its digits.
      const std::string answer = text.text(part(needle, needle.prompt_tokens, context));
      EXPECT_LE(answer.find(needle.number), 1u) << answer;
      const std::string first = text.text(part(needle, needle.prompt_tokens, needle.prompt_tokens + 1));
      EXPECT_NE(first.find(needle.number[0]), std::string::npos) << first;
      const std::string number = text.text(part(needle, needle.number_begin, needle.number_end));
      EXPECT_NE(number.find(needle.number), std::string::npos) << number;
      EXPECT_EQ(text.text(part(needle, needle.number_begin + 1, needle.number_end)).find(needle.number),
                std::string::npos);
      EXPECT_EQ(text.text(part(needle, needle.number_begin, needle.number_end - 1)).find(needle.number),
                std::string::npos);
    }
}

// What is left of the text without needle and question lies in the shard, as it is there; and the needle
// stands where it should, at the end of a sentence.
TEST(Needle, HidesInRealTextAtItsDepth) {
  const TextData text;
  const NeedleMaker maker = text.maker();
  std::vector<int32_t> shard(static_cast<size_t>(text.data->tokens()));
  for (size_t i = 0; i < shard.size(); ++i)
    shard[i] = static_cast<int32_t>(text.data->token(static_cast<int64_t>(i)));
  for (const double depth : {0.0, 25.0, 50.0, 90.0, 100.0}) {
    const Needle needle = maker.make(500, depth, 1);
    const std::string claim = fmt::format(" The special magic {} number is: {}.", needle.city, needle.number);
    const auto claim_tokens = std::ssize(text.tokenizer->encode(claim)),
               question_tokens = std::ssize(
                   text.tokenizer->encode(" What is the special magic " + needle.city + " number?" + claim));
    std::vector<int32_t> hay(needle.tokens.begin() + 1, needle.tokens.begin() + needle.needle_begin);
    hay.insert(hay.end(), needle.tokens.begin() + needle.needle_begin + claim_tokens,
               needle.tokens.end() - question_tokens);
    EXPECT_EQ(std::ssize(hay) + 1 + claim_tokens + question_tokens, 500);
    EXPECT_NE(std::search(shard.begin(), shard.end(), hay.begin(), hay.end()), shard.end());
    const double hays = static_cast<double>(hay.size());
    EXPECT_NEAR(static_cast<double>(needle.needle_begin - 1), depth / 100 * hays, hays / 20 + 1) << depth;
    if (depth == 0 || depth == 100) continue;
    const std::string before = text.text(part(needle, 1, needle.needle_begin));
    EXPECT_TRUE(before.ends_with(".") || before.ends_with("\n")) << before.substr(before.size() - 20);
  }
  EXPECT_EQ(maker.make(500, 0, 1).needle_begin, 1);
}

TEST(Needle, DependsOnEverythingThatNamesIt) {
  const TextData text;
  const NeedleMaker maker = text.maker();
  const Needle needle = maker.make(200, 50, 7);
  EXPECT_EQ(text.maker().make(200, 50, 7).tokens, needle.tokens);
  std::set<std::string> numbers = {needle.number};
  for (const Needle& other : {maker.make(201, 50, 7), maker.make(200, 25, 7), maker.make(200, 50, 8),
                              text.maker(1).make(200, 50, 7),
                              NeedleMaker(*text.data, *text.tokenizer, 0, "other").make(200, 50, 7)})
    EXPECT_TRUE(numbers.insert(other.number).second);
  std::set<std::string> cities;
  for (int i = 0; i < 100; ++i) cities.insert(maker.make(200, 50, i).city);
  EXPECT_GT(cities.size(), 30u);
}

TEST(Needle, RefusesWhatCannotBe) {
  const TextData text;
  const NeedleMaker maker = text.maker();
  expect_error(Exit::usage, {"context 40", "alone take"}, [&] { maker.make(40, 50, 0); });
  expect_error(Exit::data, {"context 9000000", "no shard", "--data"}, [&] { maker.make(9'000'000, 50, 0); });
  // The shortest context that is possible has one token of text.
  const auto least = std::ssize(maker.make(400, 50, 0).tokens);
  EXPECT_EQ(least, 400);
  const TextData other(330);
  expect_error(Exit::data, {"another tokenizer"},
               [&] { NeedleMaker(*text.data, *other.tokenizer, 0, "needle"); });
}

// A lesson taken apart again: by its text, and by the tokens of the sentences that the text tells of.
struct Lesson {
  std::map<std::string, std::string> number_of;  // what the hidden sentences say
  std::vector<std::string> asked;                // cities, in the order of the questions
  std::vector<int32_t> haystack;                 // what is left of the body
  std::vector<double> depths;                    // of the hidden sentences, in parts of the haystack

  Lesson(const TextData& text, const std::vector<int32_t>& tokens) { take_apart(text, tokens); }

 private:
  void take_apart(const TextData& text, std::vector<int32_t> tokens) {
    EXPECT_EQ(tokens[0], text.tokenizer->end_of_text());
    const std::string all = text.text(tokens);
    const size_t end = all.find(" What is the special magic ");
    ASSERT_NE(end, all.npos) << all;
    for (size_t at = all.find(kClaim); at < end; at = all.find(kClaim, at)) {
      const auto [city, number] = read_claim(all, at);
      EXPECT_TRUE(number_of.emplace(city, number).second) << city << " is told of twice: " << all;
    }
    for (size_t at = end; at < all.size();) {  // nothing between the questions, nothing behind them
      ASSERT_TRUE(skip(all, at, " What is the special magic ")) << all.substr(at);
      asked.push_back(read_while(all, at, is_letter));
      ASSERT_TRUE(skip(all, at, " number?")) << all.substr(at);
      const auto [city, number] = read_claim(all, at);
      EXPECT_EQ(city, asked.back());
      EXPECT_EQ(number, number_of[city]) << all;
    }

    tokens.erase(tokens.begin());
    for (auto question = asked.rbegin(); question != asked.rend(); ++question) {
      const std::vector<int32_t> ids = text.tokenizer->encode(
          fmt::format(" What is the special magic {0} number? The special magic {0} number is: {1}.",
                      *question, number_of[*question]));
      ASSERT_GE(tokens.size(), ids.size());
      ASSERT_TRUE(std::equal(ids.begin(), ids.end(), tokens.end() - std::ssize(ids)));
      tokens.resize(tokens.size() - ids.size());
    }
    std::vector<std::ptrdiff_t> places;
    for (const auto& [city, number] : number_of) {
      const std::vector<int32_t> ids =
          text.tokenizer->encode(fmt::format(" The special magic {} number is: {}.", city, number));
      const auto found = std::search(tokens.begin(), tokens.end(), ids.begin(), ids.end());
      ASSERT_NE(found, tokens.end()) << city;
      places.push_back(found - tokens.begin());
      std::fill(found, found + std::ssize(ids), -1);
    }
    haystack = tokens;
    std::erase(haystack, -1);
    for (const std::ptrdiff_t place : places) {
      const auto before = place - std::count(tokens.begin(), tokens.begin() + place, -1);
      depths.push_back(static_cast<double>(before) / static_cast<double>(haystack.size()));
    }
  }

  // Reading by hand, from `at` on, which moves behind what was read.
  static constexpr std::string_view kClaim = " The special magic ";
  static bool is_letter(char c) { return ('A' <= c && c <= 'Z') || ('a' <= c && c <= 'z'); }
  static bool is_digit(char c) { return '0' <= c && c <= '9'; }
  static bool skip(const std::string& text, size_t& at, std::string_view words) {
    const bool there = text.compare(at, words.size(), words) == 0;
    if (there) at += words.size();
    return there;
  }
  template <class Is> static std::string read_while(const std::string& text, size_t& at, Is is) {
    const size_t begin = at;
    while (at < text.size() && is(text[at])) ++at;
    return text.substr(begin, at - begin);
  }
  // City and number of the sentence that begins at `at`.
  static std::pair<std::string, std::string> read_claim(const std::string& text, size_t& at) {
    EXPECT_TRUE(skip(text, at, kClaim)) << text.substr(at);
    const std::string city = read_while(text, at, is_letter);
    EXPECT_TRUE(skip(text, at, " number is: ")) << text.substr(at);
    const std::string number = read_while(text, at, is_digit);
    EXPECT_TRUE(skip(text, at, ".")) << text.substr(at);
    EXPECT_EQ(number.size(), 7u);
    EXPECT_NE(number.substr(0, 1), "0");
    return {city, number};
  }
};

bool holds(const Dataset& data, const std::vector<int32_t>& part) {
  return std::ranges::any_of(data.shards(), [&](const Shard& shard) {
    std::vector<int32_t> all(static_cast<size_t>(shard.tokens()));
    shard.copy(0, all);
    return std::search(all.begin(), all.end(), part.begin(), part.end()) != all.end();
  });
}

TEST(NeedleLesson, AsksForWhatItHidInRealText) {
  const TextData text;
  const NeedleMaker maker = text.maker();
  std::map<size_t, int> needles;
  std::set<size_t> questions_of_one;
  std::vector<double> depths;
  bool orders_differ = false;
  constexpr int64_t kContext = 700;
  for (int64_t index = 0; index < 80; ++index) {
    const std::vector<int32_t> tokens = maker.lesson(kContext, index);
    ASSERT_EQ(std::ssize(tokens), kContext);
    const Lesson lesson(text, tokens);
    ASSERT_FALSE(::testing::Test::HasFatalFailure());
    EXPECT_TRUE(holds(*text.data, lesson.haystack)) << index;
    const size_t cities = lesson.number_of.size();
    ++needles[cities];
    if (cities == 1) questions_of_one.insert(lesson.asked.size());
    EXPECT_GE(lesson.asked.size(), cities) << "every needle is asked for";
    for (size_t round = 0; round < lesson.asked.size(); round += cities) {
      const auto begin = lesson.asked.begin() + static_cast<std::ptrdiff_t>(round),
                 end = lesson.asked.begin() +
                       static_cast<std::ptrdiff_t>(std::min(round + cities, lesson.asked.size()));
      EXPECT_EQ(std::ssize(std::set(begin, end)), end - begin) << "twice in a round";
      orders_differ |=
          end - begin == std::ssize(lesson.number_of) && !std::equal(begin, end, lesson.asked.begin());
    }
    depths.insert(depths.end(), lesson.depths.begin(), lesson.depths.end());
  }
  EXPECT_TRUE(orders_differ);
  EXPECT_GT(needles.size(), 3u) << "from one needle to several";
  EXPECT_GT(needles[1] + needles[2], 30) << "few needles more often";
  EXPECT_GT(questions_of_one.size(), 4u);
  EXPECT_EQ(*questions_of_one.begin(), 1u);
  for (const double third : {0.0, 1.0 / 3, 2.0 / 3}) {
    const auto here = std::ranges::count_if(
        depths, [&](double depth) { return third <= depth && depth <= third + 1.0 / 3; });
    EXPECT_NEAR(static_cast<double>(here) / static_cast<double>(depths.size()), 1.0 / 3, 0.12) << third;
  }
}

TEST(NeedleLesson, DependsOnWhatNamesIt) {
  const TextData text;
  const NeedleMaker maker = text.maker();
  const std::vector<int32_t> lesson = maker.lesson(400, 7);
  EXPECT_EQ(text.maker().lesson(400, 7), lesson);
  const auto numbers = [&](const std::vector<int32_t>& tokens) { return Lesson(text, tokens).number_of; };
  for (const std::vector<int32_t>& other :
       {maker.lesson(400, 8), maker.lesson(401, 7), text.maker(1).lesson(400, 7),
        NeedleMaker(*text.data, *text.tokenizer, 0, "other").lesson(400, 7)})
    EXPECT_NE(numbers(other), numbers(lesson));
}

// The shortest context has room for any city and number, each asked for once, and a token of text.
TEST(NeedleLesson, RefusesContextsThatAreTooShort) {
  const TextData text;
  const NeedleMaker maker = text.maker();
  int64_t least = 300;
  while (least > 3) {
    try {
      maker.lesson(least - 1, 0);
    } catch (const Error& error) {
      EXPECT_EQ(error.exit, Exit::usage);
      EXPECT_NE(std::string(error.what()).find(fmt::format("up to {} tokens", least)), std::string::npos)
          << error.what();
      break;
    }
    --least;
  }
  EXPECT_GT(least, 40);
  EXPECT_LT(least, 300);
  for (int64_t index = 0; index < 200; ++index) {
    const std::vector<int32_t> tokens = maker.lesson(least, index);
    ASSERT_EQ(std::ssize(tokens), least);
    const Lesson lesson(text, tokens);
    EXPECT_EQ(lesson.asked.size(), 1u);
    EXPECT_GE(lesson.haystack.size(), 1u);
  }
  for (const int64_t context : {0, 1, 2, 30})
    expect_error(Exit::usage, {fmt::format("context {}", context)}, [&] { maker.lesson(context, 0); });
  expect_error(Exit::data, {"context 9000000", "no shard"}, [&] { maker.lesson(9'000'000, 0); });
}

TEST(NeedleData, WindowsAreLessonsFromShardsOfTheirOwn) {
  const TextData text;
  const TaskOptions options{.directory = text.directory / "needles",
                            .context = 300,
                            .windows = 40,
                            .validation_windows = 3,
                            .seed = 5};
  const DatasetInfo info = write_needle_data(text.root, options);
  EXPECT_EQ(info.tokens("train"), 40 * 300 + 1);
  EXPECT_EQ(info.tokens("validation"), 3 * 300 + 1);
  const Dataset train((options.directory / "train_*.bin").string(), text.tokenizer->vocab_size()),
      validation((options.directory / "val_*.bin").string(), text.tokenizer->vocab_size()),
      train_text((text.root / "train_*.bin").string(), text.tokenizer->vocab_size());
  EXPECT_EQ(train.info()->tokenizer_hash, text.tokenizer->hash());
  EXPECT_EQ(content_of(options.directory / "tokenizer.model"), content_of(text.root / "tokenizer.model"));
  const auto lesson = [&](const Dataset& from, int64_t window) {
    std::vector<int32_t> ids(300);
    from.shards()[0].copy(window * 300, ids);
    return Lesson(text, ids);
  };
  std::set<std::map<std::string, std::string>> all;
  const auto expect_text_of = [&](const std::vector<int32_t>& haystack, const Dataset& source,
                                  const Dataset& other) {
    EXPECT_TRUE(holds(source, haystack));
    if (haystack.size() > 40) {
      EXPECT_FALSE(holds(other, haystack)) << "a little text may stand in both";
    }
  };
  for (int64_t window = 0; window < 40; ++window) {
    const Lesson of_train = lesson(train, window);
    expect_text_of(of_train.haystack, train_text, *text.data);
    all.insert(of_train.number_of);
  }
  for (int64_t window = 0; window < 3; ++window) {
    const Lesson of_validation = lesson(validation, window);
    expect_text_of(of_validation.haystack, *text.data, train_text);
    all.insert(of_validation.number_of);
  }
  EXPECT_EQ(all.size(), 43u) << "no lesson is there twice";
  EXPECT_EQ(train.token(40 * 300), static_cast<uint32_t>(text.tokenizer->end_of_text()));
  EXPECT_GT(info.text_bytes, 40 * 300);

  expect_error(Exit::usage, {"already holds", "--force"}, [&] { write_needle_data(text.root, options); });
  TaskOptions again = options;
  again.force = true;
  const std::string before = train.fingerprint();
  write_needle_data(text.root, again);
  EXPECT_EQ(Dataset((options.directory / "train_*.bin").string(), 0).fingerprint(), before);
  again.windows = 20'000'000;
  expect_error(Exit::usage, {"more windows"}, [&] { write_needle_data(text.root, again); });
  again.windows = options.windows;
  for (const int64_t context : {30, 0}) {
    again.context = context;
    expect_error(Exit::usage, {fmt::format("context {}", context)},
                 [&] { write_needle_data(text.root, again); });
  }
  EXPECT_TRUE(std::filesystem::exists(options.directory / kDatasetFile)) << "nothing was cleared";
}

}  // namespace
}  // namespace keen
