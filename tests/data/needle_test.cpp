#include "data/needle.h"

#include <cmath>
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

TEST(NeedleData, WindowsAreNeedles) {
  const TextData text;
  const NeedleDataOptions options{.source = text.root,
                                  .directory = text.directory / "needles",
                                  .context = 160,
                                  .windows = 40,
                                  .validation_windows = 3,
                                  .seed = 5};
  const DatasetInfo info = write_needle_data(options);
  EXPECT_EQ(info.tokens("train"), 40 * 160 + 1);
  EXPECT_EQ(info.tokens("validation"), 3 * 160 + 1);
  const Dataset train((options.directory / "train_*.bin").string(), text.tokenizer->vocab_size());
  EXPECT_EQ(train.info()->tokenizer_hash, text.tokenizer->hash());
  EXPECT_EQ(content_of(options.directory / "tokenizer.model"), content_of(text.root / "tokenizer.model"));
  int64_t depths_below_half = 0;
  for (int64_t window = 0; window < 40; ++window) {
    std::vector<int32_t> ids(160);
    train.shards()[0].copy(window * 160, ids);
    EXPECT_EQ(ids[0], text.tokenizer->end_of_text());
    const std::string all = text.text(ids);
    EXPECT_TRUE(all.ends_with("."));
    const std::string number = all.substr(all.size() - 8, 7);
    const size_t first = all.find(number);
    EXPECT_LT(first, all.size() - 8) << "the number is in the text too";
    depths_below_half += first < all.size() / 2 ? 1 : 0;
  }
  EXPECT_GT(depths_below_half, 3);
  EXPECT_LT(depths_below_half, 37);
  EXPECT_EQ(train.token(40 * 160), static_cast<uint32_t>(text.tokenizer->end_of_text()));
  expect_error(Exit::usage, {"already holds", "--force"}, [&] { write_needle_data(options); });
  NeedleDataOptions again = options;
  again.force = true;
  const std::string before = train.fingerprint();
  write_needle_data(again);
  EXPECT_EQ(Dataset((options.directory / "train_*.bin").string(), 0).fingerprint(), before);
  EXPECT_GT(info.text_bytes, 40 * 160);
  again.windows = 20'000'000;
  expect_error(Exit::usage, {"more windows"}, [&] { write_needle_data(again); });
  again.windows = options.windows;
  again.context = 30;
  expect_error(Exit::usage, {"context 30"}, [&] { write_needle_data(again); });
  EXPECT_TRUE(std::filesystem::exists(options.directory / kDatasetFile)) << "nothing was cleared";
}

}  // namespace
}  // namespace keen
