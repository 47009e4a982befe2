#include "train/tensorboard.h"

#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "io/crc32c.h"
#include "io/fault.h"
#include "tiny_run.h"
#include "train/event_record.h"

namespace keen {
namespace {

using testing::content_of;
using testing::put;
using testing::TemporaryDirectory;
using testing::TinyRun;

std::string hexadecimal(const std::string& bytes) {
  std::string digits;
  for (const char c : bytes) digits += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return digits;
}

// The bytes that TensorBoard's own package writes (scripts/make_tensorboard_golden.py).
TEST(EventRecord, BytesAreThoseOfTheTensorboardPackage) {
  const Json golden = Json::parse(content_of(KEEN_FIXTURES "/golden_tensorboard.json"));
  const double time = 1763923200.5;
  EXPECT_EQ(hexadecimal(version_record(time)), golden["version"]);
  EXPECT_EQ(hexadecimal(start_record(time, 301)), golden["start"]);
  EXPECT_EQ(hexadecimal(summary_record(1.25, 10'000'000'000,
                                       {{"train/loss", 3.25}, {"train/lr", 6e-4}, {"zero", 0}})),
            golden["scalars"]);
  EXPECT_EQ(hexadecimal(summary_record(1.25, 0, {{"x", -1}})), golden["step_zero"]);
  EXPECT_EQ(
      hexadecimal(summary_record(
          2, 7, {}, {{"one", {-2, NAN, -2, -2}}, {"spread", {30, 0, 1.5, INFINITY, 1}}, {"none", {NAN}}})),
      golden["histograms"]);
}

// --- a reader that shares nothing with the writer but the checksum, which has tests of its own ---

template <class T> T number_at(std::string_view bytes, size_t at) {
  T number;
  if (at + sizeof number > bytes.size()) throw std::runtime_error("cut short");
  std::memcpy(&number, bytes.data() + at, sizeof number);
  return number;
}

// The fields of a message: numbers as their bits, everything else as bytes.
std::multimap<uint64_t, std::string> fields_of(std::string_view bytes) {
  std::multimap<uint64_t, std::string> fields;
  size_t at = 0;
  const auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = number_at<uint8_t>(bytes, at++);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.size()) {
    const uint64_t key = varint();
    const uint64_t type = key & 7;
    if (type == 0) {
      const uint64_t value = varint();
      fields.emplace(key >> 3, std::string(reinterpret_cast<const char*>(&value), sizeof value));
      continue;
    }
    const size_t size = type == 1   ? 8
                        : type == 5 ? 4
                        : type == 2 ? varint()
                                    : throw std::runtime_error("type");
    fields.emplace(key >> 3, bytes.substr(at, size));
    at += size;
  }
  return fields;
}

struct ReadEvent {
  int64_t step = 0;
  std::string version;
  bool start = false;
  std::map<std::string, float> scalars;
  std::map<std::string, double> histograms;  // their numbers of values
};

// All events of a file; a torn last one is left out.
std::vector<ReadEvent> read_events(const std::filesystem::path& path) {
  const std::string file = content_of(path);
  const auto masked = [](std::string_view bytes) {
    const uint32_t crc = crc32c(bytes);
    return (crc >> 15 | crc << 17) + 0xA282EAD8u;
  };
  std::vector<ReadEvent> events;
  for (size_t at = 0; at + 12 < file.size();) {
    const auto length = number_at<uint64_t>(file, at);
    EXPECT_EQ(number_at<uint32_t>(file, at + 8), masked(file.substr(at, 8)));
    if (at + 16 + length > file.size()) break;
    const std::string event = file.substr(at + 12, length);
    EXPECT_EQ(number_at<uint32_t>(file, at + 12 + length), masked(event));
    at += 16 + length;
    ReadEvent read;
    for (const auto& [field, value] : fields_of(event)) {
      if (field == 1) {
        EXPECT_GT(number_at<double>(value, 0), 1.7e9);
      }
      if (field == 2) read.step = number_at<int64_t>(value, 0);
      if (field == 3) read.version = value;
      if (field == 7) read.start = number_at<uint64_t>(fields_of(value).find(1)->second, 0) == 1;
      if (field != 5) continue;
      for (const auto& [ignored, one] : fields_of(value)) {
        const auto parts = fields_of(one);
        const std::string tag = parts.find(1)->second;
        if (parts.contains(2)) read.scalars[tag] = number_at<float>(parts.find(2)->second, 0);
        if (parts.contains(5))
          read.histograms[tag] = number_at<double>(fields_of(parts.find(5)->second).find(3)->second, 0);
      }
    }
    events.push_back(read);
  }
  return events;
}

std::vector<std::filesystem::path> event_files(const std::filesystem::path& directory) {
  std::set<std::filesystem::path> paths;
  if (std::filesystem::is_directory(directory))
    for (const auto& entry : std::filesystem::directory_iterator(directory))
      if (entry.path().filename().string().starts_with("events.out.tfevents.")) paths.insert(entry.path());
  return {paths.begin(), paths.end()};
}

// --- the writer ---

class TensorBoardWriterTest : public ::testing::Test {
 protected:
  ~TensorBoardWriterTest() override { fault::arm(""); }
  TemporaryDirectory directory_;
  std::vector<std::string> warnings_;
  std::function<void(const std::string&)> warn_ = [this](const std::string& text) {
    warnings_.push_back(text);
  };
};

constexpr double kNever = 1e9;  // seconds: only what a test asks for is written
constexpr TrainRow kRow{.step = 41,
                        .tokens = 41000,
                        .loss = 3.5,
                        .grad_norm = NAN,
                        .lr = 6e-4,
                        .step_ms = 12,
                        .tokens_per_s = 2e6,
                        .mfu = 0.4,
                        .elapsed_s = 9};

TEST_F(TensorBoardWriterTest, RowsAreThereByStepAndByTokens) {
  {
    TensorBoardWriter writer(directory_.path(), 40, 40000, warn_);
    writer.write(kRow);
    writer.write(ValidationRow{.step = 41, .tokens = 41000, .loss = 3.25, .perplexity = 25.75});
    writer.write(AttentionRow{
        .step = 41,
        .layers = {{.layer = 2, .s = {0.25, 0.75}, .b = {}}, {.layer = 11, .s = {1}, .b = {-0.5}}}});
  }
  ASSERT_EQ(event_files(directory_.path()).size(), 1u);
  const auto events = read_events(event_files(directory_.path())[0]);
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(events[0].version, "brain.Event:2");
  EXPECT_TRUE(events[1].start);
  EXPECT_EQ(events[1].step, 41);
  for (size_t i = 2; i < 5; ++i) EXPECT_EQ(events[i].step, 41);
  EXPECT_TRUE(std::isnan(events[2].scalars.at("train/grad_norm")));
  auto scalars = events[2].scalars;
  scalars.erase("train/grad_norm");
  EXPECT_EQ(
      scalars,
      (std::map<std::string, float>{
          {"train/loss", 3.5f}, {"train/lr", 6e-4f}, {"train/tokens_per_s", 2e6f}, {"train/mfu", 0.4f}}));
  EXPECT_EQ(events[3].scalars,
            (std::map<std::string, float>{{"validation/loss", 3.25f}, {"validation/perplexity", 25.75f}}));
  EXPECT_EQ(events[4].scalars, (std::map<std::string, float>{{"weights_s_mean/layer_02", 0.5f},
                                                             {"weights_s_by_head/layer_02_head_00", 0.25f},
                                                             {"weights_s_by_head/layer_02_head_01", 0.75f},
                                                             {"weights_s_mean/layer_11", 1.f},
                                                             {"weights_s_by_head/layer_11_head_00", 1.f},
                                                             {"weights_b_mean/layer_11", -0.5f},
                                                             {"weights_b_by_head/layer_11_head_00", -0.5f}}));
  EXPECT_EQ(events[4].histograms,
            (std::map<std::string, double>{
                {"weights_s/layer_02", 2}, {"weights_s/layer_11", 1}, {"weights_b/layer_11", 1}}));

  ASSERT_EQ(event_files(directory_ / "by_tokens").size(), 1u);
  const auto by_tokens = read_events(event_files(directory_ / "by_tokens")[0]);
  ASSERT_EQ(by_tokens.size(), 4u);
  EXPECT_TRUE(by_tokens[1].start);
  EXPECT_EQ(by_tokens[1].step, 40001);
  EXPECT_EQ(by_tokens[2].step, 41000);
  EXPECT_EQ(by_tokens[2].scalars.at("train_by_tokens/loss"), 3.5f);
  EXPECT_EQ(by_tokens[3].scalars, (std::map<std::string, float>{{"validation_by_tokens/loss", 3.25f}}));
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(TensorBoardWriterTest, ANewFileSortsBehindAllOthersWhateverTheClockSays) {
  put(directory_ / "events.out.tfevents.9000000000.host.7", "");
  put(directory_ / "events.out.tfevents.junk", "");
  TensorBoardWriter first(directory_.path(), 0, 0, warn_);
  TensorBoardWriter second(directory_.path(), 0, 0, warn_);
  std::vector<std::string> names;
  for (const auto& path : event_files(directory_.path()))
    names.push_back(path.filename().string().substr(0, 30));
  EXPECT_EQ(names,
            (std::vector<std::string>{"events.out.tfevents.9000000000", "events.out.tfevents.9000000001",
                                      "events.out.tfevents.9000000002", "events.out.tfevents.junk"}));
}

TEST_F(TensorBoardWriterTest, RowsAreWrittenTogether) {
  TensorBoardWriter writer(directory_.path(), 0, 0, warn_, kNever);
  const auto path = event_files(directory_.path())[0];
  const auto before = std::filesystem::file_size(path);
  for (int i = 0; i < 10; ++i) writer.write(kRow);
  EXPECT_EQ(std::filesystem::file_size(path), before) << "a write() for each row";
  writer.flush();
  EXPECT_EQ(read_events(path).size(), 12u);
  const size_t record = (std::filesystem::file_size(path) - before) / 10;
  for (size_t bytes = 0; bytes < EventFile::kFlushBytes; bytes += record) writer.write(kRow);
  EXPECT_GT(read_events(path).size(), 300u) << "a full buffer is written";
}

TEST_F(TensorBoardWriterTest, StorageErrorsAreCountedAndToldOnce) {
  TensorBoardWriter writer(directory_.path(), 0, 0, warn_, kNever);
  const auto path = event_files(directory_.path())[0];
  fault::arm("write:ENOSPC:1,write:short:3,write:ENOSPC:4");
  for (int i = 0; i < 3; ++i) writer.write(kRow);
  writer.flush();  // by step: lost; by tokens: written
  EXPECT_EQ(writer.lost_records(), 3);
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_NE(warnings_[0].find("training goes on"), std::string::npos) << warnings_[0];
  writer.write(kRow);
  writer.flush();  // by step: half of it is written, and taken back
  EXPECT_EQ(writer.lost_records(), 4);
  writer.write(kRow);
  writer.flush();
  EXPECT_EQ(warnings_.size(), 1u);
  EXPECT_EQ(read_events(path).size(), 3u);
  fault::arm("open:EACCES");
  EXPECT_THROW(TensorBoardWriter(directory_.path(), 0, 0, warn_), Error);
}

// Readers stop at the first byte that belongs to no record.
TEST_F(TensorBoardWriterTest, ATornRecordThatCannotBeTakenBackEndsTheFileForAWhileOnly) {
  TensorBoardWriter writer(directory_.path(), 0, 0, warn_, kNever);
  const auto path = event_files(directory_.path())[0];
  fault::arm("write:short:1,write:ENOSPC:2,truncate:EIO:1");
  writer.write(kRow);
  writer.flush();
  EXPECT_EQ(read_events(path).size(), 2u) << "version and start";
  fault::arm("");
  writer.write(kRow);
  writer.flush();
  EXPECT_EQ(read_events(path).size(), 3u);
  EXPECT_EQ(writer.lost_records(), 1);
}

// --- a whole run ---

TEST(TensorBoardRun, IsOffUnlessAskedFor) {
  const TinyRun tiny;
  tiny.train("plain", 2);
  EXPECT_TRUE(event_files(tiny.path("plain")).empty());
  EXPECT_FALSE(std::filesystem::exists(tiny.path("plain") / "by_tokens"));
}

TEST(TensorBoardRun, HasEveryRowAndAFileForEachPartOfTheRun) {
  TinyRun tiny;
  tiny.config.log.tensorboard = true;
  tiny.train("r", 15);
  tiny.train("r");
  tiny.train("r");  // is finished, and writes nothing
  const auto files = event_files(tiny.path("r"));
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(event_files(tiny.path("r") / "by_tokens").size(), 2u);
  EXPECT_EQ(read_events(files[1]).at(1).step, 16);
  std::map<int64_t, float> train, validation;
  std::map<int64_t, double> histograms;
  for (const auto& file : files)
    for (const ReadEvent& event : read_events(file)) {
      if (event.scalars.contains("train/loss")) train[event.step] = event.scalars.at("train/loss");
      if (event.scalars.contains("validation/loss"))
        validation[event.step] = event.scalars.at("validation/loss");
      if (event.histograms.contains("weights_s/layer_01"))
        histograms[event.step] = event.histograms.at("weights_s/layer_01");
    }
  const Metrics metrics = tiny.metrics("r");
  ASSERT_EQ(metrics.train.size(), 20u);
  EXPECT_EQ(train.size(), 20u);
  for (const TrainRow& row : metrics.train)
    EXPECT_FLOAT_EQ(train[row.step], static_cast<float>(row.loss)) << row.step;
  EXPECT_EQ(validation.size(), metrics.validation.size());
  for (const ValidationRow& row : metrics.validation)
    EXPECT_EQ(validation[row.step], static_cast<float>(row.loss)) << row.step;
  EXPECT_EQ(histograms.size(), metrics.attention.size());
  for (const auto& [step, values] : histograms) EXPECT_EQ(values, 2) << step;
}

}  // namespace
}  // namespace keen
