#include "eval/sample.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/data_test.h"
#include "data/tokenizer.h"
#include "eval/utf8_pieces.h"
#include "train/tiny_run.h"

namespace keen {
namespace {

using testing::TinyRun;

// A run of few steps whose model reads the pieces of a small vocabulary.
struct TrainedRun : TinyRun {
  explicit TrainedRun(const std::string& attention_json, PositionKind position = PositionKind::rope) {
    model = testing::train_english(directory);
    config.model.vocab_size = 328;  // a few more than the tokenizer has
    config.model.position = position;
    config.data.tokenizer = model.string();
    config.schedule.steps = 3;
    config.evaluate.every = 0;
    attention(attention_json);
    train("run", config);
  }

  SampleReport sample(const SampleOptions& options) const {
    return sample_texts(path("run").string(), options, [](size_t, std::string_view, bool) { return true; });
  }

  std::filesystem::path model;
};

SampleOptions wild(std::vector<std::string> prompts) {
  SampleOptions options;
  options.prompts = std::move(prompts);
  options.tokens = 40;  // beyond the context of 16
  options.sampling.temperature = 1.3;
  return options;
}

// A prompt gives the same text alone and among others of other lengths, with any number of them at once.
TEST(Sample, TextsDoNotDependOnWhatIsDrawnWithThem) {
  const std::vector<std::string> prompts = {"the cat", "", "another station and then the cattle sat on a mat",
                                            "the cat", "42"};
  for (const char* attention : {"\"softmax\"", "\"ssmax\"", "\"ssmax_bias\""}) {
    const TrainedRun run(attention);
    for (const char* precision : {"fp32", "fp64"}) {
      SampleOptions options = wild(prompts);
      options.samples = 3;
      options.sets = {std::string("precision=") + precision};
      options.batch = 1;
      const SampleReport want = run.sample(options);
      ASSERT_EQ(want.texts.size(), 15u);
      for (const int64_t batch : {2, 4, 64}) {
        options.batch = batch;
        const SampleReport got = run.sample(options);
        for (size_t i = 0; i < want.texts.size(); ++i) {
          EXPECT_EQ(got.texts[i].tokens, want.texts[i].tokens) << attention << " " << precision << " " << i;
          EXPECT_EQ(got.texts[i].logprobs, want.texts[i].logprobs);
          EXPECT_EQ(got.texts[i].text, want.texts[i].text);
        }
      }
      // Alone, and the fourth prompt is the first one again.
      SampleOptions alone = wild({prompts[2]});
      alone.sets = options.sets;
      EXPECT_EQ(run.sample(alone).texts[0].tokens, want.texts[6].tokens);
      EXPECT_EQ(want.texts[0].tokens, want.texts[9].tokens);
      EXPECT_NE(want.texts[0].tokens, want.texts[1].tokens) << "samples have streams of their own";
      EXPECT_TRUE(want.beyond_context);
    }
  }
}

TEST(Sample, EqualSeedsDrawEqualText) {
  const TrainedRun run("\"ssmax\"");
  SampleOptions options = wild({"the"});
  const auto first = run.sample(options).texts[0].tokens;
  EXPECT_EQ(run.sample(options).texts[0].tokens, first);
  options.seed = 1;
  EXPECT_NE(run.sample(options).texts[0].tokens, first);
}

// The pieces of each text are its text, in order, each of whole characters; the last one says so.
TEST(Sample, PiecesAddUpToTheTexts) {
  const TrainedRun run("\"softmax\"");
  SampleOptions options = wild({"the cat", "a"});
  options.sampling.temperature = 50;  // bytes of all kinds
  options.samples = 3;
  options.batch = 4;
  std::vector<std::string> shown(6);
  std::vector<int> ends(6);
  const SampleReport report =
      sample_texts(run.path("run").string(), options, [&](size_t index, std::string_view piece, bool whole) {
        EXPECT_EQ(ends.at(index), 0);
        Utf8Pieces check;
        EXPECT_EQ(check.add(piece), piece);
        shown.at(index) += piece;
        ends[index] += whole ? 1 : 0;
        return true;
      });
  const Tokenizer tokenizer(run.model);
  bool replaced = false;
  for (size_t i = 0; i < shown.size(); ++i) {
    EXPECT_EQ(shown[i], report.texts[i].text);
    EXPECT_EQ(ends[i], 1);
    const std::string bytes = tokenizer.decode(report.texts[i].tokens);
    Utf8Pieces all;
    std::string valid = all.add(bytes);
    EXPECT_EQ(shown[i], valid + all.finish());
    replaced = replaced || shown[i] != bytes;
  }
  EXPECT_TRUE(replaced) << "no text had a byte that is not UTF-8: the test shows nothing";
}

TEST(Sample, CountsTokensAndTheProbabilityOfEach) {
  const TrainedRun run("\"softmax\"");
  SampleOptions options = wild({"the cat", "the cat", "a"});
  options.samples = 2;
  const SampleReport report = run.sample(options);
  const Tokenizer tokenizer(run.model);
  const auto prompt_tokens = [&](const char* text) { return std::ssize(tokenizer.encode(text)); };
  EXPECT_EQ(report.prompt_tokens, 2 * prompt_tokens("the cat") + prompt_tokens("a"))
      << "once for all samples";
  int64_t tokens = 0;
  for (const SampledText& text : report.texts) {
    tokens += std::ssize(text.tokens);
    EXPECT_EQ(text.tokens.size(), text.logprobs.size());
    EXPECT_TRUE(text.end == TextEnd::tokens ? text.tokens.size() == 40 : text.tokens.size() < 40);
    for (const int32_t id : text.tokens) EXPECT_LT(id, tokenizer.vocab_size());
    for (const double logprob : text.logprobs) EXPECT_LT(logprob, 0);
  }
  EXPECT_EQ(report.tokens, tokens);
  EXPECT_EQ(report.step, 3);
}

TEST(Sample, EndsWhereNobodyReadsAnyMore) {
  const TrainedRun run("\"softmax\"");
  int pieces = 0;
  sample_texts(run.path("run").string(), wild({"the", "a"}),
               [&](size_t, std::string_view, bool) { return ++pieces < 5; });
  EXPECT_LT(pieces, 8);
}

TEST(Sample, LearnedPositionsEndTheText) {
  const TrainedRun run("\"ssmax\"", PositionKind::learned);
  SampleOptions options = wild({"the", "the cat sat"});
  options.sampling.temperature = 0;
  const SampleReport report = run.sample(options);
  for (const SampledText& text : report.texts) {
    EXPECT_EQ(text.end, TextEnd::context);
    // The last token is drawn from the last position and not fed.
    EXPECT_EQ(text.prompt_tokens + std::ssize(text.tokens), TinyRun::kContext + 1);
  }
  testing::expect_error(Exit::usage, {"prompt 2", "learned 16 positions"}, [&] {
    run.sample(wild({"a", "the cat sat on a mat and then another cattle station matters 42 42 42 42"}));
  });
  options.rope_theta = 1e5;
  testing::expect_error(Exit::usage, {"--rope-theta", "learned"}, [&] { run.sample(options); });
}

TEST(Sample, ThetaChangesTheText) {
  const TrainedRun run("\"ssmax\"");
  SampleOptions options = wild({"the cat sat on a mat"});
  const auto trained = run.sample(options).texts[0];
  options.rope_theta = 10000;
  EXPECT_EQ(run.sample(options).texts[0].logprobs, trained.logprobs);
  options.rope_theta = 500000;
  EXPECT_NE(run.sample(options).texts[0].logprobs, trained.logprobs);
}

TEST(Sample, NeedsATokenizerThatFits) {
  TrainedRun run("\"softmax\"");
  SampleOptions options = wild({"the"});
  options.tokenizer = (run.directory / "missing.model").string();
  testing::expect_error(Exit::data, {"missing.model"}, [&] { run.sample(options); });
  options.tokenizer = testing::train_english(run.directory, 340).string();
  testing::expect_error(Exit::data, {"340", "328"}, [&] { run.sample(options); });
  run.config.data.tokenizer.reset();
  run.train("without", run.config);
  testing::expect_error(Exit::data, {"--tokenizer"}, [&] {
    sample_texts(run.path("without").string(), wild({"the"}),
                 [](size_t, std::string_view, bool) { return true; });
  });
}

}  // namespace
}  // namespace keen
