#include "data/loader.h"

#include <map>
#include <set>

#include "data_test.h"

namespace keen {
namespace {

using namespace testing;

// Three shards of unequal size, whose tokens tell where they stand: windows of context 8 are 3, 0 and 5.
class LoaderTest : public ::testing::Test {
 protected:
  LoaderTest() {
    put(directory_ / "t_0.bin", narrow_shard(ascending(3 * 8 + 1 + 7, 0)));
    put(directory_ / "t_1.bin", narrow_shard(ascending(8, 1000)));
    put(directory_ / "t_2.bin", narrow_shard(ascending(5 * 8 + 1, 2000)));
  }
  static constexpr int64_t kContext = 8, kWindows = 8;
  TemporaryDirectory directory_;
  std::string pattern_ = (directory_ / "t_*.bin").string();
};

TEST_F(LoaderTest, WindowsTileEachShardAndCrossNone) {
  const Dataset dataset(pattern_, 0);
  const SequentialWindows windows(dataset, kContext);
  ASSERT_EQ(windows.count(), kWindows);
  std::vector<int32_t> inputs(kWindows * kContext, -1), targets(kWindows * kContext, -1);
  windows.fill(0, kWindows, inputs.data(), targets.data());
  for (int64_t w = 0; w < kWindows; ++w)
    for (int64_t t = 0; t < kContext; ++t) {
      const int64_t expected = w < 3 ? w * kContext + t : 2000 + (w - 3) * kContext + t;
      EXPECT_EQ(inputs[static_cast<size_t>(w * kContext + t)], expected);
      EXPECT_EQ(targets[static_cast<size_t>(w * kContext + t)], expected + 1);
    }
  EXPECT_THROW(windows.fill(kWindows, 1, inputs.data(), targets.data()), Error);
}

TEST_F(LoaderTest, EveryPositionOfTwoEpochs) {
  const Dataset dataset(pattern_, 0);
  const SequentialWindows windows(dataset, kContext);
  const Loader loader(dataset, kContext, 1337);
  std::vector<int32_t> all(2 * kWindows * kContext), all_targets(all.size());
  loader.fill(0, 2 * kWindows, all.data(), all_targets.data());
  for (int64_t epoch = 0; epoch < 2; ++epoch) {
    std::set<int64_t> seen;
    for (int64_t i = 0; i < kWindows; ++i) seen.insert(loader.sample_id(epoch * kWindows + i));
    EXPECT_EQ(seen.size(), static_cast<size_t>(kWindows));
  }
  // Resuming at any position reads what an uninterrupted run reads there, in batches of any size.
  for (int64_t start = 0; start < 2 * kWindows; ++start)
    for (int64_t batch = 1; start + batch <= 2 * kWindows; ++batch) {
      const Loader resumed(dataset, kContext, 1337);
      std::vector<int32_t> inputs(static_cast<size_t>(batch * kContext)), targets(inputs.size());
      resumed.fill(start, batch, inputs.data(), targets.data());
      EXPECT_TRUE(std::equal(inputs.begin(), inputs.end(), all.begin() + start * kContext));
      EXPECT_TRUE(std::equal(targets.begin(), targets.end(), all_targets.begin() + start * kContext));
    }
  for (int64_t q = 0; q < 2 * kWindows; ++q) {
    std::vector<int32_t> inputs(kContext), targets(kContext);
    windows.window(loader.sample_id(q), inputs.data(), targets.data());
    EXPECT_TRUE(std::equal(inputs.begin(), inputs.end(), all.begin() + q * kContext));
  }
}

TEST_F(LoaderTest, OneWindowIsEnough) {
  put(directory_ / "one.bin", narrow_shard(ascending(9, 70)));
  const Dataset dataset((directory_ / "one.bin").string(), 0);
  const Loader loader(dataset, kContext, 1);
  std::vector<int32_t> inputs(4 * kContext), targets(4 * kContext);
  loader.fill(5, 4, inputs.data(), targets.data());
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(inputs[i], 70 + static_cast<int32_t>(i % kContext));
    EXPECT_EQ(targets[i], inputs[i] + 1);
  }
  expect_error(Exit::data, {"context 9", "10 tokens", "has 9"}, [&] { Loader too_long(dataset, 9, 1); });
}

TEST(Permuted, IsABijectionForEverySize) {
  for (const int64_t size : {1, 2, 3, 5, 16, 17, 63, 64, 65, 1000, 4097})
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      std::vector<int> hits(static_cast<size_t>(size));
      for (int64_t i = 0; i < size; ++i) ++hits.at(static_cast<size_t>(permuted(99, epoch, size, i)));
      EXPECT_EQ(std::count(hits.begin(), hits.end(), 1), size) << size;
    }
}

TEST(Permuted, DiffersBetweenEpochsAndSeedsAndLooksRandom) {
  constexpr int64_t kSize = 1000;
  const auto agreement = [&](uint64_t seed_a, int64_t epoch_a, uint64_t seed_b, int64_t epoch_b) {
    int64_t same = 0;
    for (int64_t i = 0; i < kSize; ++i)
      same += permuted(seed_a, epoch_a, kSize, i) == permuted(seed_b, epoch_b, kSize, i);
    return same;
  };
  // Random permutations agree in one place on average.
  EXPECT_LT(agreement(1, 0, 1, 1), 8);
  EXPECT_LT(agreement(1, 0, 2, 0), 8);
  EXPECT_LT(agreement(1, 1, 2, 0), 8);
  EXPECT_EQ(agreement(5, 3, 5, 3), kSize);
  int64_t neighbours = 0;
  for (int64_t i = 1; i < kSize; ++i)
    neighbours += permuted(1, 0, kSize, i) == permuted(1, 0, kSize, i - 1) + 1;
  EXPECT_LT(neighbours, 8);
  // All six orders of three windows come up about equally often.
  std::map<std::vector<int64_t>, int> orders;
  for (int64_t epoch = 0; epoch < 600; ++epoch)
    ++orders[{permuted(7, epoch, 3, 0), permuted(7, epoch, 3, 1), permuted(7, epoch, 3, 2)}];
  EXPECT_EQ(orders.size(), 6u);
  for (const auto& [order, times] : orders) EXPECT_GT(times, 50);
}

TEST(Permuted, DoesNotChangeFromOneVersionToTheNext) {
  // A change of these numbers would change the order of data in the middle of a resumed run.
  std::vector<int64_t> order;
  for (int64_t i = 0; i < 8; ++i) order.push_back(permuted(1337, 2, 100, i));
  EXPECT_EQ(order, (std::vector<int64_t>{23, 95, 73, 30, 62, 56, 10, 37}));
}

}  // namespace
}  // namespace keen
