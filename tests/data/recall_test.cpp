#include "data/recall.h"

#include <algorithm>
#include <map>
#include <set>

#include "data_test.h"

namespace keen {
namespace {

using namespace testing;

bool is_in(RecallIds ids, int32_t id) { return ids.first <= id && id < ids.first + ids.count; }

TEST(Recall, EveryAnswerStandsOnceInTheNoise) {
  for (const RecallShape& shape : {RecallShape{}, RecallShape{.context = 99, .pairs = 5, .asks = 1},
                                   RecallShape{.context = 300, .pairs = 64, .asks = 1},
                                   RecallShape{.context = 1 + 2 * 3 + 2 * 3 * 2, .pairs = 3, .asks = 2}}) {
    int64_t distractors = 0, noise = 0;
    for (int64_t index = 0; index < 50; ++index) {
      const std::vector<int32_t> window = recall_window(shape, 1, "train", index);
      ASSERT_EQ(std::ssize(window), shape.context);
      EXPECT_EQ(window[0], kRecallStart);
      const auto questions = static_cast<size_t>(shape.questions_begin());
      std::map<int32_t, int32_t> value_of;
      for (size_t i = 1; i < questions; ++i) {
        if (!is_in(kRecallKeys, window[i])) {
          (is_in(kRecallValues, window[i]) ? distractors : noise) += 1;
          EXPECT_TRUE(is_in(kRecallValues, window[i]) || is_in(kRecallNoise, window[i]));
          continue;
        }
        ASSERT_LT(i + 1, questions);
        EXPECT_TRUE(is_in(kRecallValues, window[i + 1]));
        EXPECT_TRUE(value_of.emplace(window[i], window[i + 1]).second) << "a key twice";
        ++i;
      }
      EXPECT_EQ(std::ssize(value_of), shape.pairs);
      std::map<int32_t, int64_t> asked;
      for (size_t i = questions; i < window.size(); i += 2) {
        EXPECT_EQ(value_of.at(window[i]), window[i + 1]);
        ++asked[window[i]];
      }
      for (const auto& [key, times] : asked) EXPECT_EQ(times, shape.asks);
      EXPECT_EQ(std::ssize(asked), shape.pairs);
    }
    if (noise > 1000) {
      EXPECT_NEAR(static_cast<double>(distractors) / static_cast<double>(distractors + noise), 0.25, 0.04);
    }
  }
}

TEST(Recall, WindowsDifferByWhatNamesThem) {
  const RecallShape shape;
  const auto window = recall_window(shape, 1, "train", 4);
  EXPECT_EQ(recall_window(shape, 1, "train", 4), window);
  EXPECT_NE(recall_window(shape, 1, "train", 5), window);
  EXPECT_NE(recall_window(shape, 2, "train", 4), window);
  EXPECT_NE(recall_window(shape, 1, "validation", 4), window);
}

TEST(Recall, PairsStandAnywhere) {
  std::set<int64_t> places;
  for (int64_t index = 0; index < 200; ++index) {
    const auto window = recall_window({.context = 64, .pairs = 1, .asks = 1}, 1, "train", index);
    places.insert(
        std::find_if(window.begin(), window.end(), [](int32_t id) { return is_in(kRecallKeys, id); }) -
        window.begin());
  }
  EXPECT_GT(places.size(), 50u);
  EXPECT_EQ(*places.begin(), 1);
  EXPECT_EQ(*places.rbegin(), 60);
}

TEST(Recall, WritesADatasetOfWholeWindows) {
  const TemporaryDirectory directory(Medium::memory);
  RecallOptions options{.directory = directory / "recall",
                        .shape = {.context = 64, .pairs = 4, .asks = 2},
                        .windows = 300,
                        .validation_windows = 5,
                        .seed = 3};
  const DatasetInfo info = write_recall_data(options);
  EXPECT_EQ(info.tokens("train"), 300 * 64 + 1);
  EXPECT_EQ(info.tokens("validation"), 5 * 64 + 1);
  EXPECT_GT(info.bigram_loss.value(), 0);
  const Dataset train((options.directory / "train_*.bin").string(), kRecallVocabulary);
  for (int64_t window : {0, 299}) {
    std::vector<int32_t> ids(64);
    train.shards()[0].copy(window * 64, ids);
    EXPECT_EQ(ids, recall_window(options.shape, 3, "train", window));
  }
  expect_error(Exit::usage, {"already holds"}, [&] { write_recall_data(options); });
  options.shape.pairs = 65;
  expect_error(Exit::usage, {"65 pairs", "64"}, [&] { write_recall_data(options); });
  options.shape = {.context = 24, .pairs = 4, .asks = 2};
  expect_error(Exit::usage, {"context 24", "25 tokens"}, [&] { write_recall_data(options); });
  options.shape.context = 100;
  options.windows = 30'000'000;
  expect_error(Exit::usage, {"more windows"}, [&] { write_recall_data(options); });
  EXPECT_EQ(read_dataset_info(options.directory)->tokens("train"), 300 * 64 + 1) << "nothing was cleared";
}

}  // namespace
}  // namespace keen
