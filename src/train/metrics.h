// metrics.jsonl: what a run measured, one JSON object a line, append-only. Numbers have 9 significant digits;
// one that is not finite is null. A resumed run may write a step again: readers take the last row of a step,
// and none beyond the step of a later start, resume or fork event, which a run that went back has left.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/file.h"
#include "io/json.h"

namespace keen {

// NaN stands for what is unknown, in files null.
struct TrainRow {
  int64_t step = 0, tokens = 0;
  double loss = 0, grad_norm = 0, lr = 0, step_ms = 0, tokens_per_s = 0, mfu = 0, elapsed_s = 0;
};
struct ValidationRow {
  int64_t step = 0, tokens = 0;
  double loss = 0, perplexity = 0;
};
// The scale c(h, n) = s_h ln n + b_h of the layers that have one.
struct LayerScale {
  int64_t layer = 0;
  std::vector<double> s, b;  // per query head; b is empty, and left out in files, for a layer without it
};
struct AttentionRow {
  int64_t step = 0;
  std::vector<LayerScale> layers;
};

class MetricsWriter {
 public:
  // Opens or creates the file, and cuts off a torn last line. Raises Exit::storage. Later errors do not end a
  // run: they are counted, and the first one is told to `warn`.
  MetricsWriter(const std::filesystem::path& path, std::function<void(const std::string&)> warn);

  void write(const TrainRow& row);
  void write(const ValidationRow& row);
  void write(const AttentionRow& row);
  // {"kind": "event", "event": NAME, ...fields}; `fields` is an object.
  void write_event(const std::string& name, const Json& fields = Json::object());
  // To the disk, before a checkpoint relies on it. The one call that may come from another thread, while rows
  // are written.
  void sync();

  int64_t lost_rows() const { return lost_rows_; }

 private:
  void append(const Json& row);
  void failed(const Error& error);

  FileAppender file_;
  std::function<void(const std::string&)> warn_;
  int64_t lost_rows_ = 0;
  std::atomic<bool> warned_ = false;
};

struct Metrics {
  std::vector<TrainRow> train;            // by step, one row each
  std::vector<ValidationRow> validation;  // likewise
  std::vector<AttentionRow> attention;    // likewise
  std::vector<Json> events;               // all, in the order of the file
  int64_t unreadable_lines = 0;           // torn, not JSON, or without what its kind needs
};

// Never raises for what is in the file: lines that cannot be read are counted. Raises Exit::data when there
// is none. Rows of other kinds are left out.
Metrics read_metrics(const std::filesystem::path& path);
Metrics parse_metrics(std::string_view text);

// Whether the run took the step (a fork did not take its parent's) and the log has no validation row of it.
bool lacks_validation(const Metrics& metrics, int64_t step);

// One line as the writer writes it, without the newline.
std::string metrics_line(const Json& row);

}  // namespace keen
