#include "train/tensorboard.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numeric>

#include "train/event_record.h"

namespace keen {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "events.out.tfevents.";

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "localhost";
  return name.data();
}

// Readers take a directory's files in the order of their names, and the seconds come first in a name.
fs::path new_file_in(const fs::path& directory) {
  make_directories(directory);
  auto seconds = static_cast<int64_t>(now());
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    int64_t other = 0;
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), other);
    seconds = std::max(seconds, other + 1);
  }
  return directory / fmt::format("{}{:010}.{}.{}", kPrefix, seconds, host_name(), getpid());
}

// The numbers of a layer's heads in the three forms in which one may want to see them.
void add_heads(const char* name, int64_t layer, const std::vector<double>& heads,
               std::vector<EventScalar>& scalars, std::vector<EventHistogram>& histograms) {
  if (heads.empty()) return;
  histograms.push_back({fmt::format("weights_{}/layer_{:02}", name, layer), heads});
  const double sum = std::accumulate(heads.begin(), heads.end(), 0.0);
  scalars.push_back(
      {fmt::format("weights_{}_mean/layer_{:02}", name, layer), sum / static_cast<double>(heads.size())});
  for (size_t head = 0; head < heads.size(); ++head)
    scalars.push_back(
        {fmt::format("weights_{}_by_head/layer_{:02}_head_{:02}", name, layer, head), heads[head]});
}

}  // namespace

EventFile::EventFile(const fs::path& directory, int64_t next_step, double flush_s)
    : flush_s_(flush_s), file_(new_file_in(directory), FileAppender::Records::binary) {
  file_.append(version_record(now()) + start_record(now(), next_step));
}

void EventFile::add(const std::string& record) {
  buffer_ += record;
  ++records_;
  const double age = std::chrono::duration<double>(Clock::now() - flushed_).count();
  if (age >= flush_s_ || buffer_.size() >= kFlushBytes) flush();
}

void EventFile::flush() {
  flushed_ = Clock::now();
  const std::string records = std::exchange(buffer_, "");
  const int64_t count = std::exchange(records_, 0);
  if (count == 0) return;
  try {
    file_.append(records);
  } catch (const Error&) {
    lost_records_ += count;
    throw;
  }
}

TensorBoardWriter::TensorBoardWriter(const fs::path& run_directory, int64_t step, int64_t tokens,
                                     std::function<void(const std::string&)> warn, double flush_s)
    : by_step_(run_directory, step + 1, flush_s),
      by_tokens_(run_directory / "by_tokens", tokens + 1, flush_s),
      warn_(std::move(warn)) {}

TensorBoardWriter::~TensorBoardWriter() { flush(); }

void TensorBoardWriter::write(const TrainRow& row) {
  add(by_step_, summary_record(now(), row.step,
                               {{"train/loss", row.loss},
                                {"train/grad_norm", row.grad_norm},
                                {"train/lr", row.lr},
                                {"train/tokens_per_s", row.tokens_per_s},
                                {"train/mfu", row.mfu}}));
  add(by_tokens_, summary_record(now(), row.tokens,
                                 {{"train_by_tokens/loss", row.loss},
                                  {"train_by_tokens/grad_norm", row.grad_norm},
                                  {"train_by_tokens/lr", row.lr}}));
}

void TensorBoardWriter::write(const ValidationRow& row) {
  add(by_step_, summary_record(now(), row.step,
                               {{"validation/loss", row.loss}, {"validation/perplexity", row.perplexity}}));
  add(by_tokens_, summary_record(now(), row.tokens, {{"validation_by_tokens/loss", row.loss}}));
}

void TensorBoardWriter::write(const AttentionRow& row) {
  std::vector<EventScalar> scalars;
  std::vector<EventHistogram> histograms;
  for (const LayerScale& layer : row.layers) {
    add_heads("s", layer.layer, layer.s, scalars, histograms);
    add_heads("b", layer.layer, layer.b, scalars, histograms);
  }
  add(by_step_, summary_record(now(), row.step, scalars, histograms));
}

void TensorBoardWriter::flush() {
  for (EventFile* file : {&by_step_, &by_tokens_}) try {
      file->flush();
    } catch (const Error& error) {
      failed(error);
    }
}

void TensorBoardWriter::add(EventFile& file, const std::string& record) {
  try {
    file.add(record);
  } catch (const Error& error) {
    failed(error);
  }
}

void TensorBoardWriter::failed(const Error& error) {
  if (std::exchange(warned_, true)) return;
  warn_(fmt::format("event files for TensorBoard are incomplete, training goes on: {}", error.what()));
}

}  // namespace keen
