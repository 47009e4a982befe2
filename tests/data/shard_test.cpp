#include "data/shard.h"

#include <atomic>

#include "data/dataset.h"
#include "data_test.h"

namespace keen {
namespace {

using namespace testing;

TEST(Shard, ReadsBothFormatsWrittenByteByByte) {
  TemporaryDirectory directory;
  put(directory / "gpt2.bin", narrow_shard({50256, 0, 65535, 7}));
  const Shard narrow(directory / "gpt2.bin");
  EXPECT_EQ(narrow.tokens(), 4);
  EXPECT_EQ(narrow.token(0), 50256u);
  EXPECT_EQ(narrow.token(2), 65535u);
  EXPECT_EQ(narrow.offset_of(3), 1024 + 6);

  put(directory / "wide.bin", shard_bytes(20240801, 7, 3, {128255, 1, 65536}, 4));
  const Shard wide(directory / "wide.bin");
  EXPECT_EQ(wide.token(0), 128255u);
  std::vector<int32_t> copy(2);
  wide.copy(1, copy);
  EXPECT_EQ(copy, (std::vector<int32_t>{1, 65536}));
  EXPECT_EQ(wide.offset_of(2), 1024 + 8);
}

TEST(Shard, NamesWhatIsWrongAndWhere) {
  TemporaryDirectory directory;
  const std::filesystem::path path = directory / "bad.bin";
  const auto refused = [&](const std::string& content, const std::vector<std::string>& parts) {
    put(path, content);
    std::vector<std::string> all = parts;
    all.push_back("bad.bin");
    expect_error(Exit::data, all, [&] { Shard shard(path); });
  };
  const std::string good = narrow_shard(ascending(100));
  refused("", {"0 bytes", "offset 0"});
  refused(good.substr(0, 1023), {"1023 bytes"});
  refused(shard_bytes(20240521, 1, 1, {0}, 2), {"20240521", "offset 0"});
  refused(shard_bytes(20240520, 2, 1, {0}, 2), {"version 2", "offset 4"});
  refused(shard_bytes(20240520, 7, 1, {0}, 2), {"version 7"});
  refused(shard_bytes(20240801, 1, 1, {0}, 4), {"version 1"});
  refused(shard_bytes(20240520, 1, -1, {}, 2), {"-1", "offset 8"});
  refused(good.substr(0, good.size() - 20), {"1224 bytes expected", "1204 found", "offset 1204"});
  refused(good.substr(0, good.size() - 1), {"1224 bytes expected", "1223 found", "middle of a token"});
  refused(good + "xy", {"1226 found", "offset 1224"});
  expect_error(Exit::data, {"absent.bin"}, [&] { Shard shard(directory / "absent.bin"); });
}

TEST(Shard, ReachesBeyondTwoGiB) {
  TemporaryDirectory directory;
  const std::filesystem::path path = directory / "large.bin";
  constexpr int64_t kTokens = 1'200'000'000;  // 2.4 GB of zeros that take no room on disk
  put(path, shard_bytes(20240520, 1, static_cast<int32_t>(kTokens), {}, 2));
  std::filesystem::resize_file(path, 1024 + 2 * kTokens);
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(1024 + 2 * (kTokens - 1));
    file.write("\x39\x30", 2);
  }
  const Shard shard(path);
  EXPECT_EQ(shard.tokens(), kTokens);
  EXPECT_EQ(shard.offset_of(kTokens - 1), 2'400'001'022);
  EXPECT_EQ(shard.token(kTokens - 1), 12345u);
  EXPECT_EQ(shard.token(kTokens - 2), 0u);
}

TEST(ShardWriter, SplitsAndHidesWhatIsNotPublished) {
  TemporaryDirectory directory;
  std::vector<int32_t> tokens(25);
  std::iota(tokens.begin(), tokens.end(), 100);
  {
    ShardWriter abandoned(directory.path(), "train", "train", TokenWidth::narrow, 10);
    abandoned.write(tokens);
    for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
      EXPECT_TRUE(entry.path().filename().string().starts_with("."));
    }
    // The one being written would not pass for a shard under any name.
    EXPECT_THROW(Shard(directory / ".train_000002.bin.tmp"), Error);
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));

  ShardWriter writer(directory.path(), "train", "train", TokenWidth::narrow, 10);
  writer.write(tokens);
  writer.finish();
  const auto records = writer.publish("train");
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[2].file, "train_000002.bin");
  EXPECT_EQ(records[2].tokens, 5);
  EXPECT_EQ(records[2].max_id, 124u);
  EXPECT_EQ(content_of(directory / "train_000002.bin"), narrow_shard(ascending(5, 120)));
  EXPECT_EQ(records[2].checksum, hash_of(content_of(directory / "train_000002.bin")));
}

TEST(ShardWriter, WritesWideTokens) {
  TemporaryDirectory directory;
  ShardWriter writer(directory.path(), "val", "validation", TokenWidth::wide, 10);
  const std::vector<int32_t> tokens = {100000, 3};
  writer.write(tokens);
  writer.finish();
  writer.publish("val");
  EXPECT_EQ(content_of(directory / "val_000000.bin"), shard_bytes(20240801, 7, 2, {100000, 3}, 4));
  EXPECT_EQ(width_for(65536), TokenWidth::narrow);
  EXPECT_EQ(width_for(65537), TokenWidth::wide);
}

