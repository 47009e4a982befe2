#include "data/recall.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "data_test.h"

namespace keen {
namespace {

using namespace testing;

bool is_in(RecallIds ids, int32_t id) { return ids.first <= id && id < ids.first + ids.count; }

// The body of a window, read by its ids alone.
struct Body {
  std::vector<int32_t> keys;  // in their order
  std::map<int32_t, int32_t> value_of;
  int64_t distractors = 0, noise = 0;

  Body(const std::vector<int32_t>& window, size_t end) {
    EXPECT_EQ(window[0], kRecallStart);
    for (size_t i = 1; i < end; ++i) {
      if (!is_in(kRecallKeys, window[i])) {
        (is_in(kRecallValues, window[i]) ? distractors : noise) += 1;
        EXPECT_TRUE(is_in(kRecallValues, window[i]) || is_in(kRecallNoise, window[i])) << window[i];
        continue;
      }
      EXPECT_LT(i + 1, end) << "a key without a value";
      EXPECT_TRUE(is_in(kRecallValues, window[i + 1])) << window[i + 1];
      EXPECT_TRUE(value_of.emplace(window[i], window[i + 1]).second) << "a key twice";
      keys.push_back(window[i++]);
    }
  }
};

std::vector<int32_t> keys_asked(const std::vector<int32_t>& window, const RecallShape& shape) {
  std::vector<int32_t> keys;
  for (auto i = static_cast<size_t>(shape.questions_begin()); i < window.size(); i += 2)
    keys.push_back(window[i]);
  return keys;
}

TEST(Recall, EveryAnswerStandsOnceInTheNoise) {
  for (const RecallShape& shape : {RecallShape{.context = 128, .pairs = 8, .questions = 16},
                                   RecallShape{.context = 99, .pairs = 5, .questions = 3},
                                   RecallShape{.context = 300, .pairs = 64, .questions = 64},
                                   RecallShape{.context = 5, .pairs = 1, .questions = 1},
                                   RecallShape{.context = 1 + 2 * 3 + 2 * 7, .pairs = 3, .questions = 7}}) {
    int64_t distractors = 0, noise = 0;
    for (int64_t index = 0; index < 50; ++index) {
      const std::vector<int32_t> window = recall_window(shape, 1, "train", index);
      ASSERT_EQ(std::ssize(window), shape.context);
      const auto questions = static_cast<size_t>(shape.questions_begin());
      const Body body(window, questions);
      EXPECT_EQ(std::ssize(body.keys), shape.pairs);
      for (size_t i = questions; i < window.size(); i += 2) {
        ASSERT_TRUE(body.value_of.contains(window[i])) << window[i] << " is asked for and was never told";
        EXPECT_EQ(body.value_of.at(window[i]), window[i + 1]);
      }
      distractors += body.distractors;
      noise += body.noise;
    }
    EXPECT_EQ(distractors + noise, 50 * (shape.questions_begin() - 1 - 2 * shape.pairs));
    if (noise > 1000) {
      EXPECT_NEAR(static_cast<double>(distractors) / static_cast<double>(distractors + noise), 0.25, 0.04);
    }
  }
}

// Nobody is asked for again before all have been asked for, and neither the body's order nor the last round's
// tells who comes next.
TEST(Recall, QuestionsComeInRoundsOfRandomOrder) {
  const RecallShape shape{.context = 40, .pairs = 3, .questions = 8};
  std::set<std::vector<size_t>> first_rounds, second_rounds;
  for (int64_t index = 0; index < 200; ++index) {
    const std::vector<int32_t> window = recall_window(shape, 1, "train", index);
    const Body body(window, static_cast<size_t>(shape.questions_begin()));
    const std::vector<int32_t> asked = keys_asked(window, shape);
    ASSERT_EQ(asked.size(), 8u);
    // Places of a round's keys among those of another order.
    const auto places = [&](size_t begin, const std::vector<int32_t>& order) {
      std::vector<size_t> found;
      for (size_t i = begin; i < std::min(begin + 3, asked.size()); ++i)
        found.push_back(static_cast<size_t>(std::ranges::find(order, asked[i]) - order.begin()));
      return found;
    };
    for (const size_t round : {0, 3, 6}) {
      const std::vector<size_t> found = places(round, body.keys);
      EXPECT_EQ(std::set(found.begin(), found.end()).size(), found.size()) << "twice in a round";
    }
    first_rounds.insert(places(0, body.keys));
    second_rounds.insert(places(3, {asked.begin(), asked.begin() + 3}));
  }
  EXPECT_EQ(first_rounds.size(), 6u) << "every order happens";
  EXPECT_EQ(second_rounds.size(), 6u);
}

TEST(Recall, WindowsDifferByWhatNamesThem) {
  const RecallShape shape{.context = 128, .pairs = 8, .questions = 8};
  const auto window = recall_window(shape, 1, "train", 4);
  EXPECT_EQ(recall_window(shape, 1, "train", 4), window);
  EXPECT_NE(recall_window(shape, 1, "train", 5), window);
  EXPECT_NE(recall_window(shape, 2, "train", 4), window);
  EXPECT_NE(recall_window(shape, 1, "validation", 4), window);
}

TEST(Recall, PairsStandAnywhere) {
  std::set<int64_t> places;
  for (int64_t index = 0; index < 400; ++index) {
    const auto window = recall_window({.context = 64, .pairs = 1, .questions = 1}, 1, "train", index);
    places.insert(
        std::find_if(window.begin(), window.end(), [](int32_t id) { return is_in(kRecallKeys, id); }) -
        window.begin());
  }
  EXPECT_GT(places.size(), 55u);
  EXPECT_EQ(*places.begin(), 1);
  EXPECT_EQ(*places.rbegin(), 60);
}

TEST(RecallLesson, FewPairsAreMoreFrequentAndQuestionsAreDrawnEvenly) {
  constexpr int64_t kLessons = 4000, kContext = 64, kMost = 8;
  std::map<int64_t, int64_t> times;
  std::map<int64_t, std::map<int64_t, int64_t>> times_of_questions;
  for (int64_t index = 0; index < kLessons; ++index) {
    const RecallShape shape = recall_lesson(kContext, kMost, 1, "train", index);
    EXPECT_EQ(shape.context, kContext);
    ++times[shape.pairs];
    ++times_of_questions[shape.pairs][shape.questions];
  }
  EXPECT_EQ(times.begin()->first, 1);
  EXPECT_EQ(times.rbegin()->first, kMost);
  for (int64_t pairs = 1; pairs <= kMost; ++pairs) {
    // The part of [0, log2(most)] in which 2^u rounds to it.
    const double low = std::log2(std::max(1.0, static_cast<double>(pairs) - 0.5)),
                 high = std::log2(std::min(static_cast<double>(kMost), static_cast<double>(pairs) + 0.5));
    EXPECT_NEAR(static_cast<double>(times[pairs]) / kLessons, (high - low) / std::log2(kMost), 0.03) << pairs;
  }
  for (int64_t pairs : {1, 2}) {  // which have the most lessons
    const std::map<int64_t, int64_t>& questions = times_of_questions[pairs];
    const int64_t fit = (kContext - 1 - 2 * pairs) / 2;
    EXPECT_EQ(questions.begin()->first, kMost);
    EXPECT_EQ(questions.rbegin()->first, fit);
    EXPECT_EQ(std::ssize(questions), fit - kMost + 1);
    const double each = static_cast<double>(times[pairs]) / static_cast<double>(questions.size());
    for (const auto& [number, count] : questions)
      EXPECT_NEAR(static_cast<double>(count), each, 5 * std::sqrt(each)) << number;
  }
}

// Down to the shortest context in which the most pairs can be asked for once.
TEST(RecallLesson, AlwaysFits) {
  for (const auto& [context, most] : {std::pair{5, 1}, {6, 1}, {33, 8}, {34, 8}, {35, 8}, {64, 8}, {257, 64}})
    for (int64_t index = 0; index < 200; ++index) {
      const RecallShape shape = recall_lesson(context, most, 7, "train", index);
      EXPECT_GE(shape.questions, most);
      EXPECT_EQ(std::ssize(recall_window(shape, 7, "train", index)), context);
    }
  expect_error(Exit::usage, {"context 32", "33 tokens"}, [] { recall_lesson(32, 8, 0, "train", 0); });
}

TEST(RecallLesson, DependsOnWhatNamesIt) {
  const auto shapes = [](uint64_t seed, std::string_view stream) {
    std::vector<std::pair<int64_t, int64_t>> list;
    for (int64_t index = 0; index < 20; ++index) {
      const RecallShape shape = recall_lesson(128, 8, seed, stream, index);
      list.emplace_back(shape.pairs, shape.questions);
    }
    return list;
  };
  const auto first = shapes(1, "train");
  EXPECT_EQ(shapes(1, "train"), first);
  EXPECT_NE(shapes(2, "train"), first);
  EXPECT_NE(shapes(1, "validation"), first);
}

TEST(Recall, RefusesShapesThatCannotBe) {
  const auto window = [](int64_t context, int64_t pairs, int64_t questions) {
    return [=] { recall_window({context, pairs, questions}, 0, "train", 0); };
  };
  expect_error(Exit::usage, {"65 pairs", "64"}, window(1000, 65, 8));
  expect_error(Exit::usage, {"0 pairs"}, window(1000, 0, 8));
  expect_error(Exit::usage, {"0 questions"}, window(1000, 8, 0));
  expect_error(Exit::usage, {"context 24", "25 tokens"}, window(24, 4, 8));
  expect_error(Exit::usage, {"context 0"}, window(0, 1, 1));
}

TEST(Recall, WritesADatasetOfWholeLessons) {
  const TemporaryDirectory directory(Medium::memory);
  TaskOptions options{
      .directory = directory / "recall", .context = 64, .windows = 300, .validation_windows = 5, .seed = 3};
  const DatasetInfo info = write_recall_data(4, options);
  EXPECT_EQ(info.tokens("train"), 300 * 64 + 1);
  EXPECT_EQ(info.tokens("validation"), 5 * 64 + 1);
  EXPECT_GT(info.bigram_loss.value(), 0);
  const auto expect_lessons = [&](const char* files, std::string_view stream, int64_t windows) {
    const Dataset data((options.directory / files).string(), kRecallVocabulary);
    ASSERT_EQ(data.shards().size(), 1u);
    for (int64_t i = 0; i < windows; ++i) {
      std::vector<int32_t> ids(64);
      data.shards()[0].copy(i * 64, ids);
      EXPECT_EQ(ids, recall_window(recall_lesson(64, 4, 3, stream, i), 3, stream, i)) << stream << " " << i;
    }
    EXPECT_EQ(data.token(windows * 64), static_cast<uint32_t>(kRecallStart));
  };
  expect_lessons("train_*.bin", "train", 300);
  expect_lessons("val_*.bin", "validation", 5);

  const std::string written = content_of(options.directory / "train_000000.bin");
  expect_error(Exit::usage, {"already holds"}, [&] { write_recall_data(4, options); });
  options.force = true;
  write_recall_data(4, options);
  EXPECT_EQ(content_of(options.directory / "train_000000.bin"), written) << "equal seeds, equal bytes";
  // What cannot be is found before the directory is cleared.
  expect_error(Exit::usage, {"65 pairs", "64"}, [&] { write_recall_data(65, options); });
  options.context = 16;
  expect_error(Exit::usage, {"context 16", "17 tokens"}, [&] { write_recall_data(4, options); });
  options.context = 100;
  options.windows = 30'000'000;
  expect_error(Exit::usage, {"more windows"}, [&] { write_recall_data(4, options); });
  EXPECT_EQ(read_dataset_info(options.directory)->tokens("train"), 300 * 64 + 1);
}

}  // namespace
}  // namespace keen
