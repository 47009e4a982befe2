#include "eval/recall.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "data/data_test.h"
#include "data/recall.h"
#include "eval/decoder.h"
#include "eval/evaluate.h"
#include "train/tiny_run.h"

namespace keen {
namespace {

using testing::expect_error;
using testing::TinyRun;

constexpr int64_t kTrained = 64;

// Checkpoints that nobody trained, with the task's vocabulary.
struct RecallModels : TinyRun {
  RecallModels() {
    for (const char* split : {"train_0.bin", "val_0.bin"})
      testing::write_shard(directory / split, std::vector<int32_t>(200, 1));
    for (const char* more : {"train_1.bin", "train_2.bin"}) std::filesystem::remove(directory / more);
    config.model.vocab_size = kRecallVocabulary;
    config.model.context = kTrained;
  }
  RecallModels& attention(const std::string& json) {
    TinyRun::attention(json);
    return *this;
  }

  // Weights large enough for every token to matter, s and b of each head its own, and only values likely, so
  // that some answers are right.
  std::string save(const std::string& name) const {
    testing::TinyTrainer tiny(config);
    uint64_t stream = 0;
    for (Param& p : tiny.trainer.gpt.params.all()) {
      const Philox random(++stream);
      const bool scale = p.name.ends_with("attn.s") || p.name.ends_with("attn.b"),
                 head = p.name == "head.weight";
      testing::Tensors::fill(p.master, [&](int64_t i) {
        const double x = random.normal(static_cast<uint64_t>(i));
        if (scale) return 0.6 + 0.4 * x;
        if (p.is_vector()) return 1 + 0.1 * x;
        if (!head) return 0.4 * x;
        const int64_t id = i / config.model.width;
        return kRecallValues.first <= id && id < kRecallValues.first + kRecallValues.count ? x : 0;
      });
    }
    return save_checkpoint(path(name) / "checkpoints",
                           {.params = tiny.trainer.gpt.params,
                            .state = tiny.trainer.state,
                            .config = effective_config(config)},
                           [](const std::string&) {})
        .directory.string();
  }
};

RecallTestOptions small_test() {
  RecallTestOptions options;
  options.contexts = {40, 160};
  options.pairs = 6;
  options.windows = 30;
  options.seed = 5;
  options.sets = {"precision=fp64"};
  return options;
}

std::vector<int32_t> window_of(const RecallTestOptions& options, int64_t context, int64_t index) {
  return recall_window({context, options.pairs, options.pairs}, options.seed, "test", index);
}

struct Answers {
  std::vector<double> right, loss;  // means of each window
};

// One token after the other through a generator of its own, of one sequence.
Answers answers_of(const std::string& checkpoint, const RecallTestOptions& options, int64_t context) {
  const LoadedConfig loaded = load_checkpoint_config(checkpoint, options.sets);
  Decoder decoder(loaded, 1, context);
  Answers answers;
  const auto questions = static_cast<double>(options.pairs);
  for (int64_t index = 0; index < options.windows; ++index) {
    const std::vector<int32_t> window = window_of(options, context, index);
    decoder.generator->truncate(0, 0);
    double right = 0, loss = 0;
    for (size_t i = 0; i + 1 < window.size(); ++i) {
      decoder.generator->feed(std::vector<Generator::Feed>{{0, std::span(window).subspan(i, 1)}});
      const auto left = std::ssize(window) - static_cast<int64_t>(i);
      if (left > 2 * options.pairs || left % 2 != 0) continue;  // no key of a question
      const std::span<const double> logits = decoder.generator->logits(0);
      const auto answer = static_cast<size_t>(window[i + 1]);
      double sum = 0;
      for (const double logit : logits) sum += std::exp(logit);
      loss += std::log(sum) - logits[answer];
      right += std::max_element(logits.begin(), logits.end()) - logits.begin() == window[i + 1];
    }
    answers.right.push_back(right / questions);
    answers.loss.push_back(loss / questions);
  }
  return answers;
}

void expect_mean(const MeanOfWindows& got, const std::vector<double>& windows, double tolerance) {
  const auto n = static_cast<double>(windows.size());
  double mean = 0, square = 0;
  for (const double x : windows) mean += x / n;
  for (const double x : windows) square += (x - mean) * (x - mean);
  EXPECT_NEAR(got.mean, mean, tolerance);
  EXPECT_NEAR(got.standard_error, std::sqrt(square / (n - 1) / n), tolerance);
}

class RecallOfAttention : public ::testing::TestWithParam<const char*> {};

// Training's own forward pass reads the windows as data: every row at once.
TEST_P(RecallOfAttention, LossIsThatOfTheAnswersRows) {
  RecallModels models;
  const std::string checkpoint = models.attention(GetParam()).save("run");
  for (const char* precision : {"fp64", "fp32"}) {
    RecallTestOptions options = small_test();
    options.sets = {std::string("precision=") + precision};
    const RecallReport report = test_recall({checkpoint}, options).front();
    EXPECT_EQ(report.trained_context, kTrained);
    ASSERT_EQ(report.scores.size(), 2u);
    for (const RecallScore& score : report.scores) {
      std::vector<int32_t> shard;
      for (int64_t i = 0; i < options.windows; ++i) {
        const std::vector<int32_t> window = window_of(options, score.context, i);
        shard.insert(shard.end(), window.begin(), window.end());
      }
      shard.push_back(kRecallStart);
      testing::write_shard(models.directory / "windows.bin", shard);
      const Evaluation evaluation =
          evaluate_checkpoints({checkpoint}, {.data = (models.directory / "windows.bin").string(),
                                              .context = score.context,
                                              .rope_theta = {},
                                              .sets = options.sets})
              .front();
      ASSERT_EQ(evaluation.windows, options.windows);
      double loss = 0;
      for (int64_t question = 0; question < options.pairs; ++question) {
        const int64_t keys_row = score.context - 2 * options.pairs + 2 * question;
        loss += evaluation.positions[static_cast<size_t>(keys_row)].loss / static_cast<double>(options.pairs);
      }
      EXPECT_NEAR(score.loss.mean, loss, std::string_view(precision) == "fp64" ? 1e-9 : 1e-4)
          << score.context << " " << precision;
      EXPECT_GT(score.loss.mean, 1);
    }
  }
}

TEST_P(RecallOfAttention, AnswersAreThoseOfTokenByToken) {
  RecallModels models;
  const std::string checkpoint = models.attention(GetParam()).save("run");
  const RecallTestOptions options = small_test();
  const RecallReport report = test_recall({checkpoint}, options).front();
  double accuracies = 0;
  for (const RecallScore& score : report.scores) {
    const Answers answers = answers_of(checkpoint, options, score.context);
    expect_mean(score.accuracy, answers.right, 1e-12);
    expect_mean(score.loss, answers.loss, 1e-9);
    accuracies += score.accuracy.mean;
  }
  EXPECT_GT(accuracies, 0) << "some answer is right by chance, or this compares zeros";
  // So many windows together, or one: the same.
  RecallTestOptions alone = options;
  alone.sets.push_back("batch.micro_sequences=1");
  const RecallReport one = test_recall({checkpoint}, alone).front();
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(one.scores[i].loss.mean, report.scores[i].loss.mean);
    EXPECT_EQ(one.scores[i].accuracy.mean, report.scores[i].accuracy.mean);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, RecallOfAttention,
                         ::testing::Values("\"softmax\"", "\"ssmax\"", "\"ssmax_bias\""),
                         [](const auto& info) {
                           const std::string quoted = info.param;
                           return quoted.substr(1, quoted.size() - 2);
                         });

TEST(Recall, AsksEveryCheckpointTheSameAndSaysWhatWasSwapped) {
  RecallModels models;
  const std::string softmax = models.attention("\"softmax\"").save("softmax"),
                    ssmax = models.attention("\"ssmax\"").save("ssmax");
  RecallTestOptions options = small_test();
  options.windows = 1;
  const std::vector<RecallReport> both = test_recall({softmax, ssmax}, options);
  ASSERT_EQ(both.size(), 2u);
  EXPECT_EQ(both[0].checkpoint, softmax);
  EXPECT_NE(both[0].scores[0].loss.mean, both[1].scores[0].loss.mean);
  EXPECT_TRUE(std::isnan(both[0].scores[0].loss.standard_error)) << "one window has no spread";
  EXPECT_TRUE(both[0].swapped.empty());
  EXPECT_EQ(test_recall({ssmax}, options)[0].scores[1].loss.mean, both[1].scores[1].loss.mean);
  options.seed = 6;
  EXPECT_NE(test_recall({softmax}, options)[0].scores[0].loss.mean, both[0].scores[0].loss.mean);
  options.seed = 5;
  options.sets.push_back("model.attention=ssmax");
  const RecallReport swapped = test_recall({softmax}, options).front();
  EXPECT_EQ(swapped.swapped.size(), 2u) << "s of each layer is new";
  EXPECT_NE(swapped.scores[0].loss.mean, both[0].scores[0].loss.mean);
}

// What is refused is refused before the first one is asked: nothing is said of its progress.
TEST(Recall, RefusesWhatCannotBe) {
  RecallModels models;
  const std::string good = models.attention("\"ssmax\"").save("good");
  models.config.model.position = PositionKind::learned;
  const std::string learned = models.save("learned");
  models.config.model.position = PositionKind::rope;
  models.config.model.vocab_size = kRecallVocabulary + 1;
  const std::string other = models.save("other");
  RecallTestOptions options = small_test();
  const auto refuses = [&](Exit exit, const std::vector<std::string>& parts, const std::string& bad) {
    ::testing::internal::CaptureStderr();
    expect_error(exit, parts, [&] { test_recall({good, bad}, options); });
    EXPECT_EQ(::testing::internal::GetCapturedStderr().find("recall of"), std::string::npos) << parts[0];
  };
  ::testing::internal::CaptureStderr();
  test_recall({good}, options);
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("recall of"), std::string::npos)
      << "else this would not show that nobody was asked";