TEST(Dataset, JoinsShardsInTheOrderOfTheirNames) {
  TemporaryDirectory directory;
  put(directory / "t_2.bin", narrow_shard(ascending(3, 20)));
  put(directory / "t_1.bin", narrow_shard(ascending(2, 10)));
  put(directory / "t_3.bin", narrow_shard({}));
  const Dataset dataset((directory / "t_*.bin").string(), 100);
  EXPECT_EQ(dataset.tokens(), 5);
  EXPECT_EQ(dataset.token(0), 10u);
  EXPECT_EQ(dataset.token(2), 20u);
  EXPECT_EQ(dataset.token(4), 22u);
  EXPECT_EQ(dataset.max_id(), 22u);
}

TEST(Dataset, FindsBadDataFirst) {
  TemporaryDirectory directory;
  const std::string pattern = (directory / "t_*.bin").string();
  expect_error(Exit::data, {pattern}, [&] { Dataset dataset(pattern, 100); });
  expect_error(Exit::data, {"directory"}, [&] { Dataset dataset(directory.path().string(), 100); });
  put(directory / "t_1.bin", narrow_shard({}));
  expect_error(Exit::data, {"no token", "t_1.bin"}, [&] { Dataset dataset(pattern, 100); });
  std::vector<uint32_t> tokens = ascending(300'000);
  for (uint32_t& token : tokens) token %= 99;
  put(directory / "t_1.bin", narrow_shard(tokens));
  tokens[200'000] = 100;
  tokens[200'001] = 500;
  put(directory / "t_2.bin", narrow_shard(tokens));
  expect_error(Exit::data, {"t_2.bin", "id 100 ", "offset 401024", "100 ids"},
               [&] { Dataset dataset(pattern, 100); });
  EXPECT_EQ(Dataset(pattern, 501).max_id(), 500u);
  EXPECT_EQ(Dataset(pattern, 0).max_id(), 500u);
  put(directory / "t_3.bin", narrow_shard(tokens) + "x");
  expect_error(Exit::data, {"t_3.bin"}, [&] { Dataset dataset(pattern, 501); });
}

TEST(Dataset, StopsReadingWhenAsked) {
  TemporaryDirectory directory;
  put(directory / "t.bin", narrow_shard(std::vector<uint32_t>(2'000'000, 1)));
  std::atomic<int> asked = 0;
  expect_error(Exit::stopped, {"signal", "same command"},
               [&] { Dataset dataset((directory / "t.bin").string(), 100, [&] { return ++asked >= 3; }); });
  EXPECT_LE(asked, 4) << "it read on";
  EXPECT_EQ(Dataset((directory / "t.bin").string(), 100, [] { return false; }).max_id(), 1u);
}

TEST(Dataset, FingerprintFollowsContentNotNames) {
  TemporaryDirectory directory;
  std::filesystem::create_directory(directory / "moved");
  put(directory / "a_0.bin", narrow_shard(ascending(50)));
  put(directory / "a_1.bin", narrow_shard(ascending(60)));
  put(directory / "moved/b_0.bin", narrow_shard(ascending(50)));
  put(directory / "moved/b_1.bin", narrow_shard(ascending(60)));
  const std::string before = Dataset((directory / "a_*.bin").string(), 0).fingerprint();
  EXPECT_EQ(before.size(), 16u);
  EXPECT_EQ(Dataset((directory / "moved/b_*.bin").string(), 0).fingerprint(), before);
  std::vector<uint32_t> changed = ascending(60);
  changed[59] = 3;
  put(directory / "a_1.bin", narrow_shard(changed));
  EXPECT_NE(Dataset((directory / "a_*.bin").string(), 0).fingerprint(), before);
}

TEST(Dataset, NoticesAShardThatDatasetJsonDoesNotVouchFor) {
  TemporaryDirectory directory;
  ShardWriter writer(directory.path(), "train", "train", TokenWidth::narrow, 1000);
  const std::vector<int32_t> tokens(500, 7);
  writer.write(tokens);
  writer.finish();
  DatasetInfo info;
  info.vocab_size = 10;
  info.bigram_loss = 2.5;
  info.shards = writer.publish("train");
  write_dataset_info(directory.path(), info);
  const std::string pattern = (directory / "train_*.bin").string();
  const Dataset dataset(pattern, 10);
  ASSERT_TRUE(dataset.info());
  EXPECT_EQ(dataset.info()->bigram_loss, 2.5);
  EXPECT_FALSE(dataset.info()->unigram_loss);
  EXPECT_EQ(dataset.info()->tokens("train"), 500);
  put(directory / "train_000000.bin", narrow_shard(std::vector<uint32_t>(500, 8)));
  expect_error(Exit::data, {"train_000000.bin", "dataset.json", "replaced"},
               [&] { Dataset changed(pattern, 10); });
  put(directory / "dataset.json", "{\"format\": 3}");
  expect_error(Exit::data, {"dataset.json"}, [&] { Dataset changed(pattern, 10); });
  put(directory / "dataset.json", "{");
  expect_error(Exit::data, {"dataset.json"}, [&] { Dataset changed(pattern, 10); });
}

}  // namespace
}  // namespace keen
