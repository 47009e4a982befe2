// A run's metrics as event files, which TensorBoard reads (`tensorboard --logdir runs`).
//
//   RUN/events.out.tfevents.SECONDS.HOST.PID            tags over steps
//     train/loss  train/grad_norm  train/lr  train/tokens_per_s  train/mfu  validation/loss
//     validation/perplexity
//     weights_s/layer_00    the s of a layer's heads as a histogram; and likewise everything for b
//     weights_s_mean/layer_00
//     weights_s_by_head/layer_00_head_00
//   RUN/by_tokens/events.out.tfevents.SECONDS.HOST.PID  the same over tokens, as their "step"
//     train_by_tokens/loss  train_by_tokens/grad_norm  train_by_tokens/lr  validation_by_tokens/loss
//
// A resume adds a file to each, which starts by declaring what the run repeats to be void. Readers go by the
// step alone there, whatever the tag: this is why steps and tokens are apart.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>

#include "io/file.h"
#include "train/metrics.h"

namespace keen {

// One event file. Records are kept and written together: when they are older than `flush_s` seconds or more
// than kFlushBytes as the next one comes, on `flush`, and at the end. A killed process leaves a torn last
// record at worst, at which readers stop.
class EventFile {
 public:
  static constexpr size_t kFlushBytes = 1 << 16;

  // A new file, whose name sorts behind all event files there, even where the clock went back; it begins with
  // the version, and with a start after which `next_step` comes. Raises Exit::storage when it cannot be made.
  EventFile(const std::filesystem::path& directory, int64_t next_step, double flush_s);

  void add(const std::string& record);
  // Both raise Exit::storage where what was kept cannot be written; it is lost then.
  void flush();
  int64_t lost_records() const { return lost_records_; }

 private:
  using Clock = std::chrono::steady_clock;

  double flush_s_;
  FileAppender file_;
  std::string buffer_;
  int64_t records_ = 0, lost_records_ = 0;  // in the buffer; lost so far
  Clock::time_point flushed_ = Clock::now();
};

class TensorBoardWriter {
 public:
  // Opens new files for a run that has done `step` steps and `tokens` tokens. Raises Exit::storage. Later
  // errors do not end a run: rows that are lost are counted, and the first error is told to `warn`.
  TensorBoardWriter(const std::filesystem::path& run_directory, int64_t step, int64_t tokens,
                    std::function<void(const std::string&)> warn, double flush_s = 2);
  TensorBoardWriter(const TensorBoardWriter&) = delete;
  ~TensorBoardWriter();  // flushes

  void write(const TrainRow& row);
  void write(const ValidationRow& row);
  void write(const AttentionRow& row);
  void flush();  // so that TensorBoard sees everything

  int64_t lost_records() const { return by_step_.lost_records() + by_tokens_.lost_records(); }

 private:
  void add(EventFile& file, const std::string& record);
  void failed(const Error& error);

  EventFile by_step_, by_tokens_;
  std::function<void(const std::string&)> warn_;
  bool warned_ = false;
};

}  // namespace keen