  refuses(Exit::data, {"257 tokens", "256", "tokenize recall"}, other);
  refuses(Exit::usage, {"context 160", "learned positions for 64"}, learned);
  refuses(Exit::checkpoint, {"nowhere"}, models.path("nowhere").string());
  options.contexts = {40, 24};
  refuses(Exit::usage, {"context 24", "25 tokens"}, good);
  options.pairs = 65;
  options.contexts = {1000};
  refuses(Exit::usage, {"65 pairs"}, good);
  options = small_test();
  options.contexts = {64};
  EXPECT_EQ(test_recall({learned}, options)[0].scores.size(), 1u) << "as long as it was trained";
  options.rope_theta = 1e5;
  refuses(Exit::usage, {"--rope-theta"}, learned);
}

using Groups = std::vector<std::vector<size_t>>;

TEST(GroupsOf, NoGroupHasASeedTwice) {
  EXPECT_EQ(groups_of({}), Groups{});
  EXPECT_EQ(groups_of({{"x", 1}, {"y", 1}, {"x", 2}, {"x", 3}}), (Groups{{0, 2, 3}, {1}}));
  EXPECT_EQ(groups_of({{"x", 1}, {"x", 1}}), (Groups{{0}, {1}}));
  EXPECT_EQ(groups_of({{"x", 1}, {"x", 1}, {"x", 2}, {"x", 2}}), (Groups{{0, 2}, {1, 3}}));
}

TEST(SampleOf, IsAllButWhatIsChanceOrCannotChangeNumbers) {
  RecallModels models;
  std::vector<Sample> samples;
  const auto add = [&](const std::string& name) {
    samples.push_back(sample_of(load_checkpoint_config(models.save(name), {})));
  };
  const RunConfig first = models.config;
  add("first");
  models.config.seed = first.seed + 1;
  models.config.name = "another name";
  models.config.log.every = 7;
  models.config.checkpoint.keep = 9;
  add("other seed");
  models.config.seed = first.seed;
  add("same seed");
  models.config.seed = first.seed + 2;
  models.config.optimizer.lr = 4e-3;
  add("other rate");
  models.config = first;
  models.attention("\"ssmax\"").config.seed = first.seed + 3;
  add("other attention");
  // A fork is no sample of what was trained from the beginning.
  models.config.seed = first.seed + 4;
  models.config.init.from = "somewhere";
  add("fork");
  EXPECT_EQ(groups_of(samples), (Groups{{0, 1}, {2}, {3}, {4}, {5}}));
  EXPECT_EQ(samples[1].seed, static_cast<int64_t>(first.seed) + 1);
  // Nor is softmax, read with SSMax swapped in, one of SSMax that was trained.
  samples.clear();
  for (const char* name : {"first", "other attention"})
    samples.push_back(
        sample_of(load_checkpoint_config(models.path(name).string(), {"model.attention=ssmax"})));
  EXPECT_EQ(groups_of(samples), (Groups{{0}, {1}}));

  // Real runs of one config: other steps are other things.
  models.config = first;
  models.config.schedule.steps = 2;
  models.config.evaluate.every = 0;
  models.train("a", models.config);
  models.config.seed = first.seed + 1;
  models.config.checkpoint.every = 1;
  models.config.checkpoint.keep = 2;
  models.train("b", models.config);
  samples.clear();
  for (const auto& path : {models.path("a"), models.checkpoint("b", 1), models.checkpoint("b", 2)})
    samples.push_back(sample_of(load_checkpoint_config(path.string(), {})));
  EXPECT_EQ(groups_of(samples), (Groups{{0, 2}, {1}}));
}

}  // namespace
}  // namespace keen
