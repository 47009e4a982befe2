// Datasets of windows that a task makes, whatever the task is (data/needle_data.h, data/recall.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/dataset.h"

namespace keen {

struct TaskOptions {
  std::filesystem::path directory;  // the dataset to write
  int64_t context = 0;              // the model's, in tokens
  int64_t windows = 20'000, validation_windows = 200;
  uint64_t seed = 0;
  bool force = false;  // replace a dataset that is there
};

// What makes the windows of a task.
struct Task {
  int64_t vocab_size;
  int32_t first_token;         // of every window
  std::string tokenizer_hash;  // both empty without a tokenizer
  std::string tokenizer;       // the bytes of its model
  // Window `index` of "train" or "validation": `context` tokens. What can never be is raised at index 0 too.
  std::function<std::vector<int32_t>(std::string_view kind, int64_t index)> window;
  std::function<int64_t(std::span<const int32_t>)> text_bytes;  // of a window; empty where there is no text
};

// Writes windows one behind the other, and a last first_token, as shards with a dataset.json: so each of the
// windows that training and evaluation read at this context is one window of the task, with the next one's
// first token as its last target. Raises Exit::usage (a directory that holds a dataset, unless `force`; more
// tokens than a shard holds) and what the task raises at index 0 before anything is replaced; Exit::storage.
DatasetInfo write_task_data(const Task& task, const TaskOptions& options);

}  // namespace keen
