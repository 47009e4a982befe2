#include "train/metrics.h"

#include <cmath>
#include <limits>

#include "core/philox.h"
#include "io/fault.h"
#include "temporary_directory.h"

namespace keen {
namespace {

using testing::content_of;
using testing::put;
using testing::TemporaryDirectory;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

class MetricsTest : public ::testing::Test {
 protected:
  ~MetricsTest() override { fault::arm(""); }
  TemporaryDirectory directory_;
  std::filesystem::path path_ = directory_ / "metrics.jsonl";
  std::vector<std::string> warnings_;
  std::function<void(const std::string&)> warn_ = [this](const std::string& text) {
    warnings_.push_back(text);
  };
};

TEST_F(MetricsTest, LinesAreAsTheInterfaceSays) {
  MetricsWriter writer(path_, warn_);
  writer.write(TrainRow{.step = 10,
                        .tokens = 640,
                        .loss = 1.0 / 3,
                        .grad_norm = kNaN,
                        .lr = 6e-4,
                        .step_ms = 12.5,
                        .tokens_per_s = 2097152,
                        .mfu = -INFINITY,
                        .elapsed_s = 1e10});
  writer.write(ValidationRow{.step = 10, .tokens = 640, .loss = 2, .perplexity = 1e300});
  writer.write(AttentionRow{
      .step = 10, .layers = {{.layer = 1, .s = {0.25, kNaN}, .b = {}}, {.layer = 3, .s = {1}, .b = {-0.5}}}});
  writer.write_event("save", {{"step", 10}, {"path", "a\"b\\c\n\x01\xff"}, {"seconds", 0.1}});
  EXPECT_EQ(
      content_of(path_),
      "{\"kind\":\"train\",\"step\":10,\"tokens\":640,\"loss\":0.333333333,\"grad_norm\":null,\"lr\":0.0006,"
      "\"step_ms\":12.5,\"tokens_per_s\":2097152,\"mfu\":null,\"elapsed_s\":1e+10}\n"
      "{\"kind\":\"validation\",\"step\":10,\"tokens\":640,\"loss\":2,\"perplexity\":1e+300}\n"
      "{\"kind\":\"attention\",\"step\":10,\"layers\":[{\"layer\":1,\"s\":[0.25,null]},"
      "{\"layer\":3,\"s\":[1],\"b\":[-0.5]}]}\n"
      "{\"kind\":\"event\",\"event\":\"save\",\"step\":10,\"path\":\"a\\\"b\\\\c\\n\\u0001\xEF\xBF\xBD\","
      "\"seconds\":0.1}\n");
  const Metrics metrics = read_metrics(path_);
  EXPECT_EQ(metrics.unreadable_lines, 0);
  ASSERT_EQ(metrics.train.size(), 1u);
  EXPECT_EQ(metrics.train[0].loss, 0.333333333);
  EXPECT_TRUE(std::isnan(metrics.train[0].grad_norm));
  EXPECT_EQ(metrics.train[0].tokens_per_s, 2097152);
  EXPECT_EQ(metrics.validation.at(0).perplexity, 1e300);
  ASSERT_EQ(metrics.attention.at(0).layers.size(), 2u);
  EXPECT_TRUE(std::isnan(metrics.attention[0].layers[0].s[1]));
  EXPECT_EQ(metrics.attention[0].layers[1].b, std::vector<double>{-0.5});
  EXPECT_EQ(metrics.events.at(0).at("event"), "save");
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(MetricsTest, NineDigitsGiveBackEveryFloat) {
  const Philox random(5);
  for (uint64_t i = 0; i < 1000; ++i) {
    const float x = static_cast<float>(random.normal(i) * std::pow(10.0, static_cast<double>(i % 60) - 30));
    const Json back = Json::parse(metrics_line({{"x", static_cast<double>(x)}}));
    EXPECT_EQ(back["x"].get<float>(), x);
  }
}

TEST_F(MetricsTest, ATornLastLineIsCutAndTheLastRowOfAStepWins) {
  {
    MetricsWriter writer(path_, warn_);
    for (int64_t step = 1; step <= 3; ++step)
      writer.write(ValidationRow{.step = step, .tokens = step, .loss = 1, .perplexity = 2});
  }
  put(path_, content_of(path_) + "{\"kind\":\"valid");
  EXPECT_EQ(read_metrics(path_).unreadable_lines, 1);
  MetricsWriter writer(path_, warn_);
  writer.write_event("resume", {{"step", 1}});
  writer.write(ValidationRow{.step = 2, .tokens = 2, .loss = 7, .perplexity = 8});
  const Metrics metrics = read_metrics(path_);
  EXPECT_EQ(metrics.unreadable_lines, 0);
  ASSERT_EQ(metrics.validation.size(), 2u);  // the resumed run has not come to step 3 again
  EXPECT_EQ(metrics.validation[0].loss, 1);
  EXPECT_EQ(metrics.validation[1].step, 2);
  EXPECT_EQ(metrics.validation[1].loss, 7);
  EXPECT_EQ(metrics.events.size(), 1u);
}

// Rows beyond the step that a run went back to belong to a course that it has left.
TEST_F(MetricsTest, GoingBackLeavesLaterRowsBehind) {
  for (const char* event : {"resume", "start", "fork", "save"}) {
    std::filesystem::remove(path_);
    MetricsWriter writer(path_, warn_);
    for (int64_t step = 1; step <= 6; ++step) {
      writer.write(TrainRow{.step = step, .tokens = step, .loss = 1});
      writer.write(ValidationRow{.step = step, .tokens = step, .loss = 1, .perplexity = 1});
      writer.write(AttentionRow{.step = step, .layers = {}});
    }
    writer.write_event(event, {{"step", 2}});
    writer.write(TrainRow{.step = 3, .tokens = 3, .loss = 2});
    const Metrics metrics = read_metrics(path_);
    const bool went_back = std::string(event) != "save";
    ASSERT_EQ(metrics.train.size(), went_back ? 3u : 6u) << event;
    EXPECT_EQ(metrics.train[1].loss, 1);
    EXPECT_EQ(metrics.train[2].loss, 2);
    EXPECT_EQ(metrics.validation.size(), went_back ? 2u : 6u) << event;
    EXPECT_EQ(metrics.attention.size(), went_back ? 2u : 6u) << event;
  }
}

TEST_F(MetricsTest, StorageErrorsAreCountedAndToldOnce) {
  MetricsWriter writer(path_, warn_);
  fault::arm("write:ENOSPC:2,write:short:3,write:ENOSPC:4");
  for (int64_t step = 1; step <= 5; ++step)
    writer.write(ValidationRow{.step = step, .tokens = 1, .loss = 1, .perplexity = 1});
  EXPECT_EQ(writer.lost_rows(), 2);
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_NE(warnings_[0].find("metrics.jsonl: cannot write"), std::string::npos) << warnings_[0];
  fault::arm("fsync:EIO");
  writer.sync();
  EXPECT_EQ(warnings_.size(), 1u);
  const Metrics metrics = read_metrics(path_);
  EXPECT_EQ(metrics.unreadable_lines, 0);
  ASSERT_EQ(metrics.validation.size(), 3u);
  EXPECT_EQ(metrics.validation[1].step, 4);
  fault::arm("open:EACCES");
  EXPECT_THROW(MetricsWriter(path_, warn_), Error);
}

TEST_F(MetricsTest, GarbageIsSkippedAndCounted) {
  const Metrics metrics = parse_metrics(
      "\n  \n"
      "{\"kind\":\"train\",\"step\":1,\"tokens\":5,\"loss\":null}\n"
      "{\"kind\":\"train\",\"tokens\":5,\"loss\":1}\n"
      "{\"kind\":\"train\",\"step\":-1,\"tokens\":5,\"loss\":1}\n"
      "{\"kind\":\"train\",\"step\":1.5,\"tokens\":5,\"loss\":1}\n"
      "{\"kind\":\"train\",\"step\":2,\"tokens\":5,\"loss\":\"low\"}\n"
      "{\"kind\":\"train\",\"step\":2,\"tokens\":5,\"loss\":nan}\n"
      "{\"kind\":\"attention\",\"step\":2,\"layers\":3}\n"
      "{\"kind\":\"attention\",\"step\":2}\n"
      "{\"kind\":\"event\"}\n"
      "{\"kind\":7}\n"
      "[]\nnull\n\"x\"\n{\n\xff\xfe\n" +
      std::string(100000, '[') + "\n" + std::string("\0\0\0", 3) +
      "\n"
      "{\"kind\":\"future\",\"step\":1}\n"
      "{\"kind\":\"train\",\"step\":3,\"tokens\":5,\"loss\":1}");
  EXPECT_EQ(metrics.train.size(), 2u);
  EXPECT_TRUE(std::isnan(metrics.train[0].loss));
  EXPECT_EQ(metrics.train[1].step, 3);
  EXPECT_TRUE(metrics.attention.empty());
  EXPECT_EQ(metrics.unreadable_lines, 16);
}

TEST_F(MetricsTest, MutationsNeverCrashTheReader) {
  {
    MetricsWriter writer(path_, warn_);
    writer.write(TrainRow{.step = 1, .tokens = 2});
    writer.write(AttentionRow{.step = 1, .layers = {{.layer = 0, .s = {1, 2}, .b = {3}}}});
    writer.write_event("stop");
  }
  const std::string valid = content_of(path_);
  const Philox random(3, "metrics");
  int64_t unreadable = 0;
  for (uint64_t round = 0; round < 5000; ++round) {
    std::string text = valid;
    const auto x = random.bits(round);
    const size_t at = x[0] % text.size();
    if (x[1] % 3 == 0)
      text[at] = static_cast<char>(text[at] ^ (1 << x[2] % 8));
    else if (x[1] % 3 == 1)
      text.erase(at, x[2] % 9);
    else
      text.insert(at, text.substr(x[2] % text.size(), x[3] % 40));
    const Metrics metrics = parse_metrics(text);
    unreadable += metrics.unreadable_lines;
    EXPECT_LE(metrics.train.size() + metrics.attention.size() + metrics.events.size(), 5u);
  }
  EXPECT_GT(unreadable, 2000);
}

TEST_F(MetricsTest, NoFileIsADataError) {
  try {
    read_metrics(path_);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit, Exit::data);
  }
}

}  // namespace
}  // namespace keen
